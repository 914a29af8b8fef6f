//! Everything one decision looks at, cloned out of the index (or read from the API server) at once.
//!
//! Data only; `decide` judges it. Pods and slices are shared, not copied.

use std::sync::Arc;

use super::Index;
use super::namespace::{Namespace, created};
use super::pod::{Known, Pod};
use super::service::{Entry, Leader, Role, Source};
use super::slice::Slice;
use crate::names::{NameRule, ServiceKey};
use crate::settings;
use crate::version::{Marks, Rv};

/// What is known of the source Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SourceState {
    /// There is no such Service.
    #[default]
    Absent,
    /// It exists and carries none of our annotations.
    Plain {
        /// Its uid.
        uid: Arc<str>,
    },
    /// It exists, and what it asks for cannot be read.
    Unreadable {
        /// Its uid; empty where that cannot be read either.
        uid: Arc<str>,
        /// What cannot be read, and why.
        error: Arc<str>,
        /// It was read before: the pods of the snapshot are those that its selector matched then.
        selects: bool,
    },
    /// It carries our annotations.
    Judged {
        /// Its uid.
        uid: Arc<str>,
        /// The object and what it asks for.
        source: Arc<Source>,
    },
}

/// The Service that has a name a source wants for its leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Holder {
    /// No Service has the name.
    #[default]
    Free,
    /// A Service without our label.
    Stranger {
        /// Its uid.
        uid: Arc<str>,
    },
    /// A Service that cannot be read.
    Unreadable {
        /// What cannot be read, and why.
        error: Arc<str>,
    },
    /// A Service with our label, of this or of another source.
    Leader(Arc<Leader>),
}

/// The source whose leader another one takes, and what its leader Service routes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// What is known of it.
    pub source: SourceState,
    /// Every Service whose label says that it leads for it.
    pub leaders: Vec<Arc<Leader>>,
    /// Slices of those.
    pub slices: Vec<Arc<Slice>>,
}

/// What one decision looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The source.
    pub key: ServiceKey,
    /// What is known of it.
    pub source: SourceState,
    /// The version it is known at; none where there is none.
    pub source_version: Rv,
    /// Who has the leader name the source asks for.
    pub holder: Holder,
    /// Every Service whose label or owner says that it leads for this source.
    pub leaders: Vec<Arc<Leader>>,
    /// Names of those among them that are another Service's, which exists.
    pub leads_another: Vec<String>,
    /// Other enabled sources that ask for the same leader name, oldest first.
    pub rivals: Vec<ServiceKey>,
    /// True when one of the rivals is older than this source.
    pub older_rival: Option<ServiceKey>,
    /// The source whose leader this one takes, where it asks for that.
    pub followed: Option<Followed>,
    /// Pods the source's selector matches; above their bound some of them, see `over_pods`.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that slices of ours name and the selector does not match (any longer).
    pub deselected: Vec<Arc<Pod>>,
    /// Slices of the leader name and of every Service in `leaders`.
    pub slices: Vec<Arc<Slice>>,
    /// How far the Services and pods in here reach.
    pub marks: Marks,
    /// The bound on enabled sources per namespace, where this one is beyond it.
    pub over_limit: Option<usize>,
    /// The bound on pods per source, where the selector matches more. `pods` are then so many of
    /// them, the first by name, and the pods that lead or led last.
    pub over_pods: Option<usize>,
    /// The pods in here are complete (their watch passed its first list, or they were just read).
    pub pods_known: bool,
    /// Everything in here was just read consistently from the API server, the slices before the
    /// Services and the pods: a mark on one of them that is ahead then is from another history.
    pub consistent: bool,
}

impl Snapshot {
    /// Whether a leader Service provably belongs to this source, whose uid is given. Where nothing but
    /// its label and annotations say so, its name or a slice of ours has to speak for it too: it may
    /// be a copy that a user made.
    pub fn owns(&self, leader: &Leader, source_uid: &str) -> bool {
        leader.is_ours(&self.key.name, source_uid)
            && (leader.owner.is_some()
                || self.wanted_name().is_some_and(|name| name == leader.name())
                || self.slices.iter().any(|s| s.owner_uid.is_some() && s.is_ours(leader)))
    }

