//! One replica of zen-lead: the real index and the real decision behind watches that lag, and the
//! steps of the worker, one API call at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::{Inputs, Step, StepKind, Verified};
use zen_lead_core::index::{Index, Limits, Snapshot};
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::ranking;
use zen_lead_core::version::{Marks, Rv};

use crate::describe::describe;
use zen_lead_core::fixtures::NAMESPACE;
use zen_lead_core::fixtures::api::{Answer, Server};

mod held;
mod refused;
mod take;
mod turn;

use held::Holds;

/// A rule that is switched off, to see the model fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// All rules hold.
    Nothing,
    /// The server takes writes on any version.
    CompareAndSwap,
    /// Every cache is taken for fresh.
    FreshOrRead,
    /// Marks are compared for pods only.
    MarksOverServices,
    /// The follower is not emptied under the epoch to come.
    FollowerEpoch,
    /// A consistent read lists the slices last.
    SlicesReadFirst,
    /// A lower version rewrites what a higher one wrote.
    VersionsInOrder,
    /// A lower version never takes over from a higher one that is gone.
    Takeover,
    /// An answer is used even if the watch has already delivered a later state.
    AnswersInOrder,
    /// A replica does not finish a switch by the clock of the replica that began it.
    BegunSwitches,
    /// A lost watch is believed.
    Trust,
    /// A refused call is tried again at once, or after a pause that is forgotten.
    Holding,
    /// An object that lost one of its signs is taken for a stranger's.
    Evidence,
    /// An object that cannot be read is taken for absent.
    Unknown,
    /// Objects of this kind are not read by name before a step that rests on them.
    ByName(Kind),
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
    /// The replica gives it up, and it is carried out later.
    Late,
    /// It is carried out, and its answer is handled after the watches have delivered later events.
    Slow,
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
    /// Its position belongs to a history that was lost or is not kept any longer (410).
    broken: bool,
    frozen: bool,
    next: usize,
    /// The version it has come to.
    version: u64,
}

/// Objects that are read by name, one after the other, for a step.
#[derive(Clone)]
struct ReadingByName {
    left: Vec<(Kind, String)>,
    inputs: Inputs,
    step: Step,
}

/// A consistent read under way: three lists, one after the other.
#[derive(Clone, Default)]
struct Reading {
    slices: Option<(Vec<EndpointSlice>, u64)>,
    index: Option<Index>,
}

/// A step that was decided and not written yet.
#[derive(Clone)]
pub struct Pending {
    pub step: Step,
    view: Snapshot,
    /// How far the view really reached, even if it says something else.
    pub reach: Marks,
    /// The time of day it was decided at.
    now: Timestamp,
    /// The server's version when its reconcile, or its last read, began.
    since: u64,
    /// The source it is for.
    source: ServiceKey,
    /// It was decided without a read while a watch was lost, or not there yet.
    unsure: bool,
    /// It was decided from a history that is lost.
    other_history: bool,
    /// Another write of a slice was held back meanwhile.
    held_back: bool,
}

/// A slice write whose answer was lost, to be settled by reading.
#[derive(Clone)]
struct Settling {
    slice: String,
    id: String,
}

/// One replica.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "independent conditions it can be in")]
pub struct Replica {
    pub name: String,
    pub index: Arc<Index>,
    /// Version of its decision rules. From 2 on the youngest pod comes first, so that the two
    /// versions disagree.
    pub version: u32,
    /// The ready replicas as it sees them; no replica waits for its rank while the list is empty.
    pub members: Vec<String>,
    /// It does nothing until it is started again.
    pub stopped: bool,
    /// It never writes the mirror, and checks this Service whenever it has nothing to do.
    pub bare: Option<ServiceKey>,
    /// It holds back steps that are refused or undone, instead of only reading again.
    pub patient: bool,
    without: Without,
    /// How far its clock is ahead, in milliseconds.
    skew: i64,
    watches: [Watch; 3],
    /// The watches are known to be lost.
    pub lost: bool,
    queue: BTreeSet<ServiceKey>,
    timers: BTreeMap<ServiceKey, Timestamp>,
    holds: BTreeMap<ServiceKey, Holds>,
    /// When what is held is tried again.
    retries: BTreeMap<ServiceKey, Timestamp>,
    /// The source whose namespace is being deleted, by uid.
    ending: BTreeMap<ServiceKey, String>,
    /// The calls it made, by the server's clock.
    pub calls: Vec<Timestamp>,
    current: Option<ServiceKey>,
    /// The server's version when that, or its last read, began.
    since: u64,
    turns: usize,
    read: Option<Arc<Index>>,
    reading: Option<Reading>,
    reading_by_name: Option<ReadingByName>,
    verified: Verified,
    pub pending: Option<Pending>,
    /// A step of this turn was taken: it does not wait for other replicas any more.
    acting: bool,
    settling: Option<Settling>,
    /// An answer that has not been handled yet.
    answered: Option<Answer>,
    /// Writes that were given up and are still on their way.
    flying: Vec<Pending>,
    wish: Option<(String, Timestamp)>,
    newer_gone: Option<Timestamp>,
}

