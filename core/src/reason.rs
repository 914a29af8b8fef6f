//! The reasons of Events. Only names, types and actions; users filter by them, so they are stable.

use strum::{IntoStaticStr, VariantArray};

/// Why an Event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
pub enum Reason {
    /// The annotations or the shape of a source Service are not valid.
    InvalidService,
    /// The selector of the source matches no pod.
    NoPodsFound,
    /// There are pods, but none that could lead.
    NoReadyPods,
    /// The leader Service was created.
    LeaderServiceCreated,
    /// The leader Service was deleted.
    LeaderServiceDeleted,
    /// A leader is routed, after none was.
    LeaderRoutingAvailable,
    /// Another pod leads.
    LeaderChanged,
    /// A named port was not found on the leader.
    PortResolutionFailed,
    /// Slices or Endpoints of another owner route the leader Service too.
    ForeignEndpoints,
    /// An object of that name exists that is not ours.
    OwnershipConflict,
    /// A ResourceQuota keeps us from creating what is needed.
    QuotaExceeded,
    /// A user or another client changed an object of zen-lead, and the change was reverted.
    DriftRepaired,
    /// A selector was taken off the leader Service.
    SelectorRemoved,
    /// A configured bound keeps the Service from being served.
    LimitReached,
    /// The cluster was restored from a backup: recorded versions were void.
    HistoryRestored,
    /// zen-lead has not the rights for what is needed.
    Forbidden,
    /// A leader Service is still there, and its source does not ask for it any more.
    NotServed,
    /// An admission policy refuses a write.
    RefusedByPolicy,
    /// An admission webhook refuses a write, or cannot be asked.
    RefusedByWebhook,
    /// The node ports or the cluster IPs are used up.
    RangeExhausted,
    /// The API server refuses a write for another reason.
    WriteRefused,
    /// What was written is changed back each time.
    WriteUndone,
    /// An object cannot be read: what exists stays.
    Unreadable,
}

crate::texts!(all Reason);

impl Reason {
    /// `Normal` for what is as it should be, `Warning` for what a user may have to look at.
    pub fn kind(self) -> &'static str {
        match self {
            Self::LeaderServiceCreated
            | Self::LeaderServiceDeleted
            | Self::LeaderRoutingAvailable
            | Self::LeaderChanged
            | Self::DriftRepaired
            | Self::SelectorRemoved
            | Self::NotServed => "Normal",
            _ => "Warning",
        }
    }

    /// What was done, or failed to be done.
    pub fn action(self) -> &'static str {
        match self {
            Self::InvalidService => "Validate",
            Self::NoPodsFound | Self::NoReadyPods => "SelectLeader",
            Self::LeaderServiceCreated | Self::QuotaExceeded | Self::OwnershipConflict => {
                "CreateLeaderService"
            }
            Self::LeaderServiceDeleted | Self::NotServed => "DeleteLeaderService",
            Self::LeaderRoutingAvailable | Self::LeaderChanged => "SwitchLeader",
            Self::PortResolutionFailed => "ResolvePorts",
            Self::ForeignEndpoints => "CheckEndpoints",
            Self::DriftRepaired | Self::SelectorRemoved => "Repair",
            _ => "Reconcile",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_differ_and_fit_what_the_api_server_takes() {
        let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.action().len() <= 128 && !reason.action().is_empty());
        }
    }
}
