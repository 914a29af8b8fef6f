//! Calls that fail on their way to the real API server: the metrics report what the proxy between them
//! did, attempt by attempt; `Retry-After` is honoured; a call that cannot succeed is tried once.
//!
//! One replica runs, and it sees the API server only through the proxy.

use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::case::{Case, epoch};
use crate::support::harness::tests;
use crate::support::objects::source;
use crate::support::proxy::{Done, Fault, Proxy, Seen};
use crate::support::waiting::{check, until, within};

tests![
    passing_faults_are_counted_attempt_by_attempt,
    start_through_faults_is_counted_and_comes_to_its_end,
    retry_after_is_waited_for,
    absurd_pauses_hold_up_no_service,
    what_cannot_succeed_is_tried_once,
    deadline_is_counted_reported_and_settled,
    lost_answer_is_settled_by_reading,
    lost_answer_to_a_mirror_leaves_no_switch_unreported,
];

async fn proxy(t: &Case) -> Proxy {
    Proxy::start(t.world.product.kubeconfig()).await
}

/// Starts the replica; set the faults of its start before.
async fn start(t: &Case, proxy: &Proxy) {
    let path = t.world.dir.join("kubeconfig-proxy");
    let product = &t.world.product;
    proxy.write_kubeconfig(product.kubeconfig(), &path);
    product.spawn_with(0, &path, &[], &[]);
    product.until_ready(0).await;
}

/// Creates a source for each name, all with the pods of the app `web`.
async fn sources(t: &Case, names: &[&str]) {
    for name in names {
        t.create(&source(name, &json!({"spec": {"selector": {"app": "web"}}}))).await;
    }
}

/// Waits for the report of a leader. After that zen-lead writes nothing more about it.
async fn until_reported(t: &Case, name: &str, leader: &str) {
    let leader_service = format!("{name}-leader");
    t.until_led_by(&leader_service, leader).await;
    until(format!("{leader_service} says that {leader} leads"), || async {
        let message = t.condition(&leader_service).await?.message;
        check(message.starts_with(&format!("{leader} leads")), message)
    })
    .await;
}

/// One source, `web`, with two pods, led by `a`, and the proxy of its replica.
async fn led(t: &Case) -> Proxy {
    let proxy = proxy(t).await;
    start(t, &proxy).await;
    t.ready_pods("web", &["a", "b"]).await;
    sources(t, &["web"]).await;
    until_reported(t, "web", "a").await;
    proxy
}

/// The operation of zen-lead behind a request, as docs/metrics.md names it.
fn operation(seen: &Seen) -> String {
    let parts: Vec<&str> = seen.path.split('/').filter(|p| !p.is_empty()).collect();
    let mut rest = match parts.as_slice() {
        ["version"] => return "get_version".into(),
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => panic!("{seen:?} is no call zen-lead makes"),
    };
    if let ["namespaces", _, below @ ..] = rest
        && !below.is_empty()
    {
        rest = below;
    }
    let (one, many) = match rest[0] {
        "services" => ("service", "services"),
        "endpointslices" => ("slice", "slices"),
        "endpoints" => ("endpoints", "endpoints"),
        "pods" => ("pod", "pods"),
        "events" => ("event", "events"),
        "secrets" => ("secret", "secrets"),
        "namespaces" => ("namespace", "namespaces"),
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            ("webhook", "webhooks")
        }
        other => panic!("{other} is nothing zen-lead calls about"),
    };
    match (seen.verb.as_str(), &rest[1..]) {
        ("WATCH", []) => format!("watch_{many}"),
        ("GET", []) => format!("list_{many}"),
        ("GET", [_]) => format!("get_{one}"),
        ("POST", []) => format!("create_{one}"),
        ("PUT", [_]) => format!("replace_{one}"),
        ("PATCH", [_]) => format!("apply_{one}"),
        ("PATCH", [_, "status"]) => format!("apply_{one}_status"),
        ("DELETE", [_]) => format!("delete_{one}"),
        _ => panic!("{seen:?} is no call zen-lead makes"),
    }
}

