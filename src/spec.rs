//! What a user asked for on a Service: the one reading of the `zen-lead.io/` annotations.
//!
//! Used by admission, by the index and by `zen-lead lint`, so that what admission accepts the
//! controller can run. Pure: no other object is read here (collisions are `admission::verdict`'s).

pub mod duration;
pub mod violation;

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;

use crate::names::NameRule;
pub use violation::{Rule, Violation};

/// Order among the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Newest revision first, then oldest pod, then name.
    #[default]
    OldestReady,
}

/// What happens to a named port that the leader does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortsMode {
    /// No endpoint at all: fail closed.
    #[default]
    Strict,
    /// That port is left out.
    Partial,
}

/// Type of the leader Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LeaderType {
    /// A ClusterIP, whatever the source is.
    #[default]
    ClusterIp,
    /// The type of the source.
    Mirror,
}

/// The settings of an enabled source Service, with all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderSpec {
    /// Name of the leader Service.
    pub leader_service_name: String,
    /// Order among the candidates.
    pub strategy: Strategy,
    /// Whether an eligible incumbent stays.
    pub sticky: bool,
    /// How long a pod must have been Ready before it may become leader.
    pub min_ready_duration: Duration,
    /// How long an incumbent that is only NotReady is kept.
    pub failover_min_delay: Duration,
    /// What happens to a named port the leader does not have.
    pub ports_mode: PortsMode,
    /// Type of the leader Service.
    pub leader_type: LeaderType,
    /// Annotation keys copied to a mirrored leader Service, sorted, without duplicates.
    pub copy_annotations: Vec<String>,
}

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// No `zen-lead.io/` key: none of our business.
    None,
    /// Has keys, all valid, but is not enabled.
    Off,
    /// Wants a leader Service.
    On(LeaderSpec),
}

/// Reads the annotations and the shape of a source Service.
///
/// # Errors
/// All violations at once, in the order of the documentation.
pub fn read(service: &Service, names: NameRule) -> Result<Intent, Vec<Violation>> {
    let _ = (service, names);
    Ok(Intent::None)
}

/// Name of the leader Service when the user names none.
pub fn default_leader_name(service: &str) -> String {
    format!("{service}-leader")
}

/// tmp
pub fn settings_json(spec: &LeaderSpec) -> String {
    format!("{spec:?}")
}
