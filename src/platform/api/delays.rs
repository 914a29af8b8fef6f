//! Growing, jittered waits: the only place that uses the crate `backoff`.
//!
//! The crate is no longer maintained (RUSTSEC-2025-0012), so this module exposes nothing of it.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::exponential::{ExponentialBackoff, ExponentialBackoffBuilder};

/// Waits that double from `first` to `max`. Each is between 0.5 and 1.5 times its nominal length, and never
/// above `max`.
#[derive(Debug)]
pub struct Delays {
    inner: ExponentialBackoff<backoff::SystemClock>,
    max: Duration,
}

impl Delays {
    /// A new series of waits.
    pub fn new(first: Duration, max: Duration) -> Self {
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_max_interval(max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Self { inner, max }
    }

    /// The next wait.
    pub fn next_delay(&mut self) -> Duration {
        // `None` means that a maximum elapsed time is over, and there is no maximum.
        self.inner.next_backoff().unwrap_or(self.max).min(self.max)
    }

    /// Starts again with the first wait.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_jitter_and_stay_below_the_maximum() {
        let mut delays = Delays::new(Duration::from_millis(50), Duration::from_secs(5));
        for nominal in [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = delays.next_delay();
            let (low, high) = (nominal / 2, (nominal * 3 / 2 + 1).min(5000));
            assert!(
                wait >= Duration::from_millis(low) && wait <= Duration::from_millis(high),
                "{wait:?} is not between {low} and {high} ms"
            );
        }
        delays.reset();
        assert!(delays.next_delay() <= Duration::from_millis(76));
    }

    #[test]
    fn waits_differ() {
        let mut different = std::collections::HashSet::new();
        for _ in 0..50 {
            different
                .insert(Delays::new(Duration::from_secs(1), Duration::from_secs(9)).next_delay());
        }
        assert!(different.len() > 40, "{} different waits of 50", different.len());
    }
}
