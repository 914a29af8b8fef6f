//! What the outcome of one attempt means: final or passing, and which cause.
//!
//! No waiting and no counting here: that is `retry`.

use std::time::Duration;

use kube::core::Status;

use super::error::{Call, CallError};

/// What one failed attempt means for the call.
pub(super) enum Verdict {
    /// A repetition would meet the same.
    Final(Refusal),
    /// It may be different next time.
    Passing(Passing),
}

/// An answer that ends the call.
pub(super) struct Refusal {
    kind: RefusalKind,
    message: String,
}

enum RefusalKind {
    Conflict,
    NotFound,
    AlreadyExists,
    Unauthorized,
    Forbidden,
    Quota,
    Terminating,
    Invalid,
    Gone,
    Rejected { code: u16, reason: String },
    Unreadable,
}

/// A failure after which the call is tried again.
pub(super) struct Passing {
    pub(super) category: &'static str,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
    /// The request may have taken effect.
    pub(super) lost: bool,
}

impl Refusal {
    /// The cause as a metric label.
    pub(super) fn category(&self) -> &'static str {
        match self.kind {
            RefusalKind::Conflict => "conflict",
            RefusalKind::NotFound => "not_found",
            RefusalKind::AlreadyExists => "already_exists",
            RefusalKind::Unauthorized => "unauthorized",
            RefusalKind::Forbidden => "forbidden",
            RefusalKind::Quota => "quota",
            RefusalKind::Terminating => "terminating",
            RefusalKind::Invalid => "invalid",
            RefusalKind::Gone => "gone",
            RefusalKind::Rejected { .. } => "rejected",
            RefusalKind::Unreadable => "unreadable",
        }
    }

    pub(super) fn into_error(self, call: Call, after_lost_attempt: bool) -> CallError {
        let message = self.message;
        match self.kind {
            RefusalKind::Conflict => CallError::Conflict { call, message, after_lost_attempt },
            RefusalKind::NotFound => CallError::NotFound { call, message, after_lost_attempt },
            RefusalKind::AlreadyExists => {
                CallError::AlreadyExists { call, message, after_lost_attempt }
            }
            RefusalKind::Unauthorized => CallError::Unauthorized { call, message },
            RefusalKind::Forbidden => CallError::Forbidden { call, message },
            RefusalKind::Quota => CallError::Quota { call, message },
            RefusalKind::Terminating => CallError::Terminating { call, message },
            RefusalKind::Invalid => CallError::Invalid { call, message },
            RefusalKind::Gone => CallError::Gone { call, message },
            RefusalKind::Rejected { code, reason } => {
                CallError::Rejected { call, code, reason, message }
            }
            RefusalKind::Unreadable => {
                let may_have_happened = call.operation.is_write();
                CallError::Unreadable { call, message, may_have_happened }
            }
        }
    }
}

impl Passing {
    /// An attempt that got no answer within its limit.
    pub(super) fn no_answer(limit: Duration) -> Self {
        Self {
            category: "timeout",
            message: format!("no answer within {:?}", whole_ms(limit)),
            retry_after: None,
            lost: true,
        }
    }

    /// The error of a call that cannot be tried again before its deadline; `turned_away` when the
    /// server asked for a pause beyond it.
    pub(super) fn give_up(
        &self,
        call: Call,
        deadline: Duration,
        attempts: u32,
        may_have_happened: bool,
        turned_away: bool,
    ) -> CallError {
        let (message, retry_after) = (self.message.clone(), self.retry_after);
        match self.category {
            "too_many_requests" => CallError::TooManyRequests {
                call,
                message,
                attempts,
                retry_after,
                may_have_happened,
            },
            _ if turned_away => {
                CallError::Unavailable { call, message, attempts, retry_after, may_have_happened }
            }
            _ => CallError::Timeout { call, deadline, attempts, message, may_have_happened },
        }
    }
}

