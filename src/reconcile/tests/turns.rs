//! Making many leader Services: some at a time, each of them in the end, and nobody served waits.

use std::collections::BTreeSet;

use futures::future::join_all;
use tokio::sync::mpsc;

use super::*;

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

/// Reconciles these at once, then those that were woken, until nobody is any more.
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
    assert!(worker.turns.ask(&key(99), &*worker.wake).is_ok(), "all turns have come back");
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
    assert_eq!(worker.reconcile(&served, clock::monotonic()).await.unwrap(), Next::Idle);
    let others: Vec<ServiceKey> = (1..=AT_ONCE).map(key).collect();
    let taken: Vec<_> =
        others.iter().map(|key| worker.turns.ask(key, &*worker.wake).unwrap()).collect();
    let mut renamed = source();
    renamed["metadata"]["name"] = json!("s0");
    renamed["metadata"]["annotations"]["zen-lead.io/leader-service-name"] = json!("elsewhere");
    api.put(SERVICES, renamed);
    sync(&worker, &served).await;
    worker.reconcile(&served, clock::monotonic()).await.unwrap();
    assert!(api.get(&format!("{SERVICES}/elsewhere")).is_some());
    drop(taken);
}
