//! What every part of the process is started with.

use std::sync::Arc;

use kube::Client;

use crate::platform::api::Caller;
use crate::platform::clock::Clock;
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::platform::shutdown::Shutdown;
use crate::platform::supervise::Supervisor;

/// The way to the API server, and where is reported how it goes; clones share all of it.
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
    /// What readiness waits for.
    pub health: Health,
    /// Starts tasks.
    pub supervisor: Supervisor,
    /// How far the shutdown has come.
    pub shutdown: Shutdown,
}
