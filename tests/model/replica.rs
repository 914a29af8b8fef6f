//! One replica of zen-lead: the real index and the real decision behind watches that lag, and the
//! steps of the worker, one API call at a time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead::decide::slices::{Next, SliceWrite};
use zen_lead::decide::{self, Action, Blocked, Context, Decision, Step, Trust};
use zen_lead::events::Reason;
use zen_lead::index::{Dirty, Index, Limits, Snapshot};
use zen_lead::keys::status;
use zen_lead::names::{NameRule, ServiceKey};
use zen_lead::version::{Marks, Rv};

use crate::checks::{self, Bad, Ledger};
use crate::fixtures::NAMESPACE;
use crate::fixtures::api::{Answer, Event, Refusal, Server};

/// A rule that is switched off, to see the model fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// All rules hold.
    Nothing,
    /// The server takes writes on any version.
    CompareAndSwap,
    /// Caches count as fresh.
    FreshOrRead,
    /// Marks are compared for pods only.
    MarksOverServices,
    /// The follower is not emptied under the epoch to come.
    FollowerEpoch,
    /// A consistent read lists the slices last.
    SlicesReadFirst,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It arrives and is answered.
    Answered,
    /// It does not arrive.
    Failed,
    /// It is carried out and its answer is lost.
    AnswerLost,
}

/// The kinds that are watched.
pub const KINDS: [Kind; 3] = [Kind::Services, Kind::Pods, Kind::Slices];

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Services,
    Pods,
    Slices,
}

/// How far one watch is.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    listed: bool,
    frozen: bool,
    next: usize,
}

/// A consistent read under way: three lists, one after the other.
#[derive(Default)]
struct Reading {
    slices: Option<(Vec<EndpointSlice>, u64)>,
    index: Option<Index>,
}

/// A step that was decided and not written yet.
struct Pending {
    step: Step,
    view: Snapshot,
    /// How far the view really reached, whatever it says.
    reach: Marks,
    /// The time of day it was decided at.
    now: Timestamp,
}

/// One replica.
pub struct Replica {
    pub name: String,
    pub index: Index,
    without: Without,
    /// How far its clock is ahead, in milliseconds.
    skew: i64,
    watches: [Watch; 3],
    /// The watches are known to be lost.
    pub lost: bool,
    queue: BTreeSet<ServiceKey>,
    timers: BTreeMap<ServiceKey, Timestamp>,
    blocked: BTreeMap<ServiceKey, Blocked>,
    current: Option<ServiceKey>,
    turns: usize,
    read: Option<Index>,
    reading: Option<Reading>,
    pending: Option<Pending>,
}

impl Replica {
    pub fn new(name: String, skew: i64, without: Without) -> Self {
        Self {
            name,
            index: Index::new(NameRule::default(), Limits::default()),
            without,
            skew,
            watches: [Watch::default(); 3],
            lost: false,
            queue: BTreeSet::new(),
            timers: BTreeMap::new(),
            blocked: BTreeMap::new(),
            current: None,
            turns: 0,
            read: None,
            reading: None,
            pending: None,
        }
    }

    /// The process dies and comes back: everything it knew is gone.
    pub fn restart(&mut self) {
        *self = Self::new(self.name.clone(), self.skew, self.without);
    }

    fn watch(&mut self, kind: Kind) -> &mut Watch {
        &mut self.watches[kind as usize]
    }

    /// A watch stops telling anything, or goes on.
    pub fn freeze(&mut self, kind: Kind, frozen: bool) {
        self.watch(kind).frozen = frozen;
    }

