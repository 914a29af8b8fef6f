//! The keys that are due: groups take turns, one key each, and within a group the longest-waiting key is first.
//!
//! A group with thousands of keys that are due delays a key of another group by one key, not by thousands
//! (docs/decisions/turns-to-create.md). Deadlines and what workers have are the queue's business.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::Keyed;
use zen_lead_core::shrink;

/// The keys that are due, with the time since which each is.
pub(super) struct Ready<K: Keyed> {
    groups: HashMap<K::Group, VecDeque<(K, Instant)>>,
    /// The groups that have keys, the next one first.
    round: VecDeque<K::Group>,
    len: usize,
}

impl<K: Keyed> Default for Ready<K> {
    fn default() -> Self {
        Self { groups: HashMap::new(), round: VecDeque::new(), len: 0 }
    }
}

impl<K: Keyed> Ready<K> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a key behind the others of its group.
    pub fn push(&mut self, key: K, due: Instant) {
        let group = key.group();
        let keys = self.groups.entry(group.clone()).or_default();
        if keys.is_empty() {
            self.round.push_back(group);
        }
        keys.push_back((key, due));
        self.len += 1;
    }

    /// Takes the first key of the group whose turn it is.
    pub fn pop(&mut self) -> Option<(K, Instant)> {
        let group = self.round.pop_front()?;
        let keys = self.groups.get_mut(&group)?;
        let taken = keys.pop_front();
        if keys.is_empty() {
            self.groups.remove(&group);
            shrink::map(&mut self.groups);
        } else {
            shrink::queue(keys);
            self.round.push_back(group);
        }
        shrink::queue(&mut self.round);
        self.len -= usize::from(taken.is_some());
        taken
    }
}
