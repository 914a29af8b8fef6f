//! Classifies the outcome of one attempt: final or transient, and the cause.
//!
//! No waiting and no counting here: that is `api`.

use std::time::Duration;

use kube::core::Status;

use super::error::{Call, CallError, ErrorKind};

/// What a failed attempt means for the call.
pub(super) enum RetryVerdict {
    /// A retry would fail in the same way.
    Final(Refusal),
    /// A retry may succeed.
    Transient(Transient),
}

/// An answer that ends the call.
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    message: String,
}

/// A failure after which the call is retried.
pub(super) struct Transient {
    pub(super) category: &'static str,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
    /// The request may have taken effect.
    pub(super) maybe_applied: bool,
}

impl Refusal {
    /// The error of the call; `maybe_applied` if an earlier attempt may have taken effect.
    pub(super) fn into_error(self, call: Call, maybe_applied: bool) -> CallError {
        let Self { kind, message } = self;
        let error = CallError::new(call, kind, message);
        let write = error.call.operation.is_write();
        let maybe_applied = match error.kind {
            ErrorKind::Unreadable => write,
            // Admission and allocation precede the store; any other 500 leaves the outcome open.
            ErrorKind::Rejected { code: 500, .. } => {
                write && !by_webhook(&error.message) && !error.message.contains("range is full")
            }
            _ => maybe_applied && error.is_stale(),
        };
        CallError { maybe_applied, ..error }
    }
}

impl Transient {
    /// An attempt that got no answer within its limit.
    pub(super) fn no_answer(limit: Duration) -> Self {
        Self {
            category: "timeout",
            message: format!("no answer within {:?}", whole_ms(limit)),
            retry_after: None,
            maybe_applied: true,
        }
    }

    /// The cause to report for a call that cannot be retried before its deadline; `turned_away` if the
    /// server asked for a pause beyond it.
    pub(super) fn kind(&self, deadline: Duration, turned_away: bool) -> ErrorKind {
        match self.category {
            "too_many_requests" => ErrorKind::TooManyRequests,
            _ if turned_away => ErrorKind::Unavailable,
            _ => ErrorKind::Timeout(deadline),
        }
    }
}

/// Classifies the outcome of one attempt; `routes` is [`super::Operation::routes`] of the call.
pub(super) fn classify(error: &kube::Error, routes: bool) -> RetryVerdict {
    let refused = |kind, message| RetryVerdict::Final(Refusal { kind, message });
    match error {
        kube::Error::Api(status) if routes => classify_write(status),
        kube::Error::Api(status) => classify_status(status),
        kube::Error::SerdeError(e) => refused(ErrorKind::Unreadable, e.to_string()),
        kube::Error::FromUtf8(e) => refused(ErrorKind::Unreadable, e.to_string()),
        error @ (kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::ReadEvents(_)) => RetryVerdict::Transient(Transient {
            category: "connection",
            maybe_applied: !never_sent(error),
            message: with_causes(error),
            retry_after: None,
        }),
        // The other errors are about building requests and configuration: nothing was sent.
        other => {
            let reason = "not sent".to_owned();
            refused(ErrorKind::Rejected { code: 0, reason }, with_causes(other))
        }
    }
}

/// Such a write goes through admission, and a webhook may choose any code for its denial (`ToStatusErr` in
/// k8s.io/apiserver/pkg/admission/plugin/webhook/errors): an immediate retry would get the same answer. The
/// same holds for a 500 of the API server about one object (a webhook that cannot be called, a range that is
/// used up). A 500 is transient if it comes from the store ("etcdserver: ..."), or is not a Status of the API
/// server but the answer of a proxy in front of it.
fn classify_write(status: &Status) -> RetryVerdict {
    let expected = matches!(status.code, 401 | 403 | 422);
    let of_one_object = status.code == 500
        && status.reason == "InternalError"
        && !status.message.contains("etcdserver");
    if (by_webhook(&status.message) && !expected) || of_one_object {
        let kind = ErrorKind::Rejected { code: status.code, reason: status.reason.clone() };
        return RetryVerdict::Final(Refusal { kind, message: status.message.clone() });
    }
    classify_status(status)
}

/// Whether an admission webhook denied the write, or could not be called
/// (k8s.io/apiserver/pkg/admission/plugin/webhook: errors/statuserror.go and error.go of 1.33 to 1.37).
pub fn by_webhook(message: &str) -> bool {
    (message.contains("admission webhook \"") && message.contains(" denied the request"))
        || message.contains("failed calling webhook \"")
}

fn classify_status(status: &Status) -> RetryVerdict {
    let kind = match status.code {
        401 => ErrorKind::Unauthorized,
        403 if has_cause(status, "NamespaceTerminating") => ErrorKind::Terminating,
        // The quota plug-in sets no cause, only this message:
        // k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go.
        403 if status.message.contains("exceeded quota") => ErrorKind::Quota,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 if status.is_already_exists() => ErrorKind::AlreadyExists,
        409 => ErrorKind::Conflict,
        410 => ErrorKind::Gone,
        422 => ErrorKind::Invalid,
        429 => return transient("too_many_requests", status, false),
        // The write may have reached etcd: "etcdserver: request timed out" is a 500, a change of
        // etcd's leader a 503, and a proxy answers 502 when the API server's answer is lost.
        500 | 502 | 503 | 504 => return transient("unavailable", status, true),
        code => ErrorKind::Rejected { code, reason: status.reason.clone() },
    };
    RetryVerdict::Final(Refusal { kind, message: status.message.clone() })
}

fn transient(category: &'static str, status: &Status, maybe_applied: bool) -> RetryVerdict {
    RetryVerdict::Transient(Transient {
        category,
        retry_after: retry_after(status),
        message: format!("HTTP {}: {}", status.code, status.message),
        maybe_applied,
    })
}

/// The pause that a status asks for; zero counts as none.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// The time in whole milliseconds, for messages: the rest of a deadline has nanoseconds.
pub fn whole_ms(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn has_cause(status: &Status, reason: &str) -> bool {
    status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == reason))
}

/// Whether the connection could not be made, so that the server has not seen the request.
fn never_sent(error: &kube::Error) -> bool {
    chain(error).any(|e| {
        e.downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

/// The messages of an error and its sources, outermost first, without duplicates.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for e in chain(error) {
        let message = e.to_string();
        if !text.contains(&message) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&message);
        }
    }
    text
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    // Bounded: a cyclic chain of sources must not hang the caller.
    std::iter::successors(Some(error), |e| e.source()).take(16)
}
