//! The keyed, delayed work queue: one entry a key, the earliest deadline wins, one worker a key.
//!
//! It does not know what a key means, nor what is done with it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::platform::api::Delays;
use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
use zen_lead_core::shrink;

/// The wait after the first failure of a key, before jitter.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest wait after failures of a key.
const MAX_DELAY: Duration = Duration::from_mins(1);

/// A queue of keys with deadlines; clones share it.
pub struct Queue<K: Clone + Eq + Hash> {
    shared: Arc<QueueShared<K>>,
}

struct QueueShared<K> {
    state: Mutex<QueueState<K>>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

struct QueueState<K> {
    /// Where each waiting key waits: in `ready` or, by its deadline, in `later`.
    waiting: HashMap<K, QueuePlace>,
    /// Keys that are due, the longest-waiting first, with the time since which they are due.
    ready: VecDeque<(K, Instant)>,
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
    Later(Instant, u64),
}

/// A key that a worker has; no other worker gets it before this is dropped.
///
/// Dropped without [`WorkItem::done`] (a worker that panicked or was cancelled), the key counts as
/// failed and comes back.
pub struct WorkItem<K: Clone + Eq + Hash> {
    shared: Arc<QueueShared<K>>,
    key: K,
    /// How long the key waited after it was due.
    pub waited: Duration,
    settled: bool,
}

impl<K: Clone + Eq + Hash> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let state = QueueState {
            waiting: HashMap::new(),
            ready: VecDeque::new(),
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
                if let Some((key, due)) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    shrink::map(&mut state.waiting);
                    shrink::queue(&mut state.ready);
                    state.held.insert(key.clone(), None);
                    let more = !state.ready.is_empty();
                    self.shared.metrics.set_queue_depth(state.ready.len());
                    drop(state);
                    if more {
                        // A deadline may have made several keys due at once, and only one worker
                        // was woken by it.
                        self.shared.changed.notify_one();
                    }
                    let waited = now.saturating_duration_since(due);
                    self.shared.metrics.queue_waited(waited);
                    let shared = Arc::clone(&self.shared);
                    return Some(WorkItem { shared, key, waited, settled: false });
                }
                state.later.keys().next().map(|(due, _)| *due)
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

    /// Number of keys that are due and that no worker has.
    pub fn depth(&self) -> usize {
        let mut state = self.shared.state.lock();
        state.promote(monotonic());
        state.ready.len()
    }
}

impl<K: Clone + Eq + Hash> QueueShared<K> {
    fn add(&self, key: K, due: Instant) {
        let mut state = self.state.lock();
        if let Some(again) = state.held.get_mut(&key) {
            *again = Some(again.map_or(due, |earlier| earlier.min(due)));
            return;
        }
        let changed = state.put(key, due, monotonic());
        self.metrics.set_queue_depth(state.ready.len());
        drop(state);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Lets go of a key, and puts it back at the earlier of `again` and what was added meanwhile.
    fn release(&self, key: &K, again: Option<Instant>) {
        let mut state = self.state.lock();
        let added = state.held.remove(key).flatten();
        let Some(due) = added.into_iter().chain(again).min() else { return };
        state.put(key.clone(), due, monotonic());
        self.metrics.set_queue_depth(state.ready.len());
        drop(state);
        self.changed.notify_one();
    }
}

impl<K: Clone + Eq + Hash> QueueState<K> {
    /// Puts a key that no worker has into its place; false when it already waits there.
    fn put(&mut self, key: K, due: Instant, now: Instant) -> bool {
        match self.waiting.get(&key) {
            Some(QueuePlace::Ready) => return false,
            Some(QueuePlace::Later(earlier, _)) if *earlier <= due => return false,
            Some(QueuePlace::Later(later, number)) => {
                self.later.remove(&(*later, *number));
            }
            None => {}
        }
        if due <= now {
            self.waiting.insert(key.clone(), QueuePlace::Ready);
            self.ready.push_back((key, due));
        } else {
            self.next_number += 1;
            self.waiting.insert(key.clone(), QueuePlace::Later(due, self.next_number));
            self.later.insert((due, self.next_number), key);
        }
        true
    }

    /// Moves what has become due to the end of the ready keys.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry() {
            let (due, _) = *first.key();
            if due > now {
                return;
            }
            let key = first.remove();
            self.waiting.insert(key.clone(), QueuePlace::Ready);
            self.ready.push_back((key, due));
        }
    }
}

impl<K: Clone + Eq + Hash> WorkItem<K> {
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
        self.shared.release(&self.key, again);
    }

    /// Nothing was done: the key waits for something else, and comes back when it is added, or at
    /// `again`. Its failures are neither forgotten nor more.
    pub fn put_aside(mut self, again: Option<Instant>) {
        self.settled = true;
        self.shared.release(&self.key, again);
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
        self.shared.release(&self.key, Some(due));
        due - now
    }
}

impl<K: Clone + Eq + Hash> Drop for WorkItem<K> {
    fn drop(&mut self) {
        if !self.settled {
            self.put_back(None);
        }
    }
}
