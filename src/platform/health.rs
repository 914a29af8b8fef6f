//! ReadyReport by named gates.
//!
//! Other modules open and close the gates; nothing is polled here. No HTTP: the admin server sends the
//! answers.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;

/// A condition of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Gate {
    /// The watch of Services is synced and alive.
    ServicesWatch,
    /// The watch of EndpointSlices is synced and alive.
    #[strum(serialize = "endpointslices-watch")]
    SlicesWatch,
    /// The pod watches needed at start-up have synced, and none is lost.
    PodsWatches,
    /// A certificate for the webhook is loaded.
    Certificate,
    /// The webhook configurations carry the CA of that certificate.
    CaBundle,
    /// The socket of the webhook is bound.
    WebhookSocket,
    /// The socket of probes and metrics is bound.
    AdminSocket,
}

zen_lead_core::texts!(all Gate);

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyReport {
    /// The process is about to end.
    pub draining: bool,
    /// The gates that are closed, in the order in which they were given.
    pub missing: Vec<&'static str>,
    /// Whether requests should be sent here.
    pub ready: bool,
}

/// The gates of the process; clones share them.
#[derive(Clone)]
pub struct Health {
    inner: Arc<HealthInner>,
}

struct HealthInner {
    state: Mutex<HealthState>,
    started: tokio::time::Instant,
    metrics: Arc<Metrics>,
}

struct HealthState {
    /// The gates of this process, and whether each is open.
    gates: Vec<(Gate, bool)>,
    draining: bool,
    was_ready: bool,
}

impl Health {
    /// Starts with all `gates` closed, and measures the time to the first readiness from here.
    pub fn new(gates: &[Gate], metrics: Arc<Metrics>) -> Self {
        let gates = gates.iter().map(|gate| (*gate, false)).collect();
        let state = Mutex::new(HealthState { gates, draining: false, was_ready: false });
        Self { inner: Arc::new(HealthInner { state, started: monotonic(), metrics }) }
    }

    /// Opens or closes a gate; ignores a gate that this process does not have.
    pub fn set(&self, gate: Gate, open: bool) {
        let mut state = self.inner.state.lock();
        let Some(entry) = state.gates.iter_mut().find(|(g, _)| *g == gate) else { return };
        if entry.1 == open {
            return;
        }
        entry.1 = open;
        if open {
            tracing::info!(gate = gate.as_str(), "readiness gate opened");
        } else {
            tracing::warn!(gate = gate.as_str(), "readiness gate closed");
        }
        if !state.was_ready && state.missing().next().is_none() {
            state.was_ready = true;
            let took = monotonic().duration_since(self.inner.started);
            self.inner.metrics.set_ready_after(took);
            tracing::info!(seconds = took.as_secs_f64(), "ready");
        }
    }

    /// Makes the process unready until its end.
    pub fn drain(&self) {
        self.inner.state.lock().draining = true;
    }

    /// Whether requests should be sent here, and if not, why not.
    pub fn readiness(&self) -> ReadyReport {
        let state = self.inner.state.lock();
        let missing: Vec<_> = state.missing().map(Gate::as_str).collect();
        let ready = missing.is_empty() && !state.draining;
        ReadyReport { draining: state.draining, missing, ready }
    }
}

impl HealthState {
    fn missing(&self) -> impl Iterator<Item = Gate> {
        self.gates.iter().filter(|(_, open)| !open).map(|(gate, _)| *gate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn missing_gates_are_named_until_all_are_open() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Health::new(&[Gate::ServicesWatch, Gate::Certificate], Arc::clone(&metrics));
        let closed = vec!["services-watch", "certificate"];
        assert_eq!(
            health.readiness(),
            ReadyReport { draining: false, missing: closed, ready: false }
        );
        health.set(Gate::Certificate, true);
        health.set(Gate::AdminSocket, false);
        assert_eq!(health.readiness().missing, ["services-watch"]);
        assert!(!health.readiness().ready);
        tokio::time::sleep(Duration::from_secs(3)).await;
        health.set(Gate::ServicesWatch, true);
        assert!(health.readiness().ready);
        let text = metrics.exposition().unwrap();
        assert!(text.contains("zen_lead_process_ready_seconds 3\n"), "{text}");

        health.set(Gate::ServicesWatch, false);
        assert!(!health.readiness().ready, "a lost watch makes unready again");
        tokio::time::sleep(Duration::from_secs(3)).await;
        health.set(Gate::ServicesWatch, true);
        let text = metrics.exposition().unwrap();
        assert!(text.contains("zen_lead_process_ready_seconds 3\n"), "only the first time counts");
    }

    #[test]
    fn draining_is_unready_with_all_gates_open() {
        let health = Health::new(&[], Arc::new(Metrics::new().unwrap()));
        assert!(health.readiness().ready);
        health.drain();
        let draining = ReadyReport { draining: true, missing: vec![], ready: false };
        assert_eq!(health.readiness(), draining);
    }

    #[test]
    fn names_of_gates_differ() {
        let names: std::collections::HashSet<_> = Gate::ALL.iter().map(|g| g.as_str()).collect();
        assert_eq!(names.len(), Gate::ALL.len());
    }
}
