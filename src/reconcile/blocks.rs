//! Kinds of steps of one Service that are kept back for a while: the API server refused them for a
//! reason that trying again cannot mend, or somebody undoes them each time.
//!
//! Each kind has a wait of its own: were there one for all, two refused kinds would take turns
//! without a pause.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::decide::{Blocked, StepKind};
use crate::events::Reason;

/// First wait after a refusal that trying again cannot mend (quota, no permission), doubled each
/// time up to [`LAST_WAIT`].
pub(super) const FIRST_REFUSAL_WAIT: Duration = Duration::from_secs(15);
/// First wait where somebody undoes what was written: he may be about to stop.
pub(super) const FIRST_UNDONE_WAIT: Duration = Duration::from_secs(1);
/// Longest wait of both.
pub(super) const LAST_WAIT: Duration = Duration::from_mins(5);

/// What is kept back, at most one entry a kind.
#[derive(Default)]
pub(super) struct Blocks(Vec<Entry>);

struct Entry {
    blocked: Blocked,
    until: Instant,
    wait: Duration,
    /// Its writes succeed, and change nothing.
    undone: bool,
}

impl Blocks {
    /// What is kept back now.
    pub(super) fn now(&self) -> impl Iterator<Item = &Blocked> {
        let now = clock::monotonic();
        self.0.iter().filter(move |e| e.until > now).map(|e| &e.blocked)
    }

    /// Keeps a refused kind back; for how long.
    pub(super) fn refused(&mut self, kind: StepKind, reason: Reason, error: &str) -> Duration {
        // The same each time: a condition that counted down would be written for ever.
        let message = format!("{error}; tried again by itself within {LAST_WAIT:?}");
        self.hold(Blocked { kind, reason, message }, FIRST_REFUSAL_WAIT, false)
    }

    /// Keeps a kind back whose writes somebody undoes; for how long.
    pub(super) fn undone(&mut self, kind: StepKind, name: &str) -> Duration {
        let message = format!(
            "Service {name:?} is changed back whenever it is put right, for example by a mutating \
             webhook; tried again by itself within {LAST_WAIT:?}"
        );
        let blocked = Blocked { kind, reason: Reason::Forbidden, message };
        self.hold(blocked, FIRST_UNDONE_WAIT, true)
    }

    fn hold(&mut self, blocked: Blocked, first: Duration, undone: bool) -> Duration {
        let before = self.0.iter().position(|e| e.blocked.kind == blocked.kind);
        let before = before.map(|at| self.0.swap_remove(at)).filter(|e| e.undone == undone);
        let wait = before.map_or(first, |e| (e.wait * 2).min(LAST_WAIT));
        self.0.push(Entry { blocked, until: clock::monotonic() + wait, wait, undone });
        wait
    }

    /// A step of this kind succeeded; whether it was refused before. One that was undone succeeds
    /// each time.
    pub(super) fn succeeded(&mut self, kind: StepKind) -> bool {
        let before = self.0.len();
        self.0.retain(|e| e.blocked.kind != kind || e.undone);
        self.0.len() < before
    }

    /// Drops what has run out: at rest it is not wanted any longer, and would bring the Service back
    /// at once, for ever.
    pub(super) fn expire(&mut self) {
        let now = clock::monotonic();
        self.0.retain(|e| e.until > now);
    }

    /// When the first wait runs out.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.iter().map(|e| e.until).min()
    }
}
