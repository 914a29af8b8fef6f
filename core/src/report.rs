//! What a decision found out about a managed Service, for those who show it.

use jiff::Timestamp;

/// What one reconcile found out about a managed Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceReport {
    /// When the present leader became leader; `None` without a leader.
    pub leader_since: Option<Timestamp>,
    /// When the leader's pod was created.
    pub leader_pod_created: Option<Timestamp>,
    /// Candidates: ready pods that could lead.
    pub pods_available: usize,
    /// Pods in the leader Service's slice that take traffic (0 or 1).
    pub endpoints: usize,
    /// Number of the last switch.
    pub epoch: u64,
    /// False while the leader is lost, or a timer of the Service is running.
    pub stable: bool,
    /// Whether the leader Service exists.
    pub leader_service: bool,
    /// Slices zen-lead keeps for it.
    pub slices: usize,
}