/// The name in the metrics for the failure of a retryable attempt; `None` for all others.
fn passing(done: &Done) -> Option<&'static str> {
    let code = match done {
        Done::Passed(code) | Done::Failed(Fault::Answer(code, _)) => *code,
        Done::Failed(Fault::Reset | Fault::ResetAfter) => return Some("connection"),
        Done::Failed(Fault::RetryIn(_)) => return Some("unavailable"),
        Done::Failed(Fault::Stall) | Done::Left => return Some("timeout"),
        Done::Failed(Fault::Delay(_) | Fault::DieBefore | Fault::DieAfter) | Done::Pending => {
            return None;
        }
        Done::Broken(why) => panic!("the proxy could not do its work: {why}"),
    };
    match code {
        429 => Some("too_many_requests"),
        500 | 502 | 503 | 504 => Some("unavailable"),
        _ => None,
    }
}

type Labels = BTreeMap<String, String>;

/// The samples of a counter.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
async fn samples(t: &Case, name: &str) -> Vec<(Labels, u64)> {
    let scrape = t.world.product.scrape(0).await.unwrap();
    let all = scrape.families.into_values().flat_map(|family| family.samples);
    all.filter(|s| s.name == name).map(|s| (s.labels, s.value as u64)).collect()
}

/// The attempts of a Service's calls that the metrics count, by their number.
async fn attempts(t: &Case, ns: &str, service: &str, operation: &str) -> BTreeMap<String, u64> {
    let all = samples(t, "zen_lead_retry_attempts_total").await;
    let ours = all.into_iter().filter(|(l, _)| {
        l["namespace"] == ns && l["service"] == service && l["operation"] == operation
    });
    ours.map(|(mut l, n)| (l.remove("attempt").unwrap(), n)).collect()
}

async fn successes(t: &Case, service: &str, operation: &str) -> u64 {
    let all = samples(t, "zen_lead_retry_success_after_retry_total").await;
    let ours = all.into_iter().filter(|(l, _)| {
        l["namespace"] == t.ns && l["service"] == service && l["operation"] == operation
    });
    ours.map(|(_, n)| n).sum()
}

async fn timeouts(t: &Case, operation: &str) -> u64 {
    let all = samples(t, "zen_lead_timeout_occurrences_total").await;
    all.into_iter().filter(|(l, _)| l["operation"] == operation).map(|(_, n)| n).sum()
}

/// The metrics count what the proxy saw: calls by operation, failed attempts by operation, and by
/// operation and kind of failure. Compared at a moment without a call under way.
async fn books_agree(t: &Case, proxy: &Proxy) {
    until("the metrics say what the proxy saw", || async {
        let mut counted: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for (labels, n) in samples(t, "zen_lead_api_call_duration_seconds_count").await {
            let kind = match labels["result"].as_str() {
                "too_many_requests" => "too_many_requests",
                "unavailable" => "unavailable",
                "connection" => "connection",
                "timeout" => "timeout",
                _ => "final",
            };
            *counted.entry((labels["operation"].clone(), kind)).or_default() += n;
        }
        let mut retried: BTreeMap<String, u64> = BTreeMap::new();
        for (labels, n) in samples(t, "zen_lead_retry_attempts_total").await {
            *retried.entry(labels["operation"].clone()).or_default() += n;
        }
        let mut seen: BTreeMap<(String, &str), u64> = BTreeMap::new();
        let mut failed: BTreeMap<String, u64> = BTreeMap::new();
        for request in proxy.seen() {
            check(request.done != Done::Pending, format!("under way: {request:?}"))?;
            let (operation, kind) = (operation(&request), passing(&request.done));
            if kind.is_some() {
                *failed.entry(operation.clone()).or_default() += 1;
            }
            *seen.entry((operation, kind.unwrap_or("final"))).or_default() += 1;
        }
        check(counted == seen, format!("calls: counted {counted:?}, seen {seen:?}"))?;
        check(retried == failed, format!("attempts: counted {retried:?}, failed {failed:?}"))
    })
    .await;
}

fn creates(what: &'static str, name: String) -> impl Fn(&Seen) -> bool {
    move |s| s.verb == "POST" && s.path.ends_with(what) && s.name.starts_with(&name)
}

fn replaces(service: &str) -> impl Fn(&Seen) -> bool + use<> {
    let slice = format!("/endpointslices/{service}-leader-");
    move |s| s.verb == "PUT" && s.path.contains(&slice)
}

