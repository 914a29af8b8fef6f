//! Why a request gets no verdict, and the answer it gets instead.
//!
//! The body is a `metav1.Status`: kube-apiserver shows its message to the user.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use strum::IntoStaticStr;
use thiserror::Error;

use super::{MAX_BODY, ReviewError};

/// A request without a verdict.
#[derive(Debug, Error, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Rejection {
    #[error("no webhook at {0:?}; use /validate or /mutate")]
    Path(String),
    #[error("method {0} is not allowed; use POST")]
    Method(Method),
    #[error("content type {0:?} is not supported; send application/json")]
    ContentType(String),
    /// The request announced this length.
    #[error("the body has {0} bytes; the limit is {MAX_BODY}")]
    #[strum(serialize = "too_large")]
    Announced(usize),
    #[error("the body has more than {MAX_BODY} bytes")]
    TooLarge,
    #[error("the body could not be read: {0}")]
    Broken(String),
    #[error("zen-lead did not finish its review within {0:?}; try again")]
    Deadline(Duration),
    #[error(transparent)]
    Refused(ReviewError),
    #[error("zen-lead failed to process this review; see its log")]
    Panic,
}

impl Rejection {
    /// The metric label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.as_str(),
            other => other.into(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Announced(_) | Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(_) | Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
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
