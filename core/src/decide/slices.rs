//! The slices of a leader Service: what they should say, and the one write that comes next.
//!
//! Here is the protocol of the two families (design, section 3a.5): the slice of the first IP
//! family is the lock, the other follows, and the lock is switched only beside a follower that
//! carries the lock's own epoch or was emptied for this switch.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::elect::{Choice, Conditions, Incumbent, Reason};
pub use super::present::Present;
use super::{Context, Notice, Target, bookkeeping, mirror};
use crate::index::evidence::{self, slice_name};
use crate::index::pod::{Family, Pod};
use crate::index::service::Leader;
use crate::index::slice::{Slice, Truth};
use crate::keys::{self, kubernetes, status};
use crate::ranking::next_epoch;
use crate::version::Marks;

/// A write of a slice.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceWrite {
    /// POST of a slice that is not there.
    Create(Box<EndpointSlice>),
    /// PUT with the resourceVersion and uid the decision was made on.
    Replace(Box<EndpointSlice>),
    /// DELETE of a slice of ours that no family needs, with uid and resourceVersion.
    Delete {
        /// Name of the slice.
        name: String,
        /// Uid of the slice.
        uid: String,
        /// Version of the slice.
        version: String,
    },
}

/// A write and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The write.
    pub write: SliceWrite,
    /// The switch this write completes in the lock slice.
    pub switch: Option<Switch>,
    /// It only takes an endpoint out: never delayed by rank.
    pub urgent: bool,
}

/// A pod becoming leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Uid of the new leader.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Name of the leader before.
    pub from: Option<String>,
    /// Number of the switch.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Leader Service whose leader it changes.
    pub leader: Target,
    /// The event of the switch before, in case it is untold: as the lock tells of it, or the mirror where
    /// there is no lock.
    pub before: Option<Notice>,
}

/// What the slices are written from.
pub struct Wanted<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// The leader Service the slices belong to.
    pub leader: &'a Leader,
    /// Its families, the lock's first.
    pub families: &'a [Family],
    /// The outcome of the election.
    pub choice: &'a Choice,
    /// Ports of the endpoint (or of no endpoint).
    pub ports: Vec<EndpointPort>,
    /// The pod leads but may not be routed to: a port it does not have (ports-mode strict).
    pub withheld: bool,
    /// The incumbent the election was held with.
    pub incumbent: Option<&'a Incumbent>,
    /// What the mirror on the leader Service says of the last switch.
    pub mirror: &'a Truth,
    /// How far the decision saw.
    pub marks: Marks,
    /// Hash of what the source asks for.
    pub asked: String,
    /// Replica that writes.
    pub writer: &'a str,
    /// Version of the decision rules the slices are to carry: this replica's, or the newer one whose
    /// work it only takes endpoints out of.
    pub version: Version,
    /// The present time.
    pub now: Timestamp,
    /// Every selected pod: to judge what other slices name.
    pub pods: &'a [Arc<Pod>],
    /// Pods that slices name and the selector does not match any longer.
    pub deselected: &'a [Arc<Pod>],
}

/// Which decision versions count as right, and which one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// This one or a newer one; a newer one stays on the slice.
    AtLeast(u32),
    /// Only this one: the replicas of the newer one are gone.
    Back(u32),
}

impl Version {
    fn right(self, present: u32) -> bool {
        match self {
            Self::AtLeast(own) => present >= own,
            Self::Back(own) => present == own,
        }
    }

    fn written(self, present: u32) -> u32 {
        match self {
            Self::AtLeast(own) => present.max(own),
            Self::Back(own) => own,
        }
    }
}

