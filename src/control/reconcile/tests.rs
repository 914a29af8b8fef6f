//! Scenarios of the worker against the API server double: what it writes, and what faults do to it.

mod flipped;
mod lanes;
mod ranks;
mod reads;
mod standing;
mod told;
mod turns;
mod unreadable;

use serde_json::{Value, json};

use super::*;
use crate::control::events::Publisher;
use crate::control::pause::FIRST_WAIT;
use crate::platform::api::Caller;
use crate::testing::{FakeApi, Fault};
use parking_lot::RwLock;
use zen_lead_core::index::Limits;
use zen_lead_core::names::NameRule;
use zen_lead_core::ranking;

pub const SERVICES: &str = "/api/v1/namespaces/shop/services";
const PODS: &str = "/api/v1/namespaces/shop/pods";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

/// A Service with two pods on the double, and a worker.
pub struct World {
    pub api: FakeApi,
    pub metrics: Arc<Metrics>,
    pub worker: Arc<Reconciler>,
    key: ServiceKey,
}

fn worker(api: &FakeApi, me: &str, replicas: &[&str]) -> (Reconciler, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let clock = Clock::fixed("2026-01-02T03:04:05Z".parse().unwrap());
    let caller = Caller::new(metrics.clone());
    let (names, limits) = (NameRule::Dns1123, Limits::default());
    // The writer of events is not run: publishing must not need it.
    let (events, _) =
        Publisher::new(api.client(), caller.clone(), me.to_owned(), clock.clone(), Arc::default());
    let worker = Reconciler {
        index: Arc::new(RwLock::new(Index::new(names, limits).compact())),
        applier: Arc::new(Applier::new(api.client(), caller.clone(), me, clock.now())),
        reader: Arc::new(Reader::new(api.client(), caller, names, limits)),
        metrics: metrics.clone(),
        recorder: Recorder::new(metrics.clone(), events, clock.now()),
        clock,
        me: me.to_owned(),
        replicas: Arc::new(RwLock::new(replicas.iter().map(ToString::to_string).collect())),
        // Without watches every write rests on a consistent read.
        trust: Box::new(|_| Trust::Lost),
        wake: Box::new(|_| {}),
        tracer: Tracer::off(),
        turns: Turns::of(1),
        room: Room::of(usize::MAX),
        pressure: Arc::default(),
        known: Memories::default(),
    };
    (worker, metrics)
}

/// Brings the cache of a worker up to date.
async fn sync(worker: &Reconciler, key: &ServiceKey) {
    let read = worker.reader.read(key).await.unwrap();
    *worker.index.write() = (*read).clone();
}

impl World {
    pub fn new() -> Self {
        let api = FakeApi::new();
        let (worker, metrics) = worker(&api, "zl-0", &[]);
        api.put(SERVICES, source());
        api.put(PODS, pod("a", "10.0.0.1", true, 1));
        api.put(PODS, pod("b", "10.0.0.2", true, 2));
        Self { api, metrics, worker: Arc::new(worker), key: ServiceKey::new("shop", "web") }
    }

    /// As the watches would do.
    pub async fn sync(&self) {
        sync(&self.worker, &self.key).await;
    }

    /// The cache is brought up to date, then one turn of the worker.
    pub async fn reconcile(&self) -> Result<Requeue, CallError> {
        self.sync().await;
        self.worker.reconcile(&self.key, clock::monotonic()).await
    }

    fn slice(&self) -> Value {
        self.api.get(&format!("{SLICES}/web-leader-zen-lead-ipv4")).expect("the slice exists")
    }

    pub fn leader(&self) -> Option<String> {
        let slice = self.slice();
        let endpoint = slice["endpoints"].get(0)?;
        assert_eq!(slice["endpoints"].as_array().unwrap().len(), 1, "{slice}");
        (endpoint["conditions"]["ready"] == true)
            .then(|| endpoint["targetRef"]["name"].as_str().unwrap().to_owned())
    }

