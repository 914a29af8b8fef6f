//! The shared cache: Services, pods and slices by namespace, with reverse maps, kept by the watches.
//!
//! Synchronous and change-detecting: every change answers with the sources that must be reconciled
//! again. No await, no client, no clock, no decision. Callers put it behind a lock and hold that
//! lock for one call only.

pub mod evidence;
pub mod kept;
pub mod limits;
pub mod placed;
pub mod pod;
pub mod service;
pub mod slice;
pub mod snapshot;
pub mod view;

mod name_set;
mod namespace;
mod pool;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;

use crate::decode::Decoded;
use crate::names::{NameRule, ServiceKey};
use crate::shrink;
use crate::version::{Marks, Rv};
pub use limits::{Limit, Limits, Reached};
use namespace::Namespace;
use placed::{Placed, PlacedService, PlacedSlice};
use pod::{NamespacedPod, Pod};
use pool::Pools;
use service::Entry;
use slice::Slice;
pub use snapshot::{Snapshot, SourceState};

/// Labels and their values, sorted by key.
pub type LabelPairs = [(Arc<str>, Arc<str>)];

/// The sources to reconcile again after a change.
pub type Dirty = BTreeSet<ServiceKey>;

/// Objects held, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Services of any kind.
    pub services: usize,
    /// Services with our annotations.
    pub sources: usize,
    /// Pods.
    pub pods: usize,
    /// EndpointSlices.
    pub slices: usize,
    /// Namespaces.
    pub namespaces: usize,
}

/// The cache of one process.
#[derive(Clone, Debug, Default)]
pub struct Index {
    namespaces: HashMap<Arc<str>, Namespace>,
    names: NameRule,
    limits: Limits,
    /// Where objects are kept as their text: what pods have in common.
    compact: Option<Pools>,
    services_seen: Rv,
    slices_seen: Rv,
    /// Position of the cluster-wide pod watch, while there is one.
    pods_seen: Option<Rv>,
}

impl Index {
    /// An empty index.
    pub fn new(names: NameRule, limits: Limits) -> Self {
        Self { names, limits, ..Self::default() }
    }

    /// The same for an index that lives long: it keeps objects as their text
    /// (docs/decisions/objects-as-text.md).
    #[must_use]
    pub fn compact(self) -> Self {
        Self { compact: Some(Pools::default()), ..self }
    }

    /// The bounds in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Which Service names the server accepts.
    pub fn names(&self) -> NameRule {
        self.names
    }

    /// Takes in the answer to a write of our own, unless the watch has told already what came after
    /// it: an object that it knows no longer was deleted.
    pub fn answer_service(&mut self, object: impl Into<Decoded<core::Service>>) -> Dirty {
        let object = object.into();
        let known = names_of(object.meta())
            .and_then(|(namespace, name)| self.namespaces.get(&namespace)?.service(&name));
        if known.is_none() && Rv::of(object.meta()) <= self.services_seen {
            return Dirty::new();
        }
        self.apply_service(object)
    }

    /// See [`Index::answer_service`].
    pub fn answer_slice(&mut self, object: impl Into<Decoded<EndpointSlice>>) -> Dirty {
        let object = object.into();
        let known = names_of(object.meta())
            .and_then(|(namespace, name)| self.namespaces.get(&namespace)?.slice(&name));
        if known.is_none() && Rv::of(object.meta()) <= self.slices_seen {
            return Dirty::new();
        }
        self.apply_slice(object)
    }

    /// Takes in a Service from the watch. One that cannot be read is not absent: what was known of it
    /// stays.
    pub fn apply_service(&mut self, object: impl Into<Decoded<core::Service>>) -> Dirty {
        let placed = PlacedService::trim(object.into(), self.names);
        placed.map(|placed| self.apply_placed_service(placed)).unwrap_or_default()
    }

