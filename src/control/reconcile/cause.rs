//! Why a write is refused, read from the API server's answer, and what to do about it. Pure.
//!
//! The wordings are those of Kubernetes 1.33 to 1.37; where each comes from is said beside it. What
//! follows from a refusal is `blocks`' and the worker's business.

#[cfg(test)]
mod tests;

use strum::VariantArray;

use crate::platform::api::{CallError, ErrorKind, by_webhook};
use zen_lead_core::reason::Reason;

/// Why a write is refused for good, or at least until something changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub(super) enum RefusalCause {
    /// A `ValidatingAdmissionPolicy`, or a built-in admission plug-in.
    Policy,
    /// An admission webhook says no.
    Webhook,
    /// An admission webhook cannot be asked.
    WebhookDown,
    /// A `ResourceQuota`.
    Quota,
    /// RBAC.
    Rights,
    /// No node port is left.
    NodePorts,
    /// No cluster IP is left.
    Addresses,
    /// The object is not valid.
    Invalid,
    /// The object is too large.
    TooLarge,
    /// The write does not fit what is there, although that was just read.
    Conflict,
    /// Something that is not ours has the name.
    Taken,
    /// It is not found, although it was just read.
    NotFound,
    /// No answer to this call, while others are answered.
    NoAnswer,
    /// Anything else.
    Other,
}

/// The cause of a refusal; of a failure that says nothing about the write (the API server is away,
/// overloaded or does not know us) `None`.
pub(super) fn of(error: &CallError) -> Option<RefusalCause> {
    let words = &error.message;
    let cause = match &error.kind {
        ErrorKind::Quota => RefusalCause::Quota,
        ErrorKind::Forbidden | ErrorKind::Invalid | ErrorKind::Rejected { .. } => by_words(words)
            .unwrap_or(match &error.kind {
                ErrorKind::Forbidden => RefusalCause::Rights,
                ErrorKind::Invalid => RefusalCause::Invalid,
                ErrorKind::Rejected { code: 413, .. } => RefusalCause::TooLarge,
                _ => RefusalCause::Other,
            }),
        ErrorKind::Conflict => RefusalCause::Conflict,
        ErrorKind::AlreadyExists => RefusalCause::Taken,
        ErrorKind::NotFound => RefusalCause::NotFound,
        ErrorKind::Gone | ErrorKind::Unreadable => RefusalCause::Other,
        ErrorKind::Terminating
        | ErrorKind::Unauthorized
        | ErrorKind::TooManyRequests
        | ErrorKind::Unavailable
        | ErrorKind::Timeout(_)
        | ErrorKind::Overdue(_) => return None,
    };
    Some(cause)
}

fn by_words(words: &str) -> Option<RefusalCause> {
    let has = |text: &str| words.contains(text);
    Some(match () {
        // `ErrCallingWebhook` in k8s.io/apiserver/pkg/util/webhook/error.go.
        () if has("failed calling webhook \"") => RefusalCause::WebhookDown,
        // `ToStatusErr` in k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go.
        () if by_webhook(words) => RefusalCause::Webhook,
        // k8s.io/apiserver/pkg/admission/plugin/policy/validating/plugin.go.
        () if has("ValidatingAdmissionPolicy '") => RefusalCause::Policy,
        // k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go.
        () if has("exceeded quota: ") || has("failed quota: ") => RefusalCause::Quota,
        // pkg/registry/core/service/storage/alloc.go, with `ErrFull` of its allocators.
        () if has("failed to allocate a nodePort: ") => RefusalCause::NodePorts,
        () if has("failed to allocate a serviceIP: ") => RefusalCause::Addresses,
        () if has("range is full") && has("nodePort") => RefusalCause::NodePorts,
        () if has("range is full") => RefusalCause::Addresses,
        // `Forbidden` in k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go, and
        // plugin/pkg/admission/gc/gc_admission.go.
        () if has("User \"") && has("\" cannot ") => RefusalCause::Rights,
        () if has("cannot set blockOwnerDeletion") || has("cannot set an ownerRef") => {
            RefusalCause::Rights
        }
        // Other admission plug-ins (LimitRanger, PodSecurity, DenyServiceExternalIPs): `NewForbidden`
        // in k8s.io/apiserver/pkg/admission/errors.go.
        () if has(" is forbidden: ") => RefusalCause::Policy,
        () => return None,
    })
}

impl RefusalCause {
    /// The reason for condition and Event.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Policy => Reason::RefusedByPolicy,
            Self::Webhook | Self::WebhookDown => Reason::RefusedByWebhook,
            Self::Quota => Reason::QuotaExceeded,
            Self::Rights => Reason::Forbidden,
            Self::NodePorts | Self::Addresses => Reason::RangeExhausted,
            Self::Taken => Reason::OwnershipConflict,
            Self::Invalid
            | Self::TooLarge
            | Self::Conflict
            | Self::NotFound
            | Self::NoAnswer
            | Self::Other => Reason::WriteRefused,
        }
    }

    /// The reason of a message that was composed with [`Self::advice`]; of one with no cause's advice, that
    /// the write is undone.
    pub(super) fn reason_of(message: &str) -> Reason {
        let cause = Self::VARIANTS.iter().find(|cause| message.contains(cause.advice()));
        cause.map_or(Reason::WriteUndone, |cause| cause.reason())
    }

    /// What to do.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Policy => {
                "exempt the service account of zen-lead from that policy, or make the Service fit it"
            }
            Self::Webhook => {
                "exempt what zen-lead writes from that webhook, or make the Service fit it"
            }
            Self::WebhookDown => {
                "bring the backend of that webhook back, or remove its webhook configuration"
            }
            Self::Quota => "raise that ResourceQuota, or delete what the namespace does not need",
            Self::Rights => {
                "install the ClusterRole and the Role of this version of zen-lead, with their bindings"
            }
            Self::NodePorts => {
                "delete Services of type NodePort or LoadBalancer that are not needed, set \
                 allocateLoadBalancerNodePorts: false, or widen --service-node-port-range of the API \
                 server"
            }
            Self::Addresses => {
                "delete Services that are not needed, or add a ServiceCIDR to the cluster"
            }
            Self::Invalid => "change the Service so that the API server takes it",
            Self::TooLarge => "make the object smaller, or raise the limit that is named",
            Self::Conflict => {
                "it was read again, and the write does not fit all the same: look for a webhook or a \
                 proxy that answers so, or for a client that changes the object all the time"
            }
            Self::Taken => {
                "an object of this name exists that zen-lead did not make: delete it, or choose \
                 another zen-lead.io/leader-service-name"
            }
            Self::NotFound => {
                "it is there when it is read: look for a webhook or a proxy that answers so"
            }
            Self::NoAnswer => {
                "other calls are answered: look for an admission webhook that does not answer"
            }
            Self::Other => "the words of the API server say what is wrong",
        }
    }
}
