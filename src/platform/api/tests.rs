//! Tests of calls against the fake API server; two of them over a real connection.

mod connections;
mod messages;
mod proxied;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::*;
use crate::testing::{FakeApi, Fault};
use zen_lead_core::names::ServiceKey;

const MAPS: &str = "/api/v1/namespaces/team/configmaps";

fn key() -> ServiceKey {
    ServiceKey::new("team", "web")
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

fn caller() -> Caller {
    let metrics = Metrics::new().unwrap();
    metrics.track(&key());
    Caller::new(Arc::new(metrics))
}

fn maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "team")
}

async fn create(caller: &Caller, api: &FakeApi) -> Result<ConfigMap, CallError> {
    let maps = maps(api.client());
    call(caller, Operation::CreateSlice, Target::of(&key(), "x"), || async {
        maps.create(&PostParams::default(), &map("x")).await
    })
    .await
}

/// The lines of the exposition whose name and labels contain all of `parts`, and their sum.
fn counted(caller: &Caller, parts: &[&str]) -> f64 {
    let text = caller.metrics.exposition().unwrap();
    text.lines()
        .filter(|l| !l.starts_with('#') && parts.iter().all(|p| l.contains(p)))
        .map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_tried_again_and_each_attempt_is_counted() {
    for fault in [
        Fault::Plain(429, None),
        Fault::Plain(429, Some("0")),
        Fault::Status(500, "InternalError", "etcdserver: request timed out"),
        Fault::Status(502, "", "bad gateway"),
        Fault::Status(503, "ServiceUnavailable", "etcd has no leader"),
        Fault::Status(504, "Timeout", "request did not complete"),
        Fault::Reset,
    ] {
        let (api, caller) = (FakeApi::new(), caller());
        api.fail("POST", MAPS, 3, fault.clone());
        let made = create(&caller, &api).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(made.metadata.name.as_deref(), Some("x"));
        assert_eq!(api.count("POST"), 4, "{fault:?}");
        let labels = r#"namespace="team",operation="create_slice",service="web""#;
        for attempt in ["1", "2", "3"] {
            let line = format!(r#"attempt="{attempt}",{labels}"#);
            let got = counted(&caller, &["zen_lead_retry_attempts_total", &line]);
            assert!(close(got, 1.0), "{fault:?} {attempt}: {got}");
        }
        assert!(close(counted(&caller, &["zen_lead_retry_attempts_total"]), 3.0));
        let after_retry = counted(&caller, &["zen_lead_retry_success_after_retry_total", labels]);
        assert!(close(after_retry, 1.0));
        let timed = counted(&caller, &["api_call_duration_seconds_count", "create_slice"]);
        assert!(close(timed, 4.0), "every attempt is timed: {timed}");
        let ok = counted(&caller, &["api_call_duration_seconds_count", r#"result="ok""#]);
        assert!(close(ok, 1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_admission_and_allocation_answer_is_final_whatever_the_code_and_changed_nothing() {
    let denied = "admission webhook \"v.example.com\" denied the request: no";
    let down = "Internal error occurred: failed calling webhook \"v.example.com\": failed to call \
                webhook: Post \"https://guard.policy.svc:443/?timeout=10s\": service \"guard\" not \
                found";
    let full = "Internal error occurred: failed to allocate a nodePort: range is full";
    for (code, message, happened) in [
        (404, denied, false),
        (409, denied, false),
        (410, denied, false),
        (429, denied, false),
        (503, denied, false),
        (500, down, false),
        (500, full, false),
        (500, "Internal error occurred: x", true),
    ] {
        let (api, caller) = (FakeApi::new(), caller());
        // A webhook that denies chooses the code, and gives no reason for most.
        let reason = if code == 500 { "InternalError" } else { "" };
        api.fail("POST", MAPS, 9, Fault::Status(code, reason, message));
        let error = create(&caller, &api).await.unwrap_err();
        assert_eq!(error.category(), "rejected", "{code} {message}");
        assert_eq!(error.message, message);
        assert_eq!(error.call.to_string(), "create_slice team/x");
        assert_eq!(error.maybe_applied, happened, "{message}");
        assert_eq!(api.count("POST"), 1, "{code} {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_not_tried_again_and_keep_the_servers_words() {
    let quota = "slices \"x\" is forbidden: exceeded quota: count, requested: 1";
    for (code, reason, message, category, text) in [
        (
            400,
            "BadRequest",
            "bad",
            "rejected",
            "create_slice team/x: refused with HTTP 400 BadRequest: bad",
        ),
        (
            401,
            "Unauthorized",
            "no",
            "unauthorized",
            "create_slice team/x: the API server did not accept the credentials: no",
        ),
        (
            403,
            "Forbidden",
            "rbac",
            "forbidden",
            "create_slice team/x: not allowed; check that the ClusterRole and Role of zen-lead match this version, and check other admission policies: rbac",
        ),
        (
            403,
            "Forbidden",
            quota,
            "quota",
            "create_slice team/x: the quota of the namespace is used up: slices \"x\" is forbidden: exceeded quota: count, requested: 1",
        ),
        (404, "NotFound", "gone", "not_found", "create_slice team/x: not found: gone"),
        (
            409,
            "Conflict",
            "stale",
            "conflict",
            "create_slice team/x: the object has changed since it was read: stale",
        ),
        (
            409,
            "AlreadyExists",
            "there",
            "already_exists",
            "create_slice team/x: already exists: there",
        ),
        (
            410,
            "Expired",
            "old",
            "gone",
            "create_slice team/x: the requested version is no longer available: old",
        ),
        (
            422,
            "Invalid",
            "port 0",
            "invalid",
            "create_slice team/x: the API server rejected the object as invalid: port 0",
        ),
    ] {
        let (api, caller) = (FakeApi::new(), caller());
        api.fail("POST", MAPS, 1, Fault::Status(code, reason, message));
        let error = create(&caller, &api).await.unwrap_err();
        assert_eq!((error.category(), error.to_string().as_str()), (category, text));
        assert!(!error.maybe_applied && !error.is_transient());
        assert_eq!(api.count("POST"), 1, "{text}");
        assert!(close(counted(&caller, &["zen_lead_retry_attempts_total"]), 0.0));
        let timed = counted(&caller, &["api_call_duration_seconds_count", category]);
        assert!(close(timed, 1.0), "{category}");
    }
}

#[test]
fn a_terminating_namespace_differs_from_missing_rights() {
    let status = serde_json::from_value(json!({
        "code": 403, "reason": "Forbidden", "message": "it is being terminated",
        "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
    }));
    let RetryVerdict::Final(refusal) = classify(&kube::Error::Api(status.unwrap()), true) else {
        panic!("not final")
    };
    let call = Call { operation: Operation::CreateSlice, object: "x".into() };
    let error = refusal.into_error(call, false);
    assert_eq!(error.category(), "terminating");
    assert_eq!(
        error.to_string(),
        "create_slice x: the namespace is being deleted: it is being terminated"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let (api, caller) = (FakeApi::new(), caller());
    api.fail("POST", MAPS, 2, Fault::Plain(429, Some("2")));
    let started = monotonic();
    create(&caller, &api).await.unwrap();
    let took = monotonic() - started;
    assert!(took >= Duration::from_secs(4) && took < Duration::from_millis(4400), "{took:?}");
    assert_eq!(api.count("POST"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_the_deadline_ends_the_call_at_once_with_the_servers_words() {
    for (seconds, code, category) in [
        ("3600", 429, "too_many_requests"),
        ("4294967295", 429, "too_many_requests"),
        ("99999999999999999999", 503, "unavailable"),
    ] {
        let (api, caller) = (FakeApi::new(), caller());
        api.fail("POST", MAPS, 1, Fault::Plain(code, Some(seconds)));
        let started = monotonic();
        let error = create(&caller, &api).await.unwrap_err();
        assert!(monotonic() - started < Duration::from_secs(1), "did not wait");
        assert_eq!(error.category(), category);
        let asked = seconds.parse().unwrap_or(u32::MAX);
        assert_eq!(error.retry_after, Some(Duration::from_secs(asked.into())));
        assert!(error.to_string().contains("please try again later"), "{error}");
        // A 503 may hide a write that reached etcd; a 429 is given before anything is done.
        assert_eq!(error.maybe_applied, code == 503, "{error}");
        assert_eq!(api.count("POST"), 1);
        assert!(close(counted(&caller, &["zen_lead_timeout_occurrences_total"]), 0.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_429_ends_at_the_deadline_with_every_attempt_counted() {
    let (api, caller) = (FakeApi::new(), caller());
    api.fail("POST", MAPS, usize::MAX, Fault::Plain(429, Some("1")));
    let started = monotonic();
    let error = create(&caller, &api).await.unwrap_err();
    assert!(monotonic() - started <= Duration::from_secs(10));
    assert_eq!(error.category(), "too_many_requests");
    assert!(!error.maybe_applied && error.is_transient());
    let attempts = counted(&caller, &["zen_lead_retry_attempts_total"]);
    #[allow(clippy::cast_precision_loss)]
    let seen = api.count("POST") as f64;
    assert!(seen > 4.0 && close(attempts, seen), "{attempts} counted, {seen} seen");
    let line = r#"zen_lead_timeout_occurrences_total{operation="create_slice"}"#;
    assert!(close(counted(&caller, &[line]), 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_server_meets_the_deadline_and_the_caller_learns_it_may_have_happened() {
    let (api, caller) = (FakeApi::new(), caller());
    api.fail("POST", MAPS, usize::MAX, Fault::Stall);
    let started = monotonic();
    let error = create(&caller, &api).await.unwrap_err();
    assert_eq!(monotonic() - started, Duration::from_secs(10));
    assert!(error.maybe_applied, "{error}");
    assert_eq!(error.kind, ErrorKind::Timeout(Duration::from_secs(10)));
    assert_eq!(error.attempts, 2);
    let text = error.to_string();
    assert!(text.starts_with("create_slice team/x: no success within 10s and 2 attempts (the write may still have taken effect); last error: no answer within "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_read_never_may_have_happened() {
    let (api, caller) = (FakeApi::new(), caller());
    api.fail("GET", MAPS, usize::MAX, Fault::Stall);
    let maps = maps(api.client());
    let get = || async { maps.get("x").await };
    let error = call(&caller, Operation::GetSlice, Target::from(&key()), get).await.unwrap_err();
    assert_eq!((error.category(), error.maybe_applied), ("timeout", false));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_attempt_says_so() {
    for fault in [Fault::ResetAfter, Fault::StallAfter] {
        let (api, caller) = (FakeApi::new(), caller());
        api.fail("POST", MAPS, 1, fault.clone());
        let error = create(&caller, &api).await.unwrap_err();
        assert_eq!((&error.kind, error.maybe_applied), (&ErrorKind::AlreadyExists, true));
        assert!(
            error.to_string().starts_with(
                "create_slice team/x: already exists (possibly by an earlier attempt whose answer was lost): "
            ),
            "{error}"
        );

        let maps = maps(api.client());
        let mut changed = maps.get("x").await.unwrap();
        changed.data = Some([("k".into(), "v".into())].into());
        api.fail("PUT", MAPS, 1, fault.clone());
        let replace = || async { maps.replace("x", &PostParams::default(), &changed).await };
        let error = call(&caller, Operation::ReplaceSlice, Target::of(&key(), "x"), replace)
            .await
            .unwrap_err();
        assert_eq!((&error.kind, error.maybe_applied), (&ErrorKind::Conflict, true), "{error}");
        assert_eq!(api.get(&format!("{MAPS}/x")).unwrap()["data"]["k"], "v", "our write won");

        api.fail("DELETE", MAPS, 1, fault);
        let delete = || async { maps.delete("x", &DeleteParams::default()).await };
        let error = call(&caller, Operation::DeleteSlice, Target::of(&key(), "x"), delete)
            .await
            .unwrap_err();
        assert_eq!((&error.kind, error.maybe_applied), (&ErrorKind::NotFound, true), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_answer_to_a_write_probably_happened() {
    let (api, caller) = (FakeApi::new(), caller());
    api.fail("POST", MAPS, 1, Fault::Garbage("<html>"));
    let error = create(&caller, &api).await.unwrap_err();
    assert_eq!((error.category(), error.maybe_applied), ("unreadable", true), "{error}");
    assert_eq!(api.count("POST"), 1);
}

#[tokio::test]
async fn the_real_client_names_itself_keeps_retry_after_and_does_not_retry_by_itself() {
    let api = FakeApi::new();
    let (uri, server) = api.listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(server);
    let maps = maps(client(Config::new(uri), None).unwrap());
    api.fail("GET", MAPS, 1, Fault::Plain(429, Some("7")));
    let kube::Error::Api(status) = maps.get("x").await.unwrap_err() else { panic!("no status") };
    assert_eq!(status.code, 429);
    assert_eq!(retry_after(&status), Some(Duration::from_secs(7)));
    assert_eq!(status.message, "Too many requests, please try again later.");
    assert_eq!(status.reason, "TooManyRequests");
    assert_eq!(api.count("GET"), 1, "kube's own retries are off");
    assert_eq!(api.seen()[0].agent, concat!("zen-lead/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_connection_that_was_never_made_cannot_have_happened() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let mut caller = caller();
    caller.policy.deadline = Duration::from_millis(300);
    let maps = maps(client(Config::new(uri), None).unwrap());
    let make = || async { maps.create(&PostParams::default(), &map("x")).await };

    // The first connection is accepted, and broken after the request was read.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await.unwrap();
        drop((connection, listener));
    });
    let key = key();
    let target = Target::of(&key, "x");
    let lost = call(&caller, Operation::CreateSlice, target, make).await.unwrap_err();
    assert_eq!((lost.category(), lost.maybe_applied), ("timeout", true), "{lost}");

    // From here on, nothing listens.
    let refused = call(&caller, Operation::CreateSlice, target, make).await.unwrap_err();
    assert_eq!((refused.category(), refused.maybe_applied), ("timeout", false), "{refused}");
    assert!(refused.to_string().contains("refused"), "{refused}");
}

/// The pause for a `Retry-After` header together with a `Date` header, in seconds.
async fn pause(retry_after: &str, date: Option<&str>) -> Option<u64> {
    let mut answer = http::Response::builder().status(503).header("Retry-After", retry_after);
    if let Some(date) = date {
        answer = answer.header("Date", date);
    }
    let answer = answer.body(axum::body::Body::from("try later")).unwrap();
    let answer = keep_retry_after(answer).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
    let status: kube::core::Status = serde_json::from_slice(&body).ok()?;
    assert_eq!((status.code, status.message.as_str()), (503, "try later"));
    Some(status.details.unwrap().retry_after_seconds.into())
}

#[tokio::test]
async fn retry_after_is_read_as_a_number_and_as_a_date() {
    let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    for (text, date, seconds) in [
        ("7", None, Some(7)),
        (" 7 ", None, Some(7)),
        ("0", None, Some(0)),
        ("4294967296", None, Some(u64::from(u32::MAX))),
        ("99999999999999999999", None, Some(u64::from(u32::MAX))),
        // The three formats that RFC 9110 requires a receiver to accept, by the clock of the sender.
        ("Sun, 06 Nov 1994 08:49:40 GMT", now, Some(3)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", now, Some(60)),
        ("Sun Nov  6 09:49:37 1994", now, Some(3600)),
        ("Sun, 06 Nov 1994 08:49:30 GMT", now, Some(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", now, Some(u64::from(u32::MAX))),
        // Without the clock of the sender, our clock counts: for it, this is long past.
        ("Sun, 06 Nov 1994 08:49:40 GMT", None, Some(0)),
        ("Sun, 06 Nov 1994 08:49:40 GMT", Some("yesterday"), Some(0)),
        ("-5", None, None),
        ("1e9", None, None),
        ("2.5", None, None),
        ("soon", None, None),
        ("", None, None),
        ("Sun, 99 Nov 1994 08:49:40 GMT", now, None),
    ] {
        assert_eq!(pause(text, date).await, seconds, "{text:?} at {date:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_retry_after_holds_a_call_beyond_its_deadline() {
    for (text, waits) in [
        ("0", true),
        ("-5", true),
        ("1e9", true),
        ("soon", true),
        ("Sun, 06 Nov 1994 08:49:40 GMT", true),
        ("1000000000", false),
        ("99999999999999", false),
        ("99999999999999999999999999", false),
        ("Fri, 31 Dec 9999 23:59:59 GMT", false),
    ] {
        let (api, caller) = (FakeApi::new(), caller());
        api.fail("POST", MAPS, 2, Fault::Plain(503, Some(text)));
        let started = monotonic();
        let made = create(&caller, &api).await;
        assert!(monotonic() - started < Duration::from_secs(1), "{text}");
        if waits {
            assert_eq!((made.is_ok(), api.count("POST")), (true, 3), "{text}: own back-off");
        } else {
            let error = made.unwrap_err();
            assert_eq!((error.category(), api.count("POST")), ("unavailable", 1), "{text}");
            assert!(error.retry_after > Some(Duration::from_hours(24 * 365)), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_attempts_of_an_endless_caller_are_numbered_over_its_calls() {
    let (api, caller) = (FakeApi::new(), caller());
    let maps = maps(api.client());
    api.put(MAPS, json!({"metadata": {"name": "x"}}));
    api.fail("GET", MAPS, 1, Fault::Plain(429, Some("1")));
    api.fail("GET", MAPS, 1, Fault::Reset);
    api.fail("GET", MAPS, 1, Fault::Stall);
    let mut failed = 0;
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let (operation, about) = (Operation::WatchPods, Target::own("/api/v1/pods"));
        let limit = Duration::from_secs(10);
        let outcome = attempt(&caller, operation, about, &mut failed, limit, maps.get("x")).await;
        outcomes.push((outcome.is_err(), matches!(outcome, Ok(Ok(_))), failed));
    }
    let passing = |elapsed, number| (elapsed, false, number);
    let fine = (false, true, 0);
    assert_eq!(outcomes, [passing(false, 1), passing(false, 2), passing(true, 3), fine, fine]);
    for attempt in ["1", "2", "3"] {
        let labels =
            format!(r#"attempt="{attempt}",namespace="",operation="watch_pods",service="""#);
        assert!(close(counted(&caller, &["zen_lead_retry_attempts_total", &labels]), 1.0));
    }
    assert!(close(counted(&caller, &["zen_lead_retry_success_after_retry_total"]), 1.0));
    assert!(close(counted(&caller, &["timeout_occurrences_total", "watch_pods"]), 1.0));
    for (result, times) in
        [("too_many_requests", 1.0), ("connection", 1.0), ("timeout", 1.0), ("ok", 2.0)]
    {
        let result = format!(r#"result="{result}""#);
        let timed = counted(&caller, &["api_call_duration_seconds_count", "watch_pods", &result]);
        assert!(close(timed, times), "{result}: {timed}");
    }

    // A final refusal does not count as a transient failure.
    api.fail("GET", MAPS, 1, Fault::Status(403, "Forbidden", "no"));
    failed = 2;
    let (operation, about) = (Operation::WatchPods, Target::own("/api/v1/pods"));
    let limit = Duration::from_secs(10);
    let refused = attempt(&caller, operation, about, &mut failed, limit, maps.get("x")).await;
    assert!(matches!(refused, Ok(Err(_))));
    assert_eq!(failed, 0);
    assert!(close(counted(&caller, &["zen_lead_retry_attempts_total"]), 3.0));
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_is_not_finished_is_cut_off_counted_and_named() {
    let caller = caller();
    let (key, deadline) = (key(), Duration::from_secs(20));
    let collect = |seconds| {
        let work = async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, CallError>(seconds)
        };
        let about = Target::of(&key, "");
        collection(&caller.metrics, Operation::ReadNamespace, about, deadline, work)
    };
    assert_eq!(collect(19).await, Ok(19));
    assert!(close(counted(&caller, &["zen_lead_timeout_occurrences_total"]), 0.0));
    let error = collect(21).await.unwrap_err();
    assert_eq!(error.to_string(), "read_namespace team: not finished within 20s");
    assert_eq!((error.category(), error.is_transient()), ("timeout", true));
    let line = r#"zen_lead_timeout_occurrences_total{operation="read_namespace"}"#;
    assert!(close(counted(&caller, &[line]), 1.0));
}
