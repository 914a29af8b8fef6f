//! What admission may ask of the index: the neighbours of a Service, under a read lock.

use super::namespace::Namespace;
use super::{Index, service::Role};
use crate::admission::verdict::{Neighbour, Neighbours};
use crate::spec;

/// The index as admission sees it.
pub struct View<'a> {
    /// The index.
    pub index: &'a Index,
    /// Whether all Services have been seen and are up to date.
    pub synced: bool,
}

impl Neighbours for View<'_> {
    fn service(&self, namespace: &str, name: &str) -> Option<Neighbour> {
        let entry = self.index.namespaces.get(namespace)?.service(name)?;
        let leader_of = match &entry.role {
            Role::Leader(leader) => spec::leader_of(&leader.object),
            _ => None,
        };
        Some(Neighbour { uid: Some(entry.uid.to_string()), leader_of })
    }

    fn claimants(&self, namespace: &str, leader_name: &str) -> Vec<String> {
        let ns = self.index.namespaces.get(namespace);
        ns.into_iter().flat_map(|ns| ns.claimants(leader_name)).map(ToString::to_string).collect()
    }

    fn limit_reached(&self, namespace: &str) -> Option<usize> {
        let limit = self.index.limits.services_per_namespace;
        let enabled = self.index.namespaces.get(namespace).map_or(0, Namespace::enabled);
        (limit > 0 && enabled >= limit).then_some(limit)
    }

    fn synced(&self) -> bool {
        self.synced
    }
}
