//! Which replicas of zen-lead are ready, from the slices of its own Service. Ranking is `ranking`'s, in the core.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use parking_lot::Mutex;
use tracing::info;

use crate::control::watch::Sink;
use crate::shared::Replicas;
use zen_lead_core::decode::Decoded;
use zen_lead_core::ranking;
use zen_lead_core::version::Rv;

/// Keeps the names of the ready pods behind zen-lead's own Service.
pub struct ReplicaSink {
    slices: Mutex<BTreeMap<String, Vec<String>>>,
    me: String,
    replicas: Replicas,
    look_at_newer: Box<dyn Fn() + Send + Sync>,
}

impl ReplicaSink {
    /// Delivers into `replicas`. `look_at_newer` is called when the last replica of a newer version may
    /// be gone for `me` ([`ranking::may_show_others_gone`]).
    pub fn new(me: &str, replicas: Replicas, look_at_newer: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { slices: Mutex::default(), me: me.to_owned(), replicas, look_at_newer }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) {
        let mut slices = self.slices.lock();
        change(&mut slices);
        let mut names: Vec<String> = slices.values().flatten().cloned().collect();
        names.sort();
        names.dedup();
        let mut replicas = self.replicas.write();
        if *replicas != names {
            info!(replicas = ?names, "ready replicas of zen-lead");
            let look = ranking::may_show_others_gone(&self.me, &replicas, &names);
            *replicas = names;
            drop(replicas);
            if look {
                (self.look_at_newer)();
            }
        }
    }
}

fn ready_pods(slice: &EndpointSlice) -> Vec<String> {
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
    ready.filter_map(|e| e.target_ref.as_ref()?.name.clone()).collect()
}

impl Sink<Decoded<EndpointSlice>> for ReplicaSink {
    /// Name and ready pods; those of before, where they cannot be read.
    type Kept = (String, Option<Vec<String>>);

    fn trim(&self, object: Decoded<EndpointSlice>) -> Self::Kept {
        let name = object.meta().name.clone().unwrap_or_default();
        (name, object.object().as_ref().map(ready_pods))
    }

    fn reset(&self, objects: Vec<Self::Kept>, _: Rv) {
        self.change(|slices| {
            let mut before = std::mem::take(slices);
            let now = objects.into_iter().map(|(name, pods)| {
                let pods = pods.or_else(|| before.remove(&name)).unwrap_or_default();
                (name, pods)
            });
            slices.extend(now);
        });
    }

    fn apply(&self, (name, pods): Self::Kept, _: Rv) {
        self.change(|slices| _ = pods.map(|pods| slices.insert(name, pods)));
    }

    fn delete(&self, (name, _): Self::Kept, _: Rv) {
        self.change(|slices| _ = slices.remove(&name));
    }
}
