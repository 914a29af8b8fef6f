//! What the sinks queue.

use std::collections::BTreeSet;

use super::pods::PodSink;
use super::*;
use zen_lead_core::fixtures::{
    NAMESPACE, Object, PodFixture, ServiceFixture, foreign_slice, own_slice, pod, service,
};
use zen_lead_core::index::Limits;
use zen_lead_core::index::pod::NamespacedPod;
use zen_lead_core::keys::{self, setting};
use zen_lead_core::names::NameRule;

fn enabled(name: &str, namespace: &str) -> Service {
    let mut service = service(name);
    service.meta().namespace = Some(namespace.to_owned());
    service
        .meta()
        .annotations
        .get_or_insert_default()
        .insert(setting::ENABLED.to_owned(), "true".to_owned());
    service
}

fn feed() -> Feed {
    let metrics = Arc::new(Metrics::new().expect("names of metrics are distinct"));
    let mut index = Index::new(NameRule::Dns1123, Limits::default());
    for (name, namespace) in [("web", NAMESPACE), ("db", NAMESPACE), ("web", "other")] {
        index.apply_service(enabled(name, namespace));
    }
    Feed {
        index: Arc::new(parking_lot::RwLock::new(index)),
        queue: Queue::new(metrics.clone(), Arc::default(), 4),
        metrics,
        scope: Arc::default(),
        is_starting: Arc::new(|_| false),
        put_off: Arc::default(),
        pace: Arc::default(),
    }
}

fn pod_sink(feed: &Feed, scope: Option<&str>) -> PodSink {
    PodSink { feed: feed.clone(), scope: scope.map(Arc::from), ended: Arc::default() }
}

/// Everything that is due, taken off the queue.
async fn due(queue: &Queue<ServiceKey>) -> BTreeSet<String> {
    let mut due = BTreeSet::new();
    while queue.depth() > 0 {
        let held = queue.pop().await.expect("the queue is open");
        due.insert(held.key().to_string());
        held.done(None);
    }
    due
}

fn all() -> BTreeSet<String> {
    ["ns/web", "ns/db", "other/web"].map(str::to_owned).into()
}

// Which changes are worth a look is `ranking`'s; here, that it is asked about this replica.
#[test]
fn a_change_of_the_ready_replicas_has_what_newer_rules_wrote_looked_at() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (replicas, looked) = (Replicas::default(), Arc::new(AtomicUsize::new(0)));
    let look = {
        let looked = looked.clone();
        move || _ = looked.fetch_add(1, Ordering::Relaxed)
    };
    let sink = ReplicaSink::new("b", replicas.clone(), Box::new(look));
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for listed in [&["a"][..], &["a", "c"], &["a", "b", "c"], &["b", "c"]] {
        sink.apply(("s".into(), Some(names(listed))), Rv::default());
        seen.push(looked.load(Ordering::Relaxed));
        assert_eq!(*replicas.read(), names(listed));
    }
    assert_eq!(seen, [0, 0, 1, 2], "two others come, this one comes, another goes");
    // A slice that cannot be read any longer leaves the replicas as they were.
    sink.apply(("s".into(), None), Rv::default());
    assert_eq!(*replicas.read(), names(&["b", "c"]));
    sink.reset(vec![("s".into(), None), ("t".into(), None)], Rv::default());
    assert_eq!(*replicas.read(), names(&["b", "c"]));
}

// A worker may look at a Service after the list is in and before its watch says Live; it then waits.
// In a namespace without pods no other event ever comes.
#[tokio::test]
async fn pods_that_become_live_make_their_namespace_due() {
    let feed = feed();
    let sink = pod_sink(&feed, Some(NAMESPACE));
    sink.reset(Vec::new(), Rv::default());
    due(&feed.queue).await;
    sink.live();
    assert_eq!(due(&feed.queue).await, ["ns/db", "ns/web"].map(str::to_owned).into());
}

#[tokio::test]
async fn all_pods_that_become_live_make_everything_due() {
    let feed = feed();
    pod_sink(&feed, None).live();
    assert_eq!(due(&feed.queue).await, all());
}

#[tokio::test]
async fn services_and_slices_that_become_live_make_everything_due() {
    let feed = feed();
    ServiceSink::new(&feed).live();
    assert_eq!(due(&feed.queue).await, all());
    SliceSink(feed.clone()).live();
    assert_eq!(due(&feed.queue).await, all());
}

