//! What the answer to a write means for the next decision: a race, a refusal that is held back, a
//! failure of the API server, or a write that does not last.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::blocks::Undoer;
use super::cause::{self, RefusalCause};
use super::{Reconciler, words};
use crate::control::apply::Applied;
use crate::platform::api::{Call, CallError, ErrorKind};
use crate::platform::operation::Operation;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::decide::{Blocked, Step, StepKind};
use zen_lead_core::decode::Decoded;
use zen_lead_core::index::service::own_conditions;
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking;
use zen_lead_core::reason::Reason;
use zen_lead_core::settings;

/// So many writes of one reconcile may find that the object has changed before that is no race any
/// longer.
const RACES: usize = 4;

/// What one reconcile has met so far.
#[derive(Default)]
pub(super) struct Met {
    /// Writes that found something else than was read: kind, subject and base.
    overtaken: Vec<(StepKind, u64, String)>,
    /// A creation that was refused because something has the name, and by which answer.
    pub(super) taken: Option<(u64, CallError)>,
    /// Writes that succeeded.
    done: Vec<Step>,
}

/// What comes after a failed write.
pub(super) enum After {
    /// It was overtaken: look again, and decide again.
    Overtaken,
    /// It is held back: decide what else there is to do.
    Held,
    /// It says nothing about the write: the queue backs off.
    Fail(CallError),
}

impl Reconciler {
    /// Judges a failed write.
    pub(super) fn after(
        &self,
        key: &ServiceKey,
        snapshot: &Snapshot,
        step: &Step,
        error: CallError,
        met: &mut Met,
        began: Instant,
    ) -> After {
        match error.kind {
            ErrorKind::Terminating => {
                self.ends(key, snapshot, &error);
                return After::Held;
            }
            ErrorKind::Conflict
            | ErrorKind::AlreadyExists
            | ErrorKind::NotFound
            | ErrorKind::Unreadable => {
                let tried = (step.kind(), step.subject(), step.base().to_owned());
                // Without a version, only another uid could be in the way, and that was just read.
                let sure = snapshot.consistent && step.base().is_empty() && !step.creates();
                let again = sure || met.overtaken.contains(&tried) || met.overtaken.len() >= RACES;
                met.overtaken.push(tried);
                if !again && !self.remember(key, |known| known.blocks.knows(step)) {
                    debug!(%key, step = ?step.kind(), "{error}; it was overtaken: looking again");
                    if error.kind == ErrorKind::AlreadyExists {
                        met.taken = Some((step.subject(), error));
                    }
                    return After::Overtaken;
                }
            }
            ErrorKind::Timeout(_) => {
                let subject = step.subject();
                let last = self.remember(key, |known| known.unanswered.replace(subject));
                if last != Some(subject) || !self.others_are_answered(step, &error, began) {
                    return After::Fail(error);
                }
                self.hold_back(key, step, RefusalCause::NoAnswer, &error);
                return After::Held;
            }
            _ => {}
        }
        match cause::of(&error) {
            Some(cause) => {
                self.hold_back(key, step, cause, &error);
                After::Held
            }
            None => After::Fail(error),
        }
    }

    /// Something has the name of what is to be created, by the server's own word, and was not found by
    /// the read after that: it is not ours. The creation is not tried a second time for that.
    pub(super) fn is_taken(&self, key: &ServiceKey, step: &Step, met: &mut Met) -> bool {
        let taken = step.creates() && met.taken.as_ref().is_some_and(|(s, _)| *s == step.subject());
        if taken && let Some((_, error)) = met.taken.take() {
            self.hold_back(key, step, RefusalCause::Taken, &error);
        }
        taken
    }

    /// A call of this step has no answer, but the API server answers: it settled a slice write by
    /// reading, or answered another call since this reconcile began.
    fn others_are_answered(&self, step: &Step, error: &CallError, began: Instant) -> bool {
        let settled = matches!(step, Step::Slice(_)) && error.call.operation.is_write();
        settled || self.known.answered.lock().is_some_and(|at| at > began)
    }

    fn hold_back(&self, key: &ServiceKey, step: &Step, cause: RefusalCause, error: &CallError) {
        let (rank, call) = (self.rank(key), error.call.to_string());
        let wait = self.remember(key, |known| {
            known.unanswered = None;
            known.blocks.refused(step, cause, &call, &error.message, rank)
        });
        warn!(%key, "{error}; held back: this step is tried again in {wait:?}");
    }

