//! The pure decision: for one source Service, the next write that brings its leader routing closer
//! to what it should be, or none.
//!
//! Values and `now` in, values out: no await, no client, no clock. A reconcile applies the step,
//! folds the answer into the snapshot and asks again until nothing is left, so that
//! `decide(apply(plan))` is a no-op by construction.

pub mod bookkeeping;
pub mod desired;
pub mod elect;
pub mod mirror;
pub mod ports;
pub mod slices;

mod demand;
mod follow;
mod hold;
mod inputs;
mod leader_service;
mod own_slices;
mod plan;
mod readiness;
mod removal;
mod source;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_core::ResourceExt;
use serde_json::{Value, json};
use strum::IntoStaticStr;

use crate::index::{Index, Limit, Snapshot};
use crate::keys;
use crate::ranking::{self, STAGGER, STAGGER_OF_COPIES, STAGGER_OF_CREATIONS, hash};
use crate::reason::Reason as EventReason;
use crate::report::ServiceReport;
use crate::version::{Marks, Rv};
pub use demand::is_demanded_by_pods;
use elect::Choice;
pub use inputs::{Inputs, Verified};
pub use leader_service::source_hash;
use mirror::Mirror;
use slices::SliceWrite;

/// How far the watches behind a snapshot can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All of them are synced and were heard from lately.
    Live,
    /// One of them has not passed its first list: nothing is decided yet.
    Starting,
    /// One of them was lost: read before writing anything.
    Lost,
}

/// Names an object for a write that must meet that very object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Name of the object.
    pub name: String,
    /// Uid it must have.
    pub uid: String,
    /// Version it must have, where the write depends on it.
    pub version: Option<String>,
}

impl ObjectRef {
    /// This very object, in whatever version.
    pub fn of(object: &Service) -> Self {
        let meta = &object.metadata;
        let (name, uid) = (meta.name.clone(), meta.uid.clone());
        Self { name: name.unwrap_or_default(), uid: uid.unwrap_or_default(), version: None }
    }

    /// This very object, as it was seen.
    pub fn as_seen(object: &Service) -> Self {
        Self { version: object.metadata.resource_version.clone(), ..Self::of(object) }
    }
}

/// One write: one call to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the leader Service.
    CreateLeader(Box<Service>),
    /// Merge a patch into the leader Service.
    PatchLeader(ObjectRef, Value),
    /// Delete a leader Service.
    DeleteLeader(ObjectRef),
    /// Write a slice.
    Slice(Box<slices::SliceStep>),
    /// Apply the mirror to the leader Service's status.
    Mirror(ObjectRef, Box<Mirror>, Vec<Notice>),
    /// Apply (or remove, when empty) our conditions on the source's status.
    SourceConditions(ObjectRef, Vec<Condition>, Vec<Notice>),
}

/// The kinds of steps; a refused kind is not tried again for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum StepKind {
    /// [`Step::CreateLeader`]
    CreateLeader,
    /// [`Step::PatchLeader`]
    PatchLeader,
    /// [`Step::DeleteLeader`]
    DeleteLeader,
    /// [`Step::Slice`] that replaces or deletes one.
    Slice,
    /// [`Step::Slice`] that creates one: what refuses that (a quota) must not keep a lost leader in
    /// the slices there are, for example in those of the old name.
    CreateSlice,
    /// Every step that creates something: refused in a namespace that is being deleted.
    Creation,
    /// [`Step::Mirror`]
    Mirror,
    /// [`Step::SourceConditions`]
    SourceConditions,
}

impl StepKind {
    /// It makes or moves what takes traffic; all others may be a little later.
    pub fn is_routing(self) -> bool {
        matches!(self, Self::CreateLeader | Self::Slice | Self::CreateSlice)
    }

    /// It only copies what the slices say.
    pub fn is_copy(self) -> bool {
        matches!(self, Self::Mirror | Self::SourceConditions)
    }
}