    /// See [`Index::apply_service`].
    pub fn apply_placed_service(&mut self, placed: Decoded<PlacedService>) -> Dirty {
        let Some((namespace, name, _)) = placed.place() else { return Dirty::new() };
        let mut entry = match placed {
            Decoded::Object(placed) => placed.kept,
            Decoded::Unreadable(found) => {
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.service(&name));
                Entry::unreadable(known, &found, self.names)
            }
        };
        if self.compact.is_some() {
            entry.close();
        }
        let limit = self.limits.services_per_namespace;
        let ns = self.namespaces.entry(namespace.clone()).or_default();
        let touched = within_limit(ns, limit, |ns| ns.set_service(&name, Some(entry)));
        qualify(&namespace, touched)
    }

    /// Takes note of a deleted Service.
    pub fn delete_service(&mut self, object: &impl Resource) -> Dirty {
        let place = Placed::of(object).map(Decoded::Object);
        place.map(|place| self.delete_placed_service(&place)).unwrap_or_default()
    }

    /// See [`Index::delete_service`].
    pub fn delete_placed_service<T>(&mut self, placed: &Decoded<Placed<T>>) -> Dirty {
        let Some((namespace, name, version)) = placed.place() else { return Dirty::new() };
        let limit = self.limits.services_per_namespace;
        self.with(&namespace, |ns| within_limit(ns, limit, |ns| ns.remove_service(&name, version)))
    }

    /// Forgets a Service that we deleted ourselves, if it is still the one we mean.
    pub fn forget_service(&mut self, key: &ServiceKey, name: &str, uid: &str) -> Dirty {
        let limit = self.limits.services_per_namespace;
        self.with(&key.namespace.clone(), |ns| match ns.service(name) {
            Some(known) if &*known.uid == uid => {
                within_limit(ns, limit, |ns| ns.set_service(&name.into(), None))
            }
            _ => BTreeSet::new(),
        })
    }

    /// Forgets a slice that we deleted ourselves, if it is still the one we mean.
    pub fn forget_slice(&mut self, key: &ServiceKey, name: &str, uid: &str) -> Dirty {
        self.with(&key.namespace.clone(), |ns| match ns.slice(name) {
            Some(known) if &*known.uid == uid => ns.set_slice(&name.into(), None),
            _ => BTreeSet::new(),
        })
    }

    /// How far the watches of a namespace have come.
    pub fn seen(&self, namespace: &str) -> Marks {
        let own = self.namespaces.get(namespace).and_then(|ns| ns.pods_seen);
        Marks { services: self.services_seen, pods: self.pods_seen.or(own).unwrap_or_default() }
    }

    /// The version at which a Service is known.
    pub fn service_version(&self, namespace: &str, name: &str) -> Option<Rv> {
        Some(self.namespaces.get(namespace)?.service(name)?.version)
    }

    /// The version at which a slice is known.
    pub fn slice_version(&self, namespace: &str, name: &str) -> Option<Rv> {
        Some(self.namespaces.get(namespace)?.slice(name)?.version)
    }

    /// The version at which a pod is known.
    pub fn pod_version(&self, namespace: &str, name: &str) -> Option<Rv> {
        Some(self.namespaces.get(namespace)?.pod(name)?.version)
    }

    /// Replaces all Services by a list; what is newer than the list (an answer to our own write) stays.
    ///
    /// The list must be consistent (no resourceVersion asked for): one that lies behind what was seen
    /// is then the proof of another history (a restored cluster), and everything known is forgotten.
    /// So is a single object that is known at a version which the list covers and does not show.
    /// Those that cannot be read are not absent.
    pub fn reset_decoded_services(
        &mut self,
        objects: Vec<Decoded<core::Service>>,
        version: Rv,
    ) -> Dirty {
        let trim = |object| PlacedService::trim(object, self.names);
        let placed = objects.into_iter().filter_map(trim).collect();
        self.reset_placed_services(placed, version)
    }

    /// See [`Index::reset_decoded_services`].
    pub fn reset_placed_services(
        &mut self,
        services: Vec<Decoded<PlacedService>>,
        version: Rv,
    ) -> Dirty {
        let mut listed: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        let mut dirty = Dirty::new();
        if version < self.services_seen {
            for (namespace, ns) in &mut self.namespaces {
                dirty.append(&mut qualify(namespace, ns.drop_services()));
            }
            self.services_seen = version;
        }
        for placed in services {
            if let Some((namespace, name, at)) = placed.place() {
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.service(&name));
                if known.is_some_and(|k| lost(k.version, at, version)) {
                    let limit = self.limits.services_per_namespace;
                    dirty.append(&mut self.with(&namespace, |ns| {
                        within_limit(ns, limit, |ns| ns.set_service(&name, None))
                    }));
                }
                listed.entry(namespace).or_default().insert(name);
            }
            dirty.append(&mut self.apply_placed_service(placed));
        }
        let none = BTreeSet::new();
        let limit = self.limits.services_per_namespace;
        for (namespace, ns) in &mut self.namespaces {
            let keep = listed.get(namespace).unwrap_or(&none);
            for gone in ns.services_not_in(keep, version) {
                let touched = within_limit(ns, limit, |ns| ns.set_service(&gone, None));
                dirty.append(&mut qualify(namespace, touched));
            }
        }
        self.services_seen = self.services_seen.max(version);
        self.prune();
        dirty
    }

    /// The Service watch was heard from: everything up to this version is in.
    pub fn services_heard(&mut self, version: Rv) {
        self.services_seen = self.services_seen.max(version);
    }

    /// Takes in a pod that was trimmed before. One that cannot be read is not absent: what was known
    /// of it stays.
    pub fn apply_trimmed_pod(&mut self, pod: impl Into<Decoded<NamespacedPod>>) -> Dirty {
        let (namespace, mut pod) = match pod.into() {
            Decoded::Object(NamespacedPod { namespace, pod }) => (namespace, pod),
            Decoded::Unreadable(found) => {
                let Some((namespace, name)) = names_of(&found.metadata) else {
                    return Dirty::new();
                };
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.pod(&name));
                let Some(pod) = Pod::unreadable(known.map(|p| &**p), &found) else {
                    return Dirty::new();
                };
                (namespace, pod)
            }
        };
        let ns = self.namespaces.entry(namespace.clone()).or_default();
        if let Some(pools) = &mut self.compact {
            pools.share(&mut pod);
        }
        qualify(&namespace, ns.set_pod(&pod.name.clone(), Some(pod)))
    }

    /// Those of these sources that are routed to another pod than this one, which can take the traffic.
    pub fn led_elsewhere(&self, sources: &Dirty, pod: &str) -> Dirty {
        let elsewhere = |key: &&ServiceKey| {
            let namespace = self.namespaces.get(&key.namespace);
            namespace.is_some_and(|ns| ns.is_led_elsewhere(&key.name, pod))
        };
        sources.iter().filter(elsewhere).cloned().collect()
    }

    /// Takes note of a deleted pod, given its last state.
    pub fn delete_trimmed_pod(&mut self, pod: &Decoded<NamespacedPod>) -> Dirty {
        let Some((namespace, name, version)) = place_of(pod) else { return Dirty::new() };
        self.with(&namespace, |ns| ns.remove_pod(&name, version))
    }

    /// Replaces the pods of one namespace (or of all) by a consistent list; see
    /// [`Index::reset_decoded_services`].
    pub fn reset_trimmed_pods(
        &mut self,
        scope: Option<&str>,
        pods: Vec<Decoded<NamespacedPod>>,
        version: Rv,
    ) -> Dirty {
        let mut listed: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        let mut dirty = Dirty::new();
        if self.pods_position(scope).is_some_and(|seen| version < seen) {
            self.drop_pods(scope);
        }
        for placed in pods {
            if let Some((namespace, name, at)) = place_of(&placed) {
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.pod(&name));
                if known.is_some_and(|k| lost(k.version, at, version)) {
                    dirty.append(&mut self.with(&namespace, |ns| ns.set_pod(&name, None)));
                }
                listed.entry(namespace).or_default().insert(name);
            }
            dirty.append(&mut self.apply_trimmed_pod(placed));
        }
        let none = BTreeSet::new();
        for (namespace, ns) in &mut self.namespaces {
            if scope.is_some_and(|s| s != &**namespace) {
                continue;
            }
            let keep = listed.get(namespace).unwrap_or(&none);
            for gone in ns.pods_not_in(keep, version) {
                dirty.append(&mut qualify(namespace, ns.set_pod(&gone, None)));
            }
            // A first list makes every source decidable, also those without any pod.
            dirty.extend(ns.sources().map(|name| ServiceKey::new(namespace.clone(), name.clone())));
        }
        self.pods_heard(scope, version);
        dirty
    }

    /// The pod watch of a namespace (or the cluster-wide one) was heard from.
    pub fn pods_heard(&mut self, scope: Option<&str>, version: Rv) {
        match scope {
            Some(namespace) => {
                let ns = self.namespaces.entry(namespace.into()).or_default();
                ns.pods_seen = Some(ns.pods_seen.unwrap_or_default().max(version));
            }
            None => self.pods_seen = Some(self.pods_seen.unwrap_or_default().max(version)),
        }
    }

    fn pods_position(&self, scope: Option<&str>) -> Option<Rv> {
        match scope {
            Some(namespace) => self.namespaces.get(namespace)?.pods_seen,
            None => self.pods_seen,
        }
    }

    /// Forgets the pods of a namespace whose watch ended (or of the cluster-wide watch). Pods that
    /// another watch still keeps stay: a change of the kind of watch loses no pod.
    pub fn drop_pods(&mut self, scope: Option<&str>) {
        if scope.is_none() {
            self.pods_seen = None;
        }
        for (namespace, ns) in &mut self.namespaces {
            if scope.is_some_and(|s| s == &**namespace) {
                ns.pods_seen = None;
            } else if scope.is_some() {
                continue;
            }
            if self.pods_seen.is_none() && ns.pods_seen.is_none() {
                ns.drop_pods();
            }
        }
        self.prune();
    }

    /// Takes in a slice from the watch. One that cannot be read is not absent: what was known of it
    /// stays.
    pub fn apply_slice(&mut self, object: impl Into<Decoded<EndpointSlice>>) -> Dirty {
        let placed = PlacedSlice::trim(object.into());
        placed.map(|placed| self.apply_placed_slice(placed)).unwrap_or_default()
    }

    /// See [`Index::apply_slice`].
    pub fn apply_placed_slice(&mut self, placed: Decoded<PlacedSlice>) -> Dirty {
        let Some((namespace, name, version)) = placed.place() else { return Dirty::new() };
        let slice = match placed {
            Decoded::Object(placed) => placed.kept,
            Decoded::Unreadable(found) => {
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.slice(&name));
                Slice::unreadable(known.map(|s| &**s), &found)
            }
        };
        match slice {
            Some(mut slice) => {
                if self.compact.is_some() {
                    slice.close();
                }
                let ns = self.namespaces.entry(namespace.clone()).or_default();
                qualify(&namespace, ns.set_slice(&name, Some(slice)))
            }
            // The label that tied it to a Service is gone.
            None => self.with(&namespace, |ns| ns.remove_slice(&name, version)),
        }
    }

    /// Takes note of a deleted slice.
    pub fn delete_slice(&mut self, object: &impl Resource) -> Dirty {
        let place = Placed::of(object).map(Decoded::Object);
        place.map(|place| self.delete_placed_slice(&place)).unwrap_or_default()
    }

    /// See [`Index::delete_slice`].
    pub fn delete_placed_slice<T>(&mut self, placed: &Decoded<Placed<T>>) -> Dirty {
        let Some((namespace, name, version)) = placed.place() else { return Dirty::new() };
        self.with(&namespace, |ns| ns.remove_slice(&name, version))
    }

    /// Replaces all slices by a consistent list; see [`Index::reset_decoded_services`].
    pub fn reset_decoded_slices(
        &mut self,
        objects: Vec<Decoded<EndpointSlice>>,
        version: Rv,
    ) -> Dirty {
        let placed = objects.into_iter().filter_map(PlacedSlice::trim).collect();
        self.reset_placed_slices(placed, version)
    }

    /// See [`Index::reset_decoded_services`].
    pub fn reset_placed_slices(&mut self, slices: Vec<Decoded<PlacedSlice>>, version: Rv) -> Dirty {
        let mut listed: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        let mut dirty = Dirty::new();
        if version < self.slices_seen {
            for (namespace, ns) in &mut self.namespaces {
                dirty.append(&mut qualify(namespace, ns.drop_slices()));
            }
            self.slices_seen = version;
        }
        for placed in slices {
            if let Some((namespace, name, at)) = placed.place() {
                let known = self.namespaces.get(&namespace).and_then(|ns| ns.slice(&name));
                if known.is_some_and(|k| lost(k.version, at, version)) {
                    dirty.append(&mut self.with(&namespace, |ns| ns.set_slice(&name, None)));
                }
                listed.entry(namespace).or_default().insert(name);
            }
            dirty.append(&mut self.apply_placed_slice(placed));
        }
        let none = BTreeSet::new();
        for (namespace, ns) in &mut self.namespaces {
            let keep = listed.get(namespace).unwrap_or(&none);
            for gone in ns.slices_not_in(keep, version) {
                dirty.append(&mut qualify(namespace, ns.set_slice(&gone, None)));
            }
        }
        self.slices_heard(version);
        self.prune();
        dirty
    }

    /// The slice watch was heard from.
    pub fn slices_heard(&mut self, version: Rv) {
        self.slices_seen = self.slices_seen.max(version);
    }

    /// Every source and every leader Service's source: all that a full reconcile has to look at.
    pub fn all_keys(&self) -> Dirty {
        self.namespaces.iter().flat_map(|(namespace, ns)| keys_of(namespace, ns)).collect()
    }

    /// The keys of [`Index::all_keys`] in one namespace, or all of them.
    pub fn keys_in(&self, namespace: Option<&str>) -> Dirty {
        let Some(namespace) = namespace else { return self.all_keys() };
        let namespaces = self.namespaces.get_key_value(namespace).into_iter();
        namespaces.flat_map(|(namespace, ns)| keys_of(namespace, ns)).collect()
    }

    /// The sources whose leader Service or slices were written by decision rules above this version.
    pub fn keys_of_newer(&self, version: u32) -> Dirty {
        let newer = |ns: &Namespace, name: &Arc<str>| {
            let service = ns.service(name).and_then(Entry::leader);
            service.is_some_and(|leader| leader.decision_version() > version)
                || ns.slices_of(name).any(|slice| slice.truth().decision_version > version)
        };
        let mut keys = Dirty::new();
        for (namespace, ns) in &self.namespaces {
            let led = ns.led_sources().filter(|s| ns.leaders_for(s).any(|name| newer(ns, name)));
            keys.extend(led.map(|source| ServiceKey::new(namespace.clone(), source.clone())));
        }
        keys
    }

    /// The uids of all Services of a namespace that are known.
    pub fn service_uids(&self, namespace: &str) -> BTreeSet<Arc<str>> {
        self.namespaces.get(namespace).map(Namespace::service_uids).unwrap_or_default()
    }

    /// Whether a source of this namespace needs its pods.
    pub fn needs_pods(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(Namespace::needs_pods)
    }

    /// Namespaces that have a source whose pods matter.
    pub fn pod_namespaces(&self) -> BTreeSet<Arc<str>> {
        let wanted = self.namespaces.iter().filter(|(_, ns)| ns.needs_pods());
        wanted.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Objects held.
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes { namespaces: self.namespaces.len(), ..Sizes::default() };
        for ns in self.namespaces.values() {
            ns.count(&mut sizes);
        }
        sizes
    }

    fn with(
        &mut self,
        namespace: &Arc<str>,
        change: impl FnOnce(&mut Namespace) -> BTreeSet<Arc<str>>,
    ) -> Dirty {
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Dirty::new() };
        let dirty = qualify(namespace, change(ns));
        if ns.is_empty() {
            self.namespaces.remove(namespace);
            shrink::map(&mut self.namespaces);
        }
        dirty
    }

    fn prune(&mut self) {
        self.namespaces.retain(|_, ns| !ns.is_empty());
        self.compact.iter_mut().for_each(Pools::prune);
        shrink::map(&mut self.namespaces);
    }
}

