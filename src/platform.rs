//! The base of both flows: calls to the API server, HTTP servers, certificates, metrics, traces, start and
//! end of the process.
//!
//! Nothing here knows leaders, watches or reviews, or uses `control` or `webhook`.

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