    fn epoch(&self) -> u64 {
        let slice = self.slice();
        slice["metadata"]["annotations"]["zen-lead.io/leader-epoch"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn writes(&self) -> usize {
        ["POST", "PUT", "PATCH", "DELETE"].iter().map(|verb| self.api.count(verb)).sum()
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.exposition().unwrap().lines().any(|l| l == line)
    }
}

fn source() -> Value {
    json!({
        "metadata": {
            "name": "web", "namespace": "shop",
            "annotations": {"zen-lead.io/enabled": "true"},
        },
        "spec": {
            "selector": {"app": "web"}, "type": "ClusterIP", "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

fn pod(name: &str, ip: &str, ready: bool, age: u32) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "labels": {"app": "web"},
            "creationTimestamp": format!("2026-01-01T00:00:0{age}Z"),
        },
        "spec": {"containers": [{"name": "web"}], "nodeName": "n1"},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{
                "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:01:00Z",
            }],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_source_gets_its_leader_and_then_nothing_is_written() {
    let world = World::new();
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
    assert_eq!(world.leader().as_deref(), Some("a"), "the oldest ready pod");
    let leader = world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    assert_eq!(leader["status"]["conditions"][0]["status"], "True", "{leader}");
    assert_eq!(leader["metadata"]["annotations"]["zen-lead.io/current-leader"], "shop/a");

    let before = world.writes();
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
    assert_eq!(world.writes(), before, "in the right state nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_switch_whose_answer_was_lost_is_settled_by_reading_and_counted_once() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let epoch = world.epoch();
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world.api.fail("PUT", &format!("{SLICES}/web-leader-zen-lead-ipv4"), 1, Fault::ResetAfter);
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert_eq!(world.epoch(), epoch + 1, "one switch, although the first answer was lost");
    assert!(world.metric(
        r#"zen_lead_failover_count_total{namespace="shop",reason="pod_not_ready",service="web"} 1"#
    ));
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_is_told_on_the_source_and_not_tried_in_a_storm() {
    let world = World::new();
    let quota = "services \"web-leader\" is forbidden: exceeded quota: q, requested: services=1";
    world.api.fail("POST", SERVICES, 9, Fault::Status(403, "Forbidden", quota));
    let next = world.reconcile().await.unwrap();
    assert!(matches!(next, Requeue::At(at) if at > clock::monotonic()), "{next:?}");
    for _ in 0..5 {
        world.reconcile().await.unwrap();
    }
    assert_eq!(world.api.count("POST"), 1, "one try, then patience");
    let source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    let condition = &source["status"]["conditions"][0];
    assert_eq!(condition["reason"], "QuotaExceeded", "{source}");
    assert!(condition["message"].as_str().unwrap().contains("exceeded quota: q"), "{condition}");

    world.api.forgive();
    tokio::time::advance(FIRST_WAIT).await;
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"), "served as soon as it is allowed");
    let source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    assert_eq!(source["status"]["conditions"], json!([]), "{source}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_ran_out_does_not_bring_an_unmanaged_service_back_for_ever() {
    let world = World::new();
    let quota = "services \"web-leader\" is forbidden: exceeded quota: q, requested: services=1";
    world.api.fail("POST", SERVICES, 9, Fault::Status(403, "Forbidden", quota));
    world.reconcile().await.unwrap();
    // The user gives up; nothing is wanted any longer.
    world.api.put(SERVICES, json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}}));
    let next = world.reconcile().await.unwrap();
    assert!(matches!(next, Requeue::At(at) if at > clock::monotonic()), "{next:?}");
    tokio::time::advance(FIRST_WAIT).await;
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Forget, "a time that is past is no time");
}

#[tokio::test(start_paused = true)]
async fn strangers_are_never_written() {
    let world = World::new();
    let stranger = json!({
        "metadata": {"name": "web-leader", "namespace": "shop", "labels": {"app": "other"}},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    });
    let before = world.api.put(SERVICES, stranger);
    world.reconcile().await.unwrap();
    assert_eq!(world.api.get(&format!("{SERVICES}/web-leader")).unwrap(), before);
    let source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    assert_eq!(source["status"]["conditions"][0]["reason"], "OwnershipConflict", "{source}");
    assert!(world.api.get(&format!("{SLICES}/web-leader-zen-lead-ipv4")).is_none());
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nothing_is_promoted_and_the_error_names_the_call() {
    let world = World::new();
    world.reconcile().await.unwrap();
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    sync(&world.worker, &world.key).await;
    world.api.fail("GET", PODS, 99, Fault::Stall);
    let before = world.writes();
    let error = world.worker.reconcile(&world.key, clock::monotonic()).await.unwrap_err();
    assert_eq!(error.category(), "timeout");
    assert!(error.to_string().starts_with("list_pods shop: no success within 10s"), "{error}");
    assert_eq!(world.writes(), before, "static for the incumbent");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_written_late_meets_a_conflict_and_not_a_newer_truth() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let stale = world.worker.index.read().clone();
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world.reconcile().await.unwrap();
    let path = format!("{SERVICES}/web-leader");
    let epoch = |service: &Value| {
        let annotations = &service["metadata"]["annotations"];
        annotations["zen-lead.io/leader-epoch"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let newer = epoch(&world.api.get(&path).unwrap());

    let target = zen_lead_core::decide::ObjectRef {
        name: "web-leader".into(),
        uid: world.api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().into(),
        version: match stale.snapshot(&world.key).holder {
            zen_lead_core::index::snapshot::Holder::Leader(l) => {
                l.object.metadata.resource_version.clone()
            }
            other => panic!("{other:?}"),
        },
    };
    let annotations = [("zen-lead.io/leader-epoch".to_owned(), "1".to_owned())].into();
    let mirror = zen_lead_core::decide::mirror::Mirror {
        annotations,
        conditions: Vec::new(),
        rewording: false,
    };
    let late = Step::Mirror(target, Box::new(mirror), Vec::new());
    let error = world.worker.applier.apply(&world.key, late).await.unwrap_err();
    assert_eq!(error.category(), "conflict", "{error}");
    assert_eq!(epoch(&world.api.get(&path).unwrap()), newer);
}

const ENDING: &str = r#"{
    "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
    "message": "services \"web-leader\" is forbidden: namespace shop is being terminated",
    "details": {"causes": [{"reason": "NamespaceTerminating"}]}
}"#;

#[tokio::test(start_paused = true)]
async fn in_a_namespace_that_is_being_deleted_a_creation_is_tried_once_and_told_nobody() {
    let world = World::new();
    world.api.fail("POST", SERVICES, 99, Fault::Body(403, ENDING));
    for _ in 0..5 {
        assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
        tokio::time::advance(Duration::from_hours(1)).await;
    }
    assert_eq!(world.writes(), 1, "neither again, nor a condition");

    // The name comes back in a new namespace: another Service, and no memory of the old one.
    world.api.forgive();
    world.api.remove(&format!("{SERVICES}/web"));
    world.api.put(SERVICES, source());
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn the_slices_are_read_before_what_their_marks_are_compared_with() {
    let world = World::new();
    world.api.fail("GET", SLICES, 1, Fault::Late(Duration::from_secs(1)));
    let asked = || world.api.seen().into_iter().map(|seen| seen.path).collect::<Vec<_>>();
    let read = world.worker.reader.read(&world.key);
    let early = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(asked(), [SLICES], "nothing else before they are there");
    };
    tokio::join!(read, early).0.unwrap();
    let mut rest = asked();
    rest.sort();
    assert_eq!(rest, [PODS, SERVICES, SLICES]);
}

#[tokio::test(start_paused = true)]
async fn readers_that_wait_for_each_other_share_a_failure_and_one_deadline() {
    let world = World::new();
    world.api.fail("GET", SLICES, usize::MAX, Fault::Stall);
    let began = clock::monotonic();
    let reads = (0..20).map(|_| world.worker.reader.read(&world.key));
    let outcomes = futures::future::join_all(reads).await;
    let took = clock::monotonic() - began;
    assert!(took <= Duration::from_secs(20), "{took:?}: not one deadline after the other");
    let mut told: Vec<String> =
        outcomes.into_iter().map(|o| o.map(|_| ()).unwrap_err().to_string()).collect();
    told.sort();
    told.dedup();
    assert!(
        told.iter().any(|t| t.starts_with("list_slices shop: no success within 10s")),
        "{told:?}"
    );
    assert!(told.len() <= 2, "{told:?}");
    // Nothing is left that the next read would meet.
    world.api.forgive();
    world.worker.reader.read(&world.key).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_takes_too_long_lets_others_pass_and_is_counted() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let leader = world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    for n in 0..12 {
        let mut old = leader.clone();
        old["metadata"]["name"] = json!(format!("old-{n}"));
        old["metadata"]["uid"] = json!(format!("uid-old-{n}"));
        world.api.put(SERVICES, old);
        // Each of them is removed, after an attempt that timed out and one that is slow.
        world.api.fail("DELETE", "old-", 1, Fault::Stall);
        world.api.fail("DELETE", "old-", 1, Fault::Late(Duration::from_millis(4500)));
    }
    sync(&world.worker, &world.key).await;
    let began = clock::monotonic();
    let next = world.worker.reconcile(&world.key, began).await.unwrap();
    let took = clock::monotonic() - began;
    assert!(matches!(next, Requeue::At(_)), "{next:?}");
    assert!(took >= DEADLINE && took < DEADLINE + Duration::from_secs(30), "{took:?}");
    assert!(world.metric(r#"zen_lead_timeout_occurrences_total{operation="reconcile"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_cannot_be_created_is_a_refusal_and_no_race() {
    let world = World::new();
    world.api.fail("POST", SLICES, 99, Fault::Status(500, "InternalError", "webhook is down"));
    let next = world.reconcile().await.unwrap();
    assert_eq!(next, Requeue::At(clock::monotonic() + FIRST_WAIT));
    let source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    assert_eq!(
        source["status"]["conditions"][0]["message"],
        "create_slice shop/web-leader-zen-lead-ipv4: webhook is down; the words of the API server say \
         what is wrong; tried again by itself within 300s"
    );
    let labels = r#"{namespace="shop",service="web"} 1"#;
    assert!(world.metric(&format!("zen_lead_endpoint_write_errors_total{labels}")));
    assert!(!world.metric(&format!("zen_lead_endpoint_write_conflicts_total{labels}")));
    world.api.forgive();
    tokio::time::advance(FIRST_WAIT).await;
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_leaves_no_series() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let labels = r#"{namespace="shop",service="web"}"#;
    let reconciled =
        r#"zen_lead_reconciliations_total{namespace="shop",result="ok",service="web"} 1"#;
    assert!(world.metric(reconciled));
    assert!(world.metric(&format!("zen_lead_pods_available{labels} 2")));
    world.api.remove(&format!("{SERVICES}/web"));
    for _ in 0..4 {
        assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle, "its leader Service is there");
    }
    let without = format!("zen_lead_leader_service_without_endpoints{labels} 1");
    assert!(world.metric(&without));
    world.api.remove(&format!("{SERVICES}/web-leader"));
    let mut next = Requeue::Idle;
    for _ in 0..4 {
        next = world.reconcile().await.unwrap();
    }
    assert_eq!(next, Requeue::Forget);
    let text = world.metrics.exposition().unwrap();
    assert!(!text.contains(r#"service="web""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_remembered_of_services_that_went() {
    let world = World::new();
    let key = |n: usize| ServiceKey::new("shop", format!("s{n}"));
    for n in 0..100 {
        let mut service = source();
        service["metadata"]["name"] = json!(format!("s{n}"));
        world.api.put(SERVICES, service);
    }
    sync(&world.worker, &world.key).await;
    for n in 0..100 {
        world.worker.reconcile(&key(n), clock::monotonic()).await.unwrap();
    }
    assert_eq!(world.worker.remembered(), 100);
    assert_eq!(world.worker.reader.reading(), 0);
    *world.worker.index.write() = Index::new(NameRule::Dns1123, Limits::default());
    for n in 0..100 {
        world.api.remove(&format!("{SERVICES}/s{n}"));
        world.api.remove(&format!("{SERVICES}/s{n}-leader"));
        let next = world.worker.reconcile(&key(n), clock::monotonic()).await.unwrap();
        assert_eq!(next, Requeue::Forget);
    }
    assert_eq!(world.worker.remembered(), 0);
    let text = world.metrics.exposition().unwrap();
    let left: Vec<_> = text.lines().filter(|l| l.contains("service=\"s")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_not_remembered() {
    let world = World::new();
    world.api.fail("GET", PODS, 99, Fault::Stall);
    assert!(world.worker.reader.read(&world.key).await.is_err());
    assert_eq!(world.worker.reader.reading(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_refused_kinds_are_no_storm() {
    let world = World::new();
    world.reconcile().await.unwrap();
    // Our rights are gone: every write is refused.
    for verb in ["POST", "PUT", "PATCH", "DELETE"] {
        world.api.fail(verb, "", usize::MAX, Fault::Status(403, "Forbidden", "no"));
    }
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    let (before, began) = (world.writes(), clock::monotonic());
    let next = world.reconcile().await.unwrap();
    let made = world.writes() - before;
    let again = match next {
        Requeue::At(at) => at - began,
        other => panic!("{other:?}"),
    };
    assert!(
        made <= 4 && again >= FIRST_WAIT,
        "{made} writes in one turn, and the next turn in {again:?}"
    );
}

/// How many writes are made, by a worker that comes back whenever it says so; and whether it came to rest.
async fn writes_within_10_s(world: &World) -> (usize, bool) {
    let (before, began) = (world.writes(), clock::monotonic());
    let mut rests = false;
    while !rests && clock::monotonic() - began < Duration::from_secs(10) {
        match world.worker.reconcile(&world.key, clock::monotonic()).await.unwrap() {
            Requeue::At(at) => tokio::time::sleep_until(at).await,
            Requeue::Idle => rests = true,
            next => panic!("it is managed and has its turn: {next:?}"),
        }
    }
    (world.writes() - before, rests)
}

/// A mutating webhook puts a field of the leader Service back with each write.
#[tokio::test(start_paused = true)]
async fn a_write_that_somebody_undoes_is_repeated_with_growing_pauses() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let path = format!("{SERVICES}/web-leader");
    let mut leader = world.api.get(&path).unwrap();
    leader["spec"]["sessionAffinity"] = json!("ClientIP");
    leader["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    let undone = world.api.put(SERVICES, leader);
    let undone: &'static str = Box::leak(undone.to_string().into_boxed_str());
    world.api.fail("PATCH", "web-leader", usize::MAX, Fault::Garbage(undone));
    world.sync().await;
    let (made, rests) = writes_within_10_s(&world).await;
    assert!(!rests, "it is tried again");
    assert!(made <= 20, "{made} writes within 10 s");
    let source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    assert!(source["status"].to_string().contains("the answer to each write lacks"), "{source}");
}

/// As server-side apply answers where another field manager owns the condition as well (for example
/// `before-first-apply`, after a user has cleared managedFields): it stays.
#[tokio::test(start_paused = true)]
async fn a_condition_that_cannot_be_taken_off_is_tried_with_growing_pauses() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let mut source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    source["status"] = json!({"conditions": [{
        "type": "zen-lead.io/LeaderReady", "status": "False", "reason": "QuotaExceeded",
        "message": "of before", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let kept = world.api.put(SERVICES, source);
    let kept: &'static str = Box::leak(kept.to_string().into_boxed_str());
    world.api.fail("PATCH", "web/status", usize::MAX, Fault::Garbage(kept));
    world.sync().await;
    let (made, _) = writes_within_10_s(&world).await;
    assert!(made <= 20, "{made} writes within 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_refused_patch_of_the_leader_service_is_told() {
    let world = World::new();
    world.reconcile().await.unwrap();
    tokio::time::advance(flips::SETTINGS_PAUSE).await;
    let mut source = world.api.get(&format!("{SERVICES}/web")).unwrap();
    source["spec"]["ports"] = json!([
        {"name": "a", "port": 80, "protocol": "TCP", "targetPort": 8080},
        {"name": "b", "port": 81, "protocol": "TCP", "targetPort": 8081},
    ]);
    world.api.put(SERVICES, source);
    // Once: the mirror, which comes next, is allowed.
    world.api.fail("PATCH", "web-leader", 1, Fault::Status(422, "Invalid", "field is immutable"));
    world.reconcile().await.unwrap();
    let leader = world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    assert_eq!(leader["spec"]["ports"].as_array().unwrap().len(), 1, "as it was: {leader}");
    let told = [leader, world.api.get(&format!("{SERVICES}/web")).unwrap()]
        .iter()
        .any(|s| s["status"].to_string().contains("immutable"));
    assert!(told, "no condition says that the leader Service is not as it is asked for");
}
