//! The keyed, delayed work queue: one entry a key, the earliest deadline wins, one worker a key, groups of keys
//! take turns; and behind those that are due a second lane, for what gives way to them.
//!
//! It does not know what a key or a group means, nor what is done with it.

mod ready;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use ready::Ready;

use crate::control::pressure::{LONGEST, Pressure};
use crate::platform::api::Delays;
use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::shrink;

/// The wait after the first failure of a key, before jitter.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest wait after failures of a key.
const MAX_DELAY: Duration = Duration::from_mins(1);

/// What a queue orders: keys in groups that take turns.
pub trait Keyed: Clone + Eq + Hash {
    /// What keys of one tenant have in common.
    type Group: Clone + Eq + Hash;

    /// The group of this key.
    fn group(&self) -> Self::Group;
}

impl Keyed for ServiceKey {
    type Group = Arc<str>;

    /// Its namespace.
    fn group(&self) -> Arc<str> {
        self.namespace.clone()
    }
}

/// A queue of keys with deadlines; clones share it.
pub struct Queue<K: Keyed> {
    shared: Arc<QueueShared<K>>,
}

struct QueueShared<K: Keyed> {
    state: Mutex<QueueState<K>>,
    changed: Notify,
    metrics: Arc<Metrics>,
    pressure: Arc<Pressure>,
    /// Keys of the second lane that workers may have at the same time.
    back_limit: usize,
}

struct QueueState<K: Keyed> {
    /// Where each waiting key waits: in `ready`, in `back` or, by its deadline, in `later`.
    waiting: HashMap<K, QueuePlace>,
    /// Keys that are due.
    ready: Ready<K>,
    /// Keys that give way to those, by the time since which they do; the number keeps equal times apart.
    back: BTreeMap<(Instant, u64), K>,
    /// Keys out of `back` that workers have.
    back_held: usize,
    /// The last key that was taken came out of `back`.
    back_last: bool,
    /// Keys that are not due yet; the number keeps equal deadlines apart.
    later: BTreeMap<(Instant, u64), K>,
    /// Keys a worker has, with the deadline added meanwhile.
    held: HashMap<K, Option<Instant>>,
    failing: HashMap<K, Delays>,
    next_number: u64,
    closed: bool,
}

enum QueuePlace {
    Ready,
    Back(Instant, u64),
    Later(Instant, u64),
}

/// A key that a worker has; no other worker gets it before this is dropped.
///
/// Dropped without [`WorkItem::done`] (a worker that panicked or was cancelled), the key counts as
/// failed and comes back.
pub struct WorkItem<K: Keyed> {
    shared: Arc<QueueShared<K>>,
    key: K,
    /// How long the key waited after it was due.
    pub waited: Duration,
    /// It was taken out of the second lane.
    back: bool,
    settled: bool,
}

impl<K: Keyed> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Keyed> Queue<K> {
    /// An empty queue for so many workers: a quarter of them, one at least, may have keys of the second lane.
    pub fn new(metrics: Arc<Metrics>, pressure: Arc<Pressure>, workers: usize) -> Self {
        let state = QueueState {
            waiting: HashMap::new(),
            ready: Ready::default(),
            back: BTreeMap::new(),
            back_held: 0,
            back_last: false,
            later: BTreeMap::new(),
            held: HashMap::new(),
            failing: HashMap::new(),
            next_number: 0,
            closed: false,
        };
        Self {
            shared: Arc::new(QueueShared {
                state: Mutex::new(state),
                changed: Notify::new(),
                metrics,
                pressure,
                back_limit: (workers / 4).max(1),
            }),
        }
    }

    /// Makes `key` due at `due`, or leaves it due earlier if it already is. A key that a worker has
    /// waits until that worker is through.
    pub fn add(&self, key: K, due: Instant) {
        self.shared.add(key, due);
    }

    /// Makes `key` due now.
    pub fn add_now(&self, key: K) {
        self.add(key, monotonic());
    }

