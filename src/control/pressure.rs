//! Whether leaders are being moved just now: then copies of what the slices say, repairs and Events wait, so
//! that the API server has nothing else to do (docs/decisions/lanes.md).
//!
//! Only two facts are kept. What waits, and in which order, is `queue`'s and the worker's business.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::platform::clock::monotonic;
use zen_lead_core::names::ServiceKey;

/// A leader that was moved this recently is seldom the last one of a burst.
const CALM: Duration = Duration::from_millis(100);
/// Longest time that anything waits for the pressure to end.
pub const LONGEST: Duration = Duration::from_secs(5);

/// The pressure in one process.
#[derive(Default)]
pub struct Pressure {
    /// Services that wait for a worker because something changed.
    waiting: AtomicUsize,
    moves: Mutex<Moves>,
}

/// The last times at which leaders were made or moved.
#[derive(Default)]
struct Moves {
    /// The last Service, and when.
    last: Option<(ServiceKey, Instant)>,
    /// When another Service than that one was the last.
    another: Option<Instant>,
}

impl Pressure {
    /// Sets the number of Services that wait for a worker because something changed.
    pub fn set_waiting(&self, number: usize) {
        self.waiting.store(number, Ordering::Relaxed);
    }

    /// This Service got a leader, or another one.
    pub fn moved(&self, key: &ServiceKey) {
        let mut moves = self.moves.lock();
        let before = moves.last.replace((key.clone(), monotonic()));
        if let Some((_, at)) = before.filter(|(other, _)| other != key) {
            moves.another = Some(at);
        }
    }

    /// When the last move is long enough ago; `None` where it is. Moves of this Service itself do not count.
    pub fn calm_at(&self, for_key: Option<&ServiceKey>) -> Option<Instant> {
        let moves = self.moves.lock();
        let last = moves.last.as_ref().filter(|(key, _)| Some(key) != for_key).map(|l| l.1);
        let at = last.or(moves.another)? + CALM;
        (at > monotonic()).then_some(at)
    }

    /// Whether what a Service has left to do since then gives way to leaders of others that are moved.
    pub fn is_before(&self, key: Option<&ServiceKey>, since: Instant) -> bool {
        let high = self.waiting.load(Ordering::Relaxed) > 0 || self.calm_at(key).is_some();
        high && monotonic() < since + LONGEST
    }

    /// Waits until the pressure has ended, at most until [`LONGEST`] after this time.
    pub async fn pass(&self, since: Instant) {
        while self.is_before(None, since) {
            let calm = self.calm_at(None).unwrap_or_else(|| monotonic() + CALM);
            tokio::time::sleep_until(calm.min(since + LONGEST)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_passes_when_it_is_calm_or_after_the_longest_time() {
        let pressure = Pressure::default();
        let start = monotonic();
        pressure.pass(start).await;
        assert_eq!(monotonic(), start, "nothing was moved");
        let [a, b] = ["a", "b"].map(|name| ServiceKey::new("shop", name));
        pressure.moved(&a);
        assert!(!pressure.is_before(Some(&a), start), "its own");
        assert!(pressure.is_before(Some(&b), start));
        pressure.moved(&b);
        pressure.moved(&b);
        assert!(pressure.is_before(Some(&b), start), "another one was moved, too");
        pressure.pass(start).await;
        assert_eq!(monotonic() - start, CALM);
        pressure.set_waiting(1);
        assert!(pressure.is_before(Some(&a), monotonic()));
        assert!(!pressure.is_before(Some(&a), start - LONGEST));
        let since = monotonic();
        pressure.pass(since).await;
        assert_eq!(monotonic() - since, LONGEST, "a queue that is never empty");
    }
}
