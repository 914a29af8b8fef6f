//! The wire format: an AdmissionReview (admission.k8s.io/v1) in, its answer out.
//!
//! Own small types: kube's carry a full Status that cannot say what kubectl prints for a refusal
//! (`details.causes`), and its patch is not base64. No HTTP here (the `webhook` of zen-lead), no judging (`verdict`).

mod size;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use strum::IntoStaticStr;
use thiserror::Error;

use super::patch::patch;
use super::verdict::{Change, Neighbours, Question, verdict};
use crate::decode::Decoded;
use crate::names::{NameRule, ServiceKey};
use crate::settings::violation::quoted;
use crate::settings::{Rule, Violation};
use wire::{Answer, Objects, Response, Review, ReviewedObjects, refusal};

/// The one version of AdmissionReview that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of the body.
const KIND: &str = "AdmissionReview";
/// Longest explanation of unreadable JSON, in characters.
const MAX_DETAIL: usize = 200;
/// Longest warning, in characters: what the API documentation asks for.
const MAX_WARNING: usize = 120;
/// All warnings together, in characters: past it the API server cuts them itself
/// (k8s.io/apiserver, pkg/endpoints/filters/warning.go).
const MAX_WARNINGS: usize = 4096;

/// Most values of a body, nested ones included. One takes up to about 0.2 KiB when it is read, and may
/// be three bytes long. An object with 70,000 annotations (256 KiB, the most that Kubernetes allows) has
/// about 210,000 with its managedFields, and comes with its predecessor.
const MAX_VALUES: usize = 500_000;

/// Which of the two webhooks is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Path {
    /// Refuses what is wrong.
    Validate,
    /// Adds what is missing.
    Mutate,
}

/// What is done to the object; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, IntoStaticStr)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "snake_case")]
pub enum Verb {
    /// A new object.
    Create,
    /// A change, also through a subresource.
    Update,
    /// A deletion.
    Delete,
    /// A connection to a subresource.
    Connect,
}

/// How a review ended; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Not looked at: not a Service, a deletion, or zen-lead's own write.
    Exempt,
    /// Allowed as it is.
    Allowed,
    /// Allowed, with warnings.
    Warned,
    /// Allowed, with an addition.
    Patched,
    /// Refused.
    Denied,
}

crate::texts!(Path, Verb, Outcome);

/// A body that is no review: answered with 400, so that the API server applies its failurePolicy.
#[derive(Debug, Error, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ReviewError {
    /// More values than are read.
    #[error(
        "the body has more than {MAX_VALUES} values; an object with so many fields is not read"
    )]
    TooManyValues,
    /// Not JSON, or fields of another type.
    #[error("the body is not a readable AdmissionReview: {0}")]
    Malformed(String),
    /// Another kind or version.
    #[error("expected an {KIND} of {API_VERSION}, found {kind} of {api_version}")]
    WrongKind {
        /// The kind that came, in quotes.
        kind: String,
        /// The version that came, in quotes.
        api_version: String,
    },
    /// A review without a request.
    #[error("the {KIND} has no request")]
    NoRequest,
    /// A request without a uid, which an answer must repeat.
    #[error("the request has no uid")]
    NoUid,
    /// A request that does not say what its object is: it may be a Service.
    #[error("the request {uid} has no kind")]
    NoKind {
        /// Uid of the request, in quotes.
        uid: String,
    },
    /// A Service is created or changed, and not sent.
    #[error("the request {uid} has no object")]
    NoObject {
        /// Uid of the request, in quotes.
        uid: String,
    },
    /// An object that cannot be read as a Service.
    #[error("the request {uid} has an object that is not a readable Service: {detail}")]
    BadObject {
        /// Uid of the request, in quotes.
        uid: String,
        /// Where reading stopped, and why.
        detail: String,
    },
}

impl ReviewError {
    /// The reason as a metric label.
    pub fn as_str(&self) -> &'static str {
        self.into()
    }
}

/// An answered review: the body to send, and what to log and count.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The answer, JSON.
    pub body: Vec<u8>,
    /// What was done to the object.
    pub verb: Verb,
    /// How it ended.
    pub outcome: Outcome,
    /// The rules that are broken, one entry a violation.
    pub rules: Vec<Rule>,
    /// Whether nothing will be kept of it.
    pub dry_run: bool,
    /// Uid of the request.
    pub uid: String,
    /// The object: namespace and name, as far as they are known.
    pub service: ServiceKey,
    /// Name of the user who asks, as far as it is known.
    pub user: String,
}

