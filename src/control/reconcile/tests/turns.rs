//! Making many leader Services: some at a time, each of them in the end, and no served Service waits.

use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeSet;

use futures::future::join_all;
use tokio::sync::mpsc;

use super::*;
use zen_lead_core::version::Rv;

const WORKERS: usize = 16;
/// One lane is left for other namespaces.
const AT_ONCE: usize = 3;
/// For the API server to make one.
const SLOW: Duration = Duration::from_secs(4);

fn name(n: usize) -> String {
    format!("s{n}")
}

fn key(n: usize) -> ServiceKey {
    ServiceKey::new("shop", name(n).as_str())
}

/// So many sources of one pod, and a worker that knows them and whose wakes arrive in a channel.
async fn scene(
    number: usize,
) -> (FakeApi, Reconciler, mpsc::UnboundedReceiver<ServiceKey>, BTreeSet<ServiceKey>) {
    let api = FakeApi::new();
    api.put(PODS, pod("a", "10.0.0.1", true, 1));
    for n in 0..number {
        let mut source = source();
        source["metadata"]["name"] = json!(name(n));
        api.put(SERVICES, source);
    }
    let (mut worker, _) = worker(&api, "zl-0", &[]);
    let (sender, woken) = mpsc::unbounded_channel();
    worker.wake = Box::new(move |key| sender.send(key).unwrap());
    worker.turns = Turns::of(WORKERS);
    sync(&worker, &key(0)).await;
    (api, worker, woken, (0..number).map(key).collect())
}

fn creations(api: &FakeApi) -> usize {
    api.seen().iter().filter(|s| s.verb == "POST" && s.path == SERVICES).count()
}

/// Reconciles these at once, then those that were woken, until none is any more.
async fn until_rest(
    worker: &Reconciler,
    woken: &mut mpsc::UnboundedReceiver<ServiceKey>,
    mut keys: BTreeSet<ServiceKey>,
) {
    while !keys.is_empty() {
        let all = keys.iter().map(|key| worker.reconcile(key, clock::monotonic()));
        let _ = join_all(all).await;
        keys = drained(woken);
    }
}

