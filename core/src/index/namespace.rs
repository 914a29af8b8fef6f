//! One namespace of the index: its objects and the reverse maps between them.
//!
//! Every change answers with the names of the sources it touches. Kept consistent by construction:
//! each map is changed only in the setter of its object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::LabelPairs;
use super::Sizes;
use super::evidence;
use super::limits::Position;
use super::name_set::NameSet;
use super::pod::Pod;
use super::service::{Entry, Role};
use super::slice::Slice;
use crate::shrink;
use crate::version::Rv;

type Names = BTreeSet<Arc<str>>;

/// Objects and reverse maps of a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    services: BTreeMap<Arc<str>, Entry>,
    /// Leader name -> enabled sources that ask for it.
    claims: HashMap<Arc<str>, NameSet>,
    /// Source name -> Services whose label or owner says that they lead for it.
    leaders: HashMap<Arc<str>, NameSet>,
    /// Source name -> sources that take its leader.
    followers: HashMap<Arc<str>, NameSet>,
    /// First label pair of a source's selector -> those sources, and the pods that carry it. A list of pods for
    /// each source would grow with their product (docs/decisions/pods-of-a-source.md).
    selected: HashMap<(Arc<str>, Arc<str>), Selected>,
    pods: HashMap<Arc<str>, Arc<Pod>>,
    slices: HashMap<Arc<str>, Arc<Slice>>,
    /// Service name -> slices that belong to it.
    slices_of: HashMap<Arc<str>, NameSet>,
    /// Pod name -> slices of ours that name it, also where no selector matches it.
    named: HashMap<Arc<str>, NameSet>,
    /// The enabled sources in the order in which they have places within the bound.
    pub(super) places: BTreeSet<Position>,
    /// Position of the namespace's own pod watch.
    pub(super) pods_seen: Option<Rv>,
}

/// What a label pair selects.
#[derive(Clone, Debug, Default)]
struct Selected {
    /// Sources whose selector begins with it.
    sources: NameSet,
    /// Pods that carry it.
    pods: NameSet,
}

impl Namespace {
    /// The uids of its Services.
    pub(super) fn service_uids(&self) -> BTreeSet<Arc<str>> {
        self.services.values().map(|entry| entry.uid.clone()).collect()
    }

    /// Sets or removes a Service. Older versions are ignored, whatever their uid: a late event of an
    /// object that was deleted must not replace the one that we created after it.
    pub(super) fn set_service(&mut self, name: &Arc<str>, entry: Option<Entry>) -> Names {
        if let (Some(old), Some(new)) = (self.services.get(name), &entry)
            && (old == new || old.version > new.version)
        {
            return Names::new();
        }
        let mut dirty = Names::new();
        let moved = self.moved(name, entry.as_ref());
        for source in &moved {
            self.place(source).iter().for_each(|place| _ = self.places.remove(place));
        }
        let old = self.services.remove(name);
        let selection_changed = pairs(old.as_ref()) != pairs(entry.as_ref());
        if let Some(old) = &old {
            self.touch(name, old, &mut dirty);
            self.unlink(name, old, selection_changed);
        } else if let Some(claimants) = self.claims.get(name) {
            dirty.extend(claimants.into_iter().cloned());
        }
        if let Some(new) = entry {
            self.link(name, &new, selection_changed);
            self.touch(name, &new, &mut dirty);
            self.services.insert(name.clone(), new);
        }
        for source in &moved {
            self.places.extend(self.place(source));
        }
        dirty
    }

    /// The sources whose place within the bound may change with this Service: itself, and those that it now
    /// provably leads for, or no longer does.
    fn moved(&self, name: &Arc<str>, new: Option<&Entry>) -> Names {
        let old = self.services.get(name);
        let ours = |entry: Option<&Entry>, source: &Arc<str>| {
            let uid = self.services.get(source).map_or("", |source| &source.uid);
            entry.and_then(Entry::leader).is_some_and(|leader| leader.is_ours(source, uid))
        };
        let leaders = [old, new].into_iter().flatten().filter_map(Entry::leader);
        let sources = leaders.flat_map(|leader| leader.sources());
        sources.filter(|s| ours(old, s) != ours(new, s)).chain([name]).cloned().collect()
    }

    /// Removes a Service unless what is known is newer than the deleted version.
    pub(super) fn remove_service(&mut self, name: &Arc<str>, version: Rv) -> Names {
        match self.services.get(name) {
            Some(known) if known.version <= version => self.set_service(name, None),
            _ => Names::new(),
        }
    }