    /// Waits for a key that is due and that no other worker has. `None` after [`Queue::close`].
    pub async fn pop(&self) -> Option<WorkItem<K>> {
        loop {
            let changed = self.shared.changed.notified();
            let next_due = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                let now = monotonic();
                state.promote(now);
                if let Some((key, due, back)) = self.shared.take(&mut state, now) {
                    let more = !state.ready.is_empty() || !state.back.is_empty();
                    drop(state);
                    if more {
                        // A deadline may have made several keys due at once, and only one worker
                        // was woken by it.
                        self.shared.changed.notify_one();
                    }
                    let waited = now.saturating_duration_since(due);
                    if !back {
                        self.shared.metrics.queue_waited(waited);
                    }
                    let shared = Arc::clone(&self.shared);
                    return Some(WorkItem { shared, key, waited, back, settled: false });
                }
                let timer = state.later.keys().next().map(|(due, _)| *due);
                timer.into_iter().chain(self.shared.back_due(&state)).min()
            };
            match next_due {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    /// Ends the queue: every present and later [`Queue::pop`] returns `None`.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_waiters();
        // `notify_waiters` does not reach a pop that is between its look and its wait.
        self.shared.changed.notify_one();
    }

    /// Numbers of keys: waiting (due or not yet), in work, and with failures behind them.
    pub fn sizes(&self) -> [usize; 3] {
        let state = self.shared.state.lock();
        [state.waiting.len(), state.held.len(), state.failing.len()]
    }

    /// Number of keys that are due and that no worker has, those of the second lane included.
    pub fn depth(&self) -> usize {
        let mut state = self.shared.state.lock();
        state.promote(monotonic());
        state.ready.len() + state.back.len()
    }
}

impl<K: Keyed> QueueShared<K> {
    fn add(&self, key: K, due: Instant) {
        let mut state = self.state.lock();
        if let Some(again) = state.held.get_mut(&key) {
            *again = Some(again.map_or(due, |earlier| earlier.min(due)));
            return;
        }
        let changed = state.put(key, due, monotonic());
        self.counted(&state);
        drop(state);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Takes the key that comes next, with the time since which it is due and whether it is of the second
    /// lane.
    fn take(&self, state: &mut QueueState<K>, now: Instant) -> Option<(K, Instant, bool)> {
        let overdue = |(since, _): &(Instant, u64)| *since + LONGEST <= now;
        let late = state.back.keys().next().is_some_and(overdue);
        // One that has waited too long takes turns with those that are due.
        let back_first = late && (state.ready.is_empty() || !state.back_last);
        let back = state.back_held < self.back_limit
            && (back_first || (state.ready.is_empty() && self.pressure.calm_at(None).is_none()));
        let (key, due) = if back && let Some(((since, _), key)) = state.back.pop_first() {
            state.back_held += 1;
            state.back_last = true;
            (key, since)
        } else {
            state.back_last = false;
            state.ready.pop()?
        };
        let back = state.back_last;
        state.waiting.remove(&key);
        shrink::map(&mut state.waiting);
        state.held.insert(key.clone(), None);
        self.counted(state);
        Some((key, due, back))
    }

    /// When a key of the second lane may be taken, if none is due before.
    fn back_due(&self, state: &QueueState<K>) -> Option<Instant> {
        let (since, _) = state.back.keys().next().filter(|_| state.back_held < self.back_limit)?;
        let calm = self.pressure.calm_at(None);
        Some(calm.map_or(*since, |calm| calm.min(*since + LONGEST)))
    }

    fn counted(&self, state: &QueueState<K>) {
        self.metrics.set_queue_depth(state.ready.len() + state.back.len());
        self.pressure.set_waiting(state.ready.len());
    }

    /// Lets go of a key, and puts it back at the earlier of `again` and what was added meanwhile; or, where
    /// `back` says since when it has waited and nothing is due, into the second lane.
    fn release(&self, item: &WorkItem<K>, again: Option<Instant>, back: Option<Instant>) {
        let mut state = self.state.lock();
        state.back_held -= usize::from(item.back);
        let added = state.held.remove(&item.key).flatten();
        let (due, now) = (added.into_iter().chain(again).min(), monotonic());
        match (due, back) {
            // A later look is left to the one that comes of it.
            (due, Some(since)) if due.is_none_or(|due| due > now) => {
                state.put_back(item.key.clone(), since);
            }
            (Some(due), _) => _ = state.put(item.key.clone(), due, now),
            (None, _) => {}
        }
        self.counted(&state);
        drop(state);
        // Another key of the second lane may have waited for this one.
        self.changed.notify_one();
    }
}

impl<K: Keyed> QueueState<K> {
    /// Puts a key that no worker has into its place; false when it already waits there.
    fn put(&mut self, key: K, due: Instant, now: Instant) -> bool {
        match self.waiting.get(&key) {
            Some(QueuePlace::Ready) => return false,
            Some(QueuePlace::Later(earlier, _)) if *earlier <= due => return false,
            Some(QueuePlace::Back(..)) if due > now => return false,
            Some(QueuePlace::Back(since, number)) => _ = self.back.remove(&(*since, *number)),
            Some(QueuePlace::Later(later, number)) => _ = self.later.remove(&(*later, *number)),
            None => {}
        }
        if due <= now {
            self.waiting.insert(key.clone(), QueuePlace::Ready);
            self.ready.push(key, due);
        } else {
            self.next_number += 1;
            self.waiting.insert(key.clone(), QueuePlace::Later(due, self.next_number));
            self.later.insert((due, self.next_number), key);
        }
        true
    }

