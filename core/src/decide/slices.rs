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
use kube_core::ResourceExt;

use super::elect::{Choice, Conditions, Incumbent, SwitchReason};
use super::own_slices::OwnSlices;
use super::{Context, Notice, ObjectRef, bookkeeping, mirror};
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
pub struct SliceStep {
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
    pub reason: SwitchReason,
    /// Leader Service whose leader it changes.
    pub leader: ObjectRef,
    /// The Event of the switch before this one, which may not have been sent: by the lock, or by the mirror
    /// where there is no lock.
    pub missed: Option<Notice>,
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
    pub source_hash: String,
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

/// The write that comes next, before it is written out.
#[derive(Debug)]
enum Move {
    /// A slice that no family needs is emptied, signed or deleted, by this write.
    Retire(Box<SliceStep>),
    /// The follower is emptied, with the epoch to come.
    EmptyFollower,
    /// The lock is written: the switch, where there is one.
    WriteLock,
    /// The follower gets what the lock has.
    WriteFollower,
}

/// The next write towards the wanted slices, or `None` when they are right.
pub fn next(wanted: &Wanted<'_>, own: &OwnSlices<'_>) -> Option<SliceStep> {
    SliceProtocol::new(wanted, own).next()
}

/// What the next write is chosen from.
struct SliceProtocol<'a> {
    wanted: &'a Wanted<'a>,
    own: &'a OwnSlices<'a>,
    lock_epoch: u64,
    follower_epoch: u64,
    /// The epoch of the next switch.
    next_epoch: u64,
    switch: Option<Switch>,
    /// What the lock is to say, and the follower after it.
    content: Content,
}

impl<'a> SliceProtocol<'a> {
    fn new(wanted: &'a Wanted<'a>, own: &'a OwnSlices<'a>) -> Self {
        let (lock, follower) = (own.lock_says(), own.follower_says());
        let lock_epoch = lock.map_or(0, |t| t.epoch);
        let follower_epoch = follower.map_or(0, |t| t.epoch);
        let previous = lock_epoch.max(follower_epoch).max(wanted.mirror.epoch);
        let next_epoch = next_epoch(previous, wanted.now);
        let switch = wanted.switch(next_epoch, lock);
        // With a follower ahead of the lock a switch was begun and not finished. With a mirror ahead of it
        // one of the two was changed by hand (`decide` has read both), or the lock was deleted. Epochs do
        // not go back.
        let dual = wanted.families.len() > 1;
        let unfinished = (dual && follower_epoch > lock_epoch) || wanted.mirror.epoch > lock_epoch;
        // The first lock of a renamed leader Service takes over the leader without a switch.
        let begins = own.lock.is_none() && wanted.choice.endpoint.is_some();
        let epoch = if switch.is_some() || unfinished || begins { next_epoch } else { lock_epoch };
        let content = Content::of_lock(wanted, switch.as_ref(), epoch, lock);
        Self { wanted, own, lock_epoch, follower_epoch, next_epoch, switch, content }
    }

    fn next(self) -> Option<SliceStep> {
        let (wanted, own) = (self.wanted, self.own);
        match self.next_move()? {
            Move::Retire(step) => Some(*step),
            Move::EmptyFollower => {
                let follower = own.follower_says();
                let content = Content::emptied(self.next_epoch, self.switch.as_ref(), follower);
                let write = wanted.write(own.follower, wanted.families[1], &content);
                Some(SliceStep { write, switch: None, urgent: false })
            }
            Move::WriteLock => {
                // A pod that the selector no longer matches may still be healthy: it is removed only as
                // part of a switch, never urgently.
                let urgent = self.switch.is_none()
                    && takes_out(own.lock, &self.content)
                    && !wanted.was_left_by_the_selector(own.lock);
                let write = wanted.write(own.lock, wanted.families[0], &self.content);
                Some(SliceStep { write, switch: self.switch, urgent })
            }
            Move::WriteFollower => {
                let urgent = takes_out(own.follower, &self.content);
                let write = wanted.write(own.follower, wanted.families[1], &self.content);
                Some(SliceStep { write, switch: None, urgent })
            }
        }
    }

