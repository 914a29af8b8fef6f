//! How long settings wait that change again at once: each accepted change costs several calls, of which a
//! client that changes them ten times a second would cause hundreds (docs/decisions/settings-that-flip.md).
//!
//! Which steps pods demand, which never wait for this, says `decide`.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;
use tokio::time::Instant;

use super::Reconciler;
use super::standing::asked;
use crate::platform::clock;
use zen_lead_core::decide::{self, Action, Decision, is_demanded_by_pods};
use zen_lead_core::index::{LabelPairs, Snapshot, SourceState};
use zen_lead_core::keys::{kubernetes, status};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking;
use zen_lead_core::settings::Intent;

/// Settings of one Service are acted on at most once in this time. The last ones count.
pub(super) const SETTINGS_PAUSE: Duration = Duration::from_secs(1);

/// What was acted on last, of one Service.
#[derive(Default)]
pub(super) struct Accepted {
    /// Hash of the settings, where they are known, and when they were first acted on.
    last: Option<(Option<u64>, Instant)>,
    /// Their selector.
    selector: Box<LabelPairs>,
    /// Hash of what the slices are written for: it changes when any replica acts on settings.
    written_for: Option<u64>,
}

impl Accepted {
    /// When others than these may be acted on, if that is later than `now`.
    fn opens_at(&self, now: Instant) -> Option<(Option<u64>, Instant)> {
        let (hash, since) = self.last?;
        let at = since + SETTINGS_PAUSE;
        (at > now).then_some((hash, at))
    }

    fn accept(&mut self, hash: Option<u64>, snapshot: &Snapshot, now: Instant) {
        if self.last.is_none_or(|(last, _)| last != hash || hash.is_none()) {
            self.last = Some((hash, now));
        }
        if hash.is_some() {
            self.selector =
                snapshot.judged().map(|source| source.selector.clone()).unwrap_or_default();
        }
    }
}

impl Reconciler {
    /// When the next step may be taken, where it rests on settings that were changed again too soon.
    pub(super) fn waits_for_settings(
        &self,
        key: &ServiceKey,
        snapshot: &Snapshot,
        decision: &Decision,
    ) -> Option<Instant> {
        let step = match &decision.action {
            Action::Do(step) => Some(step),
            _ => decision.read_for.as_ref(),
        }?;
        let memory = self.known.services.lock();
        let accepted = &memory.get(key)?.accepted;
        let (hash, at) = accepted.opens_at(clock::monotonic())?;
        let present = settings_hash(snapshot)?;
        let waits =
            hash != Some(present) && !is_demanded_by_pods(step, snapshot, &accepted.selector);
        waits.then_some(at)
    }

    /// A step was begun at `began`. During the pause of other settings pods demanded it, and the present ones
    /// still wait: what they ask for beside that step may be the removal of the leader Service.
    pub(super) fn accept(&self, key: &ServiceKey, snapshot: &Snapshot, began: Instant) {
        let Some(hash) = settings_hash(snapshot) else { return };
        self.remember(key, |known| {
            if known.accepted.opens_at(began).is_none() {
                known.accepted.accept(Some(hash), snapshot, began);
            }
        });
    }

    /// Notes whether another replica has acted on other settings: its slices say for which.
    pub(super) fn note_accepted(&self, key: &ServiceKey, snapshot: &Snapshot) {
        let slices = snapshot.leaders.iter().flat_map(|leader| snapshot.slices_of(leader));
        let asked = slices.filter_map(|slice| slice.object.as_ref()?.metadata.annotations.as_ref());
        let asked: Vec<&str> =
            asked.filter_map(|of| of.get(status::ASKED)).map(String::as_str).collect();
        if asked.is_empty() {
            return;
        }
        let written_for = ranking::hash(&asked);
        self.remember(key, |known| {
            let before = known.accepted.written_for.replace(written_for);
            if before == Some(written_for) {
                return;
            }
            let present = snapshot.judged().map(|source| decide::source_hash(&source.object));
            let same = present.is_some_and(|present| asked.iter().all(|asked| *asked == present));
            if same {
                known.accepted.accept(settings_hash(snapshot), snapshot, clock::monotonic());
            } else if before.is_some() {
                known.accepted.accept(None, snapshot, clock::monotonic());
            }
        });
    }
}

/// Hash of everything on the source that steps may follow: what tools write beside it is nothing that waits.
/// `None` where no step follows settings: the source is gone, or cannot be read.
fn settings_hash(snapshot: &Snapshot) -> Option<u64> {
    let settings = match &snapshot.source {
        SourceState::Absent | SourceState::Unreadable { .. } => return None,
        SourceState::Plain { uid } => json!([**uid]),
        SourceState::Judged { uid, source } => {
            let (labels, annotations) = (source.object.labels(), source.object.annotations());
            let mut copied = vec![labels.get(kubernetes::SERVICE_PROXY_NAME)];
            if let Ok(Intent::On(spec)) = &source.intent {
                copied.extend(spec.copy_labels.iter().map(|key| labels.get(key)));
                copied.extend(spec.copy_annotations.iter().map(|key| annotations.get(key)));
            }
            // It names what is wrong, and provider annotations that hold back publishing.
            let read = format!("{:?}", source.intent);
            json!([asked(uid, &source.object), copied, read])
        }
    };
    Some(ranking::hash(&[&settings.to_string()]))
}
