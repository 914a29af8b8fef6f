//! How long a step waits for others: replicas of a lower rank, leaders that are moved, more words to come, and
//! replicas of a newer version.
//!
//! What is refused waits by `blocks`, and a first leader Service for its turn by `turns`.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::{Reconciler, Requeue};
use crate::platform::clock;
use zen_lead_core::decide::Step;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking::{self, TAKEOVER};

/// So long a condition keeps its words while only they change: the pods of a rollout change them one after
/// the other.
pub(super) const REWORDING: Duration = Duration::from_secs(2);

impl Reconciler {
    /// When this replica may act, if replicas of a lower rank go first.
    pub(super) fn waits_for_rank(&self, key: &ServiceKey, step: &Step) -> Option<Instant> {
        let rank = self.rank(key);
        if rank == 0 || step.urgent() {
            return None;
        }
        let wish = ranking::hash(&[&step.wish()]);
        let now = clock::monotonic();
        let mut memory = self.known.services.lock();
        let known = memory.entry(key.clone()).or_default();
        let since = match known.wish {
            Some((same, since)) if same == wish => since,
            _ => {
                known.wish = Some((wish, now));
                now
            }
        };
        let at = since + step.stagger(rank);
        (at > now).then_some(at)
    }

    /// What comes instead of a step that may be later: it gives way to leaders that are moved, and where it
    /// only says the same in other words, the last of several such changes is enough.
    pub(super) fn gives_way(&self, key: &ServiceKey, step: &Step) -> Option<Requeue> {
        if step.kind().is_routing() {
            return None;
        }
        let now = clock::monotonic();
        self.remember(key, |known| {
            if step.is_rewording() {
                let at = *known.rewording.get_or_insert(now) + REWORDING;
                if at > now {
                    return Some(Requeue::At(at));
                }
            }
            let since = *known.gives_way.get_or_insert(now);
            if self.pressure.is_before(Some(key), since) {
                return Some(Requeue::GivesWay(since));
            }
            known.gives_way = None;
            known.rewording = None;
            None
        })
    }

    /// When this replica may take over from a newer version, as long as that one is gone.
    pub(super) fn takes_over_at(&self, key: &ServiceKey) -> Option<Instant> {
        Some(self.known.services.lock().get(key)?.newer_gone? + TAKEOVER)
    }

    pub(super) fn note_newer(&self, key: &ServiceKey, gone: bool) {
        let mut memory = self.known.services.lock();
        if gone {
            let known = memory.entry(key.clone()).or_default();
            if known.newer_gone.is_none() {
                known.newer_gone = Some(clock::monotonic());
                info!(%key, wait_seconds = TAKEOVER.as_secs(), "written by a newer zen-lead that is gone; taking over if it stays gone");
            }
        } else if let Some(known) = memory.get_mut(key) {
            known.newer_gone = None;
        }
    }
}
