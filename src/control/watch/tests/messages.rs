//! Every message of a watch that failed, read as a stranger would: what was watched, what happened,
//! and (from the loop) when it is tried again.

use kube::core::Status;

use super::*;
use crate::control::watch::follow::{broken, refused, silent};
use crate::platform::api::{Call, CallError, ErrorKind};
use crate::platform::operation::Operation;

const PODS: &str = "/api/v1/namespaces/shop/pods";

fn status(code: u16, reason: &str) -> Status {
    serde_json::from_value(json!({"code": code, "reason": reason, "message": "its words"})).unwrap()
}

#[test]
fn every_end_of_a_watch_says_what_was_watched_and_what_happened() {
    let call = (Operation::WatchPods, PODS);
    for (end, reason, text) in [
        (
            refused(call, &status(429, "TooManyRequests")),
            "throttled",
            "watch_pods /api/v1/namespaces/shop/pods: refused with HTTP 429 TooManyRequests: its words",
        ),
        (
            refused(call, &status(403, "Forbidden")),
            "refused",
            "watch_pods /api/v1/namespaces/shop/pods: refused with HTTP 403 Forbidden (is the ClusterRole of zen-lead the one of this version?): its words",
        ),
        (
            refused(call, &status(500, "InternalError")),
            "server",
            "watch_pods /api/v1/namespaces/shop/pods: refused with HTTP 500 InternalError: its words",
        ),
        (
            broken(call, "ended as soon as it began"),
            "connection",
            "watch_pods /api/v1/namespaces/shop/pods: the connection broke: ended as soon as it began",
        ),
        (
            silent(call, Duration::from_nanos(10_000_000_123)),
            "silent",
            "watch_pods /api/v1/namespaces/shop/pods: nothing was heard from the API server for 10s",
        ),
    ] {
        let End::Failed { reason: found, message, .. } = end else { panic!("{text}") };
        assert_eq!((found.as_str(), message.as_str()), (reason, text));
    }
    assert!(matches!(refused(call, &status(410, "Expired")), End::Relist(Restart::Gone)));
}

#[test]
fn every_failed_list_says_what_was_listed() {
    let operation = Operation::ListPods;
    let call = Call { operation, object: PODS.into() };
    let overdue = CallError::new(call, ErrorKind::Overdue(times::LIST), "no answer");
    for (error, text) in [
        (
            ListError::Version { operation, text: "x1".into() },
            "list_pods: the list of the API server has the version \"x1\", which is no number",
        ),
        (
            ListError::from(overdue),
            "list_pods /api/v1/namespaces/shop/pods: not finished within 240s",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
