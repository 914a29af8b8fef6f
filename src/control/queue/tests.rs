//! Tests of the queue: by example, and over random schedules.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// The tens of a key are its group.
impl Keyed for u8 {
    type Group = u8;

    fn group(&self) -> u8 {
        self / 10
    }
}

fn queue() -> Queue<u8> {
    Queue::new(Arc::new(Metrics::new().unwrap()), Arc::default(), 8)
}

const MS: Duration = Duration::from_millis(1);

/// What `pop` gives within a time that is long when the clock is paused.
async fn next(queue: &Queue<u8>) -> Option<WorkItem<u8>> {
    tokio::time::timeout(Duration::from_mins(10), queue.pop()).await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_wins_and_a_key_is_there_once() {
    let queue = queue();
    let start = monotonic();
    queue.add(1, start + 100 * MS);
    queue.add(1, start + 20 * MS);
    queue.add(1, start + 50 * MS);
    queue.add(2, start + 30 * MS);
    let one = next(&queue).await.unwrap();
    assert_eq!((*one.key(), monotonic() - start), (1, 20 * MS));
    one.done(None);
    let two = next(&queue).await.unwrap();
    assert_eq!((*two.key(), monotonic() - start), (2, 30 * MS));
    two.done(None);
    assert!(next(&queue).await.is_none(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_held_waits_for_its_worker_and_comes_back() {
    let queue = queue();
    queue.add_now(1);
    let held = next(&queue).await.unwrap();
    queue.add(1, monotonic() + 500 * MS);
    queue.add_now(1);
    assert!(next(&queue).await.is_none(), "nobody else gets it");
    held.done(Some(monotonic() + Duration::from_mins(1)));
    let again = next(&queue).await.unwrap();
    assert_eq!(*again.key(), 1);
    assert!(again.waited >= Duration::from_mins(10), "due since it was added: {:?}", again.waited);
    again.done(None);
    assert!(next(&queue).await.is_none(), "the earliest deadline replaced the others");
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer_and_success_forgets_them() {
    let queue = queue();
    queue.add_now(1);
    for nominal in [50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000] {
        let before = monotonic();
        let wait = next(&queue).await.unwrap().fail(None);
        let (low, high) = (nominal / 2, (nominal * 3 / 2 + 1).min(60_000));
        assert!(
            wait >= Duration::from_millis(low) && wait <= Duration::from_millis(high),
            "{wait:?} is not in {low}..={high} ms"
        );
        assert!(monotonic() - before <= Duration::from_millis(high));
    }
    next(&queue).await.unwrap().done(Some(monotonic()));
    assert!(next(&queue).await.unwrap().fail(None) <= 76 * MS, "starts again from 50 ms");
}

#[tokio::test(start_paused = true)]
async fn a_failed_key_is_taken_up_at_once_when_something_happens_to_it() {
    let queue = queue();
    queue.add_now(1);
    let pause = monotonic() + Duration::from_secs(30);
    let wait = next(&queue).await.unwrap().fail(Some(pause));
    assert!(wait >= Duration::from_secs(30), "a pause the server asked for is kept: {wait:?}");
    queue.add_now(1);
    assert!(next(&queue).await.unwrap().waited < MS);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_cancelled_does_not_take_its_key_along() {
    let queue = queue();
    queue.add_now(1);
    drop(next(&queue).await.unwrap());
    assert_eq!(*next(&queue).await.unwrap().key(), 1);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_all_workers_waiting_or_not() {
    let queue = queue();
    queue.add(1, monotonic() + Duration::from_secs(9999));
    let mut workers = JoinSet::new();
    for _ in 0..3 {
        let queue = queue.clone();
        workers.spawn(async move { queue.pop().await.is_none() });
    }
    tokio::time::sleep(MS).await;
    queue.close();
    while let Some(ended) = workers.join_next().await {
        assert!(ended.unwrap());
    }
    assert!(queue.pop().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_depth_counts_what_is_due() {
    let queue = queue();
    queue.add_now(1);
    queue.add_now(2);
    queue.add(3, monotonic() + Duration::from_secs(1));
    assert_eq!(queue.depth(), 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(queue.depth(), 3);
    next(&queue).await.unwrap().done(None);
    assert_eq!(queue.depth(), 2);
    let text = queue.shared.metrics.exposition().unwrap();
    assert!(text.contains("zen_lead_queue_depth 2\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_always_due_delays_another_by_one_key() {
    let queue = queue();
    for key in 0..10 {
        queue.add_now(key);
    }
    let mut order = Vec::new();
    for round in 0..30 {
        if round == 4 {
            queue.add_now(20);
            queue.add_now(21);
            queue.add_now(30);
        }
        let held = next(&queue).await.unwrap();
        let key = *held.key();
        order.push(key);
        // The first group flaps: each of its keys is due again at once.
        held.done((key < 10).then(monotonic));
    }
    assert_eq!(order[..10], [0, 1, 2, 3, 4, 20, 30, 5, 21, 6], "{order:?}");
    assert!(order[9..].iter().all(|key| *key < 10), "{order:?}");
    assert_eq!(queue.depth(), 10);
}

/// One step of a schedule, after a pause of so many milliseconds.
#[derive(Clone, Debug)]
enum Step {
    Add { key: u8, delay: u64 },
    Nothing,
}

/// How a worker handles a key.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Done,
    Again(u64),
    Fail,
    GiveWay,
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let add = (prop::sample::select(vec![0u8, 1, 2, 10, 11, 20]), 0u64..200)
        .prop_map(|(key, delay)| Step::Add { key, delay });
    let step = prop_oneof![4 => add, 1 => Just(Step::Nothing)];
    prop::collection::vec((0u64..40, step), 1..60)
}

fn manners() -> impl Strategy<Value = Vec<(u64, Manner)>> {
    let manner = prop_oneof![
        4 => Just(Manner::Done),
        1 => (1u64..100).prop_map(Manner::Again),
        2 => Just(Manner::Fail),
        2 => Just(Manner::GiveWay),
        1 => Just(Manner::Drop),
    ];
    prop::collection::vec((0u64..30, manner), 1..40)
}

#[derive(Default)]
struct Seen {
    held: HashSet<u8>,
    /// The earliest deadline of each key that no worker has taken since.
    owed: HashMap<u8, Instant>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Over random schedules with three workers: no key is held twice at once, none comes before
    /// its earliest deadline, and in the end nothing is owed.
    #[test]
    fn nothing_is_lost_nothing_is_early_nothing_is_held_twice(
        steps in steps(),
        manners in manners(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let queue = queue();
            let seen = Arc::new(Mutex::new(Seen::default()));
            let manners = Arc::new(Mutex::new(VecDeque::from(manners)));
            let mut workers = JoinSet::new();
            for _ in 0..3 {
                let (queue, seen, manners) =
                    (queue.clone(), Arc::clone(&seen), Arc::clone(&manners));
                workers.spawn(async move {
                    while let Some(held) = queue.pop().await {
                        let key = *held.key();
                        {
                            let mut seen = seen.lock();
                            assert!(seen.held.insert(key), "{key} is held twice");
                            let due = seen.owed.remove(&key).expect("a key nobody added");
                            assert!(monotonic() >= due, "{key} came early");
                        }
                        let next = manners.lock().pop_front();
                        let (busy, manner) = next.unwrap_or((0, Manner::Done));
                        tokio::time::sleep(Duration::from_millis(busy)).await;
                        let mut seen = seen.lock();
                        seen.held.remove(&key);
                        let mut owe = |due: Instant| {
                            let owed = seen.owed.entry(key).or_insert(due);
                            *owed = due.min(*owed);
                        };
                        match manner {
                            Manner::Done => held.done(None),
                            Manner::Again(delay) => {
                                let due = monotonic() + Duration::from_millis(delay);
                                owe(due);
                                held.done(Some(due));
                            }
                            Manner::Fail => {
                                let wait = held.fail(None);
                                owe(monotonic() + wait);
                            }
                            Manner::GiveWay => {
                                owe(monotonic());
                                held.give_way(monotonic());
                            }
                            // A key that is dropped comes back after at least half the first wait.
                            Manner::Drop => {
                                owe(monotonic() + FIRST_DELAY / 2);
                                drop(held);
                            }
                        }
                    }
                });
            }
            for (pause, step) in steps {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if let Step::Add { key, delay } = step {
                    let due = monotonic() + Duration::from_millis(delay);
                    let mut seen = seen.lock();
                    let owed = seen.owed.entry(key).or_insert(due);
                    *owed = due.min(*owed);
                    queue.add(key, due);
                }
            }
            // Longer than the longest wait a schedule can run up.
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert!(seen.lock().owed.is_empty(), "lost: {:?}", seen.lock().owed);
            queue.close();
            while let Some(ended) = workers.join_next().await {
                ended.unwrap();
            }
        });
    }
}

fn pressed() -> (Queue<u8>, Arc<Pressure>) {
    let pressure = Arc::<Pressure>::default();
    (Queue::new(Arc::new(Metrics::new().unwrap()), pressure.clone(), 8), pressure)
}

/// Takes a key and lets it give way.
async fn gives_way(queue: &Queue<u8>, key: u8) {
    queue.add_now(key);
    let held = next(queue).await.unwrap();
    assert_eq!(*held.key(), key);
    held.give_way(monotonic());
}

#[tokio::test(start_paused = true)]
async fn what_gives_way_comes_after_what_is_due_and_after_leaders_that_are_moved() {
    let (queue, pressure) = pressed();
    let start = monotonic();
    pressure.moved(&zen_lead_core::names::ServiceKey::new("shop", "web"));
    gives_way(&queue, 1).await;
    queue.add(2, start + 30 * MS);
    queue.add_now(3);
    let order = [(3, 0), (2, 30), (1, 100)];
    for (key, at) in order {
        let held = next(&queue).await.unwrap();
        assert_eq!((u32::from(*held.key()), monotonic() - start), (key, at * MS));
        held.done(None);
    }
    assert!(next(&queue).await.is_none(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn what_gave_way_too_long_takes_turns_with_what_is_due() {
    let (queue, _) = pressed();
    for key in 0..4 {
        gives_way(&queue, key).await;
    }
    tokio::time::advance(LONGEST).await;
    (10..14).for_each(|key| queue.add_now(key));
    let mut order = Vec::new();
    for _ in 0..8 {
        let held = next(&queue).await.unwrap();
        order.push(*held.key());
        held.done(None);
    }
    assert_eq!(order, [0, 10, 1, 11, 2, 12, 3, 13]);
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_workers_has_what_gave_way_and_a_change_brings_a_key_forward() {
    let (queue, pressure) = pressed();
    for key in 0..5 {
        gives_way(&queue, key).await;
    }
    queue.add_now(4);
    let changed = next(&queue).await.unwrap();
    assert_eq!(*changed.key(), 4, "before the others");
    let first = next(&queue).await.unwrap();
    let second = next(&queue).await.unwrap();
    assert!(next(&queue).await.is_none(), "two of eight workers");
    assert!(!pressure.is_before(None, monotonic()), "these are no pressure on each other");
    drop((changed, first));
    assert_eq!(*next(&queue).await.unwrap().key(), 2, "one is free again");
    second.done(None);
    assert_eq!(*next(&queue).await.unwrap().key(), 3);
}
