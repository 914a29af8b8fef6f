//! Reads Services from text: YAML documents, JSON, and lists of objects.
//!
//! Finds what the API server refuses before any admission webhook: values that YAML does not read as
//! strings (`zen-lead.io/enabled: true`), and Services with a wrong kind or version. No rules of zen-lead.

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize as _;
use serde_json::Value;

use super::parts::{self, Written};
use super::scalars;
use zen_lead_core::keys::PREFIX;
use zen_lead_core::settings::violation::{annotation_field, label_field, quoted};
use zen_lead_core::settings::{Cause, Rule, Violation};

/// How deep lists may be nested.
const MAX_DEPTH: usize = 4;
/// Longest explanation of an unreadable document, in characters.
const MAX_WHY: usize = 300;

/// One object of a file that lint checks.
pub(super) struct Document {
    /// The file.
    pub(super) file: String,
    /// Number of the document in the file, from 1.
    pub(super) number: usize,
    /// Namespace, if known.
    pub(super) namespace: Option<String>,
    /// Name, if known.
    pub(super) name: Option<String>,
    /// What was found.
    pub(super) unit: Unit,
    /// What the API server accepts, but probably not with the intended meaning: field and sentence.
    pub(super) warnings: Vec<(String, String)>,
}

/// What a document is.
pub(super) enum Unit {
    /// A Service.
    Service(Box<Service>),
    /// A Service that the API server refuses: labels or annotations that are not strings, or a wrong
    /// kind or version.
    Misspelt(Vec<Violation>),
    /// It cannot be checked; the reason.
    Unreadable(String),
}

impl Document {
    /// `namespace/name`, `name`, or nothing.
    pub(super) fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (None, Some(name)) => name.clone(),
            (_, None) => String::new(),
        }
    }
}

/// Reads all documents of a file, and skips those that are not Services.
pub(super) fn read(file: &str, text: &str) -> Vec<Document> {
    let mut out = Vec::new();
    for part in parts::read(text) {
        let at = |unit| Document {
            file: file.to_owned(),
            number: part.number,
            namespace: None,
            name: None,
            unit,
            warnings: Vec::new(),
        };
        match part.values {
            Ok(values) => {
                for (value, written) in values {
                    collect(&mut out, value, &written, 0, &at);
                }
            }
            Err(why) => {
                out.push(at(Unit::Unreadable(cut(&format!("neither YAML nor JSON: {why}")))));
            }
        }
    }
    out
}

/// Collects the Services of a value, which may be a list of objects.
fn collect(
    out: &mut Vec<Document>,
    mut value: Value,
    written: &Written,
    depth: usize,
    at: &dyn Fn(Unit) -> Document,
) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    if matches!(kind.as_str(), "List" | "ServiceList") && version == "v1" {
        if depth == MAX_DEPTH {
            out.push(at(Unit::Unreadable(format!("lists nested more than {MAX_DEPTH} deep"))));
            return;
        }
        let items = match value {
            Value::Object(mut object) => object.remove("items"),
            _ => None,
        };
        let Some(Value::Array(items)) = items else { return };
        let nothing = Written::default();
        for (n, mut item) in items.into_iter().enumerate() {
            // Items of a typed list may have no kind of their own.
            if kind == "ServiceList"
                && let Some(item) = item.as_object_mut()
            {
                item.entry("apiVersion").or_insert_with(|| "v1".into());
                item.entry("kind").or_insert_with(|| "Service".into());
            }
            collect(out, item, written.items.get(n).unwrap_or(&nothing), depth + 1, at);
        }
        return;
    }
    let text = |key: &str| Some(value.pointer(key)?.as_str()?.to_owned());
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    if kind != "Service" || version != "v1" {
        if let Some(violation) = meant_a_service(&kind, &version) {
            out.push(Document { namespace, name, ..at(Unit::Misspelt(vec![violation])) });
        }
        return;
    }
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for (field, texts, path) in [
        ("labels", &written.labels, label_field as fn(&str) -> String),
        ("annotations", &written.annotations, annotation_field),
    ] {
        let map = value.pointer_mut(&format!("/metadata/{field}")).and_then(Value::as_object_mut);
        let Some(map) = map else { continue };
        for (key, value) in &*map {
            if value.is_null() && !(key.starts_with(PREFIX) && field == "annotations") {
                warnings.push((path(key), NO_VALUE.to_owned()));
            } else if let Some(message) = not_a_string(value, texts.get(key)) {
                found.push(Violation {
                    field: path(key),
                    rule: Rule::NotAString,
                    cause: Cause::Invalid,
                    message,
                });
            }
        }
        map.retain(|_, value| !value.is_null());
    }
    let unit = if found.is_empty() {
        match Service::deserialize(value) {
            Ok(service) => Unit::Service(Box::new(service)),
            Err(error) => Unit::Unreadable(cut(&format!("not a Service: {error}"))),
        }
    } else {
        Unit::Misspelt(found)
    };
    out.push(Document { namespace, name, warnings, ..at(unit) });
}

/// About a key without a value. Tested with Kubernetes 1.37: a new object gets the empty string; a patch
/// removes the key.
const NO_VALUE: &str = "has no value: the API server stores \"\" for it, and kubectl apply removes the \
                        key where it exists; write \"\", or leave the key out";

/// Why the API server does not take the value of a label or an annotation for a string; `None` if it does.
fn not_a_string(value: &Value, written: Option<&String>) -> Option<String> {
    let text = match (value, written) {
        (Value::Null, _) => {
            return Some(
                "Invalid value: null: must be a string; write a value, or leave the key out".into(),
            );
        }
        (Value::Array(_) | Value::Object(_), _) => {
            return Some("Invalid value: must be a string, not a list or a map".into());
        }
        (Value::String(_), Some(text)) if !scalars::is_string(text) => text.clone(),
        (Value::String(_), _) => return None,
        (_, Some(text)) => text.clone(),
        (_, None) => value.to_string(),
    };
    let shown = quoted(&text);
    let plain = shown.trim_matches('"');
    Some(format!("Invalid value: {plain}: must be a string; write {shown}, with the quotes"))
}

/// What is wrong with the kind or version of an object that was most likely meant to be a Service.
fn meant_a_service(kind: &str, version: &str) -> Option<Violation> {
    let wrong = |field: &str, found: &str, right: &str| {
        Some(Violation {
            field: field.to_owned(),
            rule: Rule::Unreadable,
            cause: Cause::NotSupported,
            message: format!(
                "Unsupported value: {}: this is not a Service for the API server; write {right}",
                quoted(found)
            ),
        })
    };
    // Other API groups have Services of their own (serving.knative.dev); the groups of Kubernetes do not.
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let foreign = group.contains('.') && !group.ends_with(".k8s.io");
    if foreign {
        return None;
    }
    if kind == "Service" {
        return wrong("apiVersion", version, "v1");
    }
    let near = strsim::osa_distance(&kind.to_lowercase(), "service") <= 2;
    if near && version.eq_ignore_ascii_case("v1") { wrong("kind", kind, "Service") } else { None }
}

/// Shortens an explanation, which may quote megabytes of its input.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_WHY) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
