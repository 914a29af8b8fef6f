//! Readiness by named gates, and liveness.
//!
//! Others open and close the gates; nothing is polled here. No HTTP: the admin server sends what
//! [`Health`] says.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;

/// A condition of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// The watch of Services is synced and alive.
    ServicesWatch,
    /// The watch of EndpointSlices is synced and alive.
    SlicesWatch,
    /// The watches of pods that were needed at the start have synced, and none is lost.
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

impl Gate {
    /// All gates.
    pub const ALL: [Self; 7] = [
        Self::ServicesWatch,
        Self::SlicesWatch,
        Self::PodsWatches,
        Self::Certificate,
        Self::CaBundle,
        Self::WebhookSocket,
        Self::AdminSocket,
    ];

    /// The gate as it is named in the body of `/readyz` and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServicesWatch => "services-watch",
            Self::SlicesWatch => "endpointslices-watch",
            Self::PodsWatches => "pods-watches",
            Self::Certificate => "certificate",
            Self::CaBundle => "ca-bundle",
            Self::WebhookSocket => "webhook-socket",
            Self::AdminSocket => "admin-socket",
        }
    }
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// HTTP status: 200 or 503.
    pub status: u16,
    /// JSON.
    pub body: String,
}

/// The gates of the process; clones share them.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    started: tokio::time::Instant,
    metrics: Arc<Metrics>,
}

struct State {
    /// Gates this process has, with whether each is open.
    gates: Vec<(Gate, bool)>,
    draining: bool,
    was_ready: bool,
}

impl Health {
    /// All `gates` closed; the time to the first readiness is counted from here.
    pub fn new(gates: &[Gate], metrics: Arc<Metrics>) -> Self {
        let gates = gates.iter().map(|gate| (*gate, false)).collect();
        let state = State { gates, draining: false, was_ready: false };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), started: monotonic(), metrics }) }
    }

    /// Opens or closes a gate; a gate this process was not given is ignored.
    pub fn set(&self, gate: Gate, open: bool) {
        let mut state = self.inner.state.lock();
        let Some(entry) = state.gates.iter_mut().find(|(g, _)| *g == gate) else { return };
        if entry.1 == open {
            return;
        }
        entry.1 = open;
        if open {
            tracing::info!(gate = gate.as_str(), "gate of readiness opened");
        } else {
            tracing::warn!(gate = gate.as_str(), "gate of readiness closed");
        }
        if !state.was_ready && state.missing().is_empty() {
            state.was_ready = true;
            let took = monotonic().duration_since(self.inner.started);
            self.inner.metrics.set_ready_after(took);
            tracing::info!(seconds = took.as_secs_f64(), "ready");
        }
    }

    /// Makes the process unready for good: it is about to end.
    pub fn drain(&self) {
        self.inner.state.lock().draining = true;
    }

    /// The gates that are closed, in the order in which they were given.
    pub fn missing(&self) -> Vec<Gate> {
        self.inner.state.lock().missing()
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        let state = self.inner.state.lock();
        !state.draining && state.missing().is_empty()
    }

    /// The answer of `/readyz`.
    pub fn readyz(&self) -> Probe {
        let state = self.inner.state.lock();
        let missing: Vec<_> = state.missing().into_iter().map(Gate::as_str).collect();
        let ready = missing.is_empty() && !state.draining;
        let body = json!({"ready": ready, "missing": missing, "draining": state.draining});
        Probe { status: if ready { 200 } else { 503 }, body: body.to_string() }
    }

    /// The answer of `/livez`: that it is given at all is what it says. Restarting the process
    /// would mend nothing that a gate reports.
    pub fn livez(&self) -> Probe {
        Probe { status: 200, body: json!({"alive": true}).to_string() }
    }
}

impl State {
    fn missing(&self) -> Vec<Gate> {
        self.gates.iter().filter(|(_, open)| !open).map(|(gate, _)| *gate).collect()
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
        assert_eq!(
            health.readyz(),
            Probe {
                status: 503,
                body:
                    r#"{"draining":false,"missing":["services-watch","certificate"],"ready":false}"#
                        .into(),
            }
        );
        health.set(Gate::Certificate, true);
        health.set(Gate::AdminSocket, false);
        assert_eq!(health.missing(), [Gate::ServicesWatch]);
        assert!(!health.is_ready());
        tokio::time::sleep(Duration::from_secs(3)).await;
        health.set(Gate::ServicesWatch, true);
        assert!(health.is_ready());
        let body = r#"{"draining":false,"missing":[],"ready":true}"#.to_owned();
        assert_eq!(health.readyz(), Probe { status: 200, body });
        let text = String::from_utf8(metrics.exposition().unwrap()).unwrap();
        assert!(text.contains("zen_lead_process_ready_seconds 3\n"), "{text}");

        health.set(Gate::ServicesWatch, false);
        assert_eq!(health.readyz().status, 503, "a lost watch makes unready again");
        tokio::time::sleep(Duration::from_secs(3)).await;
        health.set(Gate::ServicesWatch, true);
        let text = String::from_utf8(metrics.exposition().unwrap()).unwrap();
        assert!(text.contains("zen_lead_process_ready_seconds 3\n"), "only the first time counts");
    }

    #[test]
    fn draining_is_unready_with_all_gates_open_and_still_alive() {
        let health = Health::new(&[], Arc::new(Metrics::new().unwrap()));
        assert!(health.is_ready());
        health.drain();
        let body = r#"{"draining":true,"missing":[],"ready":false}"#.to_owned();
        assert_eq!(health.readyz(), Probe { status: 503, body });
        assert_eq!(health.livez(), Probe { status: 200, body: r#"{"alive":true}"#.into() });
    }

    #[test]
    fn names_of_gates_differ() {
        let names: std::collections::HashSet<_> = Gate::ALL.iter().map(|g| g.as_str()).collect();
        assert_eq!(names.len(), Gate::ALL.len());
    }
}
