//! Why a request gets no verdict, and the answer it gets instead.
//!
//! The body is a `metav1.Status`: kube-apiserver shows its message to the user.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::{MAX_BODY, Refused};

/// A request without a verdict.
#[derive(Debug)]
pub(super) enum Rejection {
    /// No such path.
    Path(String),
    /// Not POST.
    Method(Method),
    /// Not JSON.
    ContentType(String),
    /// Larger than [`MAX_BODY`]; the length, if the request announced it.
    TooLarge(Option<usize>),
    /// The body ended early.
    Broken(String),
    /// Not finished in time.
    Deadline(Duration),
    /// The reviewer cannot read the body.
    Refused(Refused),
    /// The reviewer panicked.
    Panic,
}

impl Rejection {
    /// The metric label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Method(_) => "method",
            Self::ContentType(_) => "content_type",
            Self::TooLarge(_) => "too_large",
            Self::Broken(_) => "broken",
            Self::Deadline(_) => "deadline",
            Self::Refused(refused) => refused.reason,
            Self::Panic => "panic",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(refused) => StatusCode::from_u16(refused.status)
                .ok()
                .filter(|s| s.is_client_error() || s.is_server_error())
                .unwrap_or(StatusCode::BAD_REQUEST),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => {
                write!(f, "no webhook at {path:?}; use /validate or /mutate")
            }
            Self::Method(method) => write!(f, "method {method} is not allowed; use POST"),
            Self::ContentType(given) => {
                write!(f, "content type {given:?} is not supported; send application/json")
            }
            Self::TooLarge(Some(length)) => {
                write!(f, "the body has {length} bytes; the limit is {MAX_BODY}")
            }
            Self::TooLarge(None) => write!(f, "the body has more than {MAX_BODY} bytes"),
            Self::Broken(why) => write!(f, "the body could not be read: {why}"),
            Self::Deadline(within) => {
                write!(f, "zen-lead did not finish its review within {within:?}; try again")
            }
            Self::Refused(refused) => f.write_str(&refused.message),
            Self::Panic => f.write_str("zen-lead failed to process this review; see its log"),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.to_string(),
            "code": status.as_u16(),
        });
        let mut response = (status, axum::Json(body)).into_response();
        if matches!(self, Self::Method(_)) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