/// The next write towards the wanted slices, or `None` when they are right.
pub fn next(wanted: &Wanted<'_>, present: &Present<'_>) -> Option<Next> {
    let (lock, follower) = (present.lock_says(), present.follower_says());
    let lock_epoch = lock.map_or(0, |t| t.epoch);
    let follower_epoch = follower.map_or(0, |t| t.epoch);
    let previous = lock_epoch.max(follower_epoch).max(wanted.mirror.epoch);
    let dual = wanted.families.len() > 1;
    let to_come = next_epoch(previous, wanted.now);

    let switch = wanted.choice.switch.and_then(|reason| {
        let (pod, _) = wanted.choice.endpoint.as_ref()?;
        Some(Switch {
            uid: pod.uid.to_string(),
            name: pod.name.to_string(),
            from: wanted.incumbent.and_then(|i| i.name.clone()),
            epoch: to_come,
            at: wanted.now,
            reason,
            leader: Target::of(&wanted.leader.object),
            before: mirror::untold(lock.unwrap_or(wanted.mirror), wanted.mirror, wanted.now),
        })
    });
    // A slice that no family needs any longer must not keep a healthy pod beside the next leader.
    if switch.is_some()
        && let Some(slice) = present.superfluous.iter().find(|s| wanted.names_healthy(Some(s)))
    {
        return wanted.retired(slice);
    }
    if dual
        && (switch.is_some() || present.lock.is_none())
        && must_empty_follower(wanted, present, lock_epoch, follower_epoch)
    {
        let content = Content::emptied(to_come, switch.as_ref(), follower);
        let write = wanted.write(present.follower, wanted.families[1], &content);
        return Some(Next { write, switch: None, urgent: false });
    }

    // The lock: with a switch a new epoch; with a follower ahead of it a new epoch as well, because
    // a switch was begun and not finished. A mirror ahead of it means that somebody changed one of
    // the two by hand (`decide` has read both), or deleted the lock: epochs do not go back.
    let unfinished = (dual && follower_epoch > lock_epoch) || wanted.mirror.epoch > lock_epoch;
    // The first lock of a renamed leader Service takes over the leader without a switch.
    let begins = present.lock.is_none() && wanted.choice.endpoint.is_some();
    let epoch = if switch.is_some() || unfinished || begins { to_come } else { lock_epoch };
    let content = Content::of_lock(wanted, switch.as_ref(), epoch, lock);
    if !present.lock.is_some_and(|s| wanted.says(s, wanted.families[0], &content)) {
        // Whom the selector has left is healthy. Who may promote another takes him out by a switch.
        let urgent = switch.is_none()
            && takes_out(present.lock, &content)
            && !wanted.was_left_by_the_selector(present.lock);
        let write = wanted.write(present.lock, wanted.families[0], &content);
        return Some(Next { write, switch, urgent });
    }
    if dual {
        let right = present.follower.is_some_and(|s| wanted.says(s, wanted.families[1], &content));
        if !right {
            let urgent = takes_out(present.follower, &content);
            let write = wanted.write(present.follower, wanted.families[1], &content);
            return Some(Next { write, switch: None, urgent });
        }
    }
    present.superfluous.iter().find_map(|slice| wanted.retired(slice))
}

fn removed(slice: &Slice) -> Next {
    Next {
        write: SliceWrite::Delete {
            name: slice.name.to_string(),
            uid: slice.uid.to_string(),
            version: slice.version.to_string(),
        },
        switch: None,
        urgent: true,
    }
}

/// The lock is switched only beside a follower that carries the lock's own epoch. A lagging one is
/// emptied first (a slow writer may still be about to write it), and any follower in a planned
/// switch (whoever was named until now is healthy, be it that the selector has left him): always by a write, with the epoch to come, so that a paused writer meets 409. Once it is
/// empty and ahead of the lock, that has been done. Beside a lock that somebody deleted, a follower
/// may only name the pod that the new lock will name.
fn must_empty_follower(
    wanted: &Wanted<'_>,
    present: &Present<'_>,
    lock_epoch: u64,
    follower_epoch: u64,
) -> bool {
    let successor = wanted.choice.endpoint.as_ref().map(|(p, _)| &*p.uid);
    let routed: Vec<&str> = named(present.follower).collect();
    if follower_epoch > lock_epoch && routed.is_empty() {
        return false;
    }
    if present.lock.is_none() {
        return routed.iter().any(|uid| Some(*uid) != successor);
    }
    let names_healthy =
        wanted.names_healthy(present.lock) || wanted.names_healthy(present.follower);
    let lagging = follower_epoch < lock_epoch;
    wanted.choice.incumbent_healthy || names_healthy || lagging
}