    /// Judges a write that succeeded, and whether it lasts.
    pub(super) fn wrote(&self, key: &ServiceKey, step: &Step, applied: &Applied, met: &mut Met) {
        *self.known.answered.lock() = Some(crate::platform::clock::monotonic());
        met.done.push(step.clone());
        let (rank, lacks) = (self.rank(key), !lasts(step, applied));
        let wait = self.remember(key, |known| {
            known.unanswered = None;
            if known.blocks.succeeded(step) {
                info!(%key, step = ?step.kind(), "no longer refused");
            }
            let by = if lacks { Undoer::InTheAnswer } else { Undoer::Later };
            known.blocks.written(step, lacks).then(|| known.blocks.undone(step, by, rank))
        });
        if let Some(wait) = wait {
            warn_undone(key, step, wait);
        }
    }

    /// The last write of the object had an answer that lacked something of it, and the same is wanted
    /// again: it is held back at once.
    pub(super) fn is_lacked(&self, key: &ServiceKey, step: &Step) -> bool {
        let rank = self.rank(key);
        let wait = self.remember(key, |known| {
            let lacked = known.blocks.lacked(step);
            lacked.then(|| known.blocks.undone(step, Undoer::InTheAnswer, rank))
        });
        wait.inspect(|wait| warn_undone(key, step, *wait)).is_some()
    }

    /// There is more to do than one reconcile may: what it has done more than once is held back.
    pub(super) fn unfinished(&self, key: &ServiceKey, met: &Met) {
        let rank = self.rank(key);
        for (n, step) in met.done.iter().enumerate() {
            let same =
                |other: &&Step| (other.kind(), other.content()) == (step.kind(), step.content());
            if met.done[..n].iter().filter(same).count() == 1 {
                self.remember(key, |known| known.blocks.undone(step, Undoer::Later, rank));
            }
        }
    }

    /// A replica of a lower rank reports on the source that this step is refused: this one tries it as
    /// well, but later. A slice that is there is written by the replica that comes first.
    pub(super) fn learns(&self, key: &ServiceKey, snapshot: &Snapshot, step: &Step) -> bool {
        let rank = self.rank(key);
        let operation = match step.kind() {
            StepKind::CreateLeader => Operation::CreateService,
            StepKind::PatchLeader => Operation::ApplyService,
            StepKind::DeleteLeader => Operation::DeleteService,
            StepKind::CreateSlice => Operation::CreateSlice,
            StepKind::Mirror => Operation::ApplyServiceStatus,
            StepKind::Slice | StepKind::SourceConditions | StepKind::Creation => return false,
        };
        if rank == 0 {
            return false;
        }
        let object = format!("{}/{}", key.namespace, step.object()).into();
        let call = Call { operation, object }.to_string();
        let source = snapshot.judged().map(|source| &*source.object);
        let refused = source.into_iter().flat_map(own_conditions).filter(|c| c.status == "False");
        let messages: Vec<&str> = refused.map(|c| &*c.message).collect();
        self.remember(key, |known| {
            messages.iter().any(|message| known.blocks.reported(step, &call, message, rank))
        })
    }

    /// What is kept back now, in the words in which it is reported already. A replica that does not come first
    /// leaves another one's words as they are: each may meet another of several webhooks.
    pub(super) fn blocked(&self, key: &ServiceKey, snapshot: &Snapshot) -> Vec<Blocked> {
        let (mut blocked, on_probation) = self.remember(key, |known| {
            let held: Vec<Blocked> = known.blocks.now().cloned().collect();
            (held, known.blocks.on_probation().is_some())
        });
        for one in &mut blocked {
            let said = |text| words::as_said(text, &one.message);
            let theirs = |text| words::about_the_same(text, &one.message);
            let found = conditions(snapshot).find_map(said);
            if let Some(said) = found {
                one.message = said.to_owned();
            } else if self.rank(key) > 0
                && let Some(said) = conditions(snapshot).find_map(theirs)
            {
                (one.reason, one.message) = (RefusalCause::reason_of(said), said.to_owned());
            }
        }
        if on_probation {
            for kind in [StepKind::Mirror, StepKind::SourceConditions] {
                blocked.push(Blocked::all(
                    kind,
                    Reason::WriteUndone,
                    "it is seen whether it lasts",
                ));
            }
        }
        if self.is_ending(key, snapshot) {
            // Of what is not created there nothing else is reported.
            blocked.retain(|b| !matches!(b.kind, StepKind::CreateLeader | StepKind::CreateSlice));
            let message = "the namespace is being deleted";
            blocked.push(Blocked::all(StepKind::Creation, Reason::Forbidden, message));
        }
        blocked
    }