    /// The sources a change of this Service concerns.
    fn touch(&self, name: &Arc<str>, entry: &Entry, dirty: &mut Names) {
        if entry.unreadable.is_some() && entry.leader().is_none() {
            dirty.insert(name.clone());
        }
        match &entry.role {
            Role::Source(_) => _ = dirty.insert(name.clone()),
            Role::Leader(leader) => {
                dirty.extend(leader.sources().cloned());
                dirty.extend(leader.sources().flat_map(|source| self.followers_of(source)));
            }
            Role::Plain => {}
        }
        dirty.extend(self.followers_of(name));
        // A source whose last annotation is gone still has a leader Service to take down.
        for leader in self.leaders.get(name).into_iter().flatten() {
            let leader = self.services.get(leader).and_then(Entry::leader);
            dirty.insert(name.clone());
            dirty.extend(leader.into_iter().flat_map(|leader| leader.sources()).cloned());
        }
        if let Some(spec) = entry.spec()
            && let Some(others) = self.claims.get(spec.leader_service_name.as_str())
        {
            dirty.extend(others.into_iter().cloned());
        }
        if let Some(claimants) = self.claims.get(name) {
            dirty.extend(claimants.into_iter().cloned());
        }
    }

    fn unlink(&mut self, name: &Arc<str>, old: &Entry, selection_changed: bool) {
        if let Some(spec) = old.spec() {
            remove(&mut self.claims, spec.leader_service_name.as_str(), name);
            if let Some(other) = &spec.same_leader_as {
                remove(&mut self.followers, other.as_str(), name);
            }
        }
        if let Some(leader) = old.leader() {
            for source in leader.sources() {
                remove(&mut self.leaders, source, name);
            }
        }
        if selection_changed
            && let Some(first) = pairs(Some(old)).first()
            && let Some(selected) = self.selected.get_mut(first)
        {
            selected.sources.remove(name);
            if selected.sources.is_empty() {
                self.selected.remove(first);
                shrink::map(&mut self.selected);
            }
        }
    }

    fn link(&mut self, name: &Arc<str>, new: &Entry, selection_changed: bool) {
        if let Some(spec) = new.spec() {
            let claimed = Arc::from(spec.leader_service_name.as_str());
            self.claims.entry(claimed).or_default().insert(name.clone());
            if let Some(other) = &spec.same_leader_as {
                self.followers.entry(other.as_str().into()).or_default().insert(name.clone());
            }
        }
        if let Some(leader) = new.leader() {
            for source in leader.sources() {
                self.leaders.entry(source.clone()).or_default().insert(name.clone());
            }
        }
        if selection_changed && let Some(first) = pairs(Some(new)).first() {
            let pods = &self.pods;
            let carrying = || {
                let pods = pods.values().filter(|p| p.template.labels.contains(first));
                Selected {
                    sources: NameSet::default(),
                    pods: pods.map(|p| p.name.clone()).collect(),
                }
            };
            let selected = self.selected.entry(first.clone()).or_insert_with(carrying);
            selected.sources.insert(name.clone());
        }
    }

    /// Sets or removes a pod; older versions are ignored.
    pub(super) fn set_pod(&mut self, name: &Arc<str>, pod: Option<Pod>) -> Names {
        if let (Some(old), Some(new)) = (self.pods.get(name), &pod) {
            if old.version > new.version {
                return Names::new();
            }
            // Most pod events change nothing that a decision looks at.
            if (Pod { version: new.version, ..(**old).clone() }) == *new {
                self.pods.insert(name.clone(), Arc::new(new.clone()));
                return Names::new();
            }
        }
        let old = self.pods.remove(name);
        let selecting = |pod: Option<&Pod>| pod.map(|pod| self.selecting(pod)).unwrap_or_default();
        let (before, after) = (labels(old.as_deref()), labels(pod.as_ref()));
        let relabelled = before != after;
        let is = selecting(pod.as_ref());
        // A pod with the same labels is selected as before.
        let was = selecting(old.as_deref().filter(|_| relabelled));
        let both = old.as_deref().zip(pod.as_ref());
        // Labels count by what selects them: a label that no selector asks for changes nothing.
        let dirty = if relabelled && both.is_some_and(|(o, n)| o.differs_in_labels_only(n)) {
            was.symmetric_difference(&is).cloned().collect()
        } else {
            was.into_iter().chain(is).chain(self.led_by(name)).collect()
        };
        for pair in before.iter().filter(|pair| !after.contains(pair)) {
            self.selected.get_mut(pair).into_iter().for_each(|s| s.pods.remove(name));
        }
        for pair in after.iter().filter(|pair| !before.contains(pair)) {
            self.selected.get_mut(pair).into_iter().for_each(|s| s.pods.insert(name.clone()));
        }
        if let Some(new) = pod {
            self.pods.insert(name.clone(), Arc::new(new));
        } else {
            shrink::map(&mut self.pods);
        }
        dirty
    }

