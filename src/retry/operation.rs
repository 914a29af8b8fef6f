//! The closed list of API calls zen-lead makes, and what a call is about.
//!
//! Only names: they are metric labels and words of messages.

use std::fmt;

use crate::names::ServiceKey;

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
    /// Reads one Service.
    GetService = "get_service", false;
    /// Reads the Services of a namespace.
    ListServices = "list_services", false;
    /// Creates a leader Service.
    CreateService = "create_service", true;
    /// Replaces a leader Service.
    ReplaceService = "replace_service", true;
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
    /// Reads the Endpoints of a Service.
    GetEndpoints = "get_endpoints", false;
    /// Deletes the leftover Endpoints of a Service.
    DeleteEndpoints = "delete_endpoints", true;
    /// Reads one pod.
    GetPod = "get_pod", false;
    /// Reads the pods of a namespace.
    ListPods = "list_pods", false;
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
    /// Asks for the version of the server.
    GetVersion = "get_version", false;
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call is about: the object for messages, the Service for metric labels.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace, empty for what has none.
    pub namespace: &'a str,
    /// Source Service on whose behalf the call is made, empty when there is none.
    pub service: &'a str,
    /// Name of the object, for messages.
    pub object: &'a str,
}

impl<'a> Target<'a> {
    /// An object that is written or read on behalf of a source Service.
    pub fn of(key: &'a ServiceKey, object: &'a str) -> Self {
        Self { namespace: &key.namespace, service: &key.name, object }
    }

    /// An object of a namespace that belongs to no single Service.
    pub fn namespaced(namespace: &'a str, object: &'a str) -> Self {
        Self { namespace, service: "", object }
    }

    /// An object without a namespace.
    pub fn cluster(object: &'a str) -> Self {
        Self { namespace: "", service: "", object }
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
            let read = ["get_", "list_"].iter().any(|verb| operation.as_str().starts_with(verb));
            assert_eq!(operation.is_write(), !read, "{operation}");
        }
    }
}
