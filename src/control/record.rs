//! Reports what was done: metrics, Events and one log line a step. Nothing here changes an object.
//!
//! What is worth a report is decided by the core; how an Event is written is `events`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use crate::control::events::{Note, Publisher};
use crate::platform::api::{self, CallError};
use crate::platform::clock;
use crate::platform::metrics::Metrics;
use zen_lead_core::decide::mirror;
use zen_lead_core::decide::{Decision, Notice, ObjectRef, Step};
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::reason::Reason;
use zen_lead_core::shrink;

/// Reports for one process.
pub struct Recorder {
    metrics: Arc<Metrics>,
    events: Publisher,
    /// When this process began: the Event of a switch before that may be missing.
    began: Timestamp,
    sent: Mutex<HashMap<ServiceKey, Sent>>,
}

/// Which Events of switches this process has sent for a Service.
#[derive(Default)]
struct Sent {
    /// The switch before this process began was looked at.
    startup: bool,
    /// When the last switch was whose Event was sent.
    last: Option<Timestamp>,
}

impl Recorder {
    /// Reports to these metrics and Events, for a process that began then.
    pub fn new(metrics: Arc<Metrics>, events: Publisher, began: Timestamp) -> Self {
        Self { metrics, events, began, sent: Mutex::default() }
    }

    /// Forgets a Service.
    pub fn forget(&self, key: &ServiceKey) {
        let mut sent = self.sent.lock();
        sent.remove(key);
        shrink::map(&mut sent);
    }

    /// Whether the Event of the switch of this time was not sent yet; it is after this.
    fn is_first(&self, key: &ServiceKey, at: Timestamp) -> bool {
        self.sent.lock().entry(key.clone()).or_default().last.replace(at) != Some(at)
    }

    /// Records a step that succeeded.
    pub fn applied(
        &self,
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
                self.metrics.decided(key, next.switch.is_some(), stayed, ports_failed);
                if let Some(switch) = &next.switch {
                    let latency = lost_at.map(|at| clock::monotonic() - at);
                    self.metrics.failover(key, switch.reason.as_str(), latency);
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
                    // that may be lost. The replica that wrote the switch before may have died before its Event.
                    self.tell(
                        key,
                        &switch.leader,
                        switch.missed.iter().chain([&mirror::switch_event(switch)]),
                    );
                } else {
                    info!(%key, urgent = next.urgent, "slice written");
                }
            }
            Step::CreateLeader(service) => {
                let name = service.metadata.name.as_deref().unwrap_or_default();
                info!(%key, leader_service = name, "leader Service created");
                let note = format!("made leader Service {name}");
                self.event(key, snapshot.source_uid(), Reason::LeaderServiceCreated, &note);
            }
            Step::PatchLeader(target, patch) => {
                let selector = patch.pointer("/spec/selector").is_some();
                info!(%key, leader_service = %target.name, %patch, "leader Service repaired");
                let (reason, note) = if selector {
                    (Reason::SelectorRemoved, "a selector was put on the leader Service; removed, because it would route to every pod it matches".to_owned())
                } else {
                    (Reason::DriftRepaired, format!("repaired: {}", fields(patch)))
                };
                self.tell(key, target, [&Notice::of(reason, note)]);
            }
            Step::DeleteLeader(target) => {
                info!(%key, leader_service = %target.name, "leader Service deleted");
                let note = format!(
                    "removed leader Service {}: it is not asked for any longer",
                    target.name
                );
                self.event(key, snapshot.source_uid(), Reason::LeaderServiceDeleted, &note);
            }
            Step::Mirror(target, _, notices) => self.tell(key, target, notices),
            Step::SourceConditions(target, _, notices) => {
                if let Some(limit) = decision.refused_by {
                    self.metrics.limit_refusal(limit.as_str());
                }
                self.tell(key, target, notices);
            }
        }
    }

    /// At the first rest of a Service: the Event of the last switch before this process began, which the
    /// replica that wrote the mirror may not have sent.
    pub fn at_rest(&self, key: &ServiceKey, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.sent.lock().entry(key.clone()).or_default().startup, true) {
            return;
        }
        for leader in &snapshot.leaders {
            let truth = mirror::read(&leader.object);
            let notice = mirror::missed_event(&truth, &truth, self.began);
            self.tell(key, &ObjectRef::of(&leader.object), &notice);
        }
    }

    /// Says that a source cannot be read, where there is no leader Service to say it on.
    pub fn unreadable(&self, key: &ServiceKey, snapshot: &Snapshot) {
        if let SourceState::Unreadable { error, .. } = &snapshot.source
            && snapshot.leaders.is_empty()
        {
            let text = format!("cannot be read ({error}): no leader is chosen; correct that field");
            self.event(key, snapshot.source_uid(), Reason::Unreadable, &text);
        }
    }

    /// Records a step that failed.
    pub fn failed(&self, key: &ServiceKey, step: &Step, error: &CallError) {
        match step {
            Step::Slice(_) => self.metrics.slice_write_failed(key, error.is_stale()),
            // It may be written, and then no replica sees this switch again. The replica that wrote it to the
            // slice may be dead.
            Step::Mirror(target, _, notices) if error.maybe_applied => {
                self.tell(key, target, notices.iter().filter(|n| n.switched_at.is_some()));
            }
            _ => {}
        }
    }

    /// Hands in an Event about the source `key`.
    pub fn event(&self, key: &ServiceKey, uid: Option<String>, reason: Reason, text: &str) {
        self.events.publish(note(key, key, uid, reason, text));
    }

    /// Sends Events about the Service `about`; that of a switch once.
    fn tell<'a>(
        &self,
        key: &ServiceKey,
        about: &ObjectRef,
        notices: impl IntoIterator<Item = &'a Notice>,
    ) {
        let service = ServiceKey::new(key.namespace.clone(), about.name.as_str());
        for notice in notices {
            let note = note(key, &service, Some(about.uid.clone()), notice.reason, &notice.note);
            match notice.switched_at {
                None => self.events.publish(note),
                Some(at) if self.is_first(key, at) => {
                    self.events.publish(note.once_a_switch(&about.uid, at));
                }
                Some(_) => {}
            }
        }
    }
}

/// A reconcile that failed, and what happens next, for the log.
pub fn failure(error: &CallError, wait: Duration) -> String {
    let again = api::whole_ms(wait);
    format!("{error}; the reconcile is tried again in {again:?}")
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