    /// Removes a pod unless what is known is newer than the deleted version (two watches overlap
    /// while the cluster-wide one takes over).
    pub(super) fn remove_pod(&mut self, name: &Arc<str>, version: Rv) -> Names {
        match self.pods.get(name) {
            Some(known) if known.version <= version => self.set_pod(name, None),
            _ => Names::new(),
        }
    }

    /// The sources whose selector matches a pod.
    fn selecting(&self, pod: &Pod) -> Names {
        let candidates = pod.template.labels.iter().filter_map(|pair| self.selected.get(pair));
        candidates
            .flat_map(|selected| &selected.sources)
            .filter(|name| self.services.get(*name).is_some_and(|e| matches(pod, pairs(Some(e)))))
            .cloned()
            .collect()
    }

    /// Whether a source is routed to another pod than this one, and that pod can take the traffic: then nothing
    /// is lost by this one.
    pub(super) fn is_led_elsewhere(&self, source: &str, pod: &str) -> bool {
        let slices = self.leaders_for(source).flat_map(|leader| self.slices_of(leader));
        let mut named = slices.flat_map(|slice| &slice.pods).peekable();
        let serves = |name: &Arc<str>| self.pods.get(name).is_some_and(|pod| pod.serves());
        named.peek().is_some() && named.all(|name| **name != *pod && serves(name))
    }

    /// The sources whose slices name a pod.
    fn led_by(&self, pod: &str) -> Names {
        let slices = self.named.get(pod).into_iter().flatten();
        let slices = slices.filter_map(|name| self.slices.get(name));
        slices.flat_map(|slice| self.sources_of_slice(slice)).collect()
    }

    pub(super) fn drop_pods(&mut self) {
        self.pods = HashMap::new();
        self.selected.values_mut().for_each(|selected| selected.pods = NameSet::default());
        self.pods_seen = None;
    }

    /// Forgets every object, because they belong to another history of the cluster.
    pub(super) fn drop_services(&mut self) -> Names {
        let all: Vec<Arc<str>> = self.services.keys().cloned().collect();
        all.iter().flat_map(|name| self.set_service(name, None)).collect()
    }

    /// See [`Namespace::drop_services`].
    pub(super) fn drop_slices(&mut self) -> Names {
        let all: Vec<Arc<str>> = self.slices.keys().cloned().collect();
        all.iter().flat_map(|name| self.set_slice(name, None)).collect()
    }

    /// Sets or removes a slice; older versions are ignored, whatever their uid.
    pub(super) fn set_slice(&mut self, name: &Arc<str>, slice: Option<Slice>) -> Names {
        if let (Some(old), Some(new)) = (self.slices.get(name), &slice)
            && (**old == *new || old.version > new.version)
        {
            return Names::new();
        }
        let mut dirty = Names::new();
        if let Some(old) = self.slices.remove(name) {
            dirty.extend(self.sources_of_slice(&old));
            remove(&mut self.slices_of, &old.service, name);
            for pod in &old.pods {
                remove(&mut self.named, pod, name);
            }
            shrink::map(&mut self.slices);
        }
        if let Some(new) = slice {
            dirty.extend(self.sources_of_slice(&new));
            self.slices_of.entry(new.service.clone()).or_default().insert(name.clone());
            for pod in &new.pods {
                self.named.entry(pod.clone()).or_default().insert(name.clone());
            }
            self.slices.insert(name.clone(), Arc::new(new));
        }
        dirty
    }

    /// Removes a slice unless what is known is newer than the deleted version.
    pub(super) fn remove_slice(&mut self, name: &Arc<str>, version: Rv) -> Names {
        match self.slices.get(name) {
            Some(known) if known.version <= version => self.set_slice(name, None),
            _ => Names::new(),
        }
    }

    /// The sources a slice concerns: those its Service may lead for, those that take the leader of
    /// these, and those that ask for that name (a decision that makes the leader Service just now looks
    /// at the slices under its name). A stranger's slice may hold the name of one of ours while it
    /// belongs to another Service.
    fn sources_of_slice(&self, slice: &Slice) -> Names {
        let named = evidence::leader_of_slice_name(&slice.name);
        let services = [Some(&*slice.service), named].into_iter().flatten();
        let mut sources = Names::new();
        for service in services {
            let leader = self.services.get(service).and_then(Entry::leader);
            for source in leader.into_iter().flat_map(|l| l.sources()) {
                sources.insert(source.clone());
                sources.extend(self.followers_of(source));
            }
            sources.extend(self.claims.get(service).into_iter().flatten().cloned());
        }
        sources
    }

    /// The sources that take the leader of this one.
    fn followers_of(&self, source: &str) -> impl Iterator<Item = Arc<str>> {
        self.followers.get(source).into_iter().flatten().cloned()
    }