/// The writes of the mirror on the leader Service of a source.
fn mirrors(service: &str) -> impl Fn(&Seen) -> bool + use<> {
    let status = format!("/services/{service}-leader/status");
    move |s| s.verb == "PATCH" && s.path.ends_with(&status)
}

/// The requests of a kind that met a fault.
fn failed(proxy: &Proxy, of: impl Fn(&Seen) -> bool) -> usize {
    proxy.seen().iter().filter(|s| of(s) && matches!(s.done, Done::Failed(_))).count()
}

fn numbered(n: usize) -> BTreeMap<String, u64> {
    (1..=n).map(|attempt| (attempt.to_string(), 1)).collect()
}

async fn passing_faults_are_counted_attempt_by_attempt(t: Arc<Case>) {
    let faults = [
        ("throttled", Fault::answer(429)),
        ("zero", Fault::retry_after(429, "0")),
        ("negative", Fault::retry_after(429, "-1")),
        ("garbage", Fault::retry_after(503, "1e9")),
        ("past", Fault::retry_after(503, "Sun, 06 Nov 1994 08:49:37 GMT")),
        ("failed", Fault::answer(500)),
        ("away", Fault::answer(503)),
        ("gateway", Fault::answer(504)),
        ("reset", Fault::Reset),
    ];
    let names: Vec<&str> = faults.iter().map(|(name, _)| *name).collect();
    let proxy = proxy(&t).await;
    start(&t, &proxy).await;
    t.ready_pods("web", &["a", "b"]).await;
    for (name, fault) in &faults {
        let leader = format!("{name}-leader");
        proxy.fail(3, fault.clone(), creates("/services", leader.clone()));
        proxy.fail(2, fault.clone(), creates("/endpointslices", leader));
    }
    sources(&t, &names).await;
    for name in &names {
        until_reported(&t, name, "a").await;
    }
    for (name, fault) in &faults {
        proxy.fail(4, fault.clone(), replaces(name));
    }
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    for name in &names {
        until_reported(&t, name, "b").await;
    }
    let history = recorder.finish().await;
    books_agree(&t, &proxy).await;
    assert_eq!(proxy.left(), 0, "every fault was met");
    for (name, fault) in &faults {
        let leader = format!("{name}-leader");
        for (operation, expected, met) in [
            ("create_service", 3, failed(&proxy, creates("/services", leader.clone()))),
            ("create_slice", 2, failed(&proxy, creates("/endpointslices", leader.clone()))),
            ("replace_slice", 4, failed(&proxy, replaces(name))),
        ] {
            assert_eq!(met, expected, "{name} {operation}");
            let counted = attempts(&t, &t.ns, name, operation).await;
            assert_eq!(counted, numbered(met), "{name} {operation} {fault:?}");
            assert_eq!(successes(&t, name, operation).await, 1, "{name} {operation}");
        }
        history.holds(&leader);
        history.never_empty(&leader);
        assert_eq!(history.leaders(&leader), ["a", "b"], "{name}");
    }
}

async fn start_through_faults_is_counted_and_comes_to_its_end(t: Arc<Case>) {
    let proxy = proxy(&t).await;
    let is = |wanted: &'static str| move |s: &Seen| operation(s) == wanted;
    for wanted in ["list_services", "list_pods", "list_slices", "list_secrets", "list_webhooks"] {
        proxy.fail(2, Fault::answer(503), is(wanted));
    }
    let watches =
        ["watch_services", "watch_pods", "watch_slices", "watch_secrets", "watch_webhooks"];
    for wanted in watches {
        proxy.fail(1, Fault::Reset, is(wanted));
        proxy.fail(1, Fault::retry_after(429, "0"), is(wanted));
    }
    proxy.fail(1, Fault::answer(500), is("get_version"));
    proxy.fail(2, Fault::answer(500), is("get_secret"));
    proxy.fail(1, Fault::Reset, is("get_webhook"));
    // Pods are watched in namespaces with an enabled Service.
    t.ready_pods("web", &["a"]).await;
    let outside = t.outside().await;
    outside.ready_pods("web", &["a"]).await;
    sources(&outside, &["web"]).await;
    start(&t, &proxy).await;
    until_reported(&outside, "web", "a").await;
    until("every fault was met", || async {
        check(proxy.left() == 0, format!("{} are left", proxy.left()))
    })
    .await;
    books_agree(&t, &proxy).await;
    // The only watch of its kind: its attempts are numbered across its openings.
    for wanted in ["watch_services", "watch_secrets"] {
        assert_eq!(attempts(&t, "", "", wanted).await, numbered(2), "{wanted}");
    }
    for (wanted, n) in [("get_version", 1), ("get_secret", 2)] {
        assert_eq!(attempts(&t, "", "", wanted).await, numbered(n), "{wanted}");
    }
}

