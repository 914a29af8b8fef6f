//! Copies of what zen-lead writes, with other keys, so that no controller and no policy takes them for
//! zen-lead's. Who writes them is not decided here.

use serde_json::{Value, json};

use crate::support::names;

/// The manager that the copied slices name.
pub const PLAIN: &str = "zen-lead-bench";
/// Instead of zen-lead's prefix, in keys of the same length.
const PREFIX: &str = "plain.tests/";

/// A leader Service of zen-lead and its slice, to copy.
pub struct Template {
    service: Value,
    slice: Value,
}

impl Template {
    pub fn new(service: Value, slice: Value) -> Self {
        Self { service, slice }
    }

    /// A Service as zen-lead creates it.
    pub fn service(&self, name: &str) -> Value {
        let mut copy = copied(&self.service, name);
        let copy_of = copy.as_object_mut().unwrap();
        copy_of.remove("status");
        for assigned in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            copy_of["spec"].as_object_mut().unwrap().remove(assigned);
        }
        copy
    }

    /// The patch of its status, with the annotations that repeat the slice.
    pub fn mirror(&self) -> Value {
        let copy = copied(&self.service, "");
        json!({
            "metadata": {"annotations": copy["metadata"]["annotations"]},
            "status": copy["status"],
        })
    }

    /// A slice of a Service that routes to a pod.
    pub fn slice(&self, service: &str, pod: &str) -> Value {
        let mut copy = copied(&self.slice, service);
        copy["metadata"]["labels"][names::SERVICE_NAME] = json!(service);
        copy["metadata"]["labels"][names::SLICE_MANAGED_BY] = json!(PLAIN);
        route(&mut copy, pod);
        copy
    }
}

/// The object under another name, without what the API server sets and without zen-lead's keys.
fn copied(object: &Value, name: &str) -> Value {
    let text = object.to_string().replace(names::PREFIX, PREFIX);
    let mut copy: Value = serde_json::from_str(&text).unwrap();
    let metadata = copy["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| key == "labels" || key == "annotations");
    metadata.insert("name".to_owned(), json!(name));
    if let Some(manager) = metadata.get_mut("labels").and_then(|l| l.get_mut(names::MANAGED_BY)) {
        *manager = json!(PLAIN);
    }
    copy
}

/// Routes a slice to a pod.
pub fn route(slice: &mut Value, pod: &str) {
    slice["endpoints"][0]["targetRef"]["name"] = json!(pod);
    slice["endpoints"][0]["conditions"] =
        json!({"ready": true, "serving": true, "terminating": false});
}