    /// The protocol of the slices of one leader Service, as a table: the first row that applies.
    ///
    /// | when | next |
    /// |---|---|
    /// | a switch is due, and a slice that no family needs names a healthy pod | retire that slice |
    /// | a switch is due or the lock is missing, and [the follower goes first](Self::follower_first) | empty the follower |
    /// | the lock does not say what is wanted | write the lock |
    /// | the follower does not say what is wanted | write the follower |
    /// | a slice that no family needs is there | retire it |
    fn next_move(&self) -> Option<Move> {
        let (wanted, own) = (self.wanted, self.own);
        let dual = wanted.families.len() > 1;
        let switches = self.switch.is_some();
        let matches = |slice: Option<&Slice>, family: Family| {
            slice.is_some_and(|s| wanted.matches(s, family, &self.content))
        };
        let names_healthy = |s: &&&'a Slice| wanted.names_healthy(Some(s));
        let retire = |slice: &&Slice| wanted.retired(slice).map(|s| Move::Retire(Box::new(s)));
        if let Some(slice) = own.superfluous.iter().find(names_healthy).filter(|_| switches) {
            return retire(slice);
        }
        if dual && (switches || own.lock.is_none()) && self.follower_first() {
            return Some(Move::EmptyFollower);
        }
        if !matches(own.lock, wanted.families[0]) {
            return Some(Move::WriteLock);
        }
        if dual && !matches(own.follower, wanted.families[1]) {
            return Some(Move::WriteFollower);
        }
        // One that gets no owner because its leader Service leaves it behind needs no write.
        own.superfluous.iter().find_map(retire)
    }

    /// Whether the follower is emptied before the lock is written. The first row that applies:
    ///
    /// | lock | follower | emptied first |
    /// |---|---|---|
    /// | | names no pod, ahead of the lock | no: that has been done |
    /// | missing | names another pod than the successor | yes: no two pods are routed |
    /// | missing | names no other pod | no |
    /// | there | behind the lock | yes: a slow writer may still be about to write it |
    /// | names a healthy pod, or the follower does | | yes: that pod takes traffic until then |
    /// | there | | no: a lost leader is replaced at once |
    ///
    /// It is emptied by a write that carries the next epoch: a writer that was paused meets a 409.
    fn follower_first(&self) -> bool {
        let (wanted, own) = (self.wanted, self.own);
        let successor = wanted.choice.endpoint.as_ref().map(|(p, _)| &*p.uid);
        let mut routed = named(own.follower).peekable();
        if self.follower_epoch > self.lock_epoch && routed.peek().is_none() {
            return false;
        }
        if own.lock.is_none() {
            return routed.any(|uid| Some(uid) != successor);
        }
        self.follower_epoch < self.lock_epoch
            || wanted.choice.incumbent_healthy
            || wanted.names_healthy(own.lock)
            || wanted.names_healthy(own.follower)
    }
}

