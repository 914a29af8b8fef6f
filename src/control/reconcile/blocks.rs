//! Steps of one Service that are kept back for a while: the API server refuses them, or what they
//! write does not last.
//!
//! Each has a wait of its own that grows: were there one for all, two refused steps would take turns
//! without a pause. What is remembered outlives its wait, so that the next refusal waits longer; being
//! woken changes nothing. Which answers are refusals is `cause`'s and the worker's business.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::cause::RefusalCause;
use super::words::{self, TRIED_AGAIN};
use crate::control::pause::{FIRST_WAIT, LAST_WAIT, for_rank, next_wait};
use crate::platform::clock;
use zen_lead_core::decide::{Blocked, Step, StepKind};
use zen_lead_core::reason::Reason;

/// So often the same is written to the same object before it counts as undone each time.
const UNDONE: u32 = 3;
/// The same for what is created: each needs a read.
const UNDONE_CREATION: u32 = 2;
/// What was undone before is reported as done once it has lasted this long.
const PROBATION: Duration = Duration::from_secs(1);
/// What is undone later than this after it was written is simply written again.
const SOON: Duration = Duration::from_secs(30);
/// Waits that would end within this part of each other end together: one look serves them all.
const TOGETHER: u32 = 2;
/// So long are two tries of one Service apart, unless they are made together: each costs a read.
const APART: Duration = Duration::from_millis(2500);
/// Longest part of the server's words in a message.
const WORDS: usize = 1024;

/// What is kept back and what was written, of one Service.
#[derive(Default)]
pub(super) struct Blocks {
    held: Vec<HeldStep>,
    written: Vec<LastWrite>,
}

struct HeldStep {
    blocked: Blocked,
    /// [`Step::base`] of what was refused.
    base: String,
    /// When it was refused or undone.
    at: Instant,
    until: Instant,
    wait: Duration,
    /// Its writes succeed, and do not last.
    undone: bool,
}

/// The last write to an object.
struct LastWrite {
    kind: StepKind,
    object: String,
    content: u64,
    times: u32,
    at: Instant,
    /// The answer lacked something of it, and that was not held against it yet.
    lacked: bool,
}

/// What undoes a write, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undoer {
    /// The answer to the write lacks it already: a mutating webhook or policy.
    InTheAnswer,
    /// It was there, and was changed later.
    Later,
}

impl Blocks {
    /// What is kept back now.
    pub(super) fn now(&self) -> impl Iterator<Item = &Blocked> {
        let now = clock::monotonic();
        self.held.iter().filter(move |h| h.until > now).map(|h| &h.blocked)
    }

    /// Keeps a refused step back; for how long.
    pub(super) fn refused(
        &mut self,
        step: &Step,
        cause: RefusalCause,
        call: &str,
        words: &str,
        rank: usize,
    ) -> Duration {
        let mut words = words.trim_end_matches('.').to_owned();
        if let Some((end, _)) = words.char_indices().nth(WORDS) {
            words.truncate(end);
        }
        // The same each time: a condition that counted down would be written without end.
        let message = format!("{call}: {words}; {}; {TRIED_AGAIN} {LAST_WAIT:?}", cause.advice());
        self.hold(step, cause.reason(), message, false, rank)
    }

    /// Takes over what another replica reports of this step, if `message` does: it is tried here too, but
    /// later. Whether it is taken over.
    pub(super) fn reported(&mut self, step: &Step, call: &str, message: &str, rank: usize) -> bool {
        if self.remembers(step) {
            return false;
        }
        let mut begins = vec![format!("{call}: ")];
        if step.kind() != StepKind::Mirror {
            begins.push(undone_begin(step));
        }
        let Some(part) = words::part(message, &begins) else { return false };
        self.hold(step, RefusalCause::reason_of(part), part.to_owned(), false, rank);
        true
    }

    /// Remembers a write that succeeded, and whether its answer lacks something of it; whether it is one
    /// too many of the same.
    pub(super) fn written(&mut self, step: &Step, lacks: bool) -> bool {
        let (kind, content, now) = (place(step.kind()), step.content(), clock::monotonic());
        let soon = self.wait_of(step).map_or(SOON, |wait| (2 * wait).max(SOON));
        let last = self.written.iter().position(|w| w.kind == kind && w.object == step.object());
        let last = last.map(|at| self.written.swap_remove(at));
        let times = match last {
            Some(w) if w.content == content && now - w.at <= soon => w.times + 1,
            _ => 1,
        };
        let object = step.object().to_owned();
        self.written.push(LastWrite { kind, object, content, times, at: now, lacked: lacks });
        times >= if step.creates() { UNDONE_CREATION } else { UNDONE }
    }

    /// Whether the answer to the last write of an object lacked something of just what is wanted again:
    /// one more would end the same way. Only once for each write, so that it is tried again after a wait.
    pub(super) fn lacked(&mut self, step: &Step) -> bool {
        let (kind, content) = (place(step.kind()), step.content());
        let same = |w: &&mut LastWrite| {
            (w.kind, w.content) == (kind, content) && w.object == step.object()
        };
        self.written.iter_mut().find(same).is_some_and(|w| std::mem::take(&mut w.lacked))
    }

    /// At rest, with nothing kept back: a slice that says something else than was last written to it, and
    /// rightly so, was not changed back but written by another replica.
    pub(super) fn at_rest(&mut self, slice: impl Fn(&str) -> Option<u64>) {
        if self.now().next().is_none() {
            self.written.retain(|w| !is_slice(w.kind) || slice(&w.object) == Some(w.content));
        }
    }