/// Changes a Service. While the namespace is over its limit this may also concern a source that takes a
/// place which becomes free, or loses its own.
fn within_limit(
    ns: &mut Namespace,
    limit: usize,
    change: impl FnOnce(&mut Namespace) -> BTreeSet<Arc<str>>,
) -> BTreeSet<Arc<str>> {
    let before = ns.first_beyond(limit);
    let mut dirty = change(ns);
    dirty.append(&mut ns.between(before, ns.first_beyond(limit)));
    dirty
}

/// True when an object is known at a version that a list covers, and the list shows an older one:
/// what is known was lost when the cluster was restored.
fn lost(known: Rv, listed: Rv, list: Rv) -> bool {
    listed < known && known <= list
}

/// Where a trimmed pod is, and of which version.
fn place_of(pod: &Decoded<NamespacedPod>) -> Option<(Arc<str>, Arc<str>, Rv)> {
    match pod {
        Decoded::Object(NamespacedPod { namespace, pod }) => {
            Some((namespace.clone(), pod.name.clone(), pod.version))
        }
        Decoded::Unreadable(found) => {
            let (namespace, name) = names_of(&found.metadata)?;
            Some((namespace, name, Rv::of(&found.metadata)))
        }
    }
}

/// The sources of a namespace, and those that leader Services are there for.
fn keys_of<'a>(
    namespace: &'a Arc<str>,
    ns: &'a Namespace,
) -> impl Iterator<Item = ServiceKey> + 'a {
    let names = ns.sources().chain(ns.led_sources());
    names.map(|name| ServiceKey::new(namespace.clone(), name.clone()))
}

fn qualify(namespace: &Arc<str>, names: BTreeSet<Arc<str>>) -> Dirty {
    names.into_iter().map(|name| ServiceKey::new(namespace.clone(), name)).collect()
}

fn names_of(meta: &ObjectMeta) -> Option<(Arc<str>, Arc<str>)> {
    Some((meta.namespace.as_deref()?.into(), meta.name.as_deref()?.into()))
}

#[cfg(test)]
mod tests;
