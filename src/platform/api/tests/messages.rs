//! Every message of a failed call, read as a stranger would: what was asked of which object, what
//! happened, within which deadline, and what to look at. The places that log them add what happens
//! next, and are read here too.

use super::*;
use crate::control::record;
use crate::platform::pki::AuthorityError;

const SECOND: Duration = Duration::from_secs(1);

fn of(operation: Operation, object: &str) -> Call {
    Call { operation, object: object.into() }
}

fn create() -> Call {
    of(Operation::CreateSlice, "team/web-leader-zen-lead-ipv4")
}

fn replace() -> Call {
    of(Operation::ReplaceSlice, "team/web-leader-zen-lead-ipv4")
}

fn words(text: &str) -> String {
    text.to_owned()
}

#[test]
fn every_failed_call_says_what_was_asked_and_what_came_of_it() {
    let deadline = 10 * SECOND;
    let cases = [
        (
            CallError::Conflict {
                call: replace(),
                message: words("the object has been modified"),
                after_lost_attempt: false,
            },
            "replace_slice team/web-leader-zen-lead-ipv4: the object has changed since it was read: the object has been modified",
        ),
        (
            CallError::Conflict {
                call: replace(),
                message: words("the object has been modified"),
                after_lost_attempt: true,
            },
            "replace_slice team/web-leader-zen-lead-ipv4: the object has changed since it was read (possibly by an earlier attempt whose answer was lost): the object has been modified",
        ),
        (
            CallError::NotFound {
                call: of(Operation::GetSlice, "team/web"),
                message: words("services \"web\" not found"),
                after_lost_attempt: false,
            },
            "get_slice team/web: not found: services \"web\" not found",
        ),
        (
            CallError::AlreadyExists {
                call: create(),
                message: words("it already exists"),
                after_lost_attempt: false,
            },
            "create_slice team/web-leader-zen-lead-ipv4: already exists: it already exists",
        ),
        (
            CallError::Unauthorized { call: create(), message: words("Unauthorized") },
            "create_slice team/web-leader-zen-lead-ipv4: the API server did not accept the credentials: Unauthorized",
        ),
        (
            CallError::Forbidden { call: create(), message: words("endpointslices is forbidden") },
            "create_slice team/web-leader-zen-lead-ipv4: not allowed; check that the ClusterRole and Role of zen-lead match this version, and check other admission policies: endpointslices is forbidden",
        ),
        (
            CallError::Quota { call: create(), message: words("exceeded quota: small") },
            "create_slice team/web-leader-zen-lead-ipv4: the quota of the namespace is used up: exceeded quota: small",
        ),
        (
            CallError::Terminating {
                call: create(),
                message: words("namespace team is being terminated"),
            },
            "create_slice team/web-leader-zen-lead-ipv4: the namespace is being deleted: namespace team is being terminated",
        ),
        (
            CallError::Invalid {
                call: create(),
                message: words("ports[0].port: Invalid value: 0"),
            },
            "create_slice team/web-leader-zen-lead-ipv4: the API server rejected the object as invalid: ports[0].port: Invalid value: 0",
        ),
        (
            CallError::Gone {
                call: of(Operation::ListPods, "/api/v1/pods"),
                message: words("the continue token is too old"),
            },
            "list_pods /api/v1/pods: the requested version is no longer available: the continue token is too old",
        ),
        (
            CallError::Rejected {
                call: create(),
                code: 413,
                reason: words("RequestEntityTooLarge"),
                message: words("limit is 3145728"),
            },
            "create_slice team/web-leader-zen-lead-ipv4: refused with HTTP 413 RequestEntityTooLarge: limit is 3145728",
        ),
        (
            CallError::Rejected {
                call: create(),
                code: 0,
                reason: words("not sent"),
                message: words("no such header"),
            },
            "create_slice team/web-leader-zen-lead-ipv4: could not be sent; this is an error in zen-lead or in its configuration: no such header",
        ),
        (
            CallError::TooManyRequests {
                call: create(),
                message: words("HTTP 429: slow down"),
                attempts: 1,
                retry_after: Some(3600 * SECOND),
                may_have_happened: false,
            },
            "create_slice team/web-leader-zen-lead-ipv4: the API server is overloaded and rejected the call; gave up after 1 attempt (it asked for a pause of 3600s): HTTP 429: slow down",
        ),
        (
            CallError::Unavailable {
                call: replace(),
                message: words("HTTP 503: no leader"),
                attempts: 2,
                retry_after: Some(60 * SECOND),
                may_have_happened: true,
            },
            "replace_slice team/web-leader-zen-lead-ipv4: the API server is not available; gave up after 2 attempts (it asked for a pause of 60s) (the write may still have taken effect): HTTP 503: no leader",
        ),
        (
            CallError::Timeout {
                call: replace(),
                deadline,
                attempts: 2,
                message: words("no answer within 4.9s"),
                may_have_happened: true,
            },
            "replace_slice team/web-leader-zen-lead-ipv4: no success within 10s and 2 attempts (the write may still have taken effect); last error: no answer within 4.9s",
        ),
        (
            CallError::Timeout {
                call: of(Operation::ListPods, "team"),
                deadline,
                attempts: 7,
                message: words(
                    "client error (Connect): tcp connect error: Connection refused (os error 111)",
                ),
                may_have_happened: false,
            },
            "list_pods team: no success within 10s and 7 attempts; last error: client error (Connect): tcp connect error: Connection refused (os error 111)",
        ),
        (
            CallError::Unreadable {
                call: create(),
                message: words("expected value at line 1 column 1"),
                may_have_happened: true,
            },
            "create_slice team/web-leader-zen-lead-ipv4: the API server (or a proxy in front of it) sent an unexpected answer (the write may still have taken effect): expected value at line 1 column 1",
        ),
        (
            CallError::Overdue {
                call: of(Operation::ReadNamespace, "team"),
                deadline: 20 * SECOND,
            },
            "read_namespace team: not finished within 20s",
        ),
    ];
    let mut seen = std::collections::HashSet::new();
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
        seen.insert(std::mem::discriminant(&error));
    }
    assert_eq!(seen.len(), 15, "a variant without a text here");
}

