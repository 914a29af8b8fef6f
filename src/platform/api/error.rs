//! Why a call failed: the closed list of causes.
//!
//! `judge` maps the answers of the server to them. Callers decide what follows.

use std::fmt;
use std::time::Duration;

use crate::platform::operation::Operation;

/// The call of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// Name of the object.
    pub object: Box<str>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.object)
    }
}

/// Why a call to the API server failed. `message` is the message of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The object has changed since the version the write was made for (409).
    #[error("{call}: the object has changed since it was read{}: {message}", lost_note(*after_lost_attempt))]
    Conflict {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
        /// An earlier attempt of this call may be what changed it.
        after_lost_attempt: bool,
    },
    /// The object, or its namespace, does not exist (404).
    #[error("{call}: not found{}: {message}", lost_note(*after_lost_attempt))]
    NotFound {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
        /// An earlier attempt of this call may be what deleted it.
        after_lost_attempt: bool,
    },
    /// An object of that name exists (409).
    #[error("{call}: already exists{}: {message}", lost_note(*after_lost_attempt))]
    AlreadyExists {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
        /// An earlier attempt of this call may be what created it.
        after_lost_attempt: bool,
    },
    /// The request has no valid credentials (401).
    #[error("{call}: the API server did not accept the credentials: {message}")]
    Unauthorized {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// RBAC or an admission plug-in refuses the call (403).
    #[error(
        "{call}: not allowed; check that the ClusterRole and Role of zen-lead match this version, \
         and check other admission policies: {message}"
    )]
    Forbidden {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// A ResourceQuota of the namespace is used up (403).
    #[error("{call}: the quota of the namespace is used up: {message}")]
    Quota {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// The namespace is being deleted: nothing can be created in it (403).
    #[error("{call}: the namespace is being deleted: {message}")]
    Terminating {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// The object is not valid (422).
    #[error("{call}: the API server rejected the object as invalid: {message}")]
    Invalid {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// The version or continue token is too old (410).
    #[error("{call}: the requested version is no longer available: {message}")]
    Gone {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
    },
    /// Another refusal that a retry would get again.
    #[error("{call}: {}: {message}", answered(*code, reason))]
    Rejected {
        /// The call.
        call: Call,
        /// HTTP status, 0 when the request was never sent.
        code: u16,
        /// The server's reason.
        reason: String,
        /// The message of the server.
        message: String,
    },
    /// The server asks for a pause beyond the deadline, or rejected every attempt (429).
    #[error("{call}: the API server is overloaded and rejected the call; gave up after {}{}: {message}", tries(*attempts), asked(*retry_after))]
    TooManyRequests {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
        /// Attempts made.
        attempts: u32,
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
        /// An attempt may have taken effect.
        may_have_happened: bool,
    },
    /// The server is not available and asks for a pause beyond the deadline (5xx).
    #[error("{call}: the API server is not available; gave up after {}{}{}: {message}", tries(*attempts), asked(*retry_after), happened(*may_have_happened))]
    Unavailable {
        /// The call.
        call: Call,
        /// The message of the server.
        message: String,
        /// Attempts made.
        attempts: u32,
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
        /// An attempt may have taken effect.
        may_have_happened: bool,
    },
    /// No attempt succeeded before the deadline.
    #[error("{call}: no success within {deadline:?} and {}{}; last error: {message}", tries(*attempts), happened(*may_have_happened))]
    Timeout {
        /// The call.
        call: Call,
        /// The deadline of the whole call.
        deadline: Duration,
        /// Attempts made.
        attempts: u32,
        /// The failure of the last attempt.
        message: String,
        /// An attempt may have taken effect.
        may_have_happened: bool,
    },
    /// The server reported success, but the answer cannot be parsed.
    #[error("{call}: the API server (or a proxy in front of it) sent an unexpected answer{}: {message}", happened(*may_have_happened))]
    Unreadable {
        /// The call.
        call: Call,
        /// What is wrong with it.
        message: String,
        /// The call has probably taken effect.
        may_have_happened: bool,
    },
    /// A group of calls did not end before its common deadline.
    #[error("{call}: not finished within {deadline:?}")]
    Overdue {
        /// The group of calls.
        call: Call,
        /// The common deadline.
        deadline: Duration,
    },
}

fn tries(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

fn answered(code: u16, reason: &str) -> String {
    if code == 0 {
        "could not be sent; this is an error in zen-lead or in its configuration".to_owned()
    } else {
        format!("refused with HTTP {code} {reason}").trim_end().to_owned()
    }
}

fn lost_note(after_lost_attempt: bool) -> &'static str {
    if after_lost_attempt { " (possibly by an earlier attempt whose answer was lost)" } else { "" }
}

fn happened(may_have_happened: bool) -> &'static str {
    if may_have_happened { " (the write may still have taken effect)" } else { "" }
}

fn asked(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |t| format!(" (it asked for a pause of {t:?})"))
}

impl CallError {
    /// The cause as a metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::Quota { .. } => "quota",
            Self::Terminating { .. } => "terminating",
            Self::Invalid { .. } => "invalid",
            Self::Gone { .. } => "gone",
            Self::Rejected { .. } => "rejected",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } | Self::Overdue { .. } => "timeout",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// Whether the object was not in the state that the caller assumed: read it and decide again.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists { .. } | Self::NotFound { .. })
    }

    /// Whether a failed write may have taken effect: read the object to find out.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::TooManyRequests { may_have_happened, .. }
            | Self::Unavailable { may_have_happened, .. }
            | Self::Timeout { may_have_happened, .. }
            | Self::Unreadable { may_have_happened, .. } => *may_have_happened,
            // Admission and allocation precede the store; any other 500 leaves the outcome open.
            Self::Rejected { call, code: 500, message, .. } => {
                call.operation.is_write()
                    && !super::by_webhook(message)
                    && !message.contains("range is full")
            }
            _ => self.after_lost_attempt(),
        }
    }

    /// Whether this refusal may be due to an earlier attempt of the same call that succeeded, but whose
    /// answer was lost.
    pub fn after_lost_attempt(&self) -> bool {
        match self {
            Self::Conflict { after_lost_attempt, .. }
            | Self::NotFound { after_lost_attempt, .. }
            | Self::AlreadyExists { after_lost_attempt, .. } => *after_lost_attempt,
            _ => false,
        }
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::TooManyRequests { .. }
                | Self::Unavailable { .. }
                | Self::Timeout { .. }
                | Self::Overdue { .. }
        )
    }

    /// The call.
    pub fn call(&self) -> &Call {
        match self {
            Self::Conflict { call, .. }
            | Self::NotFound { call, .. }
            | Self::AlreadyExists { call, .. }
            | Self::Unauthorized { call, .. }
            | Self::Forbidden { call, .. }
            | Self::Quota { call, .. }
            | Self::Terminating { call, .. }
            | Self::Invalid { call, .. }
            | Self::Gone { call, .. }
            | Self::Rejected { call, .. }
            | Self::TooManyRequests { call, .. }
            | Self::Unavailable { call, .. }
            | Self::Timeout { call, .. }
            | Self::Unreadable { call, .. }
            | Self::Overdue { call, .. } => call,
        }
    }

    /// The message of the server; without an answer, the failure.
    pub fn words(&self) -> &str {
        match self {
            Self::Conflict { message, .. }
            | Self::NotFound { message, .. }
            | Self::AlreadyExists { message, .. }
            | Self::Unauthorized { message, .. }
            | Self::Forbidden { message, .. }
            | Self::Quota { message, .. }
            | Self::Terminating { message, .. }
            | Self::Invalid { message, .. }
            | Self::Gone { message, .. }
            | Self::Rejected { message, .. }
            | Self::TooManyRequests { message, .. }
            | Self::Unavailable { message, .. }
            | Self::Timeout { message, .. }
            | Self::Unreadable { message, .. } => message,
            Self::Overdue { .. } => "no answer",
        }
    }

    /// The pause that the server asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}
