//! The state of a namespace as a value that can be compared with the one of another run: without uids,
//! versions, addresses of Services, times and epochs, which differ between runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Map, Value, json};

use super::case::Case;
use super::names;

/// Annotations whose values are not compared, only their presence.
const CHANGING: [&str; 7] = [
    names::EPOCH,
    names::POD_UID,
    names::SWITCHED_AT,
    names::WRITE_ID,
    names::DECIDED_AT,
    // A hash, the uid of the source in it.
    "zen-lead.io/asked",
    "endpoints.kubernetes.io/last-change-trigger-time",
];

impl Case {
    /// The Services of the namespace and the slices of ours.
    pub async fn state(&self) -> Value {
        let mut services = Map::new();
        for service in self.services().list(&ListParams::default()).await.unwrap() {
            let mut spec = json!(service.spec);
            for field in ["clusterIP", "clusterIPs"] {
                spec.as_object_mut().unwrap().remove(field);
            }
            let conditions = service.status.as_ref().and_then(|s| s.conditions.as_ref());
            let conditions = conditions.into_iter().flatten().map(|c| {
                json!({"type": c.type_, "status": c.status, "reason": c.reason, "message": c.message})
            });
            let conditions: Vec<Value> = conditions.collect();
            let name = service.name_any();
            let value = json!({"spec": spec, "conditions": conditions});
            services.insert(name, with_metadata(value, &service.metadata));
        }
        let mut slices = Map::new();
        let ours = ListParams::default().labels(&format!("{}=zen-lead", names::SLICE_MANAGED_BY));
        for mut slice in self.slices().list(&ours).await.unwrap() {
            for endpoint in slice.endpoints.iter_mut().flatten() {
                // Addresses of pods differ; the reference names the pod.
                endpoint.addresses.clear();
                endpoint.target_ref.as_mut().expect("a pod").uid = None;
            }
            let value = json!({
                "addressType": slice.address_type, "endpoints": slice.endpoints, "ports": slice.ports,
            });
            slices.insert(slice.name_any(), with_metadata(value, &slice.metadata));
        }
        let state = json!({"services": services, "slices": slices}).to_string();
        serde_json::from_str(&state.replace(&self.ns, "NAMESPACE")).unwrap()
    }
}

fn with_metadata(mut value: Value, meta: &ObjectMeta) -> Value {
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    for (key, text) in &mut annotations {
        if CHANGING.contains(&key.as_str()) {
            "present".clone_into(text);
        }
    }
    let owners = meta.owner_references.iter().flatten();
    let owners: Vec<Value> = owners
        .map(|o| json!({"kind": o.kind, "name": o.name, "controller": o.controller}))
        .collect();
    value["annotations"] = json!(annotations);
    value["labels"] = json!(meta.labels);
    value["owners"] = json!(owners);
    value["deleting"] = json!(meta.deletion_timestamp.is_some());
    value
}