    /// Name of the leader Service that the source asks for, also where other settings are invalid.
    fn wanted_name(&self) -> Option<String> {
        settings::claimed_name(&self.judged()?.object, NameRule::Dns1123)
    }

    /// How far a decision on it has seen, to be recorded on the slices that it writes. An answer to a
    /// write of ours may have brought a newer source than the watch has.
    pub fn decided_at(&self) -> Marks {
        Marks { services: self.marks.services.max(self.source_version), ..self.marks }
    }

    /// Uid of the source, where it exists and its uid can be read.
    pub fn source_uid(&self) -> Option<String> {
        match &self.source {
            SourceState::Absent => None,
            SourceState::Plain { uid }
            | SourceState::Unreadable { uid, .. }
            | SourceState::Judged { uid, .. } => {
                Some(uid.to_string()).filter(|uid| !uid.is_empty())
            }
        }
    }

    /// The source with its settings, where it exists, carries our annotations and can be read.
    pub fn judged(&self) -> Option<&Source> {
        if let SourceState::Judged { source, .. } = &self.source { Some(source) } else { None }
    }

    /// Every pod in here: those that the selector matches, and those that slices name.
    pub fn known_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().chain(&self.deselected).map(|pod| &**pod)
    }

    /// The pod with this uid.
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.known_pods().find(|pod| *pod.uid == *uid)
    }

    /// A slice of this leader Service that cannot be read, and why. Whose it is may be unknown then.
    pub fn unreadable_slice(&self, leader: &Leader) -> Option<(&Slice, &str)> {
        let mut slices = self.slices.iter().filter(|slice| *slice.service == *leader.name());
        slices.find_map(|slice| Some((&**slice, slice.unreadable.as_deref()?)))
    }

    /// The slices that zen-lead provably made for this leader Service.
    pub fn slices_of(&self, leader: &Leader) -> impl Iterator<Item = &Slice> {
        let slices = self.slices.iter().map(|slice| &**slice);
        slices.filter(|slice| *slice.service == *leader.name() && slice.is_ours(leader))
    }
}

impl Index {
    /// What is known for a decision about a source.
    pub fn snapshot(&self, key: &ServiceKey) -> Snapshot {
        let mut snapshot = Snapshot {
            key: key.clone(),
            marks: self.seen(&key.namespace),
            pods_known: self.pods_seen.is_some(),
            ..Snapshot::default()
        };
        let Some(ns) = self.namespaces.get(&key.namespace) else { return snapshot };
        snapshot.pods_known |= ns.pods_seen.is_some();
        let entry = ns.service(&key.name);
        snapshot.source = source_state(entry);
        snapshot.source_version = entry.map_or(Rv::NONE, |entry| entry.version);
        snapshot.leaders = ns.leaders_of(&key.name);
        let leads_another = |leader: &Leader| {
            let mut others = leader.sources().filter(|name| **name != key.name);
            others.any(|name| ns.service(name).is_some_and(|e| leader.is_ours(name, &e.uid)))
        };
        let leading_another = snapshot.leaders.iter().filter(|leader| leads_another(leader));
        snapshot.leads_another = leading_another.map(|leader| leader.name().to_owned()).collect();
        let mut services: Vec<&str> = Vec::new();
        let led: Vec<Arc<Leader>> = snapshot.leaders.clone();
        services.extend(led.iter().map(|l| l.name()));
        if let Some(spec) = entry.and_then(Entry::spec) {
            let wanted = spec.leader_service_name.as_str();
            snapshot.holder = holder(ns.service(wanted));
            if !services.contains(&wanted) {
                services.push(wanted);
            }
            let age = |name: &Arc<str>| Some((created(ns.service(name)?), name.clone()));
            let own_age = age(&key.name);
            let mut rivals: Vec<_> =
                ns.claimants(wanted).filter(|n| **n != key.name).filter_map(age).collect();
            rivals.sort();
            let named = |name: Arc<str>| ServiceKey::new(key.namespace.clone(), name);
            snapshot.older_rival =
                rivals.first().filter(|r| Some(*r) < own_age.as_ref()).map(|r| named(r.1.clone()));
            snapshot.rivals = rivals.into_iter().map(|(_, name)| named(name)).collect();
            let limit = self.limits.services_per_namespace;
            snapshot.over_limit = ns.beyond(&key.name, limit).then_some(limit);
        }
        let same_as = entry.and_then(Entry::spec).and_then(|spec| spec.same_leader_as.as_deref());
        snapshot.followed = same_as.map(|other| followed(ns, other));
        let slices = services.iter().flat_map(|s| ns.slices_of(s));
        snapshot.slices = slices.map(super::slice::Slice::opened).collect();
        let limit = self.limits.pods_per_service;
        let followed = snapshot.followed.iter().flat_map(|f| &f.slices);
        let led: Vec<&Arc<Slice>> = snapshot.slices.iter().chain(followed).collect();
        let (pods, beyond) = ns.candidates(&key.name, limit, &snapshot.leaders, &led);
        snapshot.pods = pods;
        snapshot.over_pods = beyond.then_some(limit);
        for (name, uid) in snapshot.slices.iter().flat_map(|s| s.named_pods()) {
            let known = |pods: &[Arc<Pod>]| pods.iter().any(|p| *p.uid == *uid);
            if let Some(pod) = ns.pod(name).filter(|p| *p.uid == *uid)
                && !known(&snapshot.pods)
                && !known(&snapshot.deselected)
            {
                snapshot.deselected.push(pod.clone());
            }
        }
        snapshot
    }

