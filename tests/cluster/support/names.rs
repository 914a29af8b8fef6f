//! The names of the contract, as users and other tools see them.

/// Prefix of every key of zen-lead.
pub const PREFIX: &str = "zen-lead.io/";
pub const ENABLED: &str = "zen-lead.io/enabled";
pub const LEADER_NAME: &str = "zen-lead.io/leader-service-name";
pub const STICKY: &str = "zen-lead.io/sticky";
pub const MIN_READY: &str = "zen-lead.io/min-ready-duration";
pub const FAILOVER_DELAY: &str = "zen-lead.io/failover-min-delay";
pub const PORTS_MODE: &str = "zen-lead.io/ports-mode";
pub const LEADER_TYPE: &str = "zen-lead.io/leader-type";
pub const COPY: &str = "zen-lead.io/copy-annotations";
pub const SOURCE_LABEL: &str = "zen-lead.io/source-service";
pub const EPOCH: &str = "zen-lead.io/leader-epoch";
pub const POD_NAME: &str = "zen-lead.io/leader-pod-name";
pub const POD_UID: &str = "zen-lead.io/leader-pod-uid";
pub const SWITCHED_AT: &str = "zen-lead.io/leader-last-switch-time";
pub const WRITE_ID: &str = "zen-lead.io/write-id";
pub const DECIDED_AT: &str = "zen-lead.io/decided-at";
pub const REASON: &str = "zen-lead.io/switch-reason";
pub const CURRENT: &str = "zen-lead.io/current-leader";
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const READY: &str = "zen-lead.io/LeaderReady";
