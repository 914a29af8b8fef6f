//! The only place that reads clocks: wall time for times written to objects, monotonic time for waits.
//!
//! The core takes `now` as a value instead. Nothing here sleeps.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A source of wall-clock time, shared by all tasks of the process.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed: Option<Arc<Mutex<Timestamp>>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::set`] moves it.
    pub fn fixed(at: Timestamp) -> Self {
        Self { fixed: Some(Arc::new(Mutex::new(at))) }
    }

    /// Moves a fixed clock; has no effect on the machine's clock.
    pub fn set(&self, at: Timestamp) {
        if let Some(fixed) = &self.fixed {
            *fixed.lock() = at;
        }
    }

    /// The present time of day.
    pub fn now(&self) -> Timestamp {
        match &self.fixed {
            Some(fixed) => *fixed.lock(),
            #[allow(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
            None => Timestamp::now(),
        }
    }
}

/// The present monotonic time (tokio's, so that tests can pause it).
#[allow(clippy::disallowed_methods, reason = "the one reader of the monotonic clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}
