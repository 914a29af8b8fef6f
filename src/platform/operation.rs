//! The closed list of operations: the API calls of zen-lead and groups of calls. And the object of a call.
//!
//! Only names, for metric labels and messages.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

use zen_lead_core::names::ServiceKey;

/// The User-Agent that zen-lead sends to the API server.
pub const USER_AGENT: &str = concat!("zen-lead/", env!("CARGO_PKG_VERSION"));

/// A kind of API call; the label `operation` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Operation {
    /// Reads the Services of a namespace.
    ListServices,
    /// Reads one Service.
    GetService,
    /// Creates a leader Service.
    CreateService,
    /// Applies fields of a Service.
    ApplyService,
    /// Applies annotations and conditions through services/status.
    ApplyServiceStatus,
    /// Deletes a leader Service.
    DeleteService,
    /// Reads one EndpointSlice.
    GetSlice,
    /// Reads the EndpointSlices of a Service.
    ListSlices,
    /// Creates an EndpointSlice.
    CreateSlice,
    /// Replaces an EndpointSlice: the write that moves a leader.
    ReplaceSlice,
    /// Deletes an EndpointSlice.
    DeleteSlice,
    /// Reads what the built-in Endpoints controller made for leader Services.
    ListEndpoints,
    /// Deletes the leftover Endpoints of a Service.
    DeleteEndpoints,
    /// Reads the pods of a namespace.
    ListPods,
    /// Reads one pod.
    GetPod,
    /// Creates an Event.
    CreateEvent,
    /// Reads a Secret.
    GetSecret,
    /// Creates a Secret.
    CreateSecret,
    /// Replaces a Secret.
    ReplaceSecret,
    /// Reads a webhook configuration.
    GetWebhook,
    /// Applies fields of a webhook configuration.
    ApplyWebhook,
    /// Reads the version of the server.
    GetVersion,
    /// Reads Secrets: the one with the CA.
    ListSecrets,
    /// Reads webhook configurations: zen-lead's own.
    ListWebhooks,
    /// Opens a watch of Services.
    WatchServices,
    /// Opens a watch of pods.
    WatchPods,
    /// Opens a watch of EndpointSlices.
    WatchSlices,
    /// Opens a watch of what the built-in Endpoints controller made for leader Services.
    WatchEndpoints,
    /// Opens a watch of the Secret with the CA.
    WatchSecrets,
    /// Opens a watch of a webhook configuration.
    WatchWebhooks,
    /// Collection: all steps of one reconcile.
    Reconcile,
    /// Collection: a consistent read of all objects that a decision in a namespace needs.
    ReadNamespace,
    /// Collection: one check of CA, certificate and caBundles.
    CertificatePass,
    /// Collection: the Events that are queued when the process ends.
    FlushEvents,
    /// Collection: one admission review, including the reading of its body.
    AdmissionReview,
    /// Collection: the admission reviews in flight when the process ends.
    DrainRequests,
    /// Collection: the tasks of the process when it ends.
    DrainWorkers,
}

zen_lead_core::texts!(all Operation);

impl Operation {
    /// Whether the call changes something on the server; of a collection, whether one in it may.
    pub fn is_write(self) -> bool {
        let reads = ["get_", "list_", "watch_", "read_"];
        !reads.iter().any(|verb| self.as_str().starts_with(verb))
    }

    /// Whether it writes an object that routes traffic. The worker delays such a write after a refusal, with
    /// growing pauses and a report, so the call itself need not be repeated.
    pub fn routes(self) -> bool {
        matches!(
            self,
            Self::CreateService
                | Self::ApplyService
                | Self::ApplyServiceStatus
                | Self::DeleteService
                | Self::CreateSlice
                | Self::ReplaceSlice
                | Self::DeleteSlice
                | Self::DeleteEndpoints
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The object of a call: its name for messages, its Service for metric labels.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of the source Service, empty if there is none.
    pub namespace: &'a str,
    /// Source Service on whose behalf the call is made, empty if there is none.
    pub service: &'a str,
    /// Name of the object, for messages; empty for all of the namespace.
    pub object: &'a str,
}

impl<'a> Target<'a> {
    /// An object that is written or read on behalf of a source Service.
    pub fn of(key: &'a ServiceKey, object: &'a str) -> Self {
        Self { namespace: &key.namespace, service: &key.name, object }
    }

    /// An object that belongs to no single Service: zen-lead's own, or all objects of a kind. Its labels
    /// are empty, so such calls make at most one series per operation and attempt.
    pub fn own(object: &'a str) -> Self {
        Self { namespace: "", service: "", object }
    }

    /// The object as text, for messages.
    pub(super) fn named(&self) -> Box<str> {
        match (self.namespace, self.object) {
            ("", object) => object.into(),
            (namespace, "") => namespace.into(),
            (namespace, object) => format!("{namespace}/{object}").into(),
        }
    }
}

impl<'a> From<&'a ServiceKey> for Target<'a> {
    fn from(key: &'a ServiceKey) -> Self {
        Self::of(key, &key.name)
    }
}