/// Sorts the outcome of one attempt; `routes` says that the call is a write of what routes
/// ([`super::Operation::routes`]).
pub(super) fn judge(error: &kube::Error, routes: bool) -> Verdict {
    let refused = |kind, message| Verdict::Final(Refusal { kind, message });
    match error {
        kube::Error::Api(status) if routes => judge_write(status),
        kube::Error::Api(status) => judge_status(status),
        kube::Error::SerdeError(e) => refused(RefusalKind::Unreadable, e.to_string()),
        kube::Error::FromUtf8(e) => refused(RefusalKind::Unreadable, e.to_string()),
        error @ (kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::ReadEvents(_)) => Verdict::Passing(Passing {
            category: "connection",
            lost: !never_sent(error),
            message: with_causes(error),
            retry_after: None,
        }),
        // What is left is about building requests and configuration: nothing was sent.
        other => {
            let reason = "not sent".to_owned();
            refused(RefusalKind::Rejected { code: 0, reason }, with_causes(other))
        }
    }
}

/// Such a write is judged by admission as well, and a webhook may choose any code for its denial
/// (`ToStatusErr` in k8s.io/apiserver/pkg/admission/plugin/webhook/errors): a repetition at once would
/// meet it again. So it would what the API server answers with 500 about one object (a webhook that
/// cannot be called, a range that is used up); passing are those of its own store, "etcdserver: ...", and
/// those that are no Status of its own: a proxy before it answers for it.
fn judge_write(status: &Status) -> Verdict {
    let expected = matches!(status.code, 401 | 403 | 422);
    let of_one_object = status.code == 500
        && status.reason == "InternalError"
        && !status.message.contains("etcdserver");
    if (by_webhook(&status.message) && !expected) || of_one_object {
        let kind = RefusalKind::Rejected { code: status.code, reason: status.reason.clone() };
        return Verdict::Final(Refusal { kind, message: status.message.clone() });
    }
    judge_status(status)
}

/// An admission webhook denied the write, or could not be asked
/// (k8s.io/apiserver/pkg/admission/plugin/webhook: errors/statuserror.go and error.go of 1.33 to 1.37).
pub fn by_webhook(message: &str) -> bool {
    (message.contains("admission webhook \"") && message.contains(" denied the request"))
        || message.contains("failed calling webhook \"")
}

fn judge_status(status: &Status) -> Verdict {
    let kind = match status.code {
        401 => RefusalKind::Unauthorized,
        403 if has_cause(status, "NamespaceTerminating") => RefusalKind::Terminating,
        // The quota plug-in gives no cause of its own, only this wording:
        // k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go.
        403 if status.message.contains("exceeded quota") => RefusalKind::Quota,
        403 => RefusalKind::Forbidden,
        404 => RefusalKind::NotFound,
        409 if status.is_already_exists() => RefusalKind::AlreadyExists,
        409 => RefusalKind::Conflict,
        410 => RefusalKind::Gone,
        422 => RefusalKind::Invalid,
        429 => return passing("too_many_requests", status, false),
        // The write may have reached etcd: "etcdserver: request timed out" is a 500, a change of
        // etcd's leader a 503, and a proxy answers 502 when the API server's answer is lost.
        500 | 502 | 503 | 504 => return passing("unavailable", status, true),
        code => RefusalKind::Rejected { code, reason: status.reason.clone() },
    };
    Verdict::Final(Refusal { kind, message: status.message.clone() })
}

fn passing(category: &'static str, status: &Status, lost: bool) -> Verdict {
    Verdict::Passing(Passing {
        category,
        retry_after: retry_after(status),
        message: format!("HTTP {}: {}", status.code, status.message),
        lost,
    })
}

/// How long a status asks us to wait; zero counts as no word.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// The time for people: what is left of a deadline has digits down to the nanosecond.
pub fn whole_ms(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn has_cause(status: &Status, reason: &str) -> bool {
    status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == reason))
}

/// Whether the connection could not even be made, so that the server has seen nothing.
fn never_sent(error: &kube::Error) -> bool {
    chain(error).any(|e| {
        e.downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

/// The messages of an error and its sources, outermost first, without repetitions.
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
    // Bounded: a source that points at itself must not hang the caller.
    std::iter::successors(Some(error), |e| e.source()).take(16)
}
