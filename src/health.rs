//! Readiness gates and liveness.
