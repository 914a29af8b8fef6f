//! What both flows look at: the index, what admission (and `lint`) asks of it, and who else runs.
//!
//! Locked for one question or change at a time.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use parking_lot::RwLock;
use zen_lead_core::admission::Neighbours;
use zen_lead_core::index::view::Neighbour;
use zen_lead_core::index::{Index, LabelPairs, Reached};
use zen_lead_core::settings::LeaderSpec;

/// The index behind its lock.
pub type SharedIndex = Arc<RwLock<Index>>;

/// The replicas of zen-lead that are ready, by pod name.
pub type Replicas = Arc<RwLock<Vec<String>>>;

/// The index as admission sees it, locked for one question at a time: parsing a body of megabytes must
/// not block the reconcilers.
pub(crate) struct SharedView<'a> {
    /// The index.
    pub(crate) index: &'a SharedIndex,
    /// Whether all Services are known and up to date.
    pub(crate) synced: bool,
}

impl Neighbours for SharedView<'_> {
    fn service(&self, namespace: &str, name: &str) -> Option<Neighbour> {
        self.index.read().neighbour(namespace, name)
    }

    fn claimants(&self, namespace: &str, leader_name: &str) -> Vec<String> {
        self.index.read().claimants(namespace, leader_name)
    }

    fn services_at_limit(&self, namespace: &str) -> Option<Reached> {
        self.index.read().services_at_limit(namespace)
    }

    fn pods_beyond_limit(&self, namespace: &str, service: &Service) -> Option<Reached> {
        self.index.read().pods_beyond_limit(namespace, service)
    }

    fn synced(&self) -> bool {
        self.synced
    }

    fn on_host_network(&self, namespace: &str, service: &Service) -> bool {
        self.index.read().on_host_network(namespace, service)
    }

    fn each_source(&self, namespace: &str, visit: &mut dyn FnMut(&str, &LabelPairs, &LeaderSpec)) {
        self.index.read().each_source(namespace, visit);
    }
}
