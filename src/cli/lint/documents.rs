//! From text to Services: YAML documents, JSON, and lists of objects.
//!
//! Values that YAML does not read as strings (`zen-lead.io/enabled: true`) are found here, because
//! the API server refuses them before any admission webhook sees them. No rules of zen-lead.

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize as _;
use serde_json::Value;

use crate::keys::PREFIX;
use crate::spec::violation::annotation_field;
use crate::spec::{Cause, Rule, Violation};

/// Deepest list within a list that is followed.
const MAX_DEPTH: usize = 4;
/// Longest explanation of an unreadable document, in characters.
const MAX_WHY: usize = 300;

/// One object of a file that lint has something to say about.
pub(super) struct Document {
    /// The file.
    pub(super) file: String,
    /// Number of the document in the file, from 1.
    pub(super) number: usize,
    /// Namespace, where it is known.
    pub(super) namespace: Option<String>,
    /// Name, where it is known.
    pub(super) name: Option<String>,
    /// What was found.
    pub(super) unit: Unit,
}

/// What a document is.
pub(super) enum Unit {
    /// A Service.
    Service(Box<Service>),
    /// A Service whose annotations are not all strings.
    Misspelt(Vec<Violation>),
    /// Nothing that can be judged, and why.
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

/// Reads all documents of a file; those that are no Services are passed over.
pub(super) fn read(file: &str, text: &str) -> Vec<Document> {
    let at = |number, unit| Document {
        file: file.to_owned(),
        number,
        namespace: None,
        name: None,
        unit,
    };
    let options = serde_saphyr::options! { with_snippet: false };
    let values: Vec<Value> = match serde_saphyr::from_multiple_with_options(text, options) {
        Ok(values) => values,
        Err(error) => {
            let why = cut(&format!("neither YAML nor JSON: {error}"));
            return vec![at(1, Unit::Unreadable(why))];
        }
    };
    let mut out = Vec::new();
    for (n, value) in values.into_iter().enumerate() {
        collect(&mut out, value, 0, &|unit| at(n + 1, unit));
    }
    out
}

/// Takes the Services out of a value, which may be a list of objects.
fn collect(out: &mut Vec<Document>, value: Value, depth: usize, at: &dyn Fn(Unit) -> Document) {
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
        for mut item in items {
            // Items of a typed list may go without their own kind.
            if kind == "ServiceList"
                && let Some(item) = item.as_object_mut()
            {
                item.entry("apiVersion").or_insert_with(|| "v1".into());
                item.entry("kind").or_insert_with(|| "Service".into());
            }
            collect(out, item, depth + 1, at);
        }
        return;
    }
    if kind != "Service" || version != "v1" {
        return;
    }
    let text = |key: &str| Some(value.pointer(key)?.as_str()?.to_owned());
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let unit = match not_strings(&value) {
        found if found.is_empty() => match Service::deserialize(value) {
            Ok(service) => Unit::Service(Box::new(service)),
            Err(error) => Unit::Unreadable(cut(&format!("not a Service: {error}"))),
        },
        found => Unit::Misspelt(found),
    };
    out.push(Document { namespace, name, ..at(unit) });
}

/// Annotations of ours with values that are not strings.
fn not_strings(value: &Value) -> Vec<Violation> {
    let annotations = value.pointer("/metadata/annotations").and_then(Value::as_object);
    annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(PREFIX) && !value.is_string())
        .map(|(key, value)| {
            let detail = match value {
                Value::Bool(_) | Value::Number(_) => {
                    format!("Invalid value: {value}: must be a string; write \"{value}\", with the quotes")
                }
                Value::Null => {
                    "Invalid value: null: must be a string; write a value, or leave the key out".into()
                }
                _ => "Invalid value: must be a string, not a list or a map".into(),
            };
            Violation {
                field: annotation_field(key),
                rule: Rule::NotAString,
                cause: Cause::Invalid,
                message: detail,
            }
        })
        .collect()
}

/// An explanation that does not repeat megabytes of its input.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_WHY) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
