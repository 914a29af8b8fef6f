//! Kubernetes Events: the reasons and their publisher.

/// tmp
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Reason {
    InvalidService,
    NoPodsFound,
    NoReadyPods,
    LeaderServiceCreated,
    LeaderRoutingAvailable,
    LeaderChanged,
    PortResolutionFailed,
    ForeignEndpoints,
    OwnershipConflict,
    QuotaExceeded,
    LimitReached,
    SourceGone,
}
impl Reason {
    /// tmp
    pub fn as_str(self) -> &'static str {
        "x"
    }
}
