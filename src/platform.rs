//! The base of both flows: calls to the API server, HTTP servers, certificates, metrics, traces, start and
//! end of the process.
//!
//! Nothing here knows leaders, watches or reviews, or uses `control` or `webhook`.

pub(crate) mod api;
pub mod clock;
pub mod files;
pub mod health;
pub(crate) mod lifecycle;
pub mod metrics;
pub mod operation;
pub mod pki;
pub(crate) mod runtime;
pub mod server;
pub(crate) mod shutdown;
pub(crate) mod supervise;
pub mod telemetry;
