//! Kubernetes Events (events.k8s.io/v1): the closed list of reasons, and their publisher.
//!
//! Publishing never waits and never fails its caller: what does not fit is dropped and counted.
//! What is worth an Event is decided elsewhere.

mod publisher;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

pub use publisher::Publisher;
#[cfg(test)]
pub(crate) use publisher::Writer;

use crate::platform::telemetry::spans::TraceLink;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::reason::Reason;

/// Who reports, as `kubectl describe` shows it.
pub const CONTROLLER: &str = "zen-lead.io/zen-lead";

/// An Event to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Why.
    pub reason: Reason,
    /// The source Service on whose behalf it is written (for metrics).
    pub service: ServiceKey,
    /// The object it is about; its namespace is where the Event is written.
    pub regarding: ObjectReference,
    /// One or two sentences; cut at 1 kB.
    pub text: String,
    /// A name that says what the Event is about, so that it is written once by all replicas
    /// together: see [`Note::once_a_switch`]. Without it, repetitions within ten minutes are left
    /// out by each replica for itself.
    pub name: Option<String>,
    /// The trace that led to it.
    pub cause: TraceLink,
}

impl Note {
    /// An Event about `regarding` that is left out when it repeats itself.
    pub fn new(
        reason: Reason,
        service: ServiceKey,
        regarding: ObjectReference,
        text: impl Into<String>,
    ) -> Self {
        let (text, cause) = (text.into(), TraceLink::current());
        Self { reason, service, regarding, text, name: None, cause }
    }

    /// Makes it the one Event of the switch of this time: the name is made of the uid of the leader
    /// Service and the milliseconds since 1970, so that of several replicas that report the switch one
    /// succeeds.
    #[must_use]
    pub fn once_a_switch(mut self, leader_service_uid: &str, at: Timestamp) -> Self {
        self.name = Some(format!("{leader_service_uid}.{}", at.as_millisecond()));
        self
    }
}