fn removed(slice: &Slice) -> SliceStep {
    SliceStep {
        write: SliceWrite::Delete {
            name: slice.name.to_string(),
            uid: slice.uid.to_string(),
            version: slice.version.to_string(),
        },
        switch: None,
        urgent: true,
    }
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

    /// A follower that is emptied for a switch names the pod to come, so that the replica that finishes the
    /// switch finishes that one ([`OwnSlices::unfinished_switch`]).
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
    /// The switch that the election asks for.
    fn switch(&self, epoch: u64, lock: Option<&Truth>) -> Option<Switch> {
        let reason = self.choice.switch?;
        let (pod, _) = self.choice.endpoint.as_ref()?;
        Some(Switch {
            uid: pod.uid.to_string(),
            name: pod.name.to_string(),
            from: self.incumbent.and_then(|i| i.name.clone()),
            epoch,
            at: self.now,
            reason,
            leader: ObjectRef::of(&self.leader.object),
            missed: mirror::missed_event(lock.unwrap_or(self.mirror), self.mirror, self.now),
        })
    }

    /// The write that ends a slice which no family needs. What is destroyed has to carry every sign that it
    /// is ours: where one was lost, it is emptied and signed first. `None` where there is nothing to write.
    fn retired(&self, slice: &Slice) -> Option<SliceStep> {
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
        Some(SliceStep { write, switch: None, urgent: true })
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
        known.any(|p| others.contains(&&*p.uid) && p.may_be_eligible())
    }

    /// True when the lock names a pod that could lead, had the selector not left it.
    fn was_left_by_the_selector(&self, lock: Option<&Slice>) -> bool {
        let named: Vec<&str> = named(lock).collect();
        let mut left = self.deselected.iter().filter(|p| named.contains(&&*p.uid));
        left.any(|p| p.unjudged() || (p.eligible() && p.address(self.families[0]).is_some()))
    }

    /// True when the slice says this already; writer, times and how far the marks are do not count.
    fn matches(&self, slice: &Slice, family: Family, content: &Content) -> bool {
        let Some(object) = &slice.object else { return false };
        let truth = slice.truth();
        let label = |key: &str| object.labels().get(key).map(String::as_str);
        truth.epoch == content.epoch
            && truth.pod_uid == content.leader_uid
            && truth.pod_name == content.leader_name
            && !truth.marks.lack(&self.marks)
            && truth.source_hash.as_deref() == Some(&*self.source_hash)
            && truth.not_ready_since.is_some() == content.not_ready_since.is_some()
            && self.version.right(truth.decision_version)
            && self.labels().iter().all(|(key, value)| label(key) == Some(value))
            && label(kubernetes::SERVICE_PROXY_NAME) == self.proxy()
            && label(kubernetes::HEADLESS).is_none()
            && self.owner().is_none_or(|o| evidence::controller(&object.metadata) == Some(&o))
            && object.endpoints.clone().unwrap_or_default() == self.endpoints(content, family)
            && object.ports.clone().unwrap_or_default() == self.ports
    }

    /// The proxy that the leader Service is for. A proxy picks Services and slices by this label, each
    /// for itself (kube-proxy: those without it), so the two must agree.
    fn proxy(&self) -> Option<&str> {
        let labels = self.leader.object.labels();
        labels.get(kubernetes::SERVICE_PROXY_NAME).map(String::as_str)
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
        // kube-proxy would not look at the slice.
        labels.remove(kubernetes::HEADLESS);
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
            (status::ASKED, Some(self.source_hash.clone())),
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
        // A pod without an address of this family: no endpoint in this slice.
        let Some(address) = pod.address(family) else { return Vec::new() };
        vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(conditions.ready),
                serving: Some(conditions.serving),
                terminating: Some(conditions.terminating),
            }),
            node_name: pod.node.as_deref().map(str::to_owned),
            zone: pod.zone().map(str::to_owned),
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
pub fn emptied(slice: &Slice, marks: Marks, ctx: &Context<'_>) -> Option<SliceStep> {
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
    Some(SliceStep { write: SliceWrite::Replace(Box::new(emptied)), switch: None, urgent: true })
}

/// True when a pod that is routed to now is not routed to afterwards.
fn takes_out(present: Option<&Slice>, content: &Content) -> bool {
    let stays = content.pod.as_ref().filter(|(_, c)| c.ready).map(|(p, _)| &*p.uid);
    present.is_some_and(|s| s.routed_pods().any(|uid| Some(uid) != stays))
}

/// The families of a leader Service, the lock's first.
pub fn families(leader: &Service) -> Vec<Family> {
    let listed = leader.spec.iter().flat_map(|s| s.ip_families.iter().flatten());
    let found: Vec<Family> = listed.filter_map(|f| f.parse().ok()).collect();
    if found.is_empty() { vec![Family::V4] } else { found }
}
