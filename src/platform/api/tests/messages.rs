//! Every message of a failed call, for a reader who does not know zen-lead: the operation and object, what
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
            CallError::new(replace(), ErrorKind::Conflict, "the object has been modified"),
            "replace_slice team/web-leader-zen-lead-ipv4: the object has changed since it was read: the object has been modified",
        ),
        (
            CallError {
                maybe_applied: true,
                ..CallError::new(replace(), ErrorKind::Conflict, "the object has been modified")
            },
            "replace_slice team/web-leader-zen-lead-ipv4: the object has changed since it was read (possibly by an earlier attempt whose answer was lost): the object has been modified",
        ),
        (
            CallError::new(
                of(Operation::GetSlice, "team/web"),
                ErrorKind::NotFound,
                "services \"web\" not found",
            ),
            "get_slice team/web: not found: services \"web\" not found",
        ),
        (
            CallError::new(create(), ErrorKind::AlreadyExists, "it already exists"),
            "create_slice team/web-leader-zen-lead-ipv4: already exists: it already exists",
        ),
        (
            CallError::new(create(), ErrorKind::Unauthorized, "Unauthorized"),
            "create_slice team/web-leader-zen-lead-ipv4: the API server did not accept the credentials: Unauthorized",
        ),
        (
            CallError::new(create(), ErrorKind::Forbidden, "endpointslices is forbidden"),
            "create_slice team/web-leader-zen-lead-ipv4: not allowed; check that the ClusterRole and Role of zen-lead match this version, and check other admission policies: endpointslices is forbidden",
        ),
        (
            CallError::new(create(), ErrorKind::Quota, "exceeded quota: small"),
            "create_slice team/web-leader-zen-lead-ipv4: the quota of the namespace is used up: exceeded quota: small",
        ),
        (
            CallError::new(create(), ErrorKind::Terminating, "namespace team is being terminated"),
            "create_slice team/web-leader-zen-lead-ipv4: the namespace is being deleted: namespace team is being terminated",
        ),
        (
            CallError::new(create(), ErrorKind::Invalid, "ports[0].port: Invalid value: 0"),
            "create_slice team/web-leader-zen-lead-ipv4: the API server rejected the object as invalid: ports[0].port: Invalid value: 0",
        ),
        (
            CallError::new(
                of(Operation::ListPods, "/api/v1/pods"),
                ErrorKind::Gone,
                "the continue token is too old",
            ),
            "list_pods /api/v1/pods: the requested version is no longer available: the continue token is too old",
        ),
        (
            CallError::new(
                create(),
                ErrorKind::Rejected { code: 413, reason: words("RequestEntityTooLarge") },
                "limit is 3145728",
            ),
            "create_slice team/web-leader-zen-lead-ipv4: refused with HTTP 413 RequestEntityTooLarge: limit is 3145728",
        ),
        (
            CallError::new(
                create(),
                ErrorKind::Rejected { code: 0, reason: words("not sent") },
                "no such header",
            ),
            "create_slice team/web-leader-zen-lead-ipv4: could not be sent; this is an error in zen-lead or in its configuration: no such header",
        ),
        (
            CallError {
                retry_after: Some(3600 * SECOND),
                ..CallError::new(create(), ErrorKind::TooManyRequests, "HTTP 429: slow down")
            },
            "create_slice team/web-leader-zen-lead-ipv4: the API server is overloaded and rejected the call; gave up after 1 attempt (it asked for a pause of 3600s): HTTP 429: slow down",
        ),
        (
            CallError {
                maybe_applied: true,
                retry_after: Some(60 * SECOND),
                attempts: 2,
                ..CallError::new(replace(), ErrorKind::Unavailable, "HTTP 503: no leader")
            },
            "replace_slice team/web-leader-zen-lead-ipv4: the API server is not available; gave up after 2 attempts (it asked for a pause of 60s) (the write may still have taken effect): HTTP 503: no leader",
        ),
        (
            CallError {
                maybe_applied: true,
                attempts: 2,
                ..CallError::new(replace(), ErrorKind::Timeout(deadline), "no answer within 4.9s")
            },
            "replace_slice team/web-leader-zen-lead-ipv4: no success within 10s and 2 attempts (the write may still have taken effect); last error: no answer within 4.9s",
        ),
        (
            CallError {
                attempts: 7,
                ..CallError::new(
                    of(Operation::ListPods, "team"),
                    ErrorKind::Timeout(deadline),
                    "client error (Connect): tcp connect error: Connection refused (os error 111)",
                )
            },
            "list_pods team: no success within 10s and 7 attempts; last error: client error (Connect): tcp connect error: Connection refused (os error 111)",
        ),
        (
            CallError {
                maybe_applied: true,
                ..CallError::new(
                    create(),
                    ErrorKind::Unreadable,
                    "expected value at line 1 column 1",
                )
            },
            "create_slice team/web-leader-zen-lead-ipv4: the API server (or a proxy in front of it) sent an unexpected answer (the write may still have taken effect): expected value at line 1 column 1",
        ),
        (
            CallError::new(
                of(Operation::ReadNamespace, "team"),
                ErrorKind::Overdue(20 * SECOND),
                "no answer",
            ),
            "read_namespace team: not finished within 20s",
        ),
    ];
    let mut seen = std::collections::HashSet::new();
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
        seen.insert(std::mem::discriminant(&error.kind));
    }
    assert_eq!(seen.len(), 15, "a kind without a text here");
}

#[test]
fn a_failed_reconcile_says_what_happens_next() {
    let error = CallError::new(
        of(Operation::ReadNamespace, "team"),
        ErrorKind::Overdue(20 * SECOND),
        "no answer",
    );
    assert_eq!(
        record::failure(&error, Duration::from_nanos(61_234_567)),
        "read_namespace team: not finished within 20s; the reconcile is tried again in 61ms"
    );
}

#[test]
fn every_failed_certificate_pass_says_what_to_do() {
    let secret = || words("zen-lead-ca");
    let source = CallError::new(
        of(Operation::GetSecret, "zen-lead-ca"),
        ErrorKind::Forbidden,
        "secrets \"zen-lead-ca\" is forbidden",
    );
    let overdue = CallError::new(
        of(Operation::CertificatePass, "zen-lead-system/zen-lead-ca"),
        ErrorKind::Overdue(45 * SECOND),
        "no answer",
    );
    for (error, text) in [
        (
            AuthorityError::Call { what: "read the Secret zen-lead-ca".into(), source },
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
