//! Services and hollow pods: pods on a node without a kubelet, whose status the tests write.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::names;

/// An enabled source Service: port 80 named http to 8080, selector app=NAME; `patch` is merged in
/// (JSON merge patch: null removes).
pub fn source(name: &str, patch: &Value) -> Service {
    serde_json::from_value(source_json(name, patch)).unwrap()
}

/// As [`source`], as JSON for kubectl.
pub fn source_json(name: &str, patch: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": {names::ENABLED: "true"}},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    });
    json_patch::merge(&mut service, patch);
    service
}

/// A source with these settings besides `enabled`.
pub fn source_set(name: &str, settings: &[(&str, &str)]) -> Service {
    source(name, &annotations(settings))
}

/// A merge patch for annotations.
pub fn annotations(all: &[(&str, &str)]) -> Value {
    let map: serde_json::Map<String, Value> =
        all.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({"metadata": {"annotations": map}})
}

/// The slice `by-hand`, with which a user adds an endpoint to a leader Service.
pub fn foreign_slice(leader: &str) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": "by-hand",
            "labels": {names::SERVICE_NAME: leader, names::SLICE_MANAGED_BY: "me"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.9"]}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
    .unwrap()
}

/// A pod to be made on the node `hollow`.
#[derive(Clone, Debug)]
pub struct Hollow {
    object: Value,
    pub ready: bool,
    pub dual: bool,
}

/// A pod of the app, Ready, with container port http=8080.
pub fn hollow(name: &str, app: &str) -> Hollow {
    let object = json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": "hollow",
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 600,
            "containers": [{
                "name": "app", "image": "none",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            }],
        },
    });
    Hollow { object, ready: true, dual: false }
}

impl Hollow {
    /// Not Ready when it appears.
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    /// With an address of each family.
    pub fn dual(mut self) -> Self {
        self.dual = true;
        self
    }

    /// Merges a patch into the pod.
    pub fn patch(mut self, patch: &Value) -> Self {
        json_patch::merge(&mut self.object, patch);
        self
    }

    /// With these container ports instead of http=8080.
    pub fn ports(mut self, ports: &Value) -> Self {
        self.object["spec"]["containers"][0]["ports"] = ports.clone();
        self
    }

    /// The object to create.
    pub fn pod(&self) -> Pod {
        serde_json::from_value(self.object.clone()).unwrap()
    }
}

/// A status patch: phase Running with the Ready condition and, when given, addresses.
pub fn status(ready: bool, addresses: &[String]) -> Value {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let truth = |b: bool| if b { "True" } else { "False" };
    let condition = |name: &str, holds: bool| json!({"type": name, "status": truth(holds), "lastTransitionTime": now.to_string()});
    let mut status = json!({
        "phase": "Running",
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
    });
    if let Some(first) = addresses.first() {
        status["podIP"] = json!(first);
        status["podIPs"] = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    }
    json!({ "status": status })
}
