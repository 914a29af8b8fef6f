//! Calls are counted, of two replicas together, in each situation that does not pass by itself: fewer
//! than 20 in any 5 s, and fewer than 2 a minute after ten minutes. What the watches do is done without
//! a call: both caches follow each change, and each change wakes both workers.

use super::*;

pub(super) const SLICE: &str = "web-leader-zen-lead-ipv4";
pub(super) const LEADER: &str = "/api/v1/namespaces/shop/services/web-leader";

/// What others do whenever something has changed.
type Meddler = Box<dyn Fn(&FakeApi)>;

/// Two replicas on one API server, and the calls they made.
pub(super) struct Pair {
    pub(super) api: FakeApi,
    pub(super) workers: [Reconciler; 2],
    pub(super) key: ServiceKey,
    due: [Option<Instant>; 2],
    failures: [u32; 2],
    seen: u64,
    meddler: Meddler,
    /// When each call was made.
    pub(super) calls: Vec<(Instant, String)>,
}

impl Pair {
    pub(super) fn new() -> Self {
        let api = FakeApi::new();
        api.put(SERVICES, source());
        api.put(PODS, pod("a", "10.0.0.1", true, 1));
        api.put(PODS, pod("b", "10.0.0.2", true, 2));
        let workers = ["zl-0", "zl-1"].map(|me| {
            let (mut worker, _) = worker(&api, me, &["zl-0", "zl-1"]);
            worker.trust = Box::new(|_| Trust::Live);
            worker
        });
        let key = ServiceKey::new("shop", "web");
        let (due, failures) = ([Some(clock::monotonic()); 2], [0; 2]);
        let calls = Vec::new();
        Self { api, workers, key, due, failures, seen: 0, meddler: Box::new(|_| {}), calls }
    }

    /// Served, before trouble begins.
    pub(super) async fn served() -> Self {
        let mut pair = Self::new();
        pair.run(Duration::from_secs(5)).await;
        assert_eq!(pair.routed().as_deref(), Some("a"));
        // What was written at the beginning is long ago.
        tokio::time::advance(Duration::from_mins(10)).await;
        pair.calls.clear();
        pair
    }

    pub(super) fn routed(&self) -> Option<String> {
        let slice = self.api.get(&format!("{SLICES}/{SLICE}"))?;
        let endpoint = slice["endpoints"].get(0)?;
        (endpoint["conditions"]["ready"] == true)
            .then(|| endpoint["targetRef"]["name"].as_str().unwrap().to_owned())
    }

    fn message(&self, path: &str) -> String {
        let service = self.api.get(path).unwrap();
        service["status"]["conditions"].to_string()
    }

    /// Both caches follow what changed, and both workers are woken.
    pub(super) async fn watch(&mut self) {
        (self.meddler)(&self.api);
        if self.api.version() == self.seen {
            return;
        }
        self.seen = self.api.version();
        let read = self.present().await;
        for worker in &self.workers {
            *worker.index.write() = read.clone();
        }
        self.due = [Some(clock::monotonic()); 2];
    }

    /// The namespace as it is, read without a trace.
    pub(super) async fn present(&self) -> Index {
        let calls = self.api.seen().len();
        let reader = Reader::new(
            self.api.client(),
            Caller::new(self.workers[0].metrics.clone()),
            NameRule::Dns1123,
            Limits::default(),
        );
        let read = reader.read(&self.key).await.unwrap();
        self.api.forget_seen_after(calls);
        (*read).clone()
    }