    /// Puts a key that no worker has, and that waits nowhere, into the second lane.
    fn put_back(&mut self, key: K, since: Instant) {
        self.next_number += 1;
        self.waiting.insert(key.clone(), QueuePlace::Back(since, self.next_number));
        self.back.insert((since, self.next_number), key);
    }

    /// Moves what has become due to the ready keys.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry() {
            let (due, _) = *first.key();
            if due > now {
                return;
            }
            let key = first.remove();
            self.waiting.insert(key.clone(), QueuePlace::Ready);
            self.ready.push(key, due);
        }
    }
}

impl<K: Keyed> WorkItem<K> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The work is done: earlier failures of the key are forgotten, and it comes back at `again`
    /// (or earlier, if it was added meanwhile).
    pub fn done(mut self, again: Option<Instant>) {
        self.settled = true;
        {
            let failing = &mut self.shared.state.lock().failing;
            failing.remove(&self.key);
            shrink::map(failing);
        }
        self.shared.release(&self, again, None);
    }

    /// What is left to do gives way to keys that are due, as it has since then. Its failures are neither
    /// forgotten nor more.
    pub fn give_way(mut self, since: Instant) {
        self.settled = true;
        self.shared.release(&self, None, Some(since));
    }

    /// Nothing was done: the key waits for something else, and comes back when it is added, or at
    /// `again`. Its failures are neither forgotten nor more.
    pub fn put_aside(mut self, again: Option<Instant>) {
        self.settled = true;
        self.shared.release(&self, again, None);
    }

    /// The work failed: the key comes back after a wait that doubles with each failure in a row,
    /// from 50 ms to 60 s with jitter, but not before `not_before` (a `Retry-After`). Returns the
    /// wait; a key that is added meanwhile comes back earlier.
    pub fn fail(mut self, not_before: Option<Instant>) -> Duration {
        self.settled = true;
        self.put_back(not_before)
    }

    fn put_back(&self, not_before: Option<Instant>) -> Duration {
        let now = monotonic();
        let wait = {
            let mut state = self.shared.state.lock();
            let delays = state
                .failing
                .entry(self.key.clone())
                .or_insert_with(|| Delays::new(FIRST_DELAY, MAX_DELAY));
            delays.next_delay()
        };
        let due = not_before.map_or(now + wait, |t| t.max(now + wait));
        self.shared.release(self, Some(due), None);
        due - now
    }
}

impl<K: Keyed> Drop for WorkItem<K> {
    fn drop(&mut self) {
        if !self.settled {
            self.put_back(None);
        }
    }
}