/// Hash of what a slice says: endpoints, ports and whose turn it is to lead.
pub fn slice_content(slice: &EndpointSlice) -> u64 {
    let leader = slice.annotations().get(keys::status::LEADER_POD_UID);
    let says = json!([slice.address_type, slice.endpoints, slice.ports, leader]);
    hash(&[slice.metadata.name.as_deref().unwrap_or_default(), &says.to_string()])
}

impl Step {
    /// The kind of the step.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::CreateLeader(_) => StepKind::CreateLeader,
            Self::PatchLeader(..) => StepKind::PatchLeader,
            Self::DeleteLeader(_) => StepKind::DeleteLeader,
            Self::Slice(_) if self.creates() => StepKind::CreateSlice,
            Self::Slice(_) => StepKind::Slice,
            Self::Mirror(..) => StepKind::Mirror,
            Self::SourceConditions(..) => StepKind::SourceConditions,
        }
    }

    /// It makes an object that was not there.
    pub fn creates(&self) -> bool {
        match self {
            Self::CreateLeader(_) => true,
            Self::Slice(next) => matches!(next.write, SliceWrite::Create(_)),
            _ => false,
        }
    }

    /// The name of the object it writes.
    pub fn object(&self) -> &str {
        self.target().0.unwrap_or_default()
    }

    /// The version of the object that it is made for; empty where there is none yet or any will do.
    pub fn base(&self) -> &str {
        self.target().1.unwrap_or_default()
    }

    fn target(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Slice(next) => match &next.write {
                SliceWrite::Create(slice) => (slice.metadata.name.as_deref(), None),
                SliceWrite::Replace(slice) => {
                    (slice.metadata.name.as_deref(), slice.metadata.resource_version.as_deref())
                }
                SliceWrite::Delete { name, version, .. } => (Some(name), Some(version)),
            },
            Self::CreateLeader(service) => (service.metadata.name.as_deref(), None),
            Self::PatchLeader(target, _)
            | Self::DeleteLeader(target)
            | Self::Mirror(target, ..)
            | Self::SourceConditions(target, ..) => (Some(&target.name), target.version.as_deref()),
        }
    }

    /// Hash of what it leaves behind: the same for a repetition. Versions, marks, epochs and times do
    /// not count.
    pub fn content(&self) -> u64 {
        let says = |conditions: &[Condition]| {
            let says = |c: &Condition| json!([c.type_, c.status, c.reason, c.message]);
            conditions.iter().map(says).collect::<Vec<_>>()
        };
        let content = match self {
            Self::Slice(next) => match &next.write {
                SliceWrite::Create(s) | SliceWrite::Replace(s) => return slice_content(s),
                SliceWrite::Delete { uid, .. } => json!(uid),
            },
            Self::CreateLeader(service) => json!([service.metadata.annotations, service.spec]),
            Self::PatchLeader(_, patch) => patch.clone(),
            Self::DeleteLeader(target) => json!(target.uid),
            Self::Mirror(_, mirror, _) => json!([mirror.annotations, says(&mirror.conditions)]),
            Self::SourceConditions(_, conditions, _) => json!(says(conditions)),
        };
        hash(&[self.object(), &content.to_string()])
    }

    /// What a refusal of it is about: the object, for slices what is to be in it, and for mirrors who leads. A
    /// switch to another pod, and its report, are not refused because those to this pod were.
    pub fn subject(&self) -> u64 {
        match self {
            Self::Slice(_) => self.content(),
            Self::Mirror(target, mirror, _) => {
                let leads = mirror.annotations.get(keys::status::CURRENT_LEADER);
                hash(&[&target.name, leads.map_or("", |name| name)])
            }
            _ => hash(&[self.object()]),
        }
    }

    /// It changes the message of a condition, and nothing else.
    pub fn is_rewording(&self) -> bool {
        matches!(self, Self::Mirror(_, mirror, _) if mirror.rewording)
    }

    /// How long a replica of this rank waits before it takes the step.
    pub fn stagger(&self, rank: usize) -> Duration {
        let wait = match self.kind() {
            StepKind::CreateLeader => STAGGER_OF_CREATIONS,
            kind if kind.is_copy() => STAGGER_OF_COPIES,
            _ => STAGGER,
        };
        ranking::by_rank(wait, rank)
    }

    /// It only takes an endpoint out; such a step never waits for a replica of a lower rank.
    pub fn urgent(&self) -> bool {
        matches!(self, Self::Slice(next) if next.urgent)
    }

    /// What it wants, in words that stay the same while it waits for its turn.
    pub fn wish(&self) -> String {
        match self {
            Self::Slice(next) => match (&next.switch, &next.write) {
                (Some(switch), _) => format!("switch {}", switch.uid),
                (None, SliceWrite::Create(s) | SliceWrite::Replace(s)) => {
                    let version = s.metadata.resource_version.as_deref();
                    format!("slice {} {}", s.address_type, version.unwrap_or_default())
                }
                (None, SliceWrite::Delete { name, .. }) => format!("delete slice {name}"),
            },
            other => format!("{:?}", other.kind()),
        }
    }

    /// The index has another version of its object than the one that it was made for.
    pub fn is_overtaken(&self, index: &Index, namespace: &str) -> bool {
        let known = match self {
            Self::Slice(_) => index.slice_version(namespace, self.object()),
            _ => index.service_version(namespace, self.object()),
        };
        match (Rv::parse(self.base()), known) {
            (Some(base), Some(known)) => known > base,
            (Some(_), None) => true,
            (None, known) => known.is_some() == self.creates(),
        }
    }

    /// Steps that must rest on a consistent read: what they make or destroy cannot be compared and
    /// swapped on the version of the source.
    pub fn needs_read(&self) -> bool {
        match self {
            Self::CreateLeader(_) | Self::DeleteLeader(_) => true,
            Self::Slice(next) => !matches!(next.write, SliceWrite::Replace(_)),
            _ => false,
        }
    }
}