/// Who was woken since the last time.
fn drained(woken: &mut mpsc::UnboundedReceiver<ServiceKey>) -> BTreeSet<ServiceKey> {
    std::iter::from_fn(|| woken.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_workers_but_one_make_leader_services_of_a_namespace_until_all_are_made() {
    let (api, worker, mut woken, keys) = scene(WORKERS).await;
    api.fail("POST", SERVICES, 99, Fault::Late(SLOW));
    let began = clock::monotonic();
    let watched = async {
        let mut seen = Vec::new();
        for _ in 0..WORKERS.div_ceil(AT_ONCE) {
            tokio::time::sleep(SLOW / 2).await;
            seen.push(creations(&api));
            tokio::time::sleep(SLOW / 2).await;
        }
        seen
    };
    let ((), seen) = tokio::join!(until_rest(&worker, &mut woken, keys), watched);
    assert_eq!(seen, [3, 6, 9, 12, 15, 16], "three at a time, each once");
    assert_eq!(clock::monotonic() - began, 6 * SLOW);
    for n in 0..WORKERS {
        let slice = api.get(&format!("{SLICES}/s{n}-leader-zen-lead-ipv4")).expect("it is led");
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "a");
    }
    assert_eq!(worker.turns.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_goes_on_where_nothing_is_made_after_all() {
    let (api, worker, mut woken, keys) = scene(WORKERS).await;
    // Those that wait are not wanted any longer once it is their turn; those that do not are refused.
    api.fail("POST", SERVICES, 99, Fault::Status(403, "Forbidden", "exceeded quota: q"));
    let first = keys.iter().map(|key| worker.reconcile(key, clock::monotonic()));
    join_all(first).await;
    assert!(worker.turns.waiting() > 0);
    for n in 1..WORKERS {
        api.remove(&format!("{SERVICES}/s{n}"));
    }
    sync(&worker, &key(0)).await;
    let left = drained(&mut woken);
    until_rest(&worker, &mut woken, left).await;
    assert_eq!(worker.turns.waiting(), 0);
    assert!(worker.turns.ask(&key(99), true, &*worker.wake).is_ok(), "all turns have come back");
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_is_cancelled_gives_its_turn_back() {
    let (api, worker, mut woken, keys) = scene(AT_ONCE + 1).await;
    api.fail("POST", SERVICES, AT_ONCE, Fault::Stall);
    let all = join_all(keys.iter().map(|key| worker.reconcile(key, clock::monotonic())));
    tokio::time::timeout(Duration::from_secs(1), all).await.unwrap_err();
    assert_eq!(woken.try_recv().as_ref().ok(), keys.last());
}

#[tokio::test(start_paused = true)]
async fn who_is_served_already_waits_for_no_turn() {
    let (api, worker, _woken, _) = scene(1).await;
    let served = key(0);
    assert_eq!(worker.reconcile(&served, clock::monotonic()).await.unwrap(), Requeue::Idle);
    let others: Vec<ServiceKey> = (1..=AT_ONCE).map(key).collect();
    let taken: Vec<_> =
        others.iter().map(|key| worker.turns.ask(key, true, &*worker.wake).unwrap()).collect();
    tokio::time::advance(flips::SETTINGS_PAUSE).await;
    let mut renamed = source();
    renamed["metadata"]["name"] = json!("s0");
    renamed["metadata"]["annotations"]["zen-lead.io/leader-service-name"] = json!("elsewhere");
    api.put(SERVICES, renamed);
    sync(&worker, &served).await;
    worker.reconcile(&served, clock::monotonic()).await.unwrap();
    assert!(api.get(&format!("{SERVICES}/elsewhere")).is_some());
    drop(taken);
}

/// Another namespace with one source and one pod.
const OTHER: &str = "b";

fn put_other(api: &FakeApi) -> ServiceKey {
    for (collection, mut object) in [
        ("/api/v1/namespaces/b/services", source()),
        ("/api/v1/namespaces/b/pods", pod("p", "10.0.1.1", true, 1)),
    ] {
        object["metadata"]["namespace"] = json!(OTHER);
        api.put(collection, object);
    }
    ServiceKey::new(OTHER, "web")
}

fn sync_both(worker: &Reconciler, api: &FakeApi) {
    let mut index = Index::new(NameRule::Dns1123, Limits::default());
    for namespace in ["shop", OTHER] {
        for (resource, kind) in [("services", 0), ("pods", 1)] {
            for object in api.all(&format!("/api/v1/namespaces/{namespace}/{resource}")) {
                _ = if kind == 0 {
                    index.apply_service(serde_json::from_value::<Service>(object).unwrap())
                } else {
                    index.apply_pod(&serde_json::from_value(object).unwrap())
                };
            }
        }
    }
    for namespace in ["shop", OTHER] {
        index.pods_heard(Some(namespace), Rv(api.version()));
    }
    *worker.index.write() = index;
}

/// Workers as the process has them: each takes a key, reconciles it, and puts it back as it says.
async fn work(
    worker: Arc<Reconciler>,
    queue: crate::control::queue::Queue<ServiceKey>,
    until: Instant,
) {
    let one = || async {
        while let Some(held) = queue.pop().await {
            let key = held.key().clone();
            match worker.reconcile(&key, clock::monotonic()).await {
                Ok(next) => next.let_go(held),
                Err(_) => _ = held.fail(None),
            }
        }
    };
    let all = join_all((0..WORKERS).map(|_| one()));
    tokio::select! { _ = all => {}, () = tokio::time::sleep_until(until) => {} }
}

/// 40 sources in one namespace, one in another that comes two seconds later: how long that one waits for
/// its leader, and the calls of the 40 in each second.
async fn delay_of_another(fault: Fault) -> (Duration, Vec<usize>) {
    let (api, mut worker, _, keys) = scene(40).await;
    let other = put_other(&api);
    let queue = crate::control::queue::Queue::new(worker.metrics.clone(), Arc::default(), 4);
    let wake = queue.clone();
    worker.wake = Box::new(move |key| wake.add_now(key));
    worker.room = Room::of(WORKERS);
    worker.trust = Box::new(|_| Trust::Live);
    sync_both(&worker, &api);
    let worker = Arc::new(worker);
    api.fail("POST", SERVICES, usize::MAX, fault);
    let began = clock::monotonic();
    for key in &keys {
        queue.add_now(key.clone());
    }
    let end = began + Duration::from_mins(1);
    let watched = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        queue.add_now(other);
        let asked = clock::monotonic();
        let slice =
            "/apis/discovery.k8s.io/v1/namespaces/b/endpointslices/web-leader-zen-lead-ipv4";
        while api.get(slice).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(clock::monotonic() < end, "it is never led");
        }
        let delay = clock::monotonic() - asked;
        let mut calls = Vec::new();
        while clock::monotonic() < end - Duration::from_secs(5) {
            let before = creations(&api);
            tokio::time::sleep(Duration::from_secs(5)).await;
            calls.push(creations(&api) - before);
        }
        (delay, calls)
    };
    let ((), seen) = tokio::join!(work(worker, queue.clone(), end), watched);
    seen
}

#[tokio::test(start_paused = true)]
async fn creations_that_hang_in_one_namespace_delay_no_other() {
    let (delay, _) = delay_of_another(Fault::Stall).await;
    assert!(delay <= Duration::from_secs(1), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn creations_that_are_refused_in_one_namespace_delay_no_other_and_their_pauses_grow() {
    let down = "Internal error occurred: failed calling webhook \"v.example.com\": no endpoints";
    let (delay, calls) = delay_of_another(Fault::Status(500, "InternalError", down)).await;
    assert!(delay <= Duration::from_secs(1), "{delay:?}");
    // 40 sources at 2, 6, 14, 30 and 62 s.
    assert!(calls.iter().all(|calls| *calls <= 80), "{calls:?}");
    assert!(calls.iter().sum::<usize>() <= 40 * 4, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_in_one_namespace_leave_workers_for_the_others() {
    let (api, mut worker, _woken, _) = scene(1).await;
    worker.room = Room::of(WORKERS);
    let seats: Vec<_> = (0..WORKERS).map(key).collect();
    let other = put_other(&api);
    let mut taken = Vec::new();
    for key in &seats {
        taken.extend(worker.room.enter(key, &*worker.wake));
    }
    assert_eq!(taken.len(), WORKERS * 3 / 4);
    assert!(worker.room.enter(&other, &*worker.wake).is_some());
    // They took long: from now on there are few, for a while.
    tokio::time::advance(Duration::from_secs(10)).await;
    drop(taken);
    let few: Vec<_> =
        seats.iter().filter_map(|key| worker.room.enter(key, &*worker.wake)).collect();
    assert_eq!(few.len(), WORKERS / 8);
    drop(few);
    tokio::time::advance(Duration::from_secs(31)).await;
    let many: Vec<_> =
        seats.iter().filter_map(|key| worker.room.enter(key, &*worker.wake)).collect();
    assert_eq!(many.len(), WORKERS * 3 / 4);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_worker_is_woken_and_its_loss_was_noticed_before() {
    let (_api, mut worker, mut woken, _) = scene(1).await;
    worker.room = Room::of(1);
    let (first, second) = (key(7), key(0));
    let seat = worker.room.enter(&first, &*worker.wake).unwrap();
    let noticed = clock::monotonic();
    assert_eq!(worker.reconcile(&second, noticed).await, Ok(Requeue::Waits(None)));
    assert!(woken.try_recv().is_err());
    drop(seat);
    assert_eq!(woken.try_recv().ok(), Some(second.clone()));
    assert_eq!(worker.reconcile(&second, clock::monotonic()).await, Ok(Requeue::Idle));
}

#[tokio::test(start_paused = true)]
async fn one_refusal_says_that_a_namespace_is_being_deleted_for_all_its_sources() {
    let (api, worker, mut woken, keys) = scene(10).await;
    api.fail("POST", SERVICES, usize::MAX, Fault::Body(403, ENDING));
    // One after the other, as with one lane.
    for key in &keys {
        assert_eq!(worker.reconcile(key, clock::monotonic()).await, Ok(Requeue::Idle));
    }
    assert_eq!(creations(&api), 1);
    let calls = api.seen().len();
    for key in &keys {
        assert_eq!(worker.reconcile(key, clock::monotonic()).await, Ok(Requeue::Idle));
    }
    assert_eq!(api.seen().len(), calls, "not one call more");
    assert_eq!(worker.turns.waiting(), 0);
    assert!(drained(&mut woken).is_empty());

    // The namespace is made anew.
    api.forgive();
    api.remove(&format!("{SERVICES}/s3"));
    let mut anew = source();
    anew["metadata"]["name"] = json!("s3");
    api.put(SERVICES, anew);
    sync(&worker, &key(3)).await;
    worker.reconcile(&key(3), clock::monotonic()).await.unwrap();
    assert!(api.get(&format!("{SERVICES}/s3-leader")).is_some());
}

#[tokio::test(start_paused = true)]
async fn turns_go_round_by_namespace_and_trouble_stays_beside_the_lanes() {
    let turns = Turns::of(WORKERS);
    let wake = |_: ServiceKey| {};
    let key = |namespace: &str, n: usize| ServiceKey::new(namespace, format!("s{n}").as_str());
    let a: Vec<_> = (0..6).map(|n| key("a", n)).collect();
    let (b, c) = (key("b", 0), key("c", 0));
    let mut having: Vec<_> = a.iter().filter_map(|key| turns.ask(key, true, &wake).ok()).collect();
    assert_eq!(having.len(), 3, "all lanes but one");
    let of_b = turns.ask(&b, true, &wake).unwrap();
    assert!(turns.ask(&c, true, &wake).is_err(), "all lanes are taken");
    // A lane becomes free: "a" asked first, but it has three of them; then it is its turn again.
    drop(having.pop());
    assert!(turns.given(&a[3], &wake).is_some(), "the longest-waiting namespace that may have one");
    // Slow ones leave their lanes, so "c" gets one.
    tokio::time::advance(Duration::from_millis(500)).await;
    let of_c = turns.ask(&c, true, &wake).unwrap();
    // "b" fails: its next ones have one turn at a time, and take no lane.
    of_b.failed();
    drop((of_b, of_c));
    let next: Vec<_> = (1..4).map(|n| key("b", n)).collect();
    let got: Vec<_> = next.iter().map(|key| turns.ask(key, true, &wake).is_ok()).collect();
    assert_eq!(
        got.iter().filter(|got| **got).count(),
        0,
        "the slow ones of \"a\" are beside the lanes too"
    );
    drop(having);
    let given: Vec<_> = next.iter().filter_map(|key| turns.given(key, &wake)).collect();
    assert_eq!(given.len(), 1, "one at a time");
}

#[tokio::test(start_paused = true)]
async fn a_replica_makes_its_own_in_their_order_and_helps_with_others_from_their_end() {
    let turns = Turns::of(1);
    let wake = |_: ServiceKey| {};
    let keys: Vec<_> = (0..7).map(|n| ServiceKey::new("a", format!("s{n}").as_str())).collect();
    let mut turn = turns.ask(&keys[0], true, &wake).ok();
    for (n, key) in keys.iter().enumerate().skip(1) {
        // s2, s4 and s6 are the other replica's.
        assert!(turns.ask(key, n % 2 == 1, &wake).is_err());
    }
    let mut order = Vec::new();
    for _ in 1..keys.len() {
        drop(turn.take());
        let next =
            keys.iter().position(|key| turns.given(key, &wake).map(|t| turn = Some(t)).is_some());
        order.push(next.unwrap());
    }
    assert_eq!(order, [1, 3, 5, 6, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_second_replica_makes_a_first_leader_a_second_later() {
    let mut pair = standing::Pair::new();
    pair.watch().await;
    let rank = |w: &Reconciler| ranking::rank(&w.me, &w.replicas.read(), &pair.key);
    let second = pair.workers.iter().find(|w| rank(w) == 1).unwrap();
    let now = clock::monotonic();
    let next = second.reconcile(&pair.key, now).await.unwrap();
    assert_eq!(next, Requeue::At(now + ranking::STAGGER_OF_CREATIONS));
    tokio::time::advance(ranking::STAGGER_OF_CREATIONS).await;
    second.reconcile(&pair.key, now).await.unwrap();
    assert_eq!(pair.routed().as_deref(), Some("a"));
}