/// The times between the requests of a kind.
fn gaps(proxy: &Proxy, of: impl Fn(&Seen) -> bool) -> Vec<Duration> {
    let seen: Vec<_> = proxy.seen().into_iter().filter(of).map(|s| s.at).collect();
    seen.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

async fn retry_after_is_waited_for(t: Arc<Case>) {
    let proxy = proxy(&t).await;
    start(&t, &proxy).await;
    t.ready_pods("web", &["a", "b"]).await;
    sources(&t, &["number", "date"]).await;
    for name in ["number", "date"] {
        until_reported(&t, name, "a").await;
    }
    proxy.fail(2, Fault::retry_after(429, "2"), replaces("number"));
    // Whole seconds, so up to one is cut off.
    proxy.fail(1, Fault::RetryIn(Duration::from_secs(6)), replaces("date"));
    t.set_ready("a", false).await;
    for name in ["number", "date"] {
        until_reported(&t, name, "b").await;
    }
    books_agree(&t, &proxy).await;
    for (name, waits) in [("number", 2), ("date", 1)] {
        let gaps = gaps(&proxy, replaces(name));
        assert_eq!(gaps.len(), waits, "{name}: {gaps:?}");
        for gap in gaps {
            assert!(gap >= Duration::from_secs(2) && gap < Duration::from_secs(15), "{gap:?}");
        }
        assert_eq!(attempts(&t, &t.ns, name, "replace_slice").await, numbered(waits));
        assert_eq!(successes(&t, name, "replace_slice").await, 1);
    }
}

async fn absurd_pauses_hold_up_no_service(t: Arc<Case>) {
    let absurd = [("far", "1000000000"), ("farther", "99999999999999")];
    let proxy = proxy(&t).await;
    start(&t, &proxy).await;
    t.ready_pods("web", &["a", "b"]).await;
    let all = ["far", "farther", "other"];
    sources(&t, &all).await;
    for name in all {
        until_reported(&t, name, "a").await;
    }
    for (name, text) in absurd {
        proxy.fail(1, Fault::retry_after(429, text), replaces(name));
    }
    t.set_ready("a", false).await;
    until_reported(&t, "other", "b").await;
    for (name, text) in absurd {
        let leader = format!("{name}-leader");
        within(Duration::from_secs(50), format!("{leader} is led by b all the same"), || async {
            let slice = t.slice(&leader, "IPv4").await?;
            let led = crate::support::case::routed(&slice);
            check(led.iter().any(|r| r.pod == "b" && r.ready), format!("{led:?}"))
        })
        .await;
        let asked = text.parse().unwrap_or(u32::MAX);
        let logged = format!(
            "replace_slice {}/{leader}-zen-lead-ipv4: the API server is overloaded and rejected the \
             call; gave up after 1 attempt (it asked for a pause of {asked}s): HTTP 429: ",
            t.ns
        );
        let log = t.world.product.lines_about(0, &logged, 1);
        assert!(log.contains("; the reconcile is tried again in "), "{log:?}");
        assert_eq!(attempts(&t, &t.ns, name, "replace_slice").await, numbered(1));
        assert_eq!(successes(&t, name, "replace_slice").await, 0, "the call was given up");
    }
    assert_eq!(timeouts(&t, "replace_slice").await, 0, "nothing ran into its deadline");
    books_agree(&t, &proxy).await;
}

async fn what_cannot_succeed_is_tried_once(t: Arc<Case>) {
    let faults = [("forbidden", 403, "Forbidden"), ("invalid", 422, "WriteRefused")];
    let proxy = proxy(&t).await;
    start(&t, &proxy).await;
    t.ready_pods("web", &["a"]).await;
    for (name, code, _) in faults {
        proxy.fail(2, Fault::answer(code), creates("/services", format!("{name}-leader")));
    }
    sources(&t, &faults.map(|(name, ..)| name)).await;
    // At the same time: one may be served before the other is reported by a replica of a higher rank.
    let reports = faults.map(|(name, _, reason)| t.until_condition(name, "False", reason));
    for ((name, ..), message) in faults.into_iter().zip(join_all(reports).await) {
        let start =
            format!("create_service {}/{name}-leader: the proxy of the test says no; ", t.ns);
        let end = "; tried again by itself within 300s";
        assert!(message.starts_with(&start) && message.ends_with(end), "{message}");
        assert_eq!(attempts(&t, &t.ns, name, "create_service").await, numbered(0));
    }
    for (name, ..) in faults {
        within(Duration::from_secs(40), format!("{name} is served later"), || async {
            t.slice(&format!("{name}-leader"), "IPv4").await
        })
        .await;
        let gaps = gaps(&proxy, creates("/services", format!("{name}-leader")));
        assert_eq!(gaps.len(), 2, "{name}: {gaps:?}");
        assert!(gaps[0] >= Duration::from_millis(1900), "not before the pause is over: {gaps:?}");
        assert!(gaps[1] >= Duration::from_millis(3900), "the pause has grown: {gaps:?}");
    }
    books_agree(&t, &proxy).await;
}

async fn deadline_is_counted_reported_and_settled(t: Arc<Case>) {
    let proxy = led(&t).await;
    proxy.fail(2, Fault::Stall, replaces("web"));
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    within(Duration::from_secs(40), "b leads in the end", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        let led = crate::support::case::routed(&slice);
        check(led.iter().any(|r| r.pod == "b" && r.ready), format!("{led:?}"))
    })
    .await;
    until_reported(&t, "web", "b").await;
    books_agree(&t, &proxy).await;
    assert_eq!(attempts(&t, &t.ns, "web", "replace_slice").await, numbered(2));
    assert_eq!(successes(&t, "web", "replace_slice").await, 0);
    assert_eq!(timeouts(&t, "replace_slice").await, 1);
    let logged = format!(
        "replace_slice {}/web-leader-zen-lead-ipv4: no success within 10s and 2 attempts (the write \
         may still have taken effect); last error: no answer within ",
        t.ns
    );
    for next in [
        "; settled by reading the slice: it did not take effect",
        "; the reconcile is tried again in ",
    ] {
        let log = t.world.product.lines_about(0, &logged, 9);
        assert!(log.contains(next), "{next} is not in {log:?}");
    }
    let history = recorder.finish().await;
    history.holds("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b"]);
}