    /// The source of a leader Service, by its owner or its label; `None` for any other Service.
    pub fn source_of(&self, key: &ServiceKey) -> Option<ServiceKey> {
        let leader = self.namespaces.get(&key.namespace)?.service(&key.name)?.leader()?;
        let owner = leader.owner.as_ref().map(|owner| &owner.name);
        let source = owner.or(leader.label.as_ref())?;
        Some(ServiceKey::new(key.namespace.clone(), source.clone()))
    }
}

fn followed(ns: &Namespace, source: &str) -> Followed {
    let leaders = ns.leaders_of(source);
    let slices = leaders.iter().flat_map(|leader| ns.slices_of(leader.name()));
    let slices = slices.map(super::slice::Slice::opened).collect();
    Followed { source: source_state(ns.service(source)), leaders, slices }
}

impl Snapshot {
    /// Everything in here that cannot be read, in a line each: what it is, and why.
    pub fn unreadable(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let SourceState::Unreadable { error, .. } = &self.source {
            lines.push(format!("Service {}: {error}", self.key.name));
        }
        if let Holder::Unreadable { error } = &self.holder {
            lines.push(format!("the Service that has the name of the leader Service: {error}"));
        }
        for leader in &self.leaders {
            let error = leader.unreadable.iter();
            lines.extend(error.map(|error| format!("leader Service {}: {error}", leader.name())));
        }
        for slice in &self.slices {
            let error = slice.unreadable.iter();
            lines.extend(error.map(|error| format!("EndpointSlice {}: {error}", slice.name)));
        }
        for pod in self.known_pods().filter(|p| p.known != Known::Now) {
            lines.push(format!("pod {}", pod.name));
        }
        lines
    }
}

fn source_state(entry: Option<&Entry>) -> SourceState {
    match entry {
        None => SourceState::Absent,
        Some(Entry { uid, unreadable: Some(error), role, .. }) => SourceState::Unreadable {
            uid: uid.clone(),
            error: error.clone(),
            selects: matches!(role, Role::Source(_)),
        },
        Some(Entry { uid, role: Role::Source(source), .. }) => {
            SourceState::Judged { uid: uid.clone(), source: source.opened() }
        }
        Some(entry) => SourceState::Plain { uid: entry.uid.clone() },
    }
}

fn holder(entry: Option<&Entry>) -> Holder {
    match entry {
        None => Holder::Free,
        Some(Entry { role: Role::Leader(leader), .. }) => Holder::Leader(leader.opened()),
        Some(Entry { unreadable: Some(error), .. }) => Holder::Unreadable { error: error.clone() },
        Some(entry) => Holder::Stranger { uid: entry.uid.clone() },
    }
}
