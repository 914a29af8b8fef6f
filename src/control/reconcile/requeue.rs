//! What a reconcile asks for next, and how the queue is told.

use tokio::time::Instant;

use crate::control::queue::WorkItem;
use zen_lead_core::names::ServiceKey;

/// What a reconcile asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Nothing until something changes.
    Idle,
    /// Again at this time.
    At(Instant),
    /// Nothing was done: it is woken when it is its turn, and looks again at this time at the latest.
    Waits(Option<Instant>),
    /// What is left to do gives way to leaders that are moved, as it has since then.
    GivesWay(Instant),
    /// The Service is not managed any more.
    Forget,
}

impl Requeue {
    /// Gives a key back to its queue.
    pub fn let_go(self, held: WorkItem<ServiceKey>) {
        match self {
            Self::Idle | Self::Forget => held.done(None),
            Self::At(at) => held.done(Some(at)),
            Self::Waits(at) => held.put_aside(at),
            Self::GivesWay(since) => held.give_way(since),
        }
    }

    /// The outcome in a word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::At(_) => "again",
            Self::Waits(_) => "waits",
            Self::GivesWay(_) => "gives_way",
            Self::Forget => "forget",
        }
    }
}