    /// The next event of a watch arrives (its first list, before any).
    pub fn deliver(&mut self, server: &Server, kind: Kind) -> bool {
        let watch = *self.watch(kind);
        if watch.frozen {
            return false;
        }
        if !watch.listed {
            self.list(server, kind);
            return true;
        }
        let at = watch.next;
        let (version, dirty) = match kind {
            Kind::Services => {
                let Some((version, event)) = server.services.log.get(at) else { return false };
                let dirty = match event {
                    Event::Set(object) => self.index.apply_service(object.clone()),
                    Event::Gone(object) => self.index.delete_service(object),
                };
                (*version, dirty)
            }
            Kind::Pods => {
                let Some((version, event)) = server.pods.log.get(at) else { return false };
                let dirty = match event {
                    Event::Set(object) => self.index.apply_pod(object),
                    Event::Gone(object) => self.index.delete_pod(object),
                };
                (*version, dirty)
            }
            Kind::Slices => {
                let Some((version, event)) = server.slices.log.get(at) else { return false };
                let dirty = match event {
                    Event::Set(object) => self.index.apply_slice(object.clone()),
                    Event::Gone(object) => self.index.delete_slice(object),
                };
                (*version, dirty)
            }
        };
        self.queue.extend(dirty);
        self.watch(kind).next = at + 1;
        self.heard(kind, version);
        true
    }

    /// A bookmark: nothing happened up to now.
    pub fn bookmark(&mut self, server: &Server, kind: Kind) {
        let watch = *self.watch(kind);
        let end = match kind {
            Kind::Services => server.services.log.len(),
            Kind::Pods => server.pods.log.len(),
            Kind::Slices => server.slices.log.len(),
        };
        if watch.listed && !watch.frozen && watch.next == end {
            self.heard(kind, server.version);
        }
    }

    fn heard(&mut self, kind: Kind, version: u64) {
        match kind {
            Kind::Services => self.index.services_heard(Rv(version)),
            Kind::Pods => self.index.pods_heard(Some(NAMESPACE), Rv(version)),
            Kind::Slices => self.index.slices_heard(Rv(version)),
        }
    }

    /// The watch broke: what it missed comes as a list, without tombstones.
    pub fn list(&mut self, server: &Server, kind: Kind) {
        let version = Rv(server.version);
        let (dirty, next) = match kind {
            Kind::Services => {
                let all = server.services.now.values().cloned().collect();
                (self.index.reset_services(all, version), server.services.log.len())
            }
            Kind::Pods => {
                let all: Vec<_> = server.pods.now.values().cloned().collect();
                (self.index.reset_pods(Some(NAMESPACE), &all, version), server.pods.log.len())
            }
            Kind::Slices => {
                let all = server.slices.now.values().cloned().collect();
                (self.index.reset_slices(all, version), server.slices.log.len())
            }
        };
        self.queue.extend(dirty);
        let watch = self.watch(kind);
        (watch.listed, watch.next) = (true, next);
        if self.watches.iter().all(|w| w.listed) {
            // What was put off until the watches are there.
            self.queue.extend(self.index.all_keys());
        }
    }

    /// Everything that happened arrives.
    pub fn catch_up(&mut self, server: &Server) {
        for kind in KINDS {
            self.freeze(kind, false);
            while self.deliver(server, kind) {}
            self.bookmark(server, kind);
        }
        self.lost = false;
    }

    /// What was refused is tried again.
    pub fn unblock(&mut self) {
        self.queue.extend(self.blocked.keys().cloned());
        self.blocked.clear();
    }

    /// Everything is looked at again.
    pub fn resync(&mut self) {
        self.queue.extend(self.index.all_keys());
    }

    /// Nothing to do and nothing half done.
    pub fn idle(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }

    /// When the next timer runs out, by the server's clock.
    pub fn timer(&self) -> Option<Timestamp> {
        self.timers.values().min().map(|at| *at - SignedDuration::from_millis(self.skew))
    }

    fn now(&self, server: &Server) -> Timestamp {
        server.now + SignedDuration::from_millis(self.skew)
    }