/// Reads a review, judges it and writes the answer.
///
/// `self_username` is the user zen-lead writes as; its writes are allowed unread.
///
/// # Errors
/// Only where no answer can be given: the body is no review of a Service that could be judged.
pub fn judge(
    path: Path,
    body: &[u8],
    neighbours: &dyn Neighbours,
    names: NameRule,
    self_username: &str,
) -> Result<Judged, ReviewError> {
    if !size::is_within(body, MAX_VALUES) {
        return Err(ReviewError::TooManyValues);
    }
    let review: Review =
        serde_json::from_slice(body).map_err(|error| ReviewError::Malformed(detail(&error)))?;
    let kind = review.kind.unwrap_or_default();
    let api_version = review.api_version.unwrap_or_default();
    if kind != KIND || api_version != API_VERSION {
        return Err(ReviewError::WrongKind {
            kind: quoted(&kind),
            api_version: quoted(&api_version),
        });
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    let uid = request.uid.filter(|uid| !uid.is_empty()).ok_or(ReviewError::NoUid)?;
    let namespace = request.namespace.unwrap_or_default();
    let mut judged = Judged {
        body: Vec::new(),
        verb: request.operation,
        outcome: Outcome::Exempt,
        rules: Vec::new(),
        dry_run: request.dry_run.unwrap_or_default(),
        uid,
        service: ServiceKey::new(namespace, request.name.unwrap_or_default()),
        user: request.user_info.and_then(|user| user.username).unwrap_or_default(),
    };
    let group = request.kind.as_ref().and_then(|kind| kind.group.as_deref()).unwrap_or_default();
    let kind = request.kind.as_ref().and_then(|kind| kind.kind.as_deref());
    let kind = kind.ok_or_else(|| ReviewError::NoKind { uid: quoted(&judged.uid) })?;
    let is_service = kind == "Service" && group.is_empty();
    let by_zen_lead = !self_username.is_empty() && judged.user == self_username;
    let operation = match request.operation {
        Verb::Create => Change::Create,
        Verb::Update => Change::Update,
        Verb::Delete | Verb::Connect => return Ok(judged.answered(Response::default())),
    };
    if !is_service || by_zen_lead {
        return Ok(judged.answered(Response::default()));
    }
    let objects: ReviewedObjects = serde_json::from_slice(body).map_err(|error| {
        ReviewError::BadObject { uid: quoted(&judged.uid), detail: detail(&error) }
    })?;
    let Objects { object, old_object } = objects.request;
    let object = object.ok_or_else(|| ReviewError::NoObject { uid: quoted(&judged.uid) })?;
    let object = match object {
        Decoded::Object(object) => object,
        Decoded::Unreadable(found) => {
            let detail = found.error.chars().take(MAX_DETAIL).collect();
            return Err(ReviewError::BadObject { uid: quoted(&judged.uid), detail });
        }
    };
    // What is there already is no reason to refuse: the new object is then judged as a whole.
    let old_object = old_object.map(|old| match old {
        Decoded::Object(old) => old,
        Decoded::Unreadable(old) => Service { metadata: old.metadata, ..Service::default() },
    });
    if judged.service.name.is_empty()
        && let Some(name) = &object.metadata.name
    {
        judged.service.name = name.as_str().into();
    }
    match path {
        Path::Mutate => {
            let wanted = patch(&object, names).filter(|_| request.sub_resource.is_none());
            Ok(judged.mutated(wanted.as_ref()))
        }
        Path::Validate => {
            let key = judged.service.clone();
            let question = Question {
                operation,
                old: old_object.as_ref(),
                new: &object,
                namespace: &key.namespace,
                name: &key.name,
                by_zen_lead,
            };
            let verdict = verdict(&question, neighbours, names);
            let shown = match (&*key.name, &object.metadata.generate_name) {
                ("", Some(generate)) => generate,
                (name, _) => name,
            };
            Ok(judged.validated(shown, &verdict.violations, verdict.warnings))
        }
    }
}

impl Judged {
    /// Allows, with the addition.
    fn mutated(self, patch: Option<&json_patch::Patch>) -> Self {
        let outcome = if patch.is_some() { Outcome::Patched } else { Outcome::Allowed };
        let patch = patch.map(|patch| {
            let json = serde_json::to_vec(patch).expect("a patch of strings is always JSON");
            STANDARD.encode(json)
        });
        let patch_type = patch.as_ref().map(|_| "JSONPatch");
        Self { outcome, ..self }.answered(Response { patch_type, patch, ..Response::default() })
    }

    /// Allows or refuses, with the reasons.
    fn validated(self, name: &str, violations: &[Violation], warnings: Vec<String>) -> Self {
        let warnings = bounded(warnings);
        let outcome = match (violations.is_empty(), warnings.is_empty()) {
            (true, true) => Outcome::Allowed,
            (true, false) => Outcome::Warned,
            (false, _) => Outcome::Denied,
        };
        let rules = violations.iter().map(|violation| violation.rule).collect();
        let status = (!violations.is_empty()).then(|| refusal(name, violations));
        Self { outcome, rules, ..self }.answered(Response {
            status,
            warnings,
            ..Response::default()
        })
    }

    /// Writes the answer.
    fn answered(mut self, response: Response<'_>) -> Self {
        let allowed = self.outcome != Outcome::Denied;
        let response = Response { uid: &self.uid, allowed, ..response };
        let answer = Answer { api_version: API_VERSION, kind: KIND, response };
        self.body = serde_json::to_vec(&answer).expect("an answer of strings is always JSON");
        self
    }
}

/// Why JSON could not be read; serde repeats the value it found, which may be megabytes.
fn detail(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => {
            format!("{}... (line {}, column {})", &text[..end], error.line(), error.column())
        }
        None => text,
    }
}

/// Warnings within the limits of the API server; what does not fit is left out.
fn bounded(warnings: Vec<String>) -> Vec<String> {
    let mut left = MAX_WARNINGS;
    let mut out = Vec::new();
    for warning in warnings {
        let length = warning.chars().count();
        let warning = if length > MAX_WARNING {
            warning.chars().take(MAX_WARNING - 3).chain("...".chars()).collect()
        } else {
            warning
        };
        let Some(rest) = left.checked_sub(length.min(MAX_WARNING)) else { break };
        left = rest;
        out.push(warning);
    }
    out
}

#[cfg(test)]
mod tests;
