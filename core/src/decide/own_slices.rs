//! The slices of ours for a leader Service, as they are on the server: lock, follower, and what no family
//! needs.
//!
//! What they should say is `slices`.

use std::sync::Arc;

use jiff::Timestamp;

use super::elect::UnfinishedSwitch;
use super::slices::named;
use crate::index::evidence::slice_name;
use crate::index::pod::Family;
use crate::index::service::Leader;
use crate::index::slice::{Slice, Truth};
use crate::version::Marks;

/// The slices of ours for a leader Service.
#[derive(Default)]
pub struct OwnSlices<'a> {
    /// The slice of the first family.
    pub(super) lock: Option<&'a Slice>,
    /// The slice of the second family.
    pub(super) follower: Option<&'a Slice>,
    /// What no family needs.
    pub(super) superfluous: Vec<&'a Slice>,
    lock_says: Option<Truth>,
    follower_says: Option<Truth>,
}

impl<'a> OwnSlices<'a> {
    /// Finds lock and follower by name among the slices of ours.
    pub fn new(slices: &'a [Arc<Slice>], leader: &Leader, families: &[Family]) -> Self {
        let mut own = Self::default();
        let ours = slices
            .iter()
            // One that is being deleted routes until it is gone: it is kept right as well.
            .filter(|s| *s.service == *leader.name() && s.is_ours(leader));
        for slice in ours {
            let is = |n: usize| {
                families.get(n).is_some_and(|f| *slice.name == slice_name(leader.name(), *f))
            };
            match (is(0), is(1)) {
                (true, _) => own.lock = Some(slice),
                (_, true) => own.follower = Some(slice),
                _ if slice.deleting => {}
                _ => own.superfluous.push(slice),
            }
        }
        own.lock_says = own.lock.map(Slice::truth);
        own.follower_says = own.follower.map(Slice::truth);
        own
    }

    /// What the lock says.
    pub fn lock_says(&self) -> Option<&Truth> {
        self.lock_says.as_ref()
    }

    /// What the follower says.
    pub fn follower_says(&self) -> Option<&Truth> {
        self.follower_says.as_ref()
    }

    fn both(&self) -> impl Iterator<Item = &Truth> {
        self.lock_says.iter().chain(&self.follower_says)
    }

    /// Uid and name of the pod that the lock routes to.
    pub fn routed(&self) -> Option<(&'a str, &'a str)> {
        // Without its label it adds no endpoint to the Service.
        let lock = self.lock.filter(|lock| lock.tied)?;
        let uid = lock.routed_pods().next()?;
        lock.named_pods().find(|(_, named)| *named == uid).map(|(name, uid)| (uid, name))
    }

    /// Uid and name of the pod that the lock is about, whether it is routed to or not.
    pub fn leads(&self) -> Option<(&'a str, &'a str)> {
        self.lock?.named_pods().next().map(|(name, uid)| (uid, name))
    }

    /// Number of slices of ours.
    pub fn count(&self) -> usize {
        usize::from(self.lock.is_some())
            + usize::from(self.follower.is_some())
            + self.superfluous.len()
    }

    /// The furthest marks any of them carries.
    pub fn marks(&self) -> Marks {
        self.both().map(|t| t.marks).fold(Marks::default(), Marks::max)
    }

    /// The switch that the follower was emptied for and that did not reach the lock, unless the
    /// source asks for something else by now. Its epoch is the clock of the replica that began it.
    pub fn unfinished_switch(&self, source_hash: &str) -> Option<UnfinishedSwitch> {
        let (lock, follower) = (self.lock_says()?, self.follower_says()?);
        let emptied = named(self.follower).next().is_none() && follower.epoch > lock.epoch;
        let at = Timestamp::from_millisecond(i64::try_from(follower.epoch).ok()?).ok()?;
        let same = follower.source_hash.as_deref() == Some(source_hash);
        follower.pod_uid.clone().filter(|_| emptied && same).map(|uid| UnfinishedSwitch { uid, at })
    }

    /// The writers of those that carry a newer decision version than `own`.
    pub fn newer_writers(&self, own: u32) -> Vec<String> {
        let newer = self.both().filter(|t| t.decision_version > own);
        newer.map(|t| t.writer.clone().unwrap_or_default()).collect()
    }
}