    /// Whether the namespace is known to be being deleted. It does not come back from that; in a new one
    /// of its name every Service has another uid.
    fn is_ending(&self, key: &ServiceKey, snapshot: &Snapshot) -> bool {
        let endings = self.known.endings.lock();
        let Some(known) = endings.get(&key.namespace) else { return false };
        snapshot.source_uid().is_some_and(|uid| known.contains(&*uid))
    }

    /// The namespace is being deleted: as it should be, and nothing to repeat for any of its Services.
    fn ends(&self, key: &ServiceKey, snapshot: &Snapshot, error: &CallError) {
        let mut uids = self.index.read().service_uids(&key.namespace);
        uids.extend(snapshot.source_uid().map(Into::into));
        self.known.endings.lock().insert(key.namespace.clone(), uids);
        info!(%key, "{error}; nothing is created in this namespace any more");
    }

    /// Forgets that a namespace was being deleted once none of its Services is left.
    pub(super) fn forget_ending(&self, namespace: &str) {
        let mut endings = self.known.endings.lock();
        if endings.contains_key(namespace) && self.index.read().service_uids(namespace).is_empty() {
            endings.remove(namespace);
        }
    }

    /// Notes what the source asks for.
    pub(super) fn note_asked(&self, key: &ServiceKey, snapshot: &Snapshot) {
        let SourceState::Judged { uid, source } = &snapshot.source else { return };
        let asked = asked(uid, &source.object);
        self.remember(key, |known| {
            if known.asked.replace(asked).is_some_and(|before| before != asked) {
                known.blocks.asked_anew();
            }
        });
    }

    pub(super) fn rank(&self, key: &ServiceKey) -> usize {
        ranking::rank(&self.me, &self.replicas.read(), key)
    }
}

/// Hash of the spec and the settings of a source.
pub(super) fn asked(uid: &str, source: &Service) -> u64 {
    let settings: Vec<_> = settings::ours(source.annotations()).collect();
    ranking::hash(&[&json!([uid, source.spec, settings]).to_string()])
}

/// The messages of our conditions on source and leader Services.
fn conditions(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let services = snapshot
        .judged()
        .map(|source| &*source.object)
        .into_iter()
        .chain(snapshot.leaders.iter().map(|l| &*l.object));
    services.flat_map(own_conditions).map(|c| &*c.message)
}

fn warn_undone(key: &ServiceKey, step: &Step, wait: Duration) {
    let (kind, object) = (step.kind(), step.object());
    warn!(%key, step = ?kind, object, "this write is undone each time; it is repeated in {wait:?}");
}

/// Whether the answer to a write has what was written. One that cannot be read says nothing.
fn lasts(step: &Step, applied: &Applied) -> bool {
    match (step, applied) {
        (Step::Slice(next), Applied::Slice(answer)) => match (&next.write, &**answer) {
            (SliceWrite::Create(s) | SliceWrite::Replace(s), Decoded::Object(answer)) => {
                let there = json!([answer.endpoints, answer.ports, answer.metadata.annotations]);
                carries(&there, &json!([s.endpoints, s.ports, s.metadata.annotations]))
            }
            _ => true,
        },
        (Step::PatchLeader(_, patch), Applied::Service(answer)) => match &**answer {
            Decoded::Object(answer) => carries(&json!(answer), patch),
            Decoded::Unreadable(_) => true,
        },
        (Step::CreateLeader(service), Applied::Service(answer)) => match &**answer {
            Decoded::Object(answer) => carries(&json!(answer.spec), &json!(service.spec)),
            Decoded::Unreadable(_) => true,
        },
        _ => true,
    }
}

/// Whether `there` has everything of `wanted`; null is what must not be there.
fn carries(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            there.get(key).map_or(is_nothing(value), |there| carries(there, value))
        }),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(t, w)| carries(t, w))
        }
        (there, wanted) => there == wanted || (is_nothing(there) && is_nothing(wanted)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.values().all(is_nothing),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
