//! zen-lead routes a Kubernetes Service to exactly one ready pod.
//!
//! One process, two flows over one index and one metrics registry:
//!
//! ```text
//! watch -> index -> dirty keys -> queue -> snapshot -> decide (pure) -> apply -> record
//! kube-apiserver -> serve::webhook -> admission::verdict (pure, over spec and an index view) -> answer
//! ```

#[cfg(test)]
extern crate self as zen_lead;

#[cfg(test)]
mod fixtures;

pub mod admission;
pub mod app;
pub mod apply;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decide;
pub mod decode;
pub mod events;
pub mod health;
pub mod index;
pub mod judge;
pub mod keys;
pub mod leftovers;
pub mod lists;
pub mod metrics;
pub mod names;
pub mod ownership;
pub mod pki;
pub mod queue;
pub mod reader;
pub mod reconcile;
pub mod record;
pub mod replica;
pub mod retry;
pub mod serve;
pub mod shrink;
pub mod shutdown;
pub mod spec;
pub mod supervise;
pub mod telemetry;
#[cfg(test)]
pub mod testing;
pub mod version;
pub mod watch;
pub mod watches;
