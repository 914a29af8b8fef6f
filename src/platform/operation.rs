//! The closed list of operations: the API calls of zen-lead and groups of calls. And the object of a call.
//!
//! Only names, for metric labels and messages.

use std::fmt;

use zen_lead_core::names::ServiceKey;

/// The User-Agent that zen-lead sends to the API server.
pub const USER_AGENT: &str = concat!("zen-lead/", env!("CARGO_PKG_VERSION"));

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $write:literal;)*) => {
        /// A kind of API call; the label `operation` of the metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// All operations.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The operation as a metric label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the call changes something on the server.
            pub fn is_write(self) -> bool {
                match self { $(Self::$name => $write,)* }
            }
        }
    };
}

operations! {
    /// Reads the Services of a namespace.
    ListServices = "list_services", false;
    /// Reads one Service.
    GetService = "get_service", false;
    /// Creates a leader Service.
    CreateService = "create_service", true;
    /// Applies fields of a Service.
    ApplyService = "apply_service", true;
    /// Applies annotations and conditions through services/status.
    ApplyServiceStatus = "apply_service_status", true;
    /// Deletes a leader Service.
    DeleteService = "delete_service", true;
    /// Reads one EndpointSlice.
    GetSlice = "get_slice", false;
    /// Reads the EndpointSlices of a Service.
    ListSlices = "list_slices", false;
    /// Creates an EndpointSlice.
    CreateSlice = "create_slice", true;
    /// Replaces an EndpointSlice: the write that moves a leader.
    ReplaceSlice = "replace_slice", true;
    /// Deletes an EndpointSlice.
    DeleteSlice = "delete_slice", true;
    /// Reads what the built-in Endpoints controller made for leader Services.
    ListEndpoints = "list_endpoints", false;
    /// Deletes the leftover Endpoints of a Service.
    DeleteEndpoints = "delete_endpoints", true;
    /// Reads the pods of a namespace.
    ListPods = "list_pods", false;
    /// Reads one pod.
    GetPod = "get_pod", false;
    /// Reads one namespace.
    GetNamespace = "get_namespace", false;
    /// Creates an Event.
    CreateEvent = "create_event", true;
    /// Reads a Secret.
    GetSecret = "get_secret", false;
    /// Creates a Secret.
    CreateSecret = "create_secret", true;
    /// Replaces a Secret.
    ReplaceSecret = "replace_secret", true;
    /// Reads a webhook configuration.
    GetWebhook = "get_webhook", false;
    /// Applies fields of a webhook configuration.
    ApplyWebhook = "apply_webhook", true;
    /// Reads the version of the server.
    GetVersion = "get_version", false;
    /// Reads Secrets: the one with the CA.
    ListSecrets = "list_secrets", false;
    /// Reads webhook configurations: zen-lead's own.
    ListWebhooks = "list_webhooks", false;
    /// Opens a watch of Services.
    WatchServices = "watch_services", false;
    /// Opens a watch of pods.
    WatchPods = "watch_pods", false;
    /// Opens a watch of EndpointSlices.
    WatchSlices = "watch_slices", false;
    /// Opens a watch of what the built-in Endpoints controller made for leader Services.
    WatchEndpoints = "watch_endpoints", false;
    /// Opens a watch of the Secret with the CA.
    WatchSecrets = "watch_secrets", false;
    /// Opens a watch of a webhook configuration.
    WatchWebhooks = "watch_webhooks", false;
    /// Collection: all steps of one reconcile.
    Reconcile = "reconcile", true;
    /// Collection: a consistent read of all objects that a decision in a namespace needs.
    ReadNamespace = "read_namespace", false;
    /// Collection: one check of CA, certificate and caBundles.
    CertificatePass = "certificate_pass", true;
    /// Collection: the owner references of the webhook configurations.
    OwnershipPass = "ownership_pass", true;
    /// Collection: the Events that are queued when the process ends.
    FlushEvents = "flush_events", true;
    /// Collection: one admission review, including the reading of its body.
    AdmissionReview = "admission_review", true;
    /// Collection: the admission reviews in flight when the process ends.
    DrainRequests = "drain_requests", true;
    /// Collection: the tasks of the process when it ends.
    DrainWorkers = "drain_workers", true;
}

impl Operation {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_only_reads_are_not_writes() {
        let labels: std::collections::HashSet<_> =
            Operation::ALL.iter().map(|o| o.as_str()).collect();
        assert_eq!(labels.len(), Operation::ALL.len());
        for operation in Operation::ALL {
            let reads = ["get_", "list_", "watch_", "read_"];
            let read = reads.iter().any(|verb| operation.as_str().starts_with(verb));
            assert_eq!(operation.is_write(), !read, "{operation}");
        }
    }
}
