//! The bounds of the index: which there are, and who is within them.
//!
//! What a bound does to a decision is `decide::routing`'s, what it does to a change `admission`'s.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use kube_core::ResourceExt;
use strum::IntoStaticStr;

use super::namespace::{Namespace, created};
use super::pod::Pod;
use super::service::{Entry, Leader};
use super::slice::Slice;
use crate::keys::status;

/// Bounds of the index (0 is unbounded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Enabled source Services in one namespace.
    pub services_per_namespace: usize,
    /// Pods that the selector of one source matches.
    pub pods_per_service: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services_per_namespace: 1000, pods_per_service: 1000 }
    }
}

impl Limits {
    /// No bounds at all.
    pub const NONE: Self = Self { services_per_namespace: 0, pods_per_service: 0 };
}

/// A bound that can refuse work; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    /// [`Limits::services_per_namespace`]
    ServicesPerNamespace,
    /// [`Limits::pods_per_service`]
    PodsPerService,
}

crate::texts!(Limit);

impl Limit {
    /// The flag that sets it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::ServicesPerNamespace => "--max-services-per-namespace",
            Self::PodsPerService => "--max-pods-per-service",
        }
    }
}

/// A bound that is reached: what was found, and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// How many there are.
    pub found: usize,
    /// How many there may be.
    pub bound: usize,
}

/// Leader Services of one source that a decision looks at. A source has one, and another one while it changes
/// its name; a user can put the signs of one on any number of Services that are being deleted.
const LEADERS: usize = 16;

/// Who comes first when there are more than the bound.
pub(super) type Position = (bool, Option<Timestamp>, Arc<str>);

impl Namespace {
    /// True for an enabled source that has no place within the bound. Those that have a leader
    /// Service keep their places, then the oldest come first: neither an older Service that is
    /// enabled later nor a lower bound takes a place away, and who waits stays the same ones.
    pub(super) fn beyond(&self, name: &Arc<str>, limit: usize) -> bool {
        if limit == 0 || self.enabled() <= limit {
            return false;
        }
        let Some(own) = self.place(name) else { return false };
        self.places.range(..own).take(limit).count() == limit
    }

    /// The first place beyond the bound, where it is taken.
    pub(super) fn first_beyond(&self, limit: usize) -> Option<Position> {
        if limit == 0 || self.enabled() <= limit {
            return None;
        }
        self.places.iter().nth(limit).cloned()
    }

    /// The sources whose places lie from one to another one of these; `None` is the end.
    pub(super) fn between(
        &self,
        one: Option<Position>,
        other: Option<Position>,
    ) -> BTreeSet<Arc<str>> {
        let end = match (&one, &other) {
            (Some(one), Some(other)) => Bound::Excluded(one.max(other).clone()),
            _ => Bound::Unbounded,
        };
        let Some(begin) = one.into_iter().chain(other).min() else { return BTreeSet::new() };
        let places = self.places.range((Bound::Included(begin), end));
        places.map(|(_, _, name)| name.clone()).collect()
    }

    /// The leader Services of a source that a decision looks at. Above the bound those are kept that are
    /// provably its own; of these the one that has the name which it asks for, then those that name its uid.
    pub(super) fn leaders_of(&self, source: &str) -> Vec<Arc<Leader>> {
        let entry = self.service(source);
        let uid = entry.map_or("", |entry| &entry.uid);
        let wanted = entry.and_then(Entry::spec).map(|spec| spec.leader_service_name.as_str());
        let mut leaders: Vec<_> = self
            .leaders_for(source)
            .filter_map(|name| Some((&**name, self.service(name)?.leader()?)))
            .collect();
        if leaders.len() > LEADERS {
            leaders.sort_by_key(|(name, leader)| {
                let named = Some(*name) == wanted;
                (!leader.is_ours(source, uid), !named, leader.owner_uid() != Some(uid))
            });
            leaders.truncate(LEADERS);
        }
        leaders.into_iter().map(|(_, leader)| leader.opened()).collect()
    }

    /// The position of an enabled source.
    pub(super) fn place(&self, name: &Arc<str>) -> Option<Position> {
        let entry = self.service(name).filter(|entry| entry.spec().is_some())?;
        let mut leaders = self.leaders_for(name).filter_map(|l| self.service(l)?.leader());
        let served = leaders.any(|leader| leader.is_ours(name, &entry.uid));
        Some((!served, created(entry), name.clone()))
    }

    /// The pods of a source that a decision looks at: all of them within the bound; above it the
    /// first by name, so that all replicas look at the same ones, and the pods that lead or led last.
    pub(super) fn candidates(
        &self,
        source: &str,
        limit: usize,
        leaders: &[Arc<Leader>],
        slices: &[&Arc<Slice>],
    ) -> (Vec<Arc<Pod>>, bool) {
        let most = if limit == 0 { usize::MAX } else { limit };
        let mut members = self.members_of(source);
        let mut pods: Vec<Arc<Pod>> = members.by_ref().take(most).cloned().collect();
        let beyond = members.next().is_some();
        if beyond {
            for name in incumbents(leaders, slices) {
                if let Some(pod) = self.member(source, &name)
                    && pods.iter().all(|known| known.name != pod.name)
                {
                    pods.push(pod.clone());
                }
            }
        }
        (pods, beyond)
    }
}

/// Names of the pods that lead or were the last to, as slices and leader Services say.
fn incumbents(leaders: &[Arc<Leader>], slices: &[&Arc<Slice>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for slice in slices {
        names.extend(slice.named_pods().map(|(name, _)| name.to_owned()));
        names.extend(slice.truth().pod_name);
    }
    for leader in leaders {
        names.extend(leader.object.annotations().get(status::LEADER_POD_NAME).cloned());
    }
    names
}
