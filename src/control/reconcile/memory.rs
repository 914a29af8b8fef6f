//! What the worker remembers between two reconciles. Why each of it is remembered stands where it is used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Reconciler;
use super::blocks::Blocks;
use super::flips::Accepted;
use zen_lead_core::names::ServiceKey;

/// What the worker remembers of a Service between two reconciles. None of it is needed for
/// correctness: a restart loses it.
#[derive(Default)]
pub(super) struct Memory {
    /// A step that waits for a replica of a lower rank, and since when.
    pub(super) wish: Option<(u64, Instant)>,
    /// Steps that are not tried for a while.
    pub(super) blocks: Blocks,
    /// When it was last read for a report.
    pub(super) report_read: Option<Instant>,
    /// Hash of what the source asks for.
    pub(super) asked: Option<u64>,
    /// The settings that were acted on last, and when.
    pub(super) accepted: Accepted,
    /// Since when what is left to do has given way to leaders that are moved.
    pub(super) gives_way: Option<Instant>,
    /// Since when its condition is to say the same in other words.
    pub(super) rewording: Option<Instant>,
    /// The step whose last call had no answer.
    pub(super) unanswered: Option<u64>,
    /// Reconciles in a row that left something to do.
    pub(super) unfinished: u32,
    /// When what it waits for a worker with was noticed.
    pub(super) noticed: Option<Instant>,
    /// When the event that ended a leadership was noticed.
    pub(super) lost_at: Option<Instant>,
    /// Since when the replicas of a newer version that wrote the slices are gone.
    pub(super) newer_gone: Option<Instant>,
}

/// What the worker remembers.
#[derive(Default)]
pub struct Memories {
    pub(super) services: Mutex<HashMap<ServiceKey, Memory>>,
    /// Namespaces that are being deleted, with the uids of their Services.
    pub(super) endings: Mutex<HashMap<Arc<str>, BTreeSet<Arc<str>>>>,
    /// When the API server answered a call last.
    pub(super) answered: Mutex<Option<Instant>>,
}

impl Reconciler {
    /// Number of Services of which something is remembered.
    pub fn remembered(&self) -> usize {
        self.known.services.lock().len()
    }

    pub(super) fn remember<T>(&self, key: &ServiceKey, f: impl FnOnce(&mut Memory) -> T) -> T {
        f(self.known.services.lock().entry(key.clone()).or_default())
    }
}