/// What one slice says, whatever its family.
struct Content {
    pod: Option<(Arc<Pod>, Conditions)>,
    epoch: u64,
    leader_uid: Option<String>,
    leader_name: Option<String>,
    switched_at: Option<Timestamp>,
    reason: Option<String>,
    not_ready_since: Option<Timestamp>,
}

pub(super) fn named(slice: Option<&Slice>) -> impl Iterator<Item = &str> {
    slice.into_iter().flat_map(Slice::named_pods).map(|(_, uid)| uid)
}

impl Content {
    fn of_lock(
        wanted: &Wanted<'_>,
        switch: Option<&Switch>,
        epoch: u64,
        lock: Option<&Truth>,
    ) -> Self {
        let choice = wanted.choice;
        let last = lock.unwrap_or(wanted.mirror);
        let (leader_uid, leader_name) = match (switch, wanted.incumbent) {
            (Some(s), _) => (Some(s.uid.clone()), Some(s.name.clone())),
            (None, Some(i)) => (Some(i.uid.clone()), i.name.clone()),
            (None, None) => (None, None),
        };
        let (switched_at, reason) = match switch {
            Some(s) => (Some(s.at), Some(s.reason.as_str().to_owned())),
            None => (last.switched_at, last.reason.clone()),
        };
        Self {
            pod: choice.endpoint.clone().filter(|_| !wanted.withheld),
            epoch,
            leader_uid,
            leader_name,
            switched_at,
            reason,
            not_ready_since: choice.not_ready_since.filter(|_| switch.is_none()),
        }
    }

    /// A follower that is emptied for a switch names the pod to come, so that whoever finishes the
    /// switch finishes that one ([`Present::begun`]).
    fn emptied(epoch: u64, switch: Option<&Switch>, follower: Option<&Truth>) -> Self {
        let truth = follower.cloned().unwrap_or_default();
        Self {
            pod: None,
            epoch,
            leader_uid: switch.map(|s| s.uid.clone()).or(truth.pod_uid),
            leader_name: switch.map(|s| s.name.clone()).or(truth.pod_name),
            switched_at: truth.switched_at,
            reason: truth.reason,
            not_ready_since: None,
        }
    }
}

