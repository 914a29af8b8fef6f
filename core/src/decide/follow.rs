//! A source that takes the leader of another one (`zen-lead.io/same-leader-as`): which pod that is.
//!
//! Read from the slice of the other's leader Service, which is the truth. This one is a switch
//! of its own behind the other's, by its own compare-and-swap: for a moment the two may differ.

use super::own_slices::OwnSlices;
use super::slices;
use crate::index::service::Leader;
use crate::index::snapshot::Followed;
use crate::index::{Snapshot, SourceState};
use crate::keys::setting;
use crate::settings::{Intent, LeaderSpec};

/// Which pods may become leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// Every selected pod: this source elects for itself.
    Free,
    /// The pod with this uid, which the other source's leader Service routes to.
    Pod(String),
    /// None for now: the other's leader Service routes to no pod.
    Waits,
    /// None: the other cannot be followed, and why.
    Never(String),
}

impl Follow {
    /// Whether no pod may become leader.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Waits | Self::Never(_))
    }

    /// The only pod that may become leader.
    pub(super) fn only(&self) -> Option<&str> {
        if let Self::Pod(uid) = self { Some(uid) } else { None }
    }
}

/// Which pods may become leader of a source with these settings.
pub(super) fn follow(snapshot: &Snapshot, spec: &LeaderSpec) -> Follow {
    let Some(name) = &spec.same_leader_as else { return Follow::Free };
    let never = |why: String| {
        Follow::Never(format!("{} names Service {name:?}, {why}", setting::SAME_LEADER_AS))
    };
    let idle = "which is not enabled; no pod becomes leader here before it is";
    let Some(Followed { source: SourceState::Judged { uid, source }, leaders, slices }) =
        &snapshot.followed
    else {
        return never(idle.into());
    };
    match &source.intent {
        Ok(Intent::On(LeaderSpec { same_leader_as: Some(next), .. })) => {
            return never(format!(
                "which takes the leader of {next:?} itself; write {next:?} here, or take the \
                 annotation off one of the two"
            ));
        }
        Ok(Intent::On(_)) | Err(_) => {}
        Ok(Intent::Off | Intent::None) => return never(idle.into()),
    }
    // A renamed leader Service serves beside its successor for a while: the one that is asked for
    // counts first.
    let mut ours: Vec<&Leader> =
        leaders.iter().map(|l| &**l).filter(|l| l.is_ours(name, uid)).collect();
    let asked_for = source.spec().map(|spec| spec.leader_service_name.as_str());
    ours.sort_by_key(|leader| Some(leader.name()) != asked_for);
    let routed = ours.into_iter().find_map(|leader| {
        let families = slices::families(&leader.object);
        let lock = OwnSlices::new(slices, leader, &families).lock?;
        lock.routed_pods().next().map(str::to_owned)
    });
    routed.map_or(Follow::Waits, Follow::Pod)
}

/// What the source says of a leader that it cannot take, or `None`.
pub(super) fn flaw(snapshot: &Snapshot, spec: &LeaderSpec) -> Option<String> {
    let name = spec.same_leader_as.as_deref()?;
    match follow(snapshot, spec) {
        Follow::Never(why) => Some(why),
        Follow::Pod(uid)
            if snapshot.pods_known && !snapshot.pods.iter().any(|p| *p.uid == *uid) =>
        {
            Some(format!(
                "the pod that leads for Service {name:?} is not selected here, so it cannot lead here: \
                 give the two Services one selector, or take off {}",
                setting::SAME_LEADER_AS
            ))
        }
        _ => None,
    }
}