    /// Does what comes next: one call, or one decision.
    pub fn act(
        &mut self,
        server: &mut Server,
        outcome: Outcome,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        if self.reading.is_some() {
            self.read_on(server, outcome);
            return Ok(());
        }
        if let Some(pending) = self.pending.take() {
            return self.write(server, outcome, pending, ledger);
        }
        let now = self.now(server);
        let due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        for key in due {
            self.timers.remove(&key);
            self.queue.insert(key);
        }
        let Some(key) = self.current.clone().or_else(|| self.queue.pop_first()) else {
            return Ok(());
        };
        if self.current.is_none() {
            self.current = Some(key.clone());
            self.turns = 0;
        }
        self.turns += 1;
        if self.turns > 24 {
            self.again(&key);
            return Ok(());
        }
        let (view, reach, decision) = self.decide(&key, now);
        if let Some(at) = decision.again_at {
            self.timers.insert(key.clone(), at.max(now + SignedDuration::from_millis(1)));
        }
        match decision.action {
            Action::Nothing | Action::Wait => self.rest(),
            Action::Read => self.reading = Some(Reading::default()),
            Action::Do(step) => self.pending = Some(Pending { step, view, reach, now }),
        }
        Ok(())
    }

    fn rest(&mut self) {
        (self.current, self.read, self.reading, self.pending) = (None, None, None, None);
    }

    fn again(&mut self, key: &ServiceKey) {
        self.rest();
        self.queue.insert(key.clone());
    }

    fn snapshot(&self, key: &ServiceKey) -> Snapshot {
        match &self.read {
            Some(index) => Snapshot { consistent: true, ..index.snapshot(key) },
            None => self.index.snapshot(key),
        }
    }

    fn decide(&self, key: &ServiceKey, now: Timestamp) -> (Snapshot, Marks, Decision) {
        let mut view = self.snapshot(key);
        let reach = view.marks;
        match self.without {
            Without::FreshOrRead => view.consistent |= self.watches.iter().all(|w| w.listed),
            Without::MarksOverServices => {
                let marks = view.slices.iter().map(|s| s.truth().marks.services);
                view.marks.services = marks.max().unwrap_or_default().max(view.marks.services);
            }
            _ => {}
        }
        let trust = match () {
            () if !self.watches.iter().all(|w| w.listed) => Trust::Starting,
            () if self.lost => Trust::Lost,
            () => Trust::Live,
        };
        let ctx = Context { now, writer: &self.name, trust, blocked: self.blocked.get(key) };
        let mut decision = decide::decide(&view, &ctx);
        if self.without == Without::FollowerEpoch
            && let Action::Do(Step::Slice(next)) = &decision.action
            && let Some(emptied) = emptied_follower(next)
        {
            // As if the follower had been emptied already.
            for slice in &mut view.slices {
                if *slice.name == emptied.metadata.name.clone().unwrap_or_default() {
                    let mut object = emptied.clone();
                    object.metadata.uid = Some(slice.uid.to_string());
                    object.metadata.resource_version = Some(slice.version.to_string());
                    let changed = zen_lead::index::slice::Slice::trim(object);
                    *slice = std::sync::Arc::new(changed.expect("it was trimmed before"));
                }
            }
            decision = decide::decide(&view, &ctx);
        }
        (view, reach, decision)
    }

    /// One list of a consistent read. The slices come first: a mark found on one of them was then
    /// written before the Services and the pods were read.
    fn read_on(&mut self, server: &Server, outcome: Outcome) {
        let Some(reading) = &mut self.reading else { return };
        if outcome == Outcome::Failed {
            if let Some(key) = self.current.clone() {
                self.again(&key);
            }
            return;
        }
        let version = Rv(server.version);
        let slices = || (server.slices.now.values().cloned().collect(), server.version);
        let first = self.without != Without::SlicesReadFirst;
        if first && reading.slices.is_none() {
            reading.slices = Some(slices());
            return;
        }
        let Some(index) = &mut reading.index else {
            let mut index = Index::new(NameRule::default(), Limits::default());
            index.reset_services(server.services.now.values().cloned().collect(), version);
            if !first {
                let pods: Vec<_> = server.pods.now.values().cloned().collect();
                index.reset_pods(Some(NAMESPACE), &pods, version);
            }
            reading.index = Some(index);
            return;
        };
        if first {
            let pods: Vec<_> = server.pods.now.values().cloned().collect();
            index.reset_pods(Some(NAMESPACE), &pods, version);
        }
        let (slices, seen) = reading.slices.take().unwrap_or_else(slices);
        index.reset_slices(slices, Rv(seen));
        self.read = reading.index.take();
        self.reading = None;
    }