    pub(super) fn services_not_in(&self, keep: &Names, version: Rv) -> Vec<Arc<str>> {
        let gone = self.services.iter().filter(|(n, e)| !keep.contains(*n) && e.version <= version);
        gone.map(|(n, _)| n.clone()).collect()
    }

    pub(super) fn pods_not_in(&self, keep: &Names, version: Rv) -> Vec<Arc<str>> {
        let gone = self.pods.iter().filter(|(n, p)| !keep.contains(*n) && p.version <= version);
        gone.map(|(n, _)| n.clone()).collect()
    }

    pub(super) fn slices_not_in(&self, keep: &Names, version: Rv) -> Vec<Arc<str>> {
        let gone = self.slices.iter().filter(|(n, s)| !keep.contains(*n) && s.version <= version);
        gone.map(|(n, _)| n.clone()).collect()
    }

    /// Names of the Services that carry our annotations.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.iter().filter(|(_, e)| e.source().is_some()).map(|(n, _)| n)
    }

    /// Names of the sources that a leader Service claims to lead for.
    pub(super) fn led_sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.leaders.keys()
    }

    /// True when a source here needs its pods: enabled, or invalid or unreadable with a leader of
    /// before.
    pub(super) fn needs_pods(&self) -> bool {
        self.services.iter().any(|(name, e)| {
            let judged = e.source().is_some() || e.unreadable.is_some();
            e.spec().is_some() || (judged && self.leaders.contains_key(name))
        })
    }

    pub(super) fn service(&self, name: &str) -> Option<&Entry> {
        self.services.get(name)
    }

    pub(super) fn slice(&self, name: &str) -> Option<&Arc<Slice>> {
        self.slices.get(name)
    }

    pub(super) fn pod(&self, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub(super) fn claimants(&self, leader_name: &str) -> impl Iterator<Item = &Arc<str>> {
        self.claims.get(leader_name).into_iter().flatten()
    }

    pub(super) fn leaders_for(&self, source: &str) -> impl Iterator<Item = &Arc<str>> {
        self.leaders.get(source).into_iter().flatten()
    }

    /// The pods that the selector of a source matches, by name.
    pub(super) fn members_of(&self, source: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let wanted = pairs(self.services.get(source));
        let selected = wanted.first().and_then(|first| self.selected.get(first));
        let names = selected.into_iter().flat_map(|selected| &selected.pods);
        names.filter_map(|name| self.pods.get(name)).filter(|pod| matches(pod, wanted))
    }

    /// The pod of this name, where the selector of a source matches it.
    pub(super) fn member(&self, source: &str, pod: &str) -> Option<&Arc<Pod>> {
        let wanted = pairs(self.services.get(source));
        self.pods.get(pod).filter(|pod| matches(pod, wanted))
    }

    pub(super) fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The slices of a Service, and those that hold the names which ours for it have.
    pub(super) fn slices_of(&self, service: &str) -> impl Iterator<Item = &Arc<Slice>> {
        let names = self.slices_of.get(service).into_iter().flatten();
        let held =
            evidence::slice_names(service).into_iter().filter_map(|name| self.slices.get(&*name));
        let tied = names.filter_map(|name| self.slices.get(name));
        tied.chain(held.filter(move |slice| *slice.service != *service))
    }

    /// Number of enabled sources.
    pub(super) fn enabled(&self) -> usize {
        self.places.len()
    }

    /// Names of the enabled sources.
    pub(super) fn enabled_sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.iter().filter(|(_, e)| e.spec().is_some()).map(|(name, _)| name)
    }

    pub(super) fn count(&self, sizes: &mut Sizes) {
        sizes.services += self.services.len();
        sizes.sources += self.sources().count();
        sizes.pods += self.pods.len();
        sizes.slices += self.slices.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.pods.is_empty()
            && self.slices.is_empty()
            && self.pods_seen.is_none()
    }
}

/// creationTimestamp of a source.
pub(super) fn created(entry: &Entry) -> Option<Timestamp> {
    entry.source()?.created
}

/// The selector of a source as label pairs; empty for everything else.
fn pairs(entry: Option<&Entry>) -> &LabelPairs {
    entry.and_then(Entry::source).map_or(&[], |source| &source.selector)
}

fn labels(pod: Option<&Pod>) -> &LabelPairs {
    pod.map_or(&[], |pod| &pod.template.labels)
}

fn matches(pod: &Pod, wanted: &LabelPairs) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(k, v)| pod.label(k) == Some(v))
}

fn remove<K, Q>(map: &mut HashMap<K, NameSet>, key: &Q, name: &Arc<str>)
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
            shrink::map(map);
        }
    }
}
