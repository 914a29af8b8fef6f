//! The shared handles that every part of the process is started with.

use std::sync::Arc;

use kube::Client;

use crate::platform::api::Caller;
use crate::platform::clock::Clock;
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::platform::shutdown::Shutdown;
use crate::platform::supervise::Supervisor;

/// Access to the API server, metrics, health and shutdown; clones share all of it.
#[derive(Clone)]
pub struct Runtime {
    /// Connections to the API server.
    pub client: Client,
    /// How calls are made and counted.
    pub caller: Caller,
    /// Wall clock.
    pub clock: Clock,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The gates of readiness.
    pub health: Health,
    /// Starts tasks.
    pub supervisor: Supervisor,
    /// The phase of the shutdown.
    pub shutdown: Shutdown,
}
