//! Steps that a replica holds back because the server refuses them: a growing pause for each kind of
//! step, and for slices for each content, so that another content is tried at once.

use jiff::{SignedDuration, Timestamp};
use zen_lead_core::decide::{Blocked, Step, StepKind};
use zen_lead_core::reason::Reason;

use zen_lead_core::fixtures::api::Refusal;

const FIRST: SignedDuration = SignedDuration::from_secs(1);
/// The same content written this often in a short time means that it is undone each time.
const UNDONE: usize = 8;
const SHORT: SignedDuration = SignedDuration::from_secs(5);
/// So many writes of one reconcile may be overtaken.
const RACES: usize = 4;
const LAST: SignedDuration = SignedDuration::from_mins(5);

/// A step that is held back.
#[derive(Clone, Debug)]
struct Held {
    blocked: Blocked,
    /// The version that was refused.
    base: String,
    words: &'static str,
    until: Timestamp,
    wait: SignedDuration,
}

/// All of one Service.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    all: Vec<Held>,
    /// How often each content was written, and since when.
    done: Vec<(String, usize, Timestamp)>,
    /// The writes of this reconcile that found something else than was read.
    overtaken: Vec<String>,
}

/// The write and the version it is made on.
fn over(step: &Step) -> String {
    format!("{:?} {} over {:?}", step.kind(), step.subject(), step.base())
}

impl Holds {
    /// The step was refused; true where it is to be read and decided again at once, because another
    /// may have been faster. As in the worker, one reconcile reads for the same write once, and not at all
    /// where just this write was refused before (src/control/reconcile/standing.rs).
    pub fn raced(&mut self, step: &Step, refusal: Refusal) -> bool {
        if !matches!(refusal, Refusal::Conflict | Refusal::Exists | Refusal::NotFound) {
            return false;
        }
        let tried = over(step);
        let again = self.overtaken.contains(&tried) || self.overtaken.len() >= RACES;
        self.overtaken.push(tried);
        let same = |h: &Held| h.blocked.refuses(step) && h.base == step.base();
        !again && !self.all.iter().any(|h| same(h) && h.words != super::refused::UNDONE)
    }

    /// The reconcile is over.
    pub fn over(&mut self) {
        self.overtaken.clear();
    }

    /// Holds the step back, longer each time.
    pub fn hold(&mut self, step: &Step, words: &'static str, reason: Reason, now: Timestamp) {
        let before = self.all.iter().position(|h| h.blocked.refuses(step));
        let before = before.map(|at| self.all.remove(at));
        let wait = before.map_or(FIRST, |h| (h.wait * 2).min(LAST));
        let message = format!("{words}; tried again by itself");
        let blocked = Blocked { kind: step.kind(), only: Some(step.subject()), reason, message };
        let base = step.base().to_owned();
        self.all.push(Held { blocked, base, words, until: now + wait, wait });
    }

    /// The step was carried out; false where that happened too often lately: it is undone each time.
    pub fn succeeded(&mut self, step: &Step, now: Timestamp) -> bool {
        let what = format!("{:?} {} {}", step.kind(), step.object(), step.content());
        self.done.retain(|(_, _, since)| *since + SHORT > now);
        match self.done.iter_mut().find(|(done, ..)| *done == what) {
            Some((_, times, _)) => *times += 1,
            None => self.done.push((what.clone(), 1, now)),
        }
        let mut before = self.all.iter().filter(|h| h.words == super::refused::UNDONE);
        let again = before.any(|h| h.blocked.refuses(step) && h.until + h.wait + SHORT > now);
        let often =
            again || self.done.iter().any(|(done, times, _)| *done == what && *times >= UNDONE);
        if !often {
            self.all.retain(|h| !h.blocked.refuses(step));
        }
        !often
    }

    /// Steps undone since then.
    pub fn undone(&self, since: Timestamp) -> Option<&str> {
        let mut often = self.done.iter().filter(|(_, times, at)| *times >= UNDONE && *at >= since);
        often.next().map(|(what, ..)| what.as_str())
    }

    /// Steps held now.
    pub fn now(&self, now: Timestamp) -> Vec<Blocked> {
        let held = self.all.iter().filter(|h| h.until > now);
        held.map(|h| h.blocked.clone()).collect()
    }

    /// When the first pause ends.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.all.iter().map(|h| h.until).filter(|at| *at > now).min()
    }

    /// Drops holds that ended: a step that is still wanted is tried again, and then held longer.
    pub fn woken(&mut self, now: Timestamp) {
        // Pauses grow as long as the step comes back within one more of them.
        self.all.retain(|h| h.until + h.wait + FIRST > now);
    }

    /// Kinds and the server's words of what is held now.
    pub fn words(&self, now: Timestamp) -> impl Iterator<Item = (StepKind, &'static str)> {
        let standing = self.all.iter().filter(move |h| h.until > now);
        standing.map(|h| (h.blocked.kind, h.words))
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