/// An event to be written when the step that carries it succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Reason from the closed enum.
    pub reason: EventReason,
    /// What happened, in one line.
    pub note: String,
    /// Time of the switch that it reports, so that all replicas write one Event for it; `None` for an
    /// ordinary event. Not its epoch: the lock may have got a newer one since, without a switch.
    pub switched_at: Option<Timestamp>,
}

impl Notice {
    /// An ordinary event.
    pub fn of(reason: EventReason, note: impl Into<String>) -> Self {
        Self { reason, note: note.into(), switched_at: None }
    }
}

/// Steps that are held back: the API server refused one for a reason that an immediate retry cannot change, or
/// another client undoes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The kind of step.
    pub kind: StepKind,
    /// [`Step::subject`] of the steps that are kept back; `None` for all of that kind.
    pub only: Option<u64>,
    /// Why, for the condition.
    pub reason: EventReason,
    /// The server's words, or what undoes it.
    pub message: String,
}

impl Blocked {
    /// All steps of a kind.
    pub fn all(kind: StepKind, reason: EventReason, message: impl Into<String>) -> Self {
        Self { kind, only: None, reason, message: message.into() }
    }

    /// Whether this step would meet the same refusal.
    pub fn refuses(&self, step: &Step) -> bool {
        let same = self.kind == step.kind() || (self.kind == StepKind::Creation && step.creates());
        same && self.only.is_none_or(|subject| subject == step.subject())
    }
}

/// What a decision needs beside the snapshot.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The present time.
    pub now: Timestamp,
    /// This replica, as recorded on slices.
    pub writer: &'a str,
    /// Whether the watches can be trusted.
    pub trust: Trust,
    /// What was refused lately, or undone.
    pub blocked: &'a [Blocked],
    /// Version of the decision rules this replica follows.
    pub version: u32,
    /// Ready replicas of zen-lead, by pod name, as far as this one sees them.
    pub replicas: &'a [String],
    /// What was read by name just now.
    pub verified: Verified,
    /// [`Decision::may_take_over`] has held for [`crate::ranking::TAKEOVER`].
    pub takes_over: bool,
}