    /// As the queue does, for so long.
    pub(super) async fn run(&mut self, time: Duration) {
        let end = clock::monotonic() + time;
        let mut rounds = 0;
        loop {
            self.watch().await;
            let Some(at) = self.due.iter().flatten().min().copied().filter(|at| *at < end) else {
                break;
            };
            tokio::time::sleep_until(at).await;
            let n = usize::from(self.due[0].is_none_or(|due| due > clock::monotonic()));
            self.due[n] = None;
            let before = self.api.seen().len();
            let next = self.workers[n].reconcile(&self.key, clock::monotonic()).await;
            let seen = self.api.seen();
            let made = seen[before..].iter().map(|s| format!("{n} {} {}", s.verb, s.path));
            self.calls.extend(made.map(|call| (clock::monotonic(), call)));
            self.failures[n] = if next.is_err() { self.failures[n] + 1 } else { 0 };
            self.due[n] = match next {
                Ok(Requeue::At(at) | Requeue::Waits(Some(at))) => Some(at),
                Ok(Requeue::GivesWay(_)) => Some(clock::monotonic() + Duration::from_millis(100)),
                Ok(_) => None,
                Err(_) => {
                    let wait = Duration::from_millis(50) * 2_u32.pow(self.failures[n].min(10));
                    Some(clock::monotonic() + wait)
                }
            };
            rounds += 1;
            let last = self.calls.len().saturating_sub(20);
            assert!(rounds < 5000, "it never comes to rest: {}", self.list(last, 20));
        }
        tokio::time::sleep_until(end).await;
    }

    /// Calls in words, with the times since the first of them.
    pub(super) fn list(&self, from: usize, number: usize) -> String {
        let some = &self.calls[from..from + number];
        let line = |(at, call): &(Instant, String)| format!("\n{:?} {call}", *at - some[0].0);
        some.iter().map(line).collect()
    }

    /// Runs twenty minutes of the situation, and judges the calls.
    async fn judge(&mut self, what: &str) {
        let began = clock::monotonic();
        self.run(Duration::from_mins(20)).await;
        let times: Vec<Instant> = self.calls.iter().map(|(at, _)| *at).collect();
        for (n, at) in times.iter().enumerate() {
            let within = times[n..].iter().filter(|t| **t < *at + Duration::from_secs(5)).count();
            assert!(within < 20, "{what}: {within} calls within 5 s: {}", self.list(n, within));
        }
        let late = times.iter().filter(|t| **t >= began + Duration::from_mins(10)).count();
        assert!(
            late < 20,
            "{what}: {late} calls in the second ten minutes: {}",
            self.list(times.len() - late, late)
        );
        assert!(!times.is_empty(), "{what}: nothing was tried");
        for path in [LEADER, &format!("{SERVICES}/web")] {
            let Some(service) = self.api.get(path) else { continue };
            for condition in service["status"]["conditions"].as_array().into_iter().flatten() {
                let message = condition["message"].as_str().unwrap();
                let mut parts: Vec<&str> = message.split("; tried again by itself").collect();
                let all = parts.len();
                parts.sort_unstable();
                parts.dedup();
                assert_eq!(parts.len(), all, "{what}: said twice: {message}");
            }
        }
        assert!(late > 0 || self.routed().is_some(), "{what}: it is still tried");
    }
}

/// Answers each such call, without end.
fn always(pair: &Pair, verb: &'static str, path: &str, fault: Fault) {
    pair.api.fail(verb, path, usize::MAX, fault);
}

const DENIED: &str = "admission webhook \"v.example.com\" denied the request: not now";
const DOWN: &str = "Internal error occurred: failed calling webhook \"v.example.com\": failed to call \
                    webhook: Post \"https://guard.policy.svc:443/validate?timeout=10s\": service \
                    \"guard\" not found";

