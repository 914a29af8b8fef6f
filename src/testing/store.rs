//! The objects of the fake API server, their versions and their history.
//!
//! No HTTP here: that is `api`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Created.
    Added,
    /// Written again.
    Modified,
    /// Deleted.
    Deleted,
}

impl Change {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// An entry of the history that a watch sends.
#[derive(Clone)]
pub(super) enum Entry {
    Changed {
        version: u64,
        change: Change,
        object: Value,
    },
    /// A line sent as it is.
    Raw(String),
    /// A change that is not in the restored backup.
    Void,
}

/// Where an object lives: resource path (`/api/v1` + plural), namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Place {
    /// Reads a request path; a subresource counts as its object.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (prefix, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
            ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] => {
                (Some((*namespace).to_owned()), [&[*plural], rest].concat())
            }
            rest => (None, rest.to_vec()),
        };
        let resource = format!("{prefix}/{}", rest.first()?);
        Some(Self { resource, namespace, name: rest.get(1).map(|n| (*n).to_owned()) })
    }
}

type Key = (String, String);

/// Everything the server keeps.
#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<String, BTreeMap<Key, Value>>,
    history: BTreeMap<String, Vec<Entry>>,
    pub(super) version: u64,
    /// Versions below this are no longer served to watches.
    pub(super) compacted: u64,
    /// The next list with a continue token is refused.
    pub(super) expire_continue: bool,
}

pub(super) type Refusal = (u16, &'static str, String);

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Store {
    fn record(&mut self, resource: &str, change: Change, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key =
            (text(&object, "/metadata/namespace").into(), text(&object, "/metadata/name").into());
        let all = self.objects.entry(resource.into()).or_default();
        if change == Change::Deleted {
            all.remove(&key);
        } else {
            all.insert(key, object.clone());
        }
        let entry = Entry::Changed { version: self.version, change, object: object.clone() };
        self.history.entry(resource.into()).or_default().push(entry);
        object
    }

    pub(super) fn rewind(&mut self, to: u64) {
        self.version = to;
        for entry in self.history.values_mut().flatten() {
            if matches!(entry, Entry::Changed { version, .. } if *version > to) {
                *entry = Entry::Void;
            }
        }
    }

    pub(super) fn raw(&mut self, resource: &str, line: String) {
        self.history.entry(resource.into()).or_default().push(Entry::Raw(line));
    }

    pub(super) fn history(&self, resource: &str) -> &[Entry] {
        self.history.get(resource).map_or(&[], Vec::as_slice)
    }

    /// Objects of a collection, in the order of their keys.
    pub(super) fn list(&self, place: &Place, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let in_namespace =
            |key: &Key| place.namespace.as_ref().is_none_or(|namespace| *namespace == key.0);
        self.objects.get(&place.resource).map_or_else(Vec::new, |all| {
            all.iter()
                .filter(|(key, object)| in_namespace(key) && wanted(object))
                .map(|(_, object)| object.clone())
                .collect()
        })
    }

    pub(super) fn get(&self, place: &Place) -> Result<Value, Refusal> {
        let name = place.name.clone().unwrap_or_default();
        let key = (place.namespace.clone().unwrap_or_default(), name);
        self.objects
            .get(&place.resource)
            .and_then(|all| all.get(&key))
            .cloned()
            .ok_or_else(|| (404, "NotFound", format!("{:?} not found", key.1)))
    }

    pub(super) fn create(&mut self, place: &Place, mut object: Value) -> Result<Value, Refusal> {
        let name = text(&object, "/metadata/name").to_owned();
        let at = Place { name: Some(name.clone()), ..place.clone() };
        if self.get(&at).is_ok() {
            return Err((409, "AlreadyExists", format!("{name:?} already exists")));
        }
        let next = self.version + 1;
        if let Some(namespace) = &place.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        for (field, value) in
            [("uid", format!("uid-{next}")), ("creationTimestamp", "2026-01-01T00:00:00Z".into())]
        {
            if object["metadata"].get(field).is_none() {
                object["metadata"][field] = json!(value);
            }
        }
        Ok(self.record(&place.resource, Change::Added, object))
    }

    pub(super) fn replace(&mut self, place: &Place, mut object: Value) -> Result<Value, Refusal> {
        let old = self.get(place)?;
        for field in ["resourceVersion", "uid"] {
            let pointer = format!("/metadata/{field}");
            let given = text(&object, &pointer).to_owned();
            if !given.is_empty() && given != text(&old, &pointer) {
                return Err((409, "Conflict", format!("{field} {given} is not the present one")));
            }
        }
        for field in ["resourceVersion", "uid", "namespace", "name", "creationTimestamp"] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        if object == old {
            return Ok(old);
        }
        Ok(self.record(&place.resource, Change::Modified, object))
    }

    /// A merge patch. With `apply`, as in server-side apply, the object need not exist, and webhooks are
    /// merged by name.
    pub(super) fn patch(
        &mut self,
        place: &Place,
        mut patch: Value,
        apply: bool,
    ) -> Result<Value, Refusal> {
        match self.get(place) {
            Ok(mut object) => {
                let version = object["metadata"]["resourceVersion"].clone();
                if let (true, Some(items)) = (apply, patch["webhooks"].as_array().cloned()) {
                    patch["webhooks"] = merged_items(object["webhooks"].clone(), &items);
                }
                json_patch::merge(&mut object, &patch);
                if patch.pointer("/metadata/resourceVersion").is_none() {
                    object["metadata"]["resourceVersion"] = version;
                }
                self.replace(place, object)
            }
            Err(_) if apply => {
                patch["metadata"]["name"] = json!(place.name);
                self.create(place, patch)
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) fn delete(&mut self, place: &Place, options: &Value) -> Result<Value, Refusal> {
        let old = self.get(place)?;
        for field in ["resourceVersion", "uid"] {
            let wanted = text(options, &format!("/preconditions/{field}"));
            if !wanted.is_empty() && wanted != text(&old, &format!("/metadata/{field}")) {
                return Err((409, "Conflict", format!("the {field} in the precondition differs")));
            }
        }
        Ok(self.record(&place.resource, Change::Deleted, old))
    }
}

/// `held` with the changes to its items; a change to an item that does not exist is a mistake.
fn merged_items(mut held: Value, changes: &[Value]) -> Value {
    for change in changes {
        let items = held.as_array_mut().expect("a list");
        let item = items.iter_mut().find(|item| item["name"] == change["name"]);
        json_patch::merge(item.expect("a patch must not name an item that does not exist"), change);
    }
    held
}

/// Label and field selectors: `k=v`, `k==v`, `k!=v`, `k`, joined by commas.
pub(super) fn selects(labels: &str, fields: &str, object: &Value) -> bool {
    let holds = |term: &str, of: &dyn Fn(&str) -> Option<String>| {
        if let Some((key, value)) = term.split_once("!=") {
            of(key).as_deref() != Some(value)
        } else if let Some((key, value)) = term.split_once('=') {
            of(key).as_deref() == Some(value.trim_start_matches('='))
        } else {
            of(term).is_some()
        }
    };
    let string = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let label = |key: &str| string(object["metadata"]["labels"].get(key));
    let field = |key: &str| string(object.pointer(&format!("/{}", key.replace('.', "/"))));
    labels.split(',').filter(|t| !t.is_empty()).all(|t| holds(t, &label))
        && fields.split(',').filter(|t| !t.is_empty()).all(|t| holds(t, &field))
}