    fn write(
        &mut self,
        server: &mut Server,
        outcome: Outcome,
        pending: Pending,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        let Some(key) = self.current.clone() else { return Ok(()) };
        let Pending { step, view, reach, now } = pending;
        if outcome == Outcome::Failed {
            self.again(&key);
            return Ok(());
        }
        let before = checks::Before::of(server);
        match server.perform(&step) {
            Ok(answer) => {
                ledger.wrote(server, &before, &step, &view, reach, now)?;
                self.blocked.remove(&key);
                if outcome == Outcome::AnswerLost {
                    self.again(&key);
                } else {
                    let mut dirty = fold(&mut self.index, &key, &answer);
                    if let Some(read) = &mut self.read {
                        dirty.append(&mut fold(read, &key, &answer));
                    }
                    // The watch will tell nothing new: others concerned are woken now.
                    dirty.remove(&key);
                    self.queue.append(&mut dirty);
                }
            }
            Err(_) if outcome == Outcome::AnswerLost => self.again(&key),
            Err(Refusal::Quota) => {
                let message = "exceeded quota".to_owned();
                let reason = Reason::QuotaExceeded;
                self.blocked.insert(key, Blocked { kind: step.kind(), reason, message });
            }
            Err(Refusal::Conflict | Refusal::Exists | Refusal::NotFound) => {
                self.read = None;
                self.reading = Some(Reading::default());
            }
        }
        Ok(())
    }

    /// What it is about to do, for the trace.
    pub fn describe(&self) -> String {
        match (&self.pending, &self.reading, &self.current) {
            (Some(p), _, _) => format!("writes {}", describe(&p.step)),
            (_, Some(_), _) => "reads".to_owned(),
            (_, _, Some(key)) => format!("decides {key}"),
            _ => format!("takes up {:?}", self.queue.first()),
        }
    }
}

/// The emptied follower, if that is what the step writes: an epoch ahead and nobody in it.
fn emptied_follower(next: &Next) -> Option<EndpointSlice> {
    match &next.write {
        SliceWrite::Create(s) | SliceWrite::Replace(s) => {
            let nobody = s.endpoints.as_ref().is_none_or(Vec::is_empty);
            (s.address_type == "IPv6" && nobody && next.switch.is_none()).then(|| (**s).clone())
        }
        SliceWrite::Delete { .. } => None,
    }
}

fn fold(index: &mut Index, key: &ServiceKey, answer: &Answer) -> Dirty {
    use crate::fixtures::api::Stored;
    match answer {
        Answer::Service(service) => index.apply_service((**service).clone()),
        Answer::Slice(slice) => index.apply_slice((**slice).clone()),
        Answer::ServiceGone(gone) => index.forget_service(key, &gone.name(), &gone.id()),
        Answer::SliceGone(gone) => index.forget_slice(key, &gone.name(), &gone.id()),
    }
}

/// A step in one line.
pub fn describe(step: &Step) -> String {
    match step {
        Step::Slice(next) => match &next.write {
            SliceWrite::Create(s) | SliceWrite::Replace(s) => {
                let a = s.metadata.annotations.clone().unwrap_or_default();
                let get = |k: &str| a.get(k).cloned().unwrap_or_default();
                let ends: Vec<_> = s
                    .endpoints
                    .iter()
                    .flatten()
                    .map(|e| {
                        let name = e.target_ref.as_ref().and_then(|t| t.name.clone());
                        let ready = e.conditions.as_ref().and_then(|c| c.ready);
                        format!("{} ready={}", name.unwrap_or_default(), ready.unwrap_or(true))
                    })
                    .collect();
                format!(
                    "slice {} {} over {} := [{}] epoch {} at {}",
                    s.metadata.name.clone().unwrap_or_default(),
                    get(status::LEADER_POD_NAME),
                    s.metadata.resource_version.clone().unwrap_or_else(|| "nothing".into()),
                    ends.join(", "),
                    get(status::LEADER_EPOCH),
                    get(status::DECIDED_AT),
                )
            }
            SliceWrite::Delete { name, .. } => format!("slice {name} := deleted"),
        },
        other => format!("{:?}", other.kind()),
    }
}