impl Wanted<'_> {
    /// The write that ends a slice which no family needs. What is destroyed has to carry every sign that it
    /// is ours: where one was lost, it is emptied and signed first. `None` where there is nothing to write.
    fn retired(&self, slice: &Slice) -> Option<Next> {
        let object = slice.object.as_deref().filter(|_| !slice.is_whole(self.leader));
        let Some(object) = object else { return Some(removed(slice)) };
        let mut signed = object.clone();
        signed.endpoints = Some(Vec::new());
        self.sign(&mut signed.metadata);
        if signed == *object {
            // It gets no owner: its leader Service leaves it behind.
            return None;
        }
        let write = SliceWrite::Replace(Box::new(signed));
        Some(Next { write, switch: None, urgent: true })
    }

    /// Puts owner and labels of ours on a slice; those of others stay.
    fn sign(&self, metadata: &mut ObjectMeta) {
        if let Some(owner) = self.owner() {
            let owners = metadata.owner_references.get_or_insert_default();
            owners.retain(|o| o.controller != Some(true));
            owners.push(owner);
        }
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in self.labels() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }

    /// True when the slice names a healthy pod that is not the one to be published.
    fn names_healthy(&self, slice: Option<&Slice>) -> bool {
        let successor = self.choice.endpoint.as_ref().map(|(p, _)| &*p.uid);
        let mut known = self.pods.iter().chain(self.deselected);
        let others: Vec<&str> = named(slice).filter(|uid| Some(*uid) != successor).collect();
        known.any(|p| others.contains(&&*p.uid) && p.eligible())
    }

    /// True when the lock names a pod that could lead, had the selector not left it.
    fn was_left_by_the_selector(&self, lock: Option<&Slice>) -> bool {
        let named: Vec<&str> = named(lock).collect();
        let mut left = self.deselected.iter().filter(|p| named.contains(&&*p.uid));
        left.any(|p| p.eligible() && p.address(self.families[0]).is_some())
    }

    /// True when the slice says this already; marks, writer and times do not count.
    fn says(&self, slice: &Slice, family: Family, content: &Content) -> bool {
        let Some(object) = &slice.object else { return false };
        let truth = slice.truth();
        let labels = object.metadata.labels.as_ref();
        let label = |k: &str| labels.and_then(|l| l.get(k)).map(String::as_str);
        truth.epoch == content.epoch
            && truth.pod_uid == content.leader_uid
            && truth.asked.as_deref() == Some(&*self.asked)
            && truth.not_ready_since.is_some() == content.not_ready_since.is_some()
            && self.version.right(truth.decision_version)
            && self.labels().iter().all(|(key, value)| label(key) == Some(value))
            && label(kubernetes::SERVICE_PROXY_NAME) == self.proxy()
            && self.owner().is_none_or(|o| evidence::controller(&object.metadata) == Some(&o))
            && object.endpoints.clone().unwrap_or_default() == self.endpoints(content, family)
            && object.ports.clone().unwrap_or_default() == self.ports
    }

    /// The proxy that the leader Service is for. A proxy picks Services and slices by this label, each
    /// for itself (kube-proxy: those without it), so the two must agree.
    fn proxy(&self) -> Option<&str> {
        let labels = self.leader.object.metadata.labels.as_ref();
        labels.and_then(|l| l.get(kubernetes::SERVICE_PROXY_NAME)).map(String::as_str)
    }

    fn write(&self, present: Option<&Slice>, family: Family, content: &Content) -> SliceWrite {
        let name = slice_name(self.leader.name(), family);
        // What others put on the slice (labels, finalizers, annotations) stays.
        let known = present.and_then(|s| s.object.as_deref());
        let mut metadata = known.map_or_else(ObjectMeta::default, |o| o.metadata.clone());
        metadata.name = Some(name);
        metadata.namespace.clone_from(&self.leader.object.metadata.namespace);
        self.sign(&mut metadata);
        let labels = metadata.labels.get_or_insert_default();
        match self.proxy() {
            Some(proxy) => labels.insert(kubernetes::SERVICE_PROXY_NAME.into(), proxy.into()),
            None => labels.remove(kubernetes::SERVICE_PROXY_NAME),
        };
        let annotations = metadata.annotations.get_or_insert_default();
        let was = present.map(Slice::truth).unwrap_or_default();
        let version = self.version.written(was.decision_version);
        // Whose version it is stays to be seen: the endpoint was only taken out.
        let keeps = matches!(self.version, Version::AtLeast(own) if version > own);
        let writer = was.writer.filter(|_| keeps).unwrap_or_else(|| self.writer.to_owned());
        let trigger = self.trigger(present, content);
        self.annotate(annotations, content, version, writer, trigger);
        let slice = Box::new(EndpointSlice {
            address_type: family.as_str().to_owned(),
            endpoints: Some(self.endpoints(content, family)),
            ports: Some(self.ports.clone()),
            metadata,
        });
        if known.is_some() { SliceWrite::Replace(slice) } else { SliceWrite::Create(slice) }
    }

    /// The labels that make a slice ours.
    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            (kubernetes::SERVICE_NAME, self.leader.name()),
            (kubernetes::SLICE_MANAGED_BY, keys::MANAGER),
            (kubernetes::MANAGED_BY, keys::MANAGER),
            (status::SOURCE_SERVICE, self.source),
        ]
    }

    fn annotate(
        &self,
        annotations: &mut BTreeMap<String, String>,
        content: &Content,
        decision_version: u32,
        writer: String,
        trigger: Timestamp,
    ) {
        let set: [(&str, Option<String>); 11] = [
            (status::LEADER_POD_UID, content.leader_uid.clone()),
            (status::LEADER_POD_NAME, content.leader_name.clone()),
            (status::LEADER_EPOCH, Some(content.epoch.to_string())),
            (status::LAST_SWITCH_TIME, content.switched_at.map(|t| t.to_string())),
            (status::SWITCH_REASON, content.reason.clone()),
            (status::NOT_READY_SINCE, content.not_ready_since.map(|t| t.to_string())),
            (status::DECIDED_AT, Some(self.marks.to_string())),
            (status::ASKED, Some(self.asked.clone())),
            (status::WRITER, Some(writer)),
            (status::DECISION_VERSION, Some(decision_version.to_string())),
            (kubernetes::LAST_CHANGE_TRIGGER_TIME, Some(trigger.to_string())),
        ];
        for (key, value) in set {
            match value {
                Some(value) => annotations.insert(key.to_owned(), value),
                None => annotations.remove(key),
            };
        }
        // A new write: `apply` gives it its id.
        annotations.remove(status::WRITE_ID);
    }

    /// What made this write necessary, as far as an object says it: the loss of the pod that it
    /// takes out, or the recovery of the one it puts back. (A successor may have been Ready for
    /// days, which kube-proxy would report as its own latency.)
    fn trigger(&self, present: Option<&Slice>, content: &Content) -> Timestamp {
        let stays = content.pod.as_ref().filter(|(_, c)| c.ready).map(|(p, _)| &*p.uid);
        let lost = present.and_then(|s| s.routed_pods().find(|uid| Some(*uid) != stays));
        let back = named(present).find(|uid| Some(*uid) == stays);
        let find = |uid: &str| self.pods.iter().chain(self.deselected).find(|p| *p.uid == *uid);
        let at = match (lost, back) {
            (Some(uid), _) => find(uid)
                .filter(|p| !p.eligible())
                .and_then(|p| p.deletion_asked.or(p.readiness.since)),
            (None, Some(uid)) if present.is_some_and(|s| s.routed_pods().next().is_none()) => {
                find(uid).and_then(|p| p.readiness.since)
            }
            _ => None,
        };
        at.unwrap_or(self.now).min(self.now)
    }

    fn endpoints(&self, content: &Content, family: Family) -> Vec<Endpoint> {
        let Some((pod, conditions)) = &content.pod else { return Vec::new() };
        // A pod without an address of this family: nobody in this slice.
        let Some(address) = pod.address(family) else { return Vec::new() };
        vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(conditions.ready),
                serving: Some(conditions.serving),
                terminating: Some(conditions.terminating),
            }),
            node_name: pod.node.as_deref().map(str::to_owned),
            zone: pod.zone.as_deref().map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: self.leader.object.metadata.namespace.clone(),
                name: Some(pod.name.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }]
    }

    /// The owner that a slice is to have; `None` where it may have any, because the garbage collector
    /// takes this leader Service off it.
    fn owner(&self) -> Option<OwnerReference> {
        let stays = !evidence::is_orphaning(&self.leader.object.metadata);
        stays.then(|| bookkeeping::owner(self.leader.name(), self.leader.uid()))
    }
}