    /// What was undone before was written again just now: whether it lasts is seen in a moment, and
    /// nothing is reported before that. Not the first time, when nothing is reported yet.
    pub(super) fn on_probation(&self) -> Option<Instant> {
        let now = clock::monotonic();
        let tried =
            self.held.iter().filter(|h| h.undone && h.wait > FIRST_WAIT).map(|h| h.at + PROBATION);
        tried.filter(|at| *at > now).max()
    }

    /// Keeps a step back that is undone each time; for how long.
    pub(super) fn undone(&mut self, step: &Step, by: Undoer, rank: usize) -> Duration {
        let begin = undone_begin(step);
        let how = match by {
            Undoer::InTheAnswer => {
                "the answer to each write lacks what was written: a mutating admission webhook or \
                 policy changes it; exempt what zen-lead writes from it"
            }
            Undoer::Later => {
                "another client changes it back after each repair: \
                 metadata.managedFields of the object (kubectl get --show-managed-fields) names it; \
                 stop that client"
            }
        };
        let message = format!("{begin}{how}; {TRIED_AGAIN} {LAST_WAIT:?}");
        self.hold(step, Reason::WriteUndone, message, true, rank)
    }

    fn hold(
        &mut self,
        step: &Step,
        reason: Reason,
        message: String,
        undone: bool,
        rank: usize,
    ) -> Duration {
        let now = clock::monotonic();
        let before = self.held.iter().position(|h| h.is_about(step) && h.undone == undone);
        let before = before.map(|at| self.held.swap_remove(at));
        let wait = next_wait(before.map(|h| h.wait));
        let until = self.next_try(step, now, now + for_rank(wait, rank));
        let (kind, only) = (step.kind(), Some(step.subject()));
        let blocked = Blocked { kind, only, reason, message };
        let base = step.base().to_owned();
        self.held.push(HeldStep { blocked, base, at: now, until, wait, undone });
        until - now
    }

    /// When a step is tried again that is to wait until then: with another step that is due within
    /// [`TOGETHER`], else [`APART`] from all others. That distance delays no slice: other steps are moved to it.
    fn next_try(&mut self, step: &Step, now: Instant, until: Instant) -> Instant {
        let latest = until + (until - now) / TOGETHER;
        let shared = self.held.iter().map(|h| h.until).filter(|at| *at >= until && *at <= latest);
        let until = shared.min().unwrap_or(until);
        let near = |at: Instant| at.max(until) - at.min(until) < APART;
        if is_slice(step.kind()) {
            let others = self.held.iter_mut().filter(|h| !is_slice(h.blocked.kind));
            others.filter(|h| h.until > now && near(h.until)).for_each(|h| h.until = until);
            return until;
        }
        let mut others: Vec<Instant> = self.held.iter().map(|h| h.until).collect();
        others.retain(|at| *at > now);
        others.sort();
        others.into_iter().fold(until, |until, at| match at.checked_duration_since(until) {
            Some(later) if later < APART => at,
            None if until - at < APART => at + APART,
            _ => until,
        })
    }

    fn wait_of(&self, step: &Step) -> Option<Duration> {
        self.held.iter().filter(|h| h.is_about(step)).map(|h| h.wait).max()
    }

    /// Whether this very write, to this very version, was refused before.
    pub(super) fn knows(&self, step: &Step) -> bool {
        self.held.iter().any(|h| h.is_about(step) && !h.undone && h.base == step.base())
    }

    /// Whether something like it was refused or undone before.
    fn remembers(&self, step: &Step) -> bool {
        self.held.iter().any(|h| h.is_about(step))
    }

    /// The step succeeded; whether it was refused before. One that is undone succeeds each time.
    pub(super) fn succeeded(&mut self, step: &Step) -> bool {
        let before = self.held.len();
        self.held.retain(|h| !h.is_about(step) || h.undone);
        self.held.len() < before
    }

    /// The source asks for something else: what was written for the old is no repetition, and what was
    /// refused may be allowed now. It is tried soon; where it is refused again, it waits as long as before.
    pub(super) fn asked_anew(&mut self) {
        self.written.clear();
        for held in self.held.iter_mut().filter(|h| !is_slice(h.blocked.kind)) {
            held.until = held.until.min(held.at + FIRST_WAIT);
        }
    }

    /// At rest: forgets what has not been wanted for as long as it was kept back.
    pub(super) fn expire(&mut self) {
        let now = clock::monotonic();
        self.held.retain(|h| now <= h.until + (h.until - h.at).max(SOON));
        let last = self.held.iter().map(|h| h.wait).max().unwrap_or_default();
        self.written.retain(|w| now - w.at <= (2 * last).max(SOON));
    }

    /// When the first wait runs out. One that has run out is none: at rest it is not wanted, and would
    /// bring the Service back at once, without end.
    pub(super) fn until(&self) -> Option<Instant> {
        let now = clock::monotonic();
        self.held.iter().map(|h| h.until).filter(|at| *at > now).min()
    }
}

impl HeldStep {
    fn is_about(&self, step: &Step) -> bool {
        self.blocked.kind == step.kind() && self.blocked.only == Some(step.subject())
    }
}

/// How a message about a step begins that is undone each time.
fn undone_begin(step: &Step) -> String {
    let what = match step {
        Step::Slice(_) => "EndpointSlice",
        _ => "Service",
    };
    format!("{what} {:?}: ", step.object())
}

fn is_slice(kind: StepKind) -> bool {
    matches!(kind, StepKind::Slice | StepKind::CreateSlice)
}

/// A slice that is deleted each time is undone as one that is changed is.
fn place(kind: StepKind) -> StepKind {
    if kind == StepKind::CreateSlice { StepKind::Slice } else { kind }
}
