//! The shapes of an AdmissionReview on the wire: what is read of a request, what an answer has.
//!
//! From k8s.io/api/admission/v1 and k8s.io/apimachinery meta/v1 (Status). No judging, no limits.

use k8s_openapi::api::core::v1::Service;
use serde::{Deserialize, Serialize};

use super::Verb;
use crate::decode::Decoded;
use crate::settings::Violation;

/// First reading: everything but the objects, which are skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) request: Option<Request>,
}

/// What is asked: who does what to which object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) uid: Option<String>,
    pub(super) kind: Option<GroupKind>,
    pub(super) sub_resource: Option<String>,
    pub(super) operation: Verb,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) user_info: Option<UserInfo>,
    pub(super) dry_run: Option<bool>,
}

/// The kind of the object; the version does not matter here.
#[derive(Deserialize)]
pub(super) struct GroupKind {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
}

/// Who asks.
#[derive(Deserialize)]
pub(super) struct UserInfo {
    pub(super) username: Option<String>,
}

/// Second reading, of Services only.
#[derive(Deserialize)]
pub(super) struct ReviewedObjects {
    pub(super) request: Objects,
}

/// The object after and before, as far as it is needed. Everything else is skipped, above all
/// managedFields: as objects they take a hundred times their size.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Objects {
    pub(super) object: Option<Decoded<Service>>,
    pub(super) old_object: Option<Decoded<Service>>,
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) response: Response<'a>,
}

/// The response in it; absent fields are not sent.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    pub(super) uid: &'a str,
    pub(super) allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) patch: Option<String>,
}

/// Why a request is refused (meta/v1 Status).
#[derive(Serialize)]
pub(super) struct Status<'a> {
    #[serde(rename = "status")]
    pub(super) result: &'static str,
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) details: Details<'a>,
}

/// Which object it is about, and each single mistake.
#[derive(Serialize)]
pub(super) struct Details<'a> {
    pub(super) name: &'a str,
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) causes: Vec<StatusCause<'a>>,
}

/// One mistake, as kubectl prints it.
#[derive(Serialize)]
pub(super) struct StatusCause<'a> {
    pub(super) reason: &'static str,
    pub(super) message: &'a str,
    pub(super) field: &'a str,
}

/// The status of a refusal, in the words of an Invalid error of the API server.
pub(super) fn refusal<'a>(name: &'a str, violations: &'a [Violation]) -> Status<'a> {
    let causes = violations
        .iter()
        .map(|violation| StatusCause {
            reason: violation.cause.as_str(),
            message: &violation.message,
            field: &violation.field,
        })
        .collect();
    // As the API server writes several errors in one line: one bare, more in brackets.
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let texts = if let [one] = &*texts { one.clone() } else { format!("[{}]", texts.join(", ")) };
    let message = format!("Service {name:?} is invalid: {texts}");
    let details = Details { name, group: "", kind: "Service", causes };
    Status { result: "Failure", code: 422, reason: "Invalid", message, details }
}
