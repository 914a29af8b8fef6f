//! What a reconcile reads before it writes, and when it waits for its watches instead.

use super::standing::{LEADER, Pair, SLICE};
use super::*;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The lists of a namespace among these calls.
fn lists<'a>(calls: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    let kinds = ["/services", "/pods", "/endpointslices"];
    let is_list = |call: &&str| call.contains("GET ") && kinds.iter().any(|k| call.ends_with(k));
    calls.into_iter().map(String::as_str).filter(is_list).collect()
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_made_and_deleted_without_a_list_of_its_namespace() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5)).await;
    assert_eq!(pair.routed().as_deref(), Some("a"));
    let reads = pair.calls.iter().filter(|(_, call)| call.contains(" GET ")).count();
    assert!((3..=4).contains(&reads), "{}", pair.list(0, pair.calls.len()));
    let mut source = pair.api.get(&format!("{SERVICES}/web")).unwrap();
    source["metadata"]["annotations"]["zen-lead.io/enabled"] = json!("false");
    pair.api.put(SERVICES, source);
    pair.run(Duration::from_secs(5)).await;
    assert!(pair.api.get(LEADER).is_none());
    let calls = pair.calls.iter().map(|(_, call)| call);
    assert_eq!(lists(calls), [""; 0], "{}", pair.list(0, pair.calls.len()));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_as_it_is_known_is_read_with_all_of_its_namespace() {
    let mut pair = Pair::new();
    pair.watch().await;
    // The watches have not brought this yet.
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    let next = pair.workers[0].reconcile(&pair.key, clock::monotonic()).await;
    let later = pair.workers[1].reconcile(&pair.key, clock::monotonic()).await;
    assert!(next.is_ok() && later.is_ok());
    assert_eq!(pair.routed().as_deref(), Some("b"), "and not the pod that is known as ready");
}

