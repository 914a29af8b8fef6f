//! Which sources may have their first leader Service made now; the others wait for their turn.
//!
//! kube-apiserver counts all addresses in use for each Service it makes (`Used` in
//! pkg/registry/core/service/ipallocator/ipallocator.go of 1.37), and goes on with a call whose caller
//! has gone. With thousands of Services, as many creations at once as there are workers all run into
//! the deadline of an attempt, and none ever succeeds; and no worker is left for a lost leader.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::names::ServiceKey;

/// The turns of one process; clones share them.
#[derive(Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

struct State {
    /// How many may have a turn at the same time.
    limit: usize,
    having: HashSet<ServiceKey>,
    waiting: VecDeque<ServiceKey>,
}

/// The turn of a source. When it ends, however that comes, the longest-waiting one has it and is woken.
pub struct Turn<'a> {
    turns: Turns,
    key: ServiceKey,
    wake: &'a (dyn Fn(ServiceKey) + Send + Sync),
}

impl Turns {
    /// A quarter of this many workers, but one at least.
    pub fn of(workers: usize) -> Self {
        let limit = (workers / 4).max(1);
        let state = State { limit, having: HashSet::new(), waiting: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The turn that was given to this source while it waited, if it was.
    pub fn given<'a>(
        &self,
        key: &ServiceKey,
        wake: &'a (dyn Fn(ServiceKey) + Send + Sync),
    ) -> Option<Turn<'a>> {
        let given = self.state.lock().having.contains(key);
        given.then(|| Turn { turns: self.clone(), key: key.clone(), wake })
    }

    /// A turn, or `None`: then this source waits for one.
    pub fn ask<'a>(
        &self,
        key: &ServiceKey,
        wake: &'a (dyn Fn(ServiceKey) + Send + Sync),
    ) -> Option<Turn<'a>> {
        let mut state = self.state.lock();
        if state.having.len() < state.limit {
            state.having.insert(key.clone());
        } else if !state.having.contains(key) {
            if !state.waiting.contains(key) {
                state.waiting.push_back(key.clone());
            }
            return None;
        }
        drop(state);
        Some(Turn { turns: self.clone(), key: key.clone(), wake })
    }

    /// Sources that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.having.remove(&self.key);
        let next = state.waiting.pop_front();
        state.having.extend(next.clone());
        if state.waiting.is_empty() {
            state.waiting.shrink_to_fit();
        }
        drop(state);
        // It has its turn until the reconcile that this brings about has ended, whatever that finds.
        if let Some(next) = next {
            (self.wake)(next);
        }
    }
}