impl<'a> Context<'a> {
    /// Why a step is kept back, if it is.
    pub fn blocked_by(&self, step: &Step) -> Option<&'a Blocked> {
        self.blocked.iter().find(|b| b.refuses(step))
    }
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// Everything is as it should be (or waits for something that will be seen).
    Nothing,
    /// Wait until the watches this decision needs passed their first list.
    Wait,
    /// Read these objects and decide again.
    ReadInputs(Inputs),
    /// Read Service, pods and slices of the namespace consistently and decide again.
    Read,
    /// Write.
    Do(Step),
}

/// The outcome of a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is to be done now.
    pub action: Action,
    /// What is to be done, or to be read for, is making the leader Service of a source that has none:
    /// it serves no client yet, so it may wait for its turn.
    pub makes_first: bool,
    /// The step that is to be read for, where the action is a read.
    pub read_for: Option<Step>,
    /// It is to be read for because a slice was decided on later Services or pods than these watches have
    /// brought: how far that decision had seen.
    pub overtaken_at: Option<Marks>,
    /// When a timer of this Service runs out.
    pub again_at: Option<Timestamp>,
    /// State for the metrics; `None` when the Service is not managed (any more).
    pub report: Option<ServiceReport>,
    /// The election behind it, where one was held.
    pub choice: Option<Choice>,
    /// Named target ports that the leader does not have.
    pub missing_ports: Vec<String>,
    /// A mark on the slice comes from another history (a restored cluster).
    pub history_void: bool,
    /// The bound that keeps the source from being served as it asks.
    pub refused_by: Option<Limit>,
    /// A newer version of zen-lead wrote what is there, and none of the replicas that wrote it is
    /// ready any longer: after a while this version's rules hold again (a downgrade).
    pub may_take_over: bool,
}

/// Decides what comes next for one source.
pub fn decide(snapshot: &Snapshot, ctx: &Context<'_>) -> Decision {
    let mut plan = source::plan(snapshot, ctx);
    // What takes traffic goes before copies of it, also where another leader Service comes later; what may
    // wait a while keeps nothing waiting.
    plan.steps.sort_by_key(|step| match step {
        Step::Slice(_) => 0,
        step if step.is_rewording() => 2,
        _ => 1,
    });
    let behind = snapshot.marks.behind(&plan.marks);
    let step = plan.steps.into_iter().find(|step| {
        let refused = ctx.blocked_by(step).is_some();
        // A newer version of zen-lead wrote the slice: only what takes an endpoint out is ours.
        let outranked = plan.outranked && !step.urgent();
        !refused && !outranked
    });
    let makes_first = snapshot.leaders.is_empty() && matches!(step, Some(Step::CreateLeader(_)));
    // An election over pods that were never listed would find everybody gone.
    let blind = plan.choice.is_some() && !snapshot.pods_known && ctx.trust != Trust::Lost;
    let (mut read_for, mut overtaken_at) = (None, None);
    let action = match step {
        None => Action::Nothing,
        Some(_) if (ctx.trust == Trust::Starting || blind) && !snapshot.consistent => Action::Wait,
        Some(step) => {
            let doubtful = behind || plan.doubtful || ctx.trust == Trust::Lost;
            let inputs = if plan.removes {
                Inputs::of_removal(snapshot)
            } else {
                Inputs::of(snapshot, &step)
            };
            if snapshot.consistent || (!doubtful && ctx.verified.covers(&inputs, &step)) {
                Action::Do(step)
            } else {
                read_for = Some(step);
                let only_behind = behind && !plan.doubtful && ctx.trust == Trust::Live;
                overtaken_at = only_behind.then_some(plan.marks);
                if doubtful { Action::Read } else { Action::ReadInputs(inputs) }
            }
        }
    };
    Decision {
        action,
        makes_first,
        read_for,
        overtaken_at,
        again_at: plan.again_at,
        report: plan.report,
        choice: plan.choice,
        missing_ports: plan.missing_ports,
        history_void: behind && snapshot.consistent,
        refused_by: plan.refused_by,
        may_take_over: plan.may_take_over,
    }
}

#[cfg(test)]
mod tests;