impl Replica {
    pub fn new(name: String, skew: i64, without: Without) -> Self {
        Self {
            name,
            index: Arc::new(Index::new(NameRule::default(), Limits::default())),
            version: ranking::DECISION_VERSION,
            members: Vec::new(),
            stopped: false,
            bare: None,
            patient: false,
            without,
            skew,
            watches: [Watch::default(); 3],
            lost: false,
            queue: BTreeSet::new(),
            timers: BTreeMap::new(),
            holds: BTreeMap::new(),
            retries: BTreeMap::new(),
            ending: BTreeMap::new(),
            calls: Vec::new(),
            current: None,
            since: 0,
            turns: 0,
            read: None,
            reading: None,
            reading_by_name: None,
            verified: Verified::default(),
            pending: None,
            acting: false,
            settling: None,
            answered: None,
            flying: Vec::new(),
            wish: None,
            newer_gone: None,
        }
    }

    /// With these decision rules.
    pub fn following(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// The process dies and comes back: everything it knew is gone.
    pub fn restart(&mut self) {
        *self = Self {
            version: self.version,
            members: self.members.clone(),
            bare: self.bare.clone(),
            patient: self.patient,
            // Calls on their way still arrive.
            flying: std::mem::take(&mut self.flying),
            ..Self::new(self.name.clone(), self.skew, self.without)
        };
    }

    /// The cluster was restored: every watch ends, and its next answer is a list.
    pub fn history_lost(&mut self) {
        for watch in &mut self.watches {
            watch.broken = true;
        }
        if let Some(pending) = &mut self.pending {
            pending.other_history = true;
        }
        if self.read.is_some()
            && let Some(key) = self.current.clone()
        {
            self.again(&key);
        }
        // A read or a write under way ends with its connection.
        (self.reading, self.settling, self.answered) = (None, None, None);
        (self.reading_by_name, self.verified) = (None, Verified::default());
        self.flying.clear();
    }

    fn index_mut(&mut self) -> &mut Index {
        Arc::make_mut(&mut self.index)
    }

    fn watch(&mut self, kind: Kind) -> &mut Watch {
        &mut self.watches[kind as usize]
    }

    /// A watch falls silent, or goes on.
    pub fn freeze(&mut self, kind: Kind, frozen: bool) {
        self.watch(kind).frozen = frozen;
    }

    /// The next event of a watch arrives (its first list, before any).
    pub fn deliver(&mut self, server: &Server, kind: Kind) -> bool {
        let watch = *self.watch(kind);
        if watch.frozen {
            return false;
        }
        if !watch.listed || watch.broken {
            self.list(server, kind);
            return true;
        }
        let (at, without) = (watch.next, self.without);
        let (version, dirty) = match kind {
            Kind::Services => {
                let Some((version, event)) = server.services.log.get(at) else { return false };
                let dirty = take::service(self.index_mut(), event, without);
                (*version, dirty)
            }
            Kind::Pods => {
                let Some((version, event)) = server.pods.log.get(at) else { return false };
                let dirty = take::pod(self.index_mut(), event, without);
                (*version, dirty)
            }
            Kind::Slices => {
                let Some((version, event)) = server.slices.log.get(at) else { return false };
                let dirty = take::slice(self.index_mut(), event, without);
                (*version, dirty)
            }
        };
        self.queue.extend(dirty);
        self.watch(kind).next = at + 1;
        self.heard(kind, version);
        true
    }

    /// An event is repeated: the last one, or an older one that shows the watch that it cannot
    /// rely on its position (src/control/watch/follow.rs).
    pub fn repeat(&mut self, server: &Server, kind: Kind, back: usize) {
        let watch = *self.watch(kind);
        if !watch.listed || watch.broken || watch.frozen {
            return;
        }
        let Some(at) = watch.next.checked_sub(1 + back) else { return };
        let version = match kind {
            Kind::Services => server.services.log[at].0,
            Kind::Pods => server.pods.log[at].0,
            Kind::Slices => server.slices.log[at].0,
        };
        if version < watch.version {
            self.list(server, kind);
        } else {
            self.watch(kind).next = at;
            self.deliver(server, kind);
        }
    }

    /// The server drops its history: a watch that is behind gets 410 and lists.
    pub fn compacted(&mut self, server: &Server) {
        for kind in KINDS {
            if self.lags(server, kind) {
                self.watch(kind).broken = true;
            }
        }
    }

    /// A bookmark: there was no event up to now.
    pub fn bookmark(&mut self, server: &Server, kind: Kind) {
        let watch = *self.watch(kind);
        let end = match kind {
            Kind::Services => server.services.log.len(),
            Kind::Pods => server.pods.log.len(),
            Kind::Slices => server.slices.log.len(),
        };
        if watch.listed && !watch.broken && !watch.frozen && watch.next == end {
            self.heard(kind, server.version);
        }
    }

    fn heard(&mut self, kind: Kind, version: u64) {
        self.watch(kind).version = version;
        match kind {
            Kind::Services => self.index_mut().services_heard(Rv(version)),
            Kind::Pods => self.index_mut().pods_heard(Some(NAMESPACE), Rv(version)),
            Kind::Slices => self.index_mut().slices_heard(Rv(version)),
        }
    }

    /// The watch broke: what it missed comes as a list, without tombstones.
    pub fn list(&mut self, server: &Server, kind: Kind) {
        let (version, without) = (Rv(server.version), self.without);
        let (dirty, next) = match kind {
            Kind::Services => (
                take::services(self.index_mut(), server, version, without),
                server.services.log.len(),
            ),
            Kind::Pods => {
                (take::pods(self.index_mut(), server, version, without), server.pods.log.len())
            }
            Kind::Slices => {
                let all = server.slices.now.values().cloned().collect();
                (take::slices(self.index_mut(), all, version, without), server.slices.log.len())
            }
        };
        self.queue.extend(dirty);
        let watch = self.watch(kind);
        *watch = Watch { listed: true, broken: false, next, version: version.0, ..*watch };
        if self.watches.iter().all(|w| w.listed) {
            // Work that waited for the watches.
            self.queue.extend(self.index.all_keys());
        }
    }

    /// No call and no step is half done: the next arrival is handled at once.
    pub fn between(&self) -> bool {
        self.pending.is_none()
            && self.reading.is_none()
            && self.reading_by_name.is_none()
            && self.settling.is_none()
    }

    /// Something has happened that it has not seen yet.
    pub fn lags(&self, server: &Server, kind: Kind) -> bool {
        let end = match kind {
            Kind::Services => server.services.log.len(),
            Kind::Pods => server.pods.log.len(),
            Kind::Slices => server.slices.log.len(),
        };
        let watch = self.watches[kind as usize];
        !watch.listed || watch.next < end
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

    /// The ready replicas changed.
    pub fn set_members(&mut self, names: Vec<String>) {
        if ranking::may_show_others_gone(&self.name, &self.members, &names) {
            self.resync();
        }
        self.members = names;
    }

    /// Refused steps are tried again.
    pub fn unblock(&mut self) {
        let held = self.holds.iter().filter(|(_, holds)| !holds.is_empty());
        self.queue.extend(held.map(|(key, _)| key.clone()));
        (self.holds, self.retries) = (BTreeMap::new(), BTreeMap::new());
    }

    /// Everything is checked again.
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

    /// When the first pause of what it holds back ends, by the server's clock.
    pub fn retry(&self) -> Option<Timestamp> {
        self.retries.values().min().map(|at| *at - SignedDuration::from_millis(self.skew))
    }

    /// What it holds back of `web`, and the words of the server.
    pub fn held(&self, now: Timestamp) -> Vec<(StepKind, &'static str)> {
        let now = now + SignedDuration::from_millis(self.skew);
        let holds = self.holds.get(&ServiceKey::new(NAMESPACE, "web"));
        holds.into_iter().flat_map(|holds| holds.words(now)).collect()
    }

    /// What it is about to do, for the trace.
    pub fn describe(&self) -> String {
        match (&self.pending, &self.reading, &self.current) {
            _ if self.settling.is_some() => "reads the slice of the lost answer".to_owned(),
            _ if self.answered.is_some() => "looks at the answer".to_owned(),
            (Some(p), _, _) => format!("writes {}", describe(&p.step)),
            (_, Some(_), _) => "reads".to_owned(),
            (_, _, Some(key)) => format!("decides {key}"),
            _ => format!("takes up {:?}", self.queue.first()),
        }
    }
}