async fn lost_answer_is_settled_by_reading(t: Arc<Case>) {
    let proxy = led(&t).await;
    let before = epoch(&t.slice("web-leader", "IPv4").await.unwrap());
    proxy.fail(1, Fault::ResetAfter, replaces("web"));
    t.set_ready("a", false).await;
    until_reported(&t, "web", "b").await;
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    books_agree(&t, &proxy).await;
    assert_eq!(attempts(&t, &t.ns, "web", "replace_slice").await, numbered(1));
    assert_eq!(successes(&t, "web", "replace_slice").await, 0, "the repetition met a conflict");
    let switches = samples(&t, "zen_lead_failover_count_total").await;
    let switches: u64 = switches
        .into_iter()
        .filter(|(l, _)| l["namespace"] == t.ns && l["reason"] == "pod_not_ready")
        .map(|(_, n)| n)
        .sum();
    assert_eq!(switches, 1, "the switch is ours and counted");
    assert!(epoch(&slice) > before);
    let logged = "; settled by reading the slice: it took effect";
    assert_ne!(t.world.product.lines_about(0, logged, 1), "");
}

/// The leader Service names another pod as leader, and no replica is left that would check it again.
async fn lost_answer_to_a_mirror_leaves_no_switch_unreported(t: Arc<Case>) {
    let proxy = led(&t).await;
    proxy.fail(1, Fault::ResetAfter, mirrors("web"));
    t.set_ready("a", false).await;
    until_reported(&t, "web", "b").await;
    assert_eq!(failed(&proxy, mirrors("web")), 1);
    t.until_reported("web-leader", 2).await;
    books_agree(&t, &proxy).await;
}
