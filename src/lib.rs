//! zen-lead routes a Kubernetes Service to exactly one ready pod.
//!
//! One process, two flows over one index and one metrics registry; what is decided in either is in
//! the crate `zen_lead_core`:
//!
//! ```text
//! control: watch -> index -> queue -> snapshot -> decide (core) -> apply -> record
//! webhook: kube-apiserver -> review -> verdict (core) -> answer
//! ```
//!
//! Both stand on `platform`, which knows neither.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod platform;
pub(crate) mod shared;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhook;