/// Two replicas; a was the leader. Then a became unready and b ready, one replica has switched, and the other
/// has seen nothing but the slice. Returns the calls that the latter makes, if its other watches come
/// so much later.
async fn overtaken(later: Duration) -> Vec<String> {
    let mut pair = Pair::new();
    pair.api.put(PODS, pod("b", "10.0.0.2", false, 2));
    pair.run(Duration::from_secs(5)).await;
    assert_eq!(pair.routed().as_deref(), Some("a"));
    tokio::time::advance(Duration::from_mins(10)).await;
    let behind = pair.present().await;
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.api.put(PODS, pod("b", "10.0.0.2", true, 2));
    pair.watch().await;
    // The one of the first rank switches; another one waits for it.
    let (first, second) = (&pair.workers[0], &pair.workers[1]);
    assert!(first.reconcile(&pair.key, clock::monotonic()).await.is_ok());
    let second = if pair.routed().as_deref() == Some("b") { second } else { first };
    if std::ptr::eq(second, first) {
        assert!(pair.workers[1].reconcile(&pair.key, clock::monotonic()).await.is_ok());
    }
    assert_eq!(pair.routed().as_deref(), Some("b"));
    let slice = pair.api.get(&format!("{SLICES}/{SLICE}")).unwrap();
    let index = second.index.clone();
    *index.write() = behind;
    index.write().apply_slice(serde_json::from_value::<EndpointSlice>(slice).unwrap());
    let (before, now) = (pair.api.seen().len(), pair.present().await);
    let watch = async {
        tokio::time::sleep(later).await;
        *index.write() = now;
    };
    let (next, ()) = tokio::join!(second.reconcile(&pair.key, clock::monotonic()), watch);
    assert!(next.is_ok());
    assert_eq!(pair.routed().as_deref(), Some("b"));
    pair.api.seen()[before..].iter().map(|s| format!("{} {}", s.verb, s.path)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_overtaken_decision_waits_for_its_watches_before_it_reads() {
    assert_eq!(overtaken(Duration::from_millis(100)).await, [""; 0]);
    let calls = overtaken(Duration::from_secs(1)).await;
    assert_eq!(calls.len(), 3, "the namespace is read: {calls:?}");
}

/// Another client changes the slice; the watch of it comes so much later than the refusal of a switch.
async fn refused(later: Duration) -> Vec<String> {
    let mut pair = Pair::served().await;
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    pair.watch().await;
    let mut slice = pair.api.get(&format!("{SLICES}/{SLICE}")).unwrap();
    slice["metadata"]["labels"]["team"] = json!("blue");
    pair.api.put(SLICES, slice);
    let (before, now) = (pair.api.seen().len(), pair.present().await);
    let index = pair.workers.each_ref().map(|worker| worker.index.clone());
    let watch = async {
        tokio::time::sleep(later).await;
        for index in &index {
            *index.write() = now.clone();
        }
    };
    let key = pair.key.clone();
    let switch = async {
        for worker in &pair.workers {
            assert!(worker.reconcile(&key, clock::monotonic()).await.is_ok());
        }
    };
    tokio::join!(switch, watch);
    pair.run(Duration::from_secs(1)).await;
    assert_eq!(pair.routed().as_deref(), Some("b"));
    pair.api.seen()[before..].iter().map(|s| format!("{} {}", s.verb, s.path)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_overtaken_is_decided_on_what_the_watch_brings() {
    assert_eq!(lists(&refused(Duration::from_millis(100)).await), [""; 0]);
    assert_eq!(lists(&refused(Duration::from_secs(1)).await).len(), 3);
}

/// A leader Service is made by one replica; the other one makes it as well, and its watch is late by so much.
async fn made_twice(later: Duration) -> Vec<String> {
    let mut pair = Pair::new();
    pair.watch().await;
    let key = pair.key.clone();
    assert!(run_first(&pair).await.is_ok());
    let (before, now) = (pair.api.seen().len(), pair.present().await);
    let second = &pair.workers[usize::from(first_of(&pair) == 0)];
    tokio::time::advance(ranking::STAGGER_OF_CREATIONS).await;
    let index = second.index.clone();
    let watch = async {
        tokio::time::sleep(later).await;
        *index.write() = now;
    };
    let again = async {
        second.reconcile(&key, clock::monotonic()).await.unwrap();
        tokio::time::sleep(ranking::STAGGER_OF_CREATIONS).await;
        second.reconcile(&key, clock::monotonic()).await
    };
    let (next, ()) = tokio::join!(again, watch);
    assert!(next.is_ok());
    assert_eq!(pair.routed().as_deref(), Some("a"));
    pair.api.seen()[before..].iter().map(|s| format!("{} {}", s.verb, s.path)).collect()
}

fn first_of(pair: &Pair) -> usize {
    let rank = |w: &Reconciler| ranking::rank(&w.me, &w.replicas.read(), &pair.key);
    pair.workers.iter().position(|w| rank(w) == 0).unwrap()
}

async fn run_first(pair: &Pair) -> Result<Requeue, crate::platform::api::CallError> {
    pair.workers[first_of(pair)].reconcile(&pair.key, clock::monotonic()).await
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_other_replica_has_taken_is_waited_for_before_the_namespace_is_read() {
    // The first reconcile of the second one only begins to wait for the first one.
    let calls = made_twice(Duration::from_millis(1_800)).await;
    assert!(calls.iter().any(|call| call == &format!("POST {SERVICES}")), "{calls:?}");
    assert_eq!(lists(&calls), [""; 0], "{calls:?}");
    let calls = made_twice(Duration::from_millis(2_100)).await;
    assert_eq!(lists(&calls).len(), 3, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_another_replica_writes_first_is_not_read_for() {
    let mut pair = Pair::new();
    pair.watch().await;
    let second = usize::from(first_of(&pair) == 0);
    let index = pair.workers[second].index.clone();
    let behind = pair.present().await;
    pair.api.put(PODS, pod("b", "10.0.0.2", false, 2));
    pair.watch().await;
    assert!(run_first(&pair).await.is_ok());
    // Of all that the first one has made, the second one has seen the leader Service and its slice.
    *index.write() = behind;
    let seen = |path: &str| pair.api.get(path).unwrap();
    let mut leader = seen(LEADER);
    leader["status"] = json!({});
    leader["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !key.contains("leader-"));
    index.write().apply_service(serde_json::from_value::<Service>(leader).unwrap());
    let slice = seen(&format!("{SLICES}/{SLICE}"));
    index.write().apply_slice(serde_json::from_value::<EndpointSlice>(slice).unwrap());
    let (before, now) = (pair.api.seen().len(), clock::monotonic());
    let next = pair.workers[second].reconcile(&pair.key, now).await.unwrap();
    assert_eq!(next, Requeue::At(now + ranking::STAGGER_OF_COPIES));
    assert_eq!(pair.api.seen().len(), before, "nothing is read or written");
}