/// The write that takes every endpoint out of a slice of ours; `None` when it has none.
pub fn emptied(slice: &Slice, marks: Marks, ctx: &Context<'_>) -> Option<Next> {
    let object = slice.object.as_deref().filter(|_| slice.unreadable.is_none())?;
    object.endpoints.as_ref().filter(|e| !e.is_empty())?;
    let mut emptied = object.clone();
    emptied.endpoints = Some(Vec::new());
    let annotations = emptied.metadata.annotations.get_or_insert_default();
    annotations.insert(status::DECIDED_AT.to_owned(), marks.to_string());
    // A newer version's slice keeps the name of its writer: whether that one lives is asked for.
    if slice.truth().decision_version <= ctx.version {
        annotations.insert(status::WRITER.to_owned(), ctx.writer.to_owned());
    }
    Some(Next { write: SliceWrite::Replace(Box::new(emptied)), switch: None, urgent: true })
}

/// True when a pod that is routed to now is not routed to afterwards.
fn takes_out(present: Option<&Slice>, content: &Content) -> bool {
    let stays = content.pod.as_ref().filter(|(_, c)| c.ready).map(|(p, _)| &*p.uid);
    present.is_some_and(|s| s.routed_pods().any(|uid| Some(uid) != stays))
}

/// The families of a leader Service, the lock's first.
pub fn families(leader: &Service) -> Vec<Family> {
    let listed = leader.spec.iter().flat_map(|s| s.ip_families.iter().flatten());
    let found: Vec<Family> = listed.filter_map(|f| Family::parse(f)).collect();
    if found.is_empty() { vec![Family::V4] } else { found }
}
