//! Which sources may have their first leader Service made now; the others wait for their turn.
//!
//! kube-apiserver counts all addresses in use for each Service it makes (`Used` in
//! pkg/registry/core/service/ipallocator/ipallocator.go of 1.37), and goes on with a call whose caller
//! has gone. With thousands of Services, as many creations at once as there are workers all run into
//! the deadline of an attempt, and none ever succeeds; and no worker is left for a lost leader.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use crate::names::ServiceKey;
use crate::shrink;

/// The turns of one process.
pub struct Turns {
    /// How many may have a turn at the same time.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    having: HashSet<ServiceKey>,
    waiting: VecDeque<ServiceKey>,
}

/// How a source is woken.
type Wake<'a> = &'a (dyn Fn(ServiceKey) + Send + Sync);

/// The turn of a source. When it ends, however that comes, the longest-waiting one has it and is woken.
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
        let given = self.state.lock().having.contains(key);
        given.then(|| Turn { turns: self, key, wake })
    }

    /// A turn, or `None`: then this source waits for one.
    pub fn ask<'a>(&'a self, key: &'a ServiceKey, wake: Wake<'a>) -> Option<Turn<'a>> {
        let mut state = self.state.lock();
        if state.having.len() < self.limit {
            state.having.insert(key.clone());
        } else if !state.having.contains(key) {
            if !state.waiting.contains(key) {
                state.waiting.push_back(key.clone());
            }
            return None;
        }
        Some(Turn { turns: self, key, wake })
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
        state.having.remove(self.key);
        let next = state.waiting.pop_front();
        shrink::queue(&mut state.waiting);
        state.having.extend(next.clone());
        drop(state);
        // It has its turn until the reconcile that this brings about has ended, whatever that finds.
        if let Some(next) = next {
            (self.wake)(next);
        }
    }
}
