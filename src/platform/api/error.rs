//! Why a call failed: the closed list of causes.
//!
//! `classify` maps the answers of the server to them. Callers decide what follows.

use std::fmt;
use std::time::Duration;

use strum::IntoStaticStr;

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

/// A call to the API server that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The call.
    pub call: Call,
    /// The cause.
    pub kind: ErrorKind,
    /// The message of the server; without an answer, the failure of the last attempt.
    pub message: String,
    /// Whether a failed write may have taken effect: read the object to find out. For [`Self::is_stale`]: an
    /// earlier attempt of the same call may have succeeded, but its answer was lost.
    pub maybe_applied: bool,
    /// The pause that the server asked for.
    pub retry_after: Option<Duration>,
    /// Attempts made.
    pub attempts: u32,
}

/// The cause of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The object has changed since the version the write was made for (409).
    Conflict,
    /// The object, or its namespace, does not exist (404).
    NotFound,
    /// An object of that name exists (409).
    AlreadyExists,
    /// The request has no valid credentials (401).
    Unauthorized,
    /// RBAC or an admission plug-in refuses the call (403).
    Forbidden,
    /// A ResourceQuota of the namespace is used up (403).
    Quota,
    /// The namespace is being deleted: nothing can be created in it (403).
    Terminating,
    /// The object is not valid (422).
    Invalid,
    /// The version or continue token is too old (410).
    Gone,
    /// Another refusal that a retry would get again.
    Rejected {
        /// HTTP status, 0 if the request was never sent.
        code: u16,
        /// The server's reason.
        reason: String,
    },
    /// The server reported success, but the answer cannot be parsed.
    Unreadable,
    /// The server asks for a pause beyond the deadline, or rejected every attempt (429).
    TooManyRequests,
    /// The server is not available and asks for a pause beyond the deadline (5xx).
    Unavailable,
    /// No attempt succeeded before this deadline.
    Timeout(Duration),
    /// A group of calls did not end before this common deadline.
    #[strum(serialize = "timeout")]
    Overdue(Duration),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, kind, message, maybe_applied, retry_after, attempts } = self;
        let earlier = if *maybe_applied {
            " (possibly by an earlier attempt whose answer was lost)"
        } else {
            ""
        };
        let applied = if *maybe_applied { " (the write may still have taken effect)" } else { "" };
        let asked =
            retry_after.map_or_else(String::new, |t| format!(" (it asked for a pause of {t:?})"));
        let tries = format!("{attempts} attempt{}", if *attempts == 1 { "" } else { "s" });
        write!(f, "{call}: ")?;
        match kind {
            ErrorKind::Conflict => write!(f, "the object has changed since it was read{earlier}"),
            ErrorKind::NotFound => write!(f, "not found{earlier}"),
            ErrorKind::AlreadyExists => write!(f, "already exists{earlier}"),
            ErrorKind::Unauthorized => f.write_str("the API server did not accept the credentials"),
            ErrorKind::Forbidden => f.write_str(
                "not allowed; check that the ClusterRole and Role of zen-lead match this version, and \
                 check other admission policies",
            ),
            ErrorKind::Quota => f.write_str("the quota of the namespace is used up"),
            ErrorKind::Terminating => f.write_str("the namespace is being deleted"),
            ErrorKind::Invalid => f.write_str("the API server rejected the object as invalid"),
            ErrorKind::Gone => f.write_str("the requested version is no longer available"),
            ErrorKind::Rejected { code: 0, .. } => f.write_str(
                "could not be sent; this is an error in zen-lead or in its configuration",
            ),
            ErrorKind::Rejected { code, reason } => {
                f.write_str(format!("refused with HTTP {code} {reason}").trim_end())
            }
            ErrorKind::Unreadable => write!(
                f,
                "the API server (or a proxy in front of it) sent an unexpected answer{applied}"
            ),
            ErrorKind::TooManyRequests => write!(
                f,
                "the API server is overloaded and rejected the call; gave up after {tries}{asked}"
            ),
            ErrorKind::Unavailable => {
                write!(f, "the API server is not available; gave up after {tries}{asked}{applied}")
            }
            ErrorKind::Timeout(deadline) => {
                write!(f, "no success within {deadline:?} and {tries}{applied}; last error")
            }
            ErrorKind::Overdue(deadline) => {
                return write!(f, "not finished within {deadline:?}");
            }
        }?;
        write!(f, ": {message}")
    }
}

impl std::error::Error for CallError {}

impl ErrorKind {
    /// The cause as a metric label.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

impl CallError {
    /// An error after one attempt, without effect on the server.
    pub fn new(call: Call, kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { call, kind, message, maybe_applied: false, retry_after: None, attempts: 1 }
    }

    /// The cause as a metric label.
    pub fn category(&self) -> &'static str {
        self.kind.category()
    }

    /// Whether the object was not in the state that the caller assumed: read it and decide again.
    pub fn is_stale(&self) -> bool {
        matches!(self.kind, ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::NotFound)
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        use ErrorKind::{Overdue, Timeout, TooManyRequests, Unavailable};
        matches!(self.kind, TooManyRequests | Unavailable | Timeout(_) | Overdue(_))
    }
}