fn answers() -> Vec<Fault> {
    vec![
        Fault::Status(409, "Conflict", "the object has been modified"),
        Fault::Status(409, "", DENIED),
        Fault::Status(429, "", DENIED),
        Fault::Status(503, "", DENIED),
        Fault::Status(404, "NotFound", "not found"),
        Fault::Status(400, "BadRequest", "the body is odd"),
        Fault::Status(403, "Forbidden", "exceeded quota: q"),
        Fault::Status(413, "RequestEntityTooLarge", "limit is 3145728"),
        Fault::Status(422, "Invalid", "field is immutable"),
        Fault::Status(500, "InternalError", DOWN),
        Fault::Status(500, "InternalError", "Internal error occurred: x"),
        Fault::Garbage("{\"odd\": true}"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_slice_update_that_is_refused_is_no_storm_and_both_services_say_so() {
    for answer in answers() {
        let mut pair = Pair::served().await;
        always(&pair, "PUT", SLICE, answer.clone());
        pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
        pair.judge(&format!("update of a slice: {answer:?}")).await;
        for path in [LEADER, &format!("{SERVICES}/web")] {
            let message = pair.message(path);
            let said =
                ["replace_slice shop/web-leader-zen-lead-ipv4: ", "answer to each write lacks"];
            assert!(said.iter().any(|w| message.contains(w)), "{answer:?}: {message}");
            assert!(message.contains("\"status\":\"False\""), "{message}");
        }
        pair.api.forgive();
        pair.run(Duration::from_mins(6)).await;
        assert_eq!(pair.routed().as_deref(), Some("b"), "{answer:?}");
        assert_eq!(pair.message(&format!("{SERVICES}/web")), "[]", "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_is_refused_is_no_storm_and_the_source_says_so() {
    for (collection, what) in [(SERVICES, "create_service"), (SLICES, "create_slice")] {
        let taken = Fault::Status(409, "AlreadyExists", "already exists");
        for answer in answers().into_iter().chain([taken]) {
            let mut pair = Pair::new();
            always(&pair, "POST", collection, answer.clone());
            pair.judge(&format!("{what}: {answer:?}")).await;
            let message = pair.message(&format!("{SERVICES}/web"));
            let said = [what, "the answer to each write lacks"].iter().any(|w| message.contains(w));
            let calls = pair.list(0, pair.calls.len().min(30));
            assert!(said, "{what}: {answer:?}: {message}{calls}");
            pair.api.forgive();
            pair.run(Duration::from_mins(6)).await;
            assert_eq!(pair.routed().as_deref(), Some("a"), "{what}: {answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_patch_of_the_leader_service_is_no_storm_and_routing_goes_on() {
    for answer in answers() {
        let mut pair = Pair::served().await;
        let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
        source["spec"]["sessionAffinity"] = json!("ClientIP");
        pair.api.put(SERVICES, source);
        // Not those of the status.
        pair.api.fail_exactly("PATCH", LEADER, usize::MAX, answer.clone());
        pair.judge(&format!("patch of the leader Service: {answer:?}")).await;
        pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
        pair.run(Duration::from_secs(1)).await;
        assert_eq!(pair.routed().as_deref(), Some("b"), "{answer:?}");
        let leader = pair.api.get(LEADER).unwrap();
        assert_eq!(leader["metadata"]["annotations"]["zen-lead.io/current-leader"], "shop/b");
        let message = pair.message(LEADER);
        assert!(message.contains("\"status\":\"True\""), "it is routed: {message}");
        let said = ["apply_service shop/web-leader: ", "the answer to each write lacks"];
        assert!(said.iter().any(|w| message.contains(w)), "{answer:?}: {message}");
    }
}

/// A replica that takes over the report of another one takes over the part about its step, and reports
/// no more than that one does.
#[tokio::test(start_paused = true)]
async fn two_refusals_at_once_are_reported_once_each_and_the_same_by_both_replicas() {
    let refused = [(403, DENIED), (500, DOWN), (422, "field is immutable"), (413, "limit is 1")];
    for (first, second) in refused.into_iter().zip(refused.into_iter().cycle().skip(1)) {
        let mut pair = Pair::served().await;
        let no = |(code, words)| Fault::Status(code, "", words);
        pair.api.fail_exactly("PATCH", LEADER, usize::MAX, no(first));
        always(&pair, "POST", SLICES, no(second));
        let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
        source["spec"]["sessionAffinity"] = json!("ClientIP");
        pair.api.put(SERVICES, source);
        pair.run(Duration::from_secs(30)).await;
        pair.api.remove(&format!("{SLICES}/{SLICE}"));
        let what = format!("{first:?} and {second:?}");
        pair.judge(&what).await;
        let message = pair.message(&format!("{SERVICES}/web"));
        for part in ["apply_service shop/web-leader: ", "create_slice shop/web-leader-"] {
            assert_eq!(message.matches(part).count(), 1, "{what}: {part}: {message}");
        }
        let reports = pair.calls.iter().filter(|(_, call)| call.ends_with("web/status")).count();
        assert!(reports <= 4, "{what}: {reports} reports: {}", pair.list(0, pair.calls.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_that_meet_different_refusals_of_a_step_do_not_rewrite_each_others_report() {
    let mut pair = Pair::served().await;
    let no = |(code, words)| Fault::Status(code, "", words);
    let answers = [(403, DENIED), (500, DOWN)];
    for n in 0..200 {
        pair.api.fail_exactly("POST", SLICES, 1, no(answers[n % 2]));
    }
    pair.api.remove(&format!("{SLICES}/{SLICE}"));
    pair.run(Duration::from_mins(5)).await;
    let count = |end: &str| pair.calls.iter().filter(|(_, call)| call.ends_with(end)).count();
    let (tries, reports) = (count(SLICES), count("web/status"));
    let first = pair.workers.iter().position(|w| w.rank(&pair.key) == 0).unwrap();
    let of_first =
        pair.calls.iter().filter(|(_, call)| call.starts_with(&format!("{first} POST"))).count();
    println!(
        "{tries} tries, {of_first} of the first; {reports} reports{}",
        pair.list(0, pair.calls.len())
    );
    assert!(tries > 8 && reports <= of_first, "{reports}: {}", pair.list(0, pair.calls.len()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_mirror_or_condition_is_no_storm() {
    for path in ["web-leader/status", "web/status", "/status"] {
        for answer in answers() {
            let mut pair = Pair::served().await;
            always(&pair, "PATCH", path, answer.clone());
            // Something to say on both.
            let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
            source["metadata"]["annotations"]["zen-lead.io/sticky"] = json!("perhaps");
            pair.api.put(SERVICES, source);
            pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
            pair.judge(&format!("{path}: {answer:?}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_reported_at_once_after_the_report_of_another_pod_was_undone_for_long() {
    let mut pair = Pair::served().await;
    let leader = |pair: &Pair| pair.api.get(LEADER).unwrap();
    always(&pair, "PATCH", "web-leader/status", Fault::Strip("zen-lead.io/current-leader"));
    let mut stripped = leader(&pair);
    stripped["metadata"]["annotations"]["zen-lead.io/current-leader"] = json!("");
    pair.api.put(SERVICES, stripped);
    pair.run(Duration::from_mins(3)).await;
    pair.api.forgive();
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.run(Duration::from_secs(3)).await;
    assert_eq!(pair.routed().as_deref(), Some("b"));
    let named = &leader(&pair)["metadata"]["annotations"]["zen-lead.io/current-leader"];
    assert_eq!(named, "shop/b", "{}", pair.list(0, pair.calls.len()));
}

#[tokio::test(start_paused = true)]
async fn what_others_undo_each_time_is_no_storm() {
    let undo_slice: Meddler = Box::new(|api| {
        let Some(mut slice) = api.get(&format!("{SLICES}/{SLICE}")) else { return };
        if slice["endpoints"].as_array().is_some_and(|e| !e.is_empty()) {
            slice["endpoints"] = json!([]);
            api.put(SLICES, slice);
        }
    });
    let add_endpoint: Meddler = Box::new(|api| {
        let Some(mut slice) = api.get(&format!("{SLICES}/{SLICE}")) else { return };
        if slice["endpoints"].as_array().is_none_or(|e| e.len() < 2) {
            let odd = json!({"addresses": ["10.0.0.9"], "conditions": {"ready": true}});
            slice["endpoints"].as_array_mut().unwrap().push(odd);
            api.put(SLICES, slice);
        }
    });
    let undo_service: Meddler = Box::new(|api| {
        let Some(mut leader) = api.get(LEADER) else { return };
        if leader["spec"]["sessionAffinity"] != "ClientIP" {
            leader["spec"]["sessionAffinity"] = json!("ClientIP");
            api.put(SERVICES, leader);
        }
    });
    let delete_slice: Meddler = Box::new(|api| {
        let path = format!("{SLICES}/{SLICE}");
        if api.get(&path).is_some() {
            api.remove(&path);
        }
    });
    let delete_leader: Meddler = Box::new(|api| {
        if api.get(LEADER).is_some() {
            api.remove(LEADER);
        }
    });
    for (what, meddler) in [
        ("an emptied slice", undo_slice),
        ("a foreign endpoint", add_endpoint),
        ("a changed leader Service", undo_service),
        ("a deleted slice", delete_slice),
        ("a deleted leader Service", delete_leader),
    ] {
        let mut pair = Pair::served().await;
        pair.meddler = meddler;
        pair.judge(what).await;
        let message = pair.message(&format!("{SERVICES}/web"));
        assert!(message.contains("another client changes it back"), "{what}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_that_changes_nothing_is_no_storm_and_a_webhook_may_be_named() {
    let mut pair = Pair::served().await;
    let leader: &'static str =
        Box::leak(pair.api.get(LEADER).unwrap().to_string().into_boxed_str());
    pair.api.fail_exactly("PATCH", LEADER, usize::MAX, Fault::Garbage(leader));
    let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
    source["spec"]["sessionAffinity"] = json!("ClientIP");
    pair.api.put(SERVICES, source);
    pair.judge("a patch without effect").await;
    let message = pair.message(&format!("{SERVICES}/web"));
    assert!(message.contains("a mutating admission webhook or policy changes it"), "{message}");

    let mut pair = Pair::served().await;
    let slice = pair.api.get(&format!("{SLICES}/{SLICE}")).unwrap();
    let slice: &'static str = Box::leak(slice.to_string().into_boxed_str());
    always(&pair, "PUT", SLICE, Fault::Garbage(slice));
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.judge("an update of a slice without effect").await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_name_that_is_squatted_is_no_storm() {
    let mut pair = Pair::new();
    pair.api.put(
        SLICES,
        json!({"metadata": {"name": SLICE, "namespace": "shop"}, "addressType": "IPv4"}),
    );
    pair.run(Duration::from_mins(20)).await;
    let calls = pair.calls.len();
    assert!(calls < 20, "the name is seen to be taken: {}", pair.list(0, calls));
    for path in [LEADER, &format!("{SERVICES}/web")] {
        let message = pair.message(path);
        assert!(message.contains("OwnershipConflict"), "{message}");
    }
    pair.api.remove(&format!("{SLICES}/{SLICE}"));
    pair.run(Duration::from_mins(6)).await;
    assert_eq!(pair.routed().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_switch_to_another_pod_is_tried_at_once_while_one_is_refused() {
    let mut pair = Pair::served().await;
    pair.api.put(PODS, pod("c", "10.0.0.3", true, 3));
    always(&pair, "PUT", SLICE, Fault::Status(403, "Forbidden", DENIED));
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.run(Duration::from_mins(3)).await;
    assert_eq!(pair.routed().as_deref(), Some("a"), "refused");
    pair.api.forgive();
    pair.api.put(PODS, pod("b", "10.0.0.2", false, 2));
    pair.run(Duration::from_secs(1)).await;
    assert_eq!(pair.routed().as_deref(), Some("c"), "that one was never refused");
}

#[tokio::test(start_paused = true)]
async fn one_conflict_is_a_race_and_delays_no_failover() {
    let mut pair = Pair::served().await;
    pair.api.fail("PUT", SLICE, 1, Fault::Status(409, "Conflict", "modified"));
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.run(Duration::from_millis(100)).await;
    assert_eq!(pair.routed().as_deref(), Some("b"));
    assert_eq!(pair.message(&format!("{SERVICES}/web")), "null", "a race is not reported");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changes_its_mind_blames_nobody() {
    let mut pair = Pair::served().await;
    for round in 0..8 {
        let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
        let affinity = if round % 2 == 0 { "ClientIP" } else { "None" };
        source["spec"]["sessionAffinity"] = json!(affinity);
        pair.api.put(SERVICES, source);
        pair.run(Duration::from_millis(100)).await;
        let leader = pair.api.get(LEADER).unwrap();
        assert_eq!(leader["spec"]["sessionAffinity"], affinity, "at once");
        pair.run(flips::SETTINGS_PAUSE).await;
    }
    assert_eq!(pair.message(&format!("{SERVICES}/web")), "null");
}

/// A dual-stack Service; while its leader Service is deleted with its slices orphaned and its leader is
/// lost, a webhook takes one annotation out of each slice.
async fn stripped(key: &'static str) -> Pair {
    let mut pair = Pair::new();
    let mut source = source();
    source["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    pair.api.put(SERVICES, source);
    for (name, n) in [("a", 1), ("b", 2)] {
        let mut pod = pod(name, &format!("10.0.0.{n}"), true, n);
        pod["status"]["podIPs"] =
            json!([{"ip": format!("10.0.0.{n}")}, {"ip": format!("fd00::{n}")}]);
        pair.api.put(PODS, pod);
    }
    pair.run(Duration::from_mins(1)).await;
    pair.calls.clear();
    always(&pair, "PUT", "/endpointslices/", Fault::Strip(key));
    always(&pair, "POST", "/endpointslices", Fault::Strip(key));
    pair.api.remove(LEADER);
    for mut slice in pair.api.all(SLICES) {
        slice["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        pair.api.put(SLICES, slice);
    }
    let mut lost = pair.api.get(&format!("{PODS}/a")).unwrap();
    lost["status"]["conditions"][0]["status"] = json!("False");
    pair.api.put(PODS, lost);
    pair.judge(key).await;
    pair
}

#[tokio::test(start_paused = true)]
async fn what_a_webhook_takes_out_of_both_slices_is_written_once_before_a_wait() {
    let mut reported = 0;
    for key in [
        "zen-lead.io/leader-epoch",
        "zen-lead.io/leader-pod-uid",
        "zen-lead.io/asked",
        "zen-lead.io/decision-version",
    ] {
        let pair = stripped(key).await;
        assert_eq!(pair.routed().as_deref(), Some("b"), "{key}: routing goes on");
        let message = pair.message(&format!("{SERVICES}/web"));
        assert!(!message.contains("another client"), "{key}: the answer shows it: {message}");
        reported += usize::from(message.contains("a mutating admission webhook or policy changes"));
        let soon = pair.calls[0].0 + Duration::from_secs(1);
        let is_put = |(at, call): &&(Instant, String)| *at < soon && call.contains(" PUT ");
        let puts = pair.calls.iter().filter(is_put).count();
        assert!(puts <= 3, "{key}: {puts} writes: {}", pair.list(0, pair.calls.len().min(20)));
    }
    assert_eq!(reported, 3, "without an epoch it is served all the same");
}

#[tokio::test(start_paused = true)]
async fn reports_that_need_a_read_are_read_for_once_in_five_seconds() {
    let mut pair = Pair::served().await;
    for worker in &mut pair.workers {
        worker.trust = Box::new(|_| Trust::Lost);
    }
    // Each time the message of the condition changes, and no leader.
    for n in 0..20 {
        pair.api.put(PODS, pod("b", "10.0.0.2", n % 2 == 1, 2));
        pair.run(Duration::from_millis(250)).await;
    }
    let reads = pair.calls.iter().filter(|(_, call)| call.contains(" GET ")).count();
    assert!((3..=12).contains(&reads), "{reads} lists: {}", pair.list(0, pair.calls.len()));
    pair.run(Duration::from_secs(10)).await;
    let message = pair.message(LEADER);
    assert!(message.contains("b: "), "{message}");
}
