//! Real answers of Kubernetes 1.33 to 1.37, and the cause that is read from each.

use super::*;
use crate::platform::api::Call;
use crate::platform::operation::Operation;

fn call() -> Call {
    Call { operation: Operation::CreateService, object: "shop/web-leader".into() }
}

fn rejected(code: u16, reason: &str, message: &str) -> CallError {
    CallError::new(call(), ErrorKind::Rejected { code, reason: reason.to_owned() }, message)
}

fn forbidden(message: &str) -> CallError {
    CallError::new(call(), ErrorKind::Forbidden, message)
}

fn invalid(message: &str) -> CallError {
    CallError::new(call(), ErrorKind::Invalid, message)
}

fn down(why: &str) -> CallError {
    let message = format!(
        "Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: \
         Post \"https://guard.policy.svc:443/validate?timeout=10s\": {why}"
    );
    rejected(500, "InternalError", &message)
}

#[test]
fn the_cause_is_read_from_the_servers_words() {
    let cases = [
        (
            invalid(
                "services \"web-leader\" is forbidden: ValidatingAdmissionPolicy 'team-labels' with binding 'team-labels' denied request: every Service needs the label team",
            ),
            RefusalCause::Policy,
            Reason::RefusedByPolicy,
        ),
        (
            forbidden(
                "services \"web-leader\" is forbidden: ValidatingAdmissionPolicy 'team-labels' with binding 'team-labels' denied request: failed expression: has(object.metadata.labels)",
            ),
            RefusalCause::Policy,
            Reason::RefusedByPolicy,
        ),
        (
            forbidden(
                "services \"web-leader\" is forbidden: Use of external IPs is denied by admission control",
            ),
            RefusalCause::Policy,
            Reason::RefusedByPolicy,
        ),
        (
            forbidden(
                "admission webhook \"validation.gatekeeper.sh\" denied the request: [team] label missing",
            ),
            RefusalCause::Webhook,
            Reason::RefusedByWebhook,
        ),
        (
            rejected(
                409,
                "",
                "admission webhook \"v.example.com\" denied the request without explanation",
            ),
            RefusalCause::Webhook,
            Reason::RefusedByWebhook,
        ),
        (
            down("no endpoints available for service \"guard\""),
            RefusalCause::WebhookDown,
            Reason::RefusedByWebhook,
        ),
        (down("service \"guard\" not found"), RefusalCause::WebhookDown, Reason::RefusedByWebhook),
        (down("context deadline exceeded"), RefusalCause::WebhookDown, Reason::RefusedByWebhook),
        (
            down("dial tcp 10.96.7.1:443: connect: connection refused"),
            RefusalCause::WebhookDown,
            Reason::RefusedByWebhook,
        ),
        (
            down(
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            RefusalCause::WebhookDown,
            Reason::RefusedByWebhook,
        ),
        (
            CallError::new(
                call(),
                ErrorKind::Quota,
                "services \"web-leader\" is forbidden: exceeded quota: small, requested: services=1, used: services=3, limited: services=3",
            ),
            RefusalCause::Quota,
            Reason::QuotaExceeded,
        ),
        (
            forbidden(
                "services \"web-leader\" is forbidden: failed quota: small: must specify services.loadbalancers for: x",
            ),
            RefusalCause::Quota,
            Reason::QuotaExceeded,
        ),
        (
            forbidden(
                "services is forbidden: User \"system:serviceaccount:zen-lead-system:zen-lead\" cannot create resource \"services\" in API group \"\" in the namespace \"shop\"",
            ),
            RefusalCause::Rights,
            Reason::Forbidden,
        ),
        (
            forbidden(
                "endpointslices.discovery.k8s.io \"web-leader-zen-lead-ipv4\" is forbidden: User \"system:serviceaccount:zen-lead-system:zen-lead\" cannot update resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"shop\"",
            ),
            RefusalCause::Rights,
            Reason::Forbidden,
        ),
        (
            forbidden(
                "endpointslices.discovery.k8s.io \"web-leader-zen-lead-ipv4\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
            ),
            RefusalCause::Rights,
            Reason::Forbidden,
        ),
        (forbidden("the proxy says no"), RefusalCause::Rights, Reason::Forbidden),
        (
            rejected(
                500,
                "InternalError",
                "Internal error occurred: failed to allocate a nodePort: range is full",
            ),
            RefusalCause::NodePorts,
            Reason::RangeExhausted,
        ),
        (
            invalid(
                "Service \"web-leader\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided range is full",
            ),
            RefusalCause::NodePorts,
            Reason::RangeExhausted,
        ),
        (
            rejected(
                500,
                "InternalError",
                "Internal error occurred: failed to allocate a serviceIP: range is full",
            ),
            RefusalCause::Addresses,
            Reason::RangeExhausted,
        ),
        (
            invalid(
                "Service \"web-leader\" is invalid: spec.loadBalancerClass: Invalid value: \"b\": may not change once set",
            ),
            RefusalCause::Invalid,
            Reason::WriteRefused,
        ),
        (
            rejected(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
            RefusalCause::TooLarge,
            Reason::WriteRefused,
        ),
        (rejected(400, "BadRequest", "the body is odd"), RefusalCause::Other, Reason::WriteRefused),
        (
            CallError::new(call(), ErrorKind::Conflict, "words"),
            RefusalCause::Conflict,
            Reason::WriteRefused,
        ),
        (
            CallError::new(call(), ErrorKind::NotFound, "words"),
            RefusalCause::NotFound,
            Reason::WriteRefused,
        ),
        (
            CallError::new(call(), ErrorKind::AlreadyExists, "words"),
            RefusalCause::Taken,
            Reason::OwnershipConflict,
        ),
    ];
    for (error, cause, reason) in cases {
        assert_eq!(of(&error), Some(cause), "{error}");
        assert_eq!(cause.reason(), reason, "{error}");
        let message =
            format!("create_service shop/web-leader: no; {}; tried again", cause.advice());
        assert_eq!(RefusalCause::reason_of(&message), reason, "{message}");
    }
}

#[test]
fn what_says_nothing_about_the_write_is_no_refusal() {
    let deadline = std::time::Duration::from_secs(20);
    for kind in [ErrorKind::Terminating, ErrorKind::Unauthorized, ErrorKind::Overdue(deadline)] {
        let error = CallError::new(call(), kind, "words");
        assert_eq!(of(&error), None, "{error}");
    }
}
