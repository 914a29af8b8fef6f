//! What a replica makes of a refusal, and of a success that changes nothing.

use jiff::{SignedDuration, Timestamp};
use zen_lead_core::decide::{Blocked, Step, StepKind};
use zen_lead_core::index::Snapshot;
use zen_lead_core::index::snapshot::SourceState;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::reason::Reason;

use super::{Pending, Reading, Replica, Without};
use zen_lead_core::fixtures::NAMESPACE;
use zen_lead_core::fixtures::api::{Refusal, Server};

/// Words for a success that changes nothing.
pub(super) const UNDONE: &str = "another client changes it back after each repair";
/// The longest pause after a failure, without [`super::held`].
const LONGEST: SignedDuration = SignedDuration::from_secs(60);

fn uid(view: &Snapshot) -> Option<String> {
    match &view.source {
        SourceState::Absent => None,
        SourceState::Plain { uid }
        | SourceState::Judged { uid, .. }
        | SourceState::Unreadable { uid, .. } => Some(uid.to_string()),
    }
}

/// It reports, and changes no routing.
fn is_report(kind: StepKind) -> bool {
    matches!(kind, StepKind::Mirror | StepKind::SourceConditions)
}

impl Replica {
    /// Steps that are kept back, regardless of what they write.
    pub(super) fn blocked(
        &self,
        key: &ServiceKey,
        view: &Snapshot,
        now: Timestamp,
    ) -> Vec<Blocked> {
        let of = |kind, message: &str| Blocked::all(kind, Reason::Forbidden, message);
        if self.bare.is_some() {
            return vec![of(StepKind::Mirror, "")];
        }
        let mut blocked: Vec<_> = self.holds.get(key).map(|h| h.now(now)).unwrap_or_default();
        if self.ending.get(key).is_some_and(|ends| uid(view).as_ref() == Some(ends)) {
            // As src/control/reconcile/standing.rs: of what is not created there nothing else is reported.
            blocked.retain(|b| !matches!(b.kind, StepKind::CreateLeader | StepKind::CreateSlice));
            blocked.push(of(StepKind::Creation, "the namespace is being deleted"));
        }
        blocked
    }

    /// A write of a slice is kept back.
    pub(super) fn holds_slices(&self, key: &ServiceKey, view: &Snapshot, now: Timestamp) -> bool {
        let slices = [StepKind::Slice, StepKind::CreateSlice, StepKind::Creation];
        self.blocked(key, view, now).iter().any(|b| slices.contains(&b.kind))
    }

    /// A step was carried out.
    pub(super) fn carried_out(&mut self, key: &ServiceKey, step: &Step, now: Timestamp) {
        let holds = self.holds.entry(key.clone()).or_default();
        if !holds.succeeded(step, now) && self.holds_back() {
            self.hold(key, step, UNDONE, Reason::Forbidden, now);
        }
    }

    /// Fights and races are not ended early where a test looks for them.
    fn holds_back(&self) -> bool {
        self.patient && self.without != Without::Holding
    }

    /// It holds back a write that was refused, not only undone. A report that was overtaken too often is no
    /// refusal: that is what a fight looks like.
    pub fn remembers_refusal(&self, now: Timestamp) -> bool {
        self.held(now).iter().any(|(kind, words)| *words != UNDONE && !is_report(*kind))
    }

    /// What others undid since then, by the server's clock.
    pub fn undone(&self, since: Timestamp) -> Option<String> {
        let since = since + SignedDuration::from_millis(self.skew);
        self.holds.values().find_map(|h| h.undone(since)).map(str::to_owned)
    }

    /// What is held is tried again when its pause ends.
    pub(super) fn wake_held(&mut self, now: Timestamp) {
        let due: Vec<_> =
            self.retries.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        for key in due {
            self.retries.remove(&key);
            let holds = self.holds.entry(key.clone()).or_default();
            holds.woken(now);
            if let Some(next) = holds.until(now) {
                self.retries.insert(key.clone(), next);
            }
            self.queue.insert(key);
        }
    }

    fn hold(
        &mut self,
        key: &ServiceKey,
        step: &Step,
        words: &'static str,
        reason: Reason,
        now: Timestamp,
    ) {
        let holds = self.holds.entry(key.clone()).or_default();
        holds.hold(step, words, reason, now);
        if let Some(next) = holds.until(now) {
            self.retries.insert(key.clone(), next);
        }
    }

    /// The write succeeded, and the object is as it was: another was faster, or it is put back.
    pub(super) fn changed_nothing(&mut self, key: &ServiceKey, pending: &Pending, server: &Server) {
        let now = self.now(server);
        let holds = self.holds.entry(key.clone()).or_default();
        let passing = holds.raced(&pending.step, Refusal::Conflict);
        if !passing && self.holds_back() {
            self.hold(key, &pending.step, UNDONE, Reason::Forbidden, now);
        }
    }

    /// The write was refused.
    pub(super) fn refused(
        &mut self,
        key: &ServiceKey,
        pending: &Pending,
        refusal: Refusal,
        server: &Server,
    ) {
        let now = self.now(server);
        let raced = self.holds.entry(key.clone()).or_default().raced(&pending.step, refusal);
        let passing = matches!(refusal, Refusal::Conflict | Refusal::Exists | Refusal::NotFound);
        if raced || (passing && !self.holds_back()) {
            // What overtook it may have come by the watch since it was decided.
            if self.read.take().is_some() || !pending.step.is_overtaken(&self.index, NAMESPACE) {
                self.reading = Some(Reading::default());
            }
            return;
        }
        match refusal {
            Refusal::Terminating => {
                if let Some(uid) = uid(&pending.view) {
                    self.ending.insert(key.clone(), uid);
                }
            }
            Refusal::BadRequest | Refusal::TooLarge | Refusal::Failed
                if self.without == Without::Holding =>
            {
                self.rest();
                self.retries.insert(key.clone(), now + LONGEST);
            }
            _ => {
                let quota = refusal == Refusal::Quota;
                let reason = if quota { Reason::QuotaExceeded } else { Reason::Forbidden };
                self.hold(key, &pending.step, refusal.words(), reason, now);
            }
        }
    }
}
