//! What is told about a step: metrics, events and one log line. Nothing here changes anything.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;
use tracing::info;

use crate::control::events::Note;
use crate::control::reconcile::Reconciler;
use crate::platform::api::{self, CallError};
use crate::platform::clock;
use zen_lead_core::decide::mirror;
use zen_lead_core::decide::{Decision, Notice, Step, Target};
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::reason::Reason;

/// Records a step that succeeded.
pub fn applied(
    on: &Reconciler,
    key: &ServiceKey,
    snapshot: &Snapshot,
    decision: &Decision,
    step: &Step,
    lost_at: Option<Instant>,
) {
    match step {
        Step::Slice(next) => {
            let choice = decision.choice.as_ref();
            let ports_failed = !decision.missing_ports.is_empty();
            let stayed = choice.and_then(|c| c.incumbent_stayed);
            on.metrics.decided(key, next.switch.is_some(), stayed, ports_failed);
            if let Some(switch) = &next.switch {
                let latency = lost_at.map(|at| clock::monotonic() - at);
                on.metrics.failover(key, switch.reason.as_str(), latency);
                info!(
                    %key,
                    from = switch.from.as_deref().unwrap_or(""),
                    to = %switch.name,
                    reason = switch.reason.as_str(),
                    epoch = switch.epoch,
                    latency_ms = latency.map(|l| l.as_secs_f64() * 1000.0),
                    "leader switched"
                );
                // Now, and not with its mirror: another switch may come before that, and an answer to
                // that may be lost. Whoever wrote the switch before may have died over it.
                tell(on, key, &switch.leader, switch.before.iter().chain([&mirror::told(switch)]));
            } else {
                info!(%key, urgent = next.urgent, "slice written");
            }
        }
        Step::CreateLeader(service) => {
            let name = service.metadata.name.as_deref().unwrap_or_default();
            info!(%key, leader_service = name, "leader Service created");
            let note = format!("made leader Service {name}");
            event(on, key, uid(snapshot), Reason::LeaderServiceCreated, &note);
        }
        Step::PatchLeader(target, patch) => {
            let selector = patch.pointer("/spec/selector").is_some();
            info!(%key, leader_service = %target.name, %patch, "leader Service mended");
            let (reason, note) = if selector {
                (Reason::SelectorRemoved, "a selector was put on the leader Service; removed, because it would route to every pod it matches".to_owned())
            } else {
                (Reason::DriftRepaired, format!("put right: {}", fields(patch)))
            };
            tell(on, key, target, [&Notice::of(reason, note)]);
        }
        Step::DeleteLeader(target) => {
            info!(%key, leader_service = %target.name, "leader Service deleted");
            let note =
                format!("removed leader Service {}: it is not asked for any longer", target.name);
            event(on, key, uid(snapshot), Reason::LeaderServiceDeleted, &note);
        }
        Step::Mirror(target, _, notices) => tell(on, key, target, notices),
        Step::SourceConditions(target, _, notices) => {
            if let Some(limit) = decision.refused_by {
                on.metrics.limit_refusal(limit.as_str());
            }
            tell(on, key, target, notices);
        }
    }
}

/// Tells of the last switch before this process began, in case whoever mirrored it died over that.
pub fn untold(on: &Reconciler, key: &ServiceKey, snapshot: &Snapshot, began: Timestamp) {
    for leader in &snapshot.leaders {
        let truth = mirror::read(&leader.object);
        let notice = mirror::untold(&truth, &truth, began);
        tell(on, key, &Target::of(&leader.object), &notice);
    }
}

/// Says that a source cannot be read, where there is no leader Service to say it on.
pub fn unreadable(on: &Reconciler, key: &ServiceKey, snapshot: &Snapshot) {
    if let SourceState::Unreadable { error, .. } = &snapshot.source
        && snapshot.leaders.is_empty()
    {
        let text = format!("cannot be read ({error}): no leader is chosen; correct that field");
        event(on, key, uid(snapshot), Reason::Unreadable, &text);
    }
}

/// Records a step that failed.
pub fn failed(on: &Reconciler, key: &ServiceKey, step: &Step, error: &CallError) {
    match step {
        Step::Slice(_) => on.metrics.slice_write_failed(key, overtaken(error)),
        // Perhaps written, and then nobody else comes by this switch. Whoever wrote it to the slice may
        // be dead.
        Step::Mirror(target, _, notices) if error.may_have_happened() => {
            tell(on, key, target, notices.iter().filter(|n| n.switched_at.is_some()));
        }
        _ => {}
    }
}

/// True when the object was not as the decision took it to be: read again and decide again.
pub fn overtaken(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Conflict { .. } | CallError::AlreadyExists { .. } | CallError::NotFound { .. }
    )
}

/// A reconcile that failed, and what happens next, for the log.
pub fn failure(error: &CallError, wait: Duration) -> String {
    let again = api::whole_ms(wait);
    format!("{error}; the reconcile is tried again in {again:?}")
}

/// Hands in an Event about the source `key`.
pub fn event(on: &Reconciler, key: &ServiceKey, uid: Option<String>, reason: Reason, text: &str) {
    on.events.publish(note(key, key, uid, reason, text));
}

/// An Event about the Service `about`, written on behalf of the source `key`.
fn note(
    key: &ServiceKey,
    about: &ServiceKey,
    uid: Option<String>,
    reason: Reason,
    text: &str,
) -> Note {
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(about.namespace.to_string()),
        name: Some(about.name.to_string()),
        uid,
        ..ObjectReference::default()
    };
    Note::new(reason, key.clone(), regarding, text)
}

/// Tells of the Service `about`; of a switch only where this process has not yet.
fn tell<'a>(
    on: &Reconciler,
    key: &ServiceKey,
    about: &Target,
    notices: impl IntoIterator<Item = &'a Notice>,
) {
    let service = ServiceKey::new(key.namespace.clone(), about.name.as_str());
    for notice in notices {
        let note = note(key, &service, Some(about.uid.clone()), notice.reason, &notice.note);
        match notice.switched_at {
            None => on.events.publish(note),
            Some(at) if on.tells_of(key, at) => {
                on.events.publish(note.once_a_switch(&about.uid, at));
            }
            Some(_) => {}
        }
    }
}

/// Uid of the source.
pub fn uid(snapshot: &Snapshot) -> Option<String> {
    match &snapshot.source {
        SourceState::Absent => None,
        SourceState::Plain { uid }
        | SourceState::Unreadable { uid, .. }
        | SourceState::Judged { uid, .. } => Some(uid.to_string()).filter(|uid| !uid.is_empty()),
    }
}

/// The fields a merge patch changes, by name.
fn fields(patch: &serde_json::Value) -> String {
    let mut names = Vec::new();
    for (root, below) in patch.as_object().into_iter().flatten() {
        for name in below.as_object().into_iter().flatten().map(|(k, _)| k) {
            names.push(format!("{root}.{name}"));
        }
    }
    names.join(", ")
}
