//! What any controller stands on: calls of the API server, servers, certificates, metrics, traces,
//! start and end of the process.
//!
//! No leader, no watch and no review: nothing here uses `control` or `webhook`.

pub mod api;
pub mod clock;
pub mod health;
pub mod lifecycle;
pub mod metrics;
pub mod operation;
pub mod pki;
pub mod runtime;
pub mod server;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