#[tokio::test]
async fn nothing_is_queued_while_a_namespace_starts_and_everything_once_when_it_has() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let starting = Arc::new(AtomicBool::new(true));
    let asked = starting.clone();
    let mut feed = feed();
    feed.is_starting = Arc::new(move |ns| ns == NAMESPACE && asked.load(Ordering::SeqCst));
    let sink = ServiceSink::new(&feed);
    sink.reset(Vec::new(), Rv::default());
    sink.live();
    assert_eq!(due(&feed.queue).await, ["other/web".to_owned()].into(), "that one has started");
    feed.look_at_put_off();
    assert!(due(&feed.queue).await.is_empty(), "it starts still");
    starting.store(false, Ordering::SeqCst);
    let pods = pod_sink(&feed, Some(NAMESPACE));
    pods.live();
    let both: BTreeSet<String> = ["ns/db", "ns/web"].map(str::to_owned).into();
    assert_eq!(due(&feed.queue).await, both);
    feed.look_at_put_off();
    assert!(due(&feed.queue).await.is_empty(), "once");
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_lead_wait_while_the_leader_serves_and_its_loss_does_not() {
    let feed = feed();
    let sink = pod_sink(&feed, Some(NAMESPACE));
    let step = |name: &str, ready, version: u64| {
        let pod = pod(name).readiness(ready, "2026-01-01T00:00:00Z".parse().unwrap());
        let version = Rv(version);
        sink.apply(sink.trim(Decoded::Object(pod.version(version.0))), version);
    };
    step("a", true, 10);
    step("b", true, 11);
    {
        let mut index = feed.index.write();
        index.apply_service(service("web-leader").leading("web", "uid-web"));
        index.apply_slice(own_slice("web-leader", &["a"]));
    }
    let both: BTreeSet<String> = ["ns/db", "ns/web"].map(str::to_owned).into();
    assert_eq!(due(&feed.queue).await, both);
    step("b", false, 12);
    assert_eq!(due(&feed.queue).await, both, "the first time at once");
    step("b", true, 13);
    assert_eq!(due(&feed.queue).await, ["ns/db".to_owned()].into(), "db has no leader");
    step("a", false, 14);
    assert_eq!(due(&feed.queue).await, both, "the leader is lost");
    step("b", false, 15);
    assert_eq!(due(&feed.queue).await, both, "no pod leads");
    tokio::time::advance(super::pace::PAUSE).await;
    assert_eq!(due(&feed.queue).await, BTreeSet::new(), "what was to wait was decided with it");
}

#[test]
fn what_is_read_of_a_service_or_a_slice_is_held_as_text_until_the_list_is_complete() {
    let feed = feed();
    let service = ServiceSink::new(&feed).trim(enabled("web", NAMESPACE).into());
    let service = service.and_then(Decoded::object).expect("it can be read");
    assert!(!service.kept.source().expect("it is enabled").object.is_open());
    let mut slice = foreign_slice("s", "web-leader");
    let manager = (kubernetes::SLICE_MANAGED_BY.to_owned(), keys::MANAGER.to_owned());
    slice.metadata.labels.get_or_insert_default().extend([manager]);
    let slice = SliceSink(feed).trim(slice.into());
    let slice = slice.and_then(Decoded::object).and_then(|placed| placed.kept).expect("it is tied");
    assert!(!slice.object.expect("it may be ours").is_open());
}

// Of two Services of a namespace one is dropped while the pods that the other one needs are not there; then
// that one is switched off, and no watch of pods ever starts.
#[tokio::test]
async fn what_was_put_off_is_queued_when_no_pods_are_needed_any_more() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let starting = Arc::new(AtomicBool::new(true));
    let asked = starting.clone();
    let mut feed = feed();
    feed.is_starting = Arc::new(move |_| asked.load(Ordering::SeqCst));
    let sink = ServiceSink::new(&feed);
    sink.delete(sink.trim(enabled("db", NAMESPACE).into()), Rv(5));
    assert!(due(&feed.queue).await.is_empty());
    starting.store(false, Ordering::SeqCst);
    feed.look_at_put_off();
    assert_eq!(due(&feed.queue).await, ["ns/web".to_owned()].into());
}

// Ending a task takes effect at its next pause; until then it may deliver once more.
#[tokio::test]
async fn a_watch_that_was_ended_brings_nothing_back() {
    let feed = feed();
    let before = feed.index.read().sizes();
    let sink = pod_sink(&feed, Some("passing"));
    let mut object = pod("a").version(5);
    object.metadata.namespace = Some("passing".to_owned());
    sink.reset(vec![NamespacedPod::trim_decoded(object.clone().into())], Rv(5));
    assert_eq!(feed.index.read().sizes().pods, before.pods + 1);
    sink.ended.store(true, std::sync::atomic::Ordering::SeqCst);
    feed.index.write().drop_pods(Some("passing"));
    assert_eq!(feed.index.read().sizes(), before);
    sink.apply(NamespacedPod::trim_decoded(object.clone().version(6).into()), Rv(6));
    sink.reset(vec![NamespacedPod::trim_decoded(object.clone().into())], Rv(7));
    sink.heard(Rv(8));
    assert_eq!(feed.index.read().sizes(), before);
}

#[test]
fn going_over_to_all_pods_leaves_nothing_of_namespaces_that_end_later() {
    let mut index = Index::new(NameRule::Dns1123, Limits::default());
    index.reset_pods(Some(NAMESPACE), &[pod("a").version(2)], Rv(5));
    index.reset_pods(None, &[pod("a").version(2)], Rv(9));
    index.drop_pods(Some(NAMESPACE));
    assert_eq!(index.sizes().pods, 1, "the other watch has them");
    index.delete_pod(&pod("a").version(11));
    assert_eq!(index.sizes(), zen_lead_core::index::Sizes::default());
}