#[test]
fn a_failed_reconcile_says_what_happens_next() {
    let error =
        CallError::Overdue { call: of(Operation::ReadNamespace, "team"), deadline: 20 * SECOND };
    assert_eq!(
        record::failure(&error, Duration::from_nanos(61_234_567)),
        "read_namespace team: not finished within 20s; the reconcile is tried again in 61ms"
    );
}

#[test]
fn every_failed_certificate_pass_says_what_to_do() {
    let secret = || words("zen-lead-ca");
    let source = CallError::Forbidden {
        call: of(Operation::GetSecret, "zen-lead-ca"),
        message: words("secrets \"zen-lead-ca\" is forbidden"),
    };
    let overdue = CallError::Overdue {
        call: of(Operation::CertificatePass, "zen-lead-system/zen-lead-ca"),
        deadline: 45 * SECOND,
    };
    for (error, text) in [
        (
            AuthorityError::Call { what: words("read the Secret zen-lead-ca"), source },
            "cannot read the Secret zen-lead-ca: get_secret zen-lead-ca: not allowed; check that the ClusterRole and Role of zen-lead match this version, and check other admission policies: secrets \"zen-lead-ca\" is forbidden",
        ),
        (
            AuthorityError::NoNamespace { secret: secret(), namespace: words("zen-lead-system") },
            "cannot create the Secret zen-lead-ca: there is no namespace zen-lead-system; create it, or set --namespace (POD_NAMESPACE) to the one zen-lead runs in",
        ),
        (
            AuthorityError::from(overdue),
            "the certificate check did not complete: certificate_pass zen-lead-system/zen-lead-ca: not finished within 45s",
        ),
        (
            AuthorityError::Certificate(crate::platform::server::tls::CertificateError::Mismatch),
            "the TLS server rejected the certificate that zen-lead made: the private key does not belong to the certificate",
        ),
        (
            AuthorityError::Contended(secret()),
            "the Secret zen-lead-ca was changed by another client between read and write, 5 times in a row; make sure that only zen-lead writes this Secret",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
