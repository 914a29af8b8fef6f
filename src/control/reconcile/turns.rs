//! Which sources may have their first leader Service made now; the others wait for their turn.
//!
//! kube-apiserver counts all addresses in use for each Service it makes (`Used` in
//! pkg/registry/core/service/ipallocator/ipallocator.go of 1.37), and goes on with a call whose caller
//! has gone. With thousands of Services, as many creations at once as there are workers all run into
//! the deadline of an attempt, and none ever succeeds; and no worker is left for a lost leader.
//!
//! Turns go round by namespace. A namespace whose creations fail or hang has one turn at a time, beside
//! the lanes of the others (docs/decisions/turns-to-create.md).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::platform::clock;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::shrink;

/// A turn that lasts longer than this is slow: it leaves the lanes of the others.
const SLOW: Duration = Duration::from_millis(500);
/// So long after its last failure a namespace stays beside the lanes.
const TROUBLED: Duration = Duration::from_mins(10);

/// The turns of one process.
pub struct Turns {
    /// How many may have a turn at the same time.
    limit: usize,
    state: Mutex<TurnsState>,
}

#[derive(Default)]
struct TurnsState {
    having: HashMap<ServiceKey, Instant>,
    /// Namespaces with sources that wait, in the order in which they are served, one source a round.
    round: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, Waiting>,
    /// When the creations of a namespace failed last.
    troubled: HashMap<Arc<str>, Instant>,
}

/// The sources of a namespace that wait.
#[derive(Default)]
struct Waiting {
    /// Those of which this replica comes first, in their order.
    own: VecDeque<ServiceKey>,
    /// Those it only helps with, the last one first: the replica that comes first begins at the other end, so
    /// that both seldom make the same one.
    others: Vec<ServiceKey>,
}

impl Waiting {
    fn all(&self) -> impl Iterator<Item = &ServiceKey> {
        self.own.iter().chain(&self.others)
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }

    fn pop(&mut self) -> Option<ServiceKey> {
        self.own.pop_front().or_else(|| self.others.pop())
    }
}

/// How a source is woken.
pub(super) type Wake<'a> = &'a (dyn Fn(ServiceKey) + Send + Sync);

/// The turn of a source. When it ends, for whatever reason, the next source gets it and is woken.
pub struct Turn<'a> {
    turns: &'a Turns,
    key: &'a ServiceKey,
    wake: Wake<'a>,
}

impl Turns {
    /// A quarter of this many workers, but one at least.
    pub fn of(workers: usize) -> Self {
        Self { limit: (workers / 4).max(1), state: Mutex::default() }
    }

    /// The turn that was given to this source while it waited, if it was.
    pub fn given<'a>(&'a self, key: &'a ServiceKey, wake: Wake<'a>) -> Option<Turn<'a>> {
        let given = self.state.lock().having.contains_key(key);
        given.then(|| Turn { turns: self, key, wake })
    }

    /// A turn; or when to ask again, if it is not woken before: then this source waits for one. `first` is
    /// whether this replica comes first for it.
    ///
    /// # Errors
    /// No turn: the time at which a turn that lasts will be slow, if any will.
    pub fn ask<'a>(
        &'a self,
        key: &'a ServiceKey,
        first: bool,
        wake: Wake<'a>,
    ) -> Result<Turn<'a>, Option<Instant>> {
        let now = clock::monotonic();
        let mut state = self.state.lock();
        if !state.having.contains_key(key) {
            state.wait(key, first);
            // Those that wait longer go first, where they can.
            let others = state.give(self.limit, now);
            let mine = state.having.contains_key(key);
            let again = state.slow_at(now);
            drop(state);
            others.into_iter().filter(|other| other != key).for_each(wake);
            if !mine {
                return Err(again);
            }
        }
        Ok(Turn { turns: self, key, wake })
    }

    /// Sources that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.values().map(|waiting| waiting.all().count()).sum()
    }
}

impl TurnsState {
    fn wait(&mut self, key: &ServiceKey, first: bool) {
        let waiting = self.waiting.entry(key.namespace.clone()).or_default();
        if waiting.all().any(|other| other == key) {
            return;
        }
        if waiting.is_empty() {
            self.round.push_back(key.namespace.clone());
        }
        if first {
            waiting.own.push_back(key.clone());
        } else {
            waiting.others.push(key.clone());
        }
    }

    /// Gives the turns that are free, a source of each namespace after the other.
    fn give(&mut self, limit: usize, now: Instant) -> Vec<ServiceKey> {
        let mut given = Vec::new();
        let mut passed = 0;
        while passed < self.round.len() {
            let Some(namespace) = self.round.pop_front() else { break };
            if !self.may_have(&namespace, limit, now) {
                self.round.push_back(namespace);
                passed += 1;
                continue;
            }
            passed = 0;
            let waiting = self.waiting.entry(namespace.clone()).or_default();
            if let Some(key) = waiting.pop() {
                self.having.insert(key.clone(), now);
                given.push(key);
            }
            if waiting.is_empty() {
                self.waiting.remove(&namespace);
                shrink::map(&mut self.waiting);
            } else {
                self.round.push_back(namespace);
            }
        }
        shrink::queue(&mut self.round);
        given
    }

    /// A namespace may have all lanes but one, so that one that comes later finds a lane. One in trouble
    /// has one turn, and all of those together have half as many as there are lanes.
    fn may_have(&self, namespace: &str, limit: usize, now: Instant) -> bool {
        let (mut own, mut lanes, mut beside) = (0, 0, 0);
        for (key, since) in &self.having {
            own += usize::from(*key.namespace == *namespace);
            let slow = self.is_troubled(&key.namespace, now) || now - *since >= SLOW;
            *(if slow { &mut beside } else { &mut lanes }) += 1;
        }
        let most_beside = (limit / 2).max(1);
        if self.is_troubled(namespace, now) {
            return own == 0 && beside < most_beside;
        }
        // More slow ones than may be beside the lanes take lanes.
        let lanes = lanes + usize::saturating_sub(beside, most_beside);
        let most = limit.saturating_sub(1).max(1);
        own < most && lanes < limit
    }

    fn is_troubled(&self, namespace: &str, now: Instant) -> bool {
        self.troubled.get(namespace).is_some_and(|at| now - *at < TROUBLED)
    }

    /// When the next turn will be slow.
    fn slow_at(&self, now: Instant) -> Option<Instant> {
        self.having.values().map(|since| *since + SLOW).filter(|at| *at > now).min()
    }
}

impl Turn<'_> {
    /// The creation failed.
    pub(super) fn failed(&self) {
        let now = clock::monotonic();
        self.turns.state.lock().troubled.insert(self.key.namespace.clone(), now);
    }

    /// The leader Service was made.
    pub(super) fn succeeded(&self) {
        let troubled = &mut self.turns.state.lock().troubled;
        troubled.remove(&self.key.namespace);
        shrink::map(troubled);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = clock::monotonic();
        let mut state = self.turns.state.lock();
        state.having.remove(self.key);
        shrink::map(&mut state.having);
        state.troubled.retain(|_, at| now - *at < TROUBLED);
        let next = state.give(self.turns.limit, now);
        drop(state);
        // Each has its turn until the reconcile that this brings about has ended, whatever that finds.
        next.into_iter().for_each(self.wake);
    }
}
