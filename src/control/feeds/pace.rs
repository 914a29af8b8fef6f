//! How often pods that do not lead have a Service decided: at most once in a pause, the first time at once.
//!
//! A Service whose leader can take the traffic loses nothing by waiting. Which changes these are is the
//! index's to say (docs/decisions/settings-that-flip.md).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use zen_lead_core::names::ServiceKey;
use zen_lead_core::shrink;

/// The pause.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// When each Service was made due last.
#[derive(Default)]
pub(super) struct Pace {
    due: HashMap<ServiceKey, Instant>,
    /// The same in order, with those that were replaced.
    order: VecDeque<(Instant, ServiceKey)>,
}

impl Pace {
    /// When a Service is due for a change that is seen now.
    pub(super) fn due(&mut self, key: &ServiceKey, now: Instant) -> Instant {
        while let Some((at, old)) = self.order.front().filter(|(at, _)| *at + PAUSE <= now) {
            if self.due.get(old) == Some(at) {
                self.due.remove(old);
            }
            self.order.pop_front();
        }
        shrink::map(&mut self.due);
        shrink::queue(&mut self.order);
        if let Some(due) = self.due.get(key).filter(|due| **due > now) {
            return *due;
        }
        let due = self.due.get(key).map_or(now, |last| *last + PAUSE);
        self.due.insert(key.clone(), due);
        self.order.push_back((due, key.clone()));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock::monotonic;

    #[test]
    fn the_first_change_is_due_at_once_and_all_later_ones_of_a_pause_together() {
        let (mut pace, key) = (Pace::default(), ServiceKey::new("shop", "web"));
        let (start, ms) = (monotonic(), Duration::from_millis(1));
        let mut due = |at: u32| (pace.due(&key, start + at * ms) - start).as_millis();
        let seen = [0, 1, 500, 999, 1000, 1001, 1999, 2000, 3500, 3501, 5500].map(&mut due);
        assert_eq!(seen, [0, 1000, 1000, 1000, 2000, 2000, 2000, 3000, 4000, 4000, 5500]);
        let later = start + 10_000 * ms;
        let other = ServiceKey::new("shop", "api");
        assert_eq!(pace.due(&other, later), later);
        assert_eq!((pace.due.len(), pace.order.len()), (1, 1), "the rest is forgotten");
    }
}
