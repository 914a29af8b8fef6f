//! The phases of the shutdown, for the tasks that wait for them.
//!
//! `lifecycle` moves from phase to phase.

use std::sync::Arc;

use tokio::sync::watch;

/// A phase of the shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    #[default]
    Running,
    /// Unready, but still serving clients that do not know it yet.
    Draining,
    /// Accepts no new requests, finishes those in flight.
    Closing,
    /// All tasks end.
    Stopping,
}

/// The phases of the shutdown of the process; clones share them.
#[derive(Clone, Default)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
    in_flight: Arc<watch::Sender<usize>>,
}

/// Held by a server until it has finished its requests; the workers stop only after that.
pub struct Serving {
    in_flight: Arc<watch::Sender<usize>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.in_flight.send_modify(|n| *n -= 1);
    }
}

impl Shutdown {
    /// In the phase [`Phase::Running`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the shutdown; only the first call has an effect.
    pub fn trigger(&self, reason: &str) {
        if self.advance(Phase::Draining) {
            tracing::info!(reason, "shutting down");
        }
    }

    /// Waits until the shutdown begins.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until no new requests may be accepted.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Waits until tasks must end.
    pub async fn stopping(&self) {
        self.reached(Phase::Stopping).await;
    }

    /// Whether the shutdown has begun.
    #[cfg(test)]
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Whether tasks may end.
    pub fn is_closing(&self) -> bool {
        *self.phase.borrow() >= Phase::Closing
    }

    /// A guard that a server holds until it has finished its requests.
    pub fn serving(&self) -> Serving {
        self.in_flight.send_modify(|n| *n += 1);
        Serving { in_flight: Arc::clone(&self.in_flight) }
    }

    /// Number of servers that have not finished their requests.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.in_flight.subscribe()
    }

    async fn reached(&self, phase: Phase) {
        // Fails only if the sender is dropped, and `self` holds it.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Moves forward to a phase; returns false if the shutdown was there already.
    pub fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let forward = *now < to;
            if forward {
                *now = to;
            }
            forward
        })
    }

    #[cfg(test)]
    pub(crate) fn advance_to_end(&self) {
        self.advance(Phase::Stopping);
    }
}
