//! How many workers one namespace may have at the same time, so that calls that hang in one (an
//! admission webhook there that does not answer) leave workers for the others.
//!
//! Who may make its first leader Service is `turns`' business.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::turns::Wake;
use crate::platform::clock;
use zen_lead_core::names::ServiceKey;

/// A reconcile that takes longer than this hangs, as far as others are concerned.
const SLOW: Duration = Duration::from_secs(4);
/// So long after such a one a namespace has few workers.
const WARY: Duration = Duration::from_secs(30);

/// The workers of one process.
pub struct Room {
    workers: usize,
    inside: Mutex<HashMap<Arc<str>, Seats>>,
}

#[derive(Default)]
struct Seats {
    running: usize,
    waiting: VecDeque<ServiceKey>,
    slow_at: Option<Instant>,
}

/// A worker that a namespace has.
pub(super) struct Seat<'a> {
    room: &'a Room,
    key: &'a ServiceKey,
    wake: Wake<'a>,
    began: Instant,
}

impl Room {
    /// For so many workers.
    pub fn of(workers: usize) -> Self {
        Self { workers, inside: Mutex::default() }
    }

    /// Three of four, or one of eight after something hung there; one at least.
    fn most(&self, inside: &Seats, now: Instant) -> usize {
        let wary = inside.slow_at.is_some_and(|at| now - at < WARY);
        let most = if wary { self.workers / 8 } else { self.workers - self.workers / 4 };
        most.max(1)
    }

    /// A worker for this Service, or `None`: then it is woken when it can have one.
    pub(super) fn enter<'a>(&'a self, key: &'a ServiceKey, wake: Wake<'a>) -> Option<Seat<'a>> {
        let now = clock::monotonic();
        let mut all = self.inside.lock();
        let inside = all.entry(key.namespace.clone()).or_default();
        if inside.running >= self.most(inside, now) {
            if !inside.waiting.contains(key) {
                inside.waiting.push_back(key.clone());
            }
            return None;
        }
        inside.running += 1;
        Some(Seat { room: self, key, wake, began: now })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let now = clock::monotonic();
        let mut all = self.room.inside.lock();
        let Some(inside) = all.get_mut(&self.key.namespace) else { return };
        inside.running -= 1;
        if now - self.began >= SLOW {
            inside.slow_at = Some(now);
        }
        let free = self.room.most(inside, now).saturating_sub(inside.running);
        let next: Vec<_> = inside.waiting.drain(..free.min(inside.waiting.len())).collect();
        let wary = inside.slow_at.is_some_and(|at| now - at < WARY);
        if inside.running == 0 && inside.waiting.is_empty() && !wary {
            all.remove(&self.key.namespace);
        }
        drop(all);
        next.into_iter().for_each(self.wake);
    }
}
