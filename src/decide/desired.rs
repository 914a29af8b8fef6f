//! The leader Service: how it should look, and the smallest patch towards that.
//!
//! Fields are taken over by an allow-list. Never copied: nodePort, clusterIP(s),
//! healthCheckNodePort, externalIPs, loadBalancerIP, publishNotReadyAddresses, labels, and
//! annotations that copy-annotations does not name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};

use crate::keys::{self, status};
use crate::spec::{LeaderSpec, LeaderType};

const CLUSTER_IP: &str = "ClusterIP";

/// The leader Service for a source, as it is created by this version of the decision rules.
pub fn leader_service(source: &Service, spec: &LeaderSpec, version: u32) -> Service {
    let from = source.spec.clone().unwrap_or_default();
    let type_ = service_type(&from, spec);
    let external = type_ != CLUSTER_IP;
    let balancer = type_ == "LoadBalancer";
    Service {
        metadata: ObjectMeta {
            name: Some(spec.leader_service_name.clone()),
            namespace: source.metadata.namespace.clone(),
            labels: Some(labels(source)),
            annotations: Some(annotations(source, spec, version)),
            owner_references: Some(vec![owner(source)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: Some(ports(&from)),
            ip_families: from.ip_families,
            ip_family_policy: from.ip_family_policy,
            session_affinity: from.session_affinity,
            session_affinity_config: from.session_affinity_config,
            internal_traffic_policy: from.internal_traffic_policy,
            external_traffic_policy: from.external_traffic_policy.filter(|_| external),
            load_balancer_class: from.load_balancer_class.filter(|_| balancer),
            load_balancer_source_ranges: from.load_balancer_source_ranges.filter(|_| balancer),
            allocate_load_balancer_node_ports: from
                .allocate_load_balancer_node_ports
                .filter(|_| balancer),
            type_: Some(type_),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Headless becomes ClusterIP: its type is ClusterIP already, and clusterIP is never copied.
fn service_type(from: &ServiceSpec, spec: &LeaderSpec) -> String {
    match (spec.leader_type, from.type_.as_deref()) {
        (LeaderType::Mirror, Some(t @ ("NodePort" | "LoadBalancer"))) => t.to_owned(),
        _ => CLUSTER_IP.to_owned(),
    }
}

fn labels(source: &Service) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (keys::kubernetes::MANAGED_BY.to_owned(), keys::MANAGER.to_owned()),
        (status::SOURCE_SERVICE.to_owned(), source.metadata.name.clone().unwrap_or_default()),
    ]);
    // Without it kube-proxy and the proxy the user chose would both serve the leader.
    let proxy =
        source.metadata.labels.as_ref().and_then(|l| l.get(keys::kubernetes::SERVICE_PROXY_NAME));
    if let Some(proxy) = proxy {
        labels.insert(keys::kubernetes::SERVICE_PROXY_NAME.to_owned(), proxy.clone());
    }
    labels
}

fn annotations(source: &Service, spec: &LeaderSpec, version: u32) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    let mut copied = Vec::new();
    if spec.leader_type == LeaderType::Mirror {
        for key in &spec.copy_annotations {
            let value = source.metadata.annotations.as_ref().and_then(|a| a.get(key));
            if let Some(value) = value {
                wanted.insert(key.clone(), value.clone());
                copied.push(key.as_str());
            }
        }
    }
    if !copied.is_empty() {
        wanted.insert(status::COPIED.to_owned(), copied.join(","));
    }
    wanted.insert(status::DECISION_VERSION.to_owned(), version.to_string());
    wanted
}

/// blockOwnerDeletion stays unset: it needs rights on finalizers where
/// OwnerReferencesPermissionEnforcement is on, and would make the source wait for us.
fn owner(source: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: source.metadata.name.clone().unwrap_or_default(),
        uid: source.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn ports(from: &ServiceSpec) -> Vec<ServicePort> {
    let copy = |p: &ServicePort| ServicePort { node_port: None, ..p.clone() };
    from.ports.iter().flatten().map(copy).collect()
}

/// The JSON merge patch that turns the present leader Service into the desired one, or `None`.
///
/// Only fields that differ are in it; annotations that zen-lead does not own are left alone.
pub fn drift(present: &Service, desired: &Service) -> Option<Value> {
    let (Some(now), Some(want)) = (&present.spec, &desired.spec) else { return None };
    let mut spec = Map::new();
    let mut set = |field: &str, differs: bool, value: Value| {
        if differs {
            spec.insert(field.to_owned(), value);
        }
    };
    let type_changes = now.type_ != want.type_;
    set("type", type_changes, json!(want.type_));
    set("selector", now.selector.as_ref().is_some_and(|s| !s.is_empty()), Value::Null);
    let wanted_ports = with_node_ports(want, now, type_changes);
    let ports_differ = comparable(&wanted_ports) != comparable(now.ports.as_deref().unwrap_or(&[]));
    set("ports", ports_differ || type_changes, json!(wanted_ports));
    set(
        "sessionAffinity",
        or(now.session_affinity.as_ref(), "None") != or(want.session_affinity.as_ref(), "None"),
        json!(want.session_affinity),
    );
    set(
        "sessionAffinityConfig",
        now.session_affinity_config != want.session_affinity_config,
        json!(want.session_affinity_config),
    );
    set(
        "internalTrafficPolicy",
        or(now.internal_traffic_policy.as_ref(), "Cluster")
            != or(want.internal_traffic_policy.as_ref(), "Cluster"),
        json!(want.internal_traffic_policy),
    );
    let external = want.type_.as_deref() != Some(CLUSTER_IP);
    set(
        "externalTrafficPolicy",
        external
            && or(now.external_traffic_policy.as_ref(), "Cluster")
                != or(want.external_traffic_policy.as_ref(), "Cluster"),
        json!(want.external_traffic_policy),
    );
    let balancer = want.type_.as_deref() == Some("LoadBalancer");
    set(
        "loadBalancerSourceRanges",
        balancer && now.load_balancer_source_ranges != want.load_balancer_source_ranges,
        json!(want.load_balancer_source_ranges),
    );
    set(
        "allocateLoadBalancerNodePorts",
        balancer
            && now.allocate_load_balancer_node_ports.unwrap_or(true)
                != want.allocate_load_balancer_node_ports.unwrap_or(true),
        json!(want.allocate_load_balancer_node_ports),
    );
    // Immutable while the Service stays a load balancer: only with a change of type.
    set("loadBalancerClass", balancer && type_changes, json!(want.load_balancer_class));
    if let Some(families) = &want.ip_families {
        // The families themselves follow from the policy; a family once primary stays primary.
        set(
            "ipFamilyPolicy",
            now.ip_family_policy != want.ip_family_policy,
            json!(want.ip_family_policy),
        );
        set("ipFamilies", now.ip_families.as_ref() != Some(families), json!(families));
    }

    let patch: Map<String, Value> = [("metadata", metadata(present, desired)), ("spec", spec)]
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(field, part)| (field.to_owned(), Value::Object(part)))
        .collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Labels and annotations that differ.
fn metadata(present: &Service, desired: &Service) -> Map<String, Value> {
    let mut labels = Map::new();
    let now = present.metadata.labels.clone().unwrap_or_default();
    let want = desired.metadata.labels.clone().unwrap_or_default();
    for (key, value) in &want {
        if now.get(key) != Some(value) {
            labels.insert(key.clone(), json!(value));
        }
    }
    let proxy = keys::kubernetes::SERVICE_PROXY_NAME;
    if now.contains_key(proxy) && !want.contains_key(proxy) {
        labels.insert(proxy.to_owned(), Value::Null);
    }
    let mut annotations = Map::new();
    let now = present.metadata.annotations.clone().unwrap_or_default();
    let want = desired.metadata.annotations.clone().unwrap_or_default();
    for (key, value) in &want {
        if now.get(key) != Some(value) {
            annotations.insert(key.clone(), json!(value));
        }
    }
    let copied = now.get(status::COPIED).map(String::as_str).unwrap_or_default();
    for key in copied.split(',').filter(|k| !k.is_empty() && !want.contains_key(*k)) {
        annotations.insert(key.to_owned(), Value::Null);
    }
    if now.contains_key(status::COPIED) && !want.contains_key(status::COPIED) {
        annotations.insert(status::COPIED.to_owned(), Value::Null);
    }
    let mut metadata = Map::new();
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(map));
        }
    }
    metadata
}

/// Node ports the API server gave out stay with their port, so that a patch does not move them.
fn with_node_ports(want: &ServiceSpec, now: &ServiceSpec, type_changes: bool) -> Vec<ServicePort> {
    let external = want.type_.as_deref() != Some(CLUSTER_IP);
    let keep = external && !type_changes;
    let known = now.ports.iter().flatten();
    want.ports
        .iter()
        .flatten()
        .map(|p| {
            let same = known.clone().find(|k| {
                k.port == p.port
                    && k.protocol.as_deref().unwrap_or("TCP")
                        == p.protocol.as_deref().unwrap_or("TCP")
            });
            ServicePort { node_port: same.filter(|_| keep).and_then(|k| k.node_port), ..p.clone() }
        })
        .collect()
}

/// Ports with what the API server fills in.
fn comparable(ports: &[ServicePort]) -> Vec<ServicePort> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let fill = |p: &ServicePort| ServicePort {
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        target_port: Some(p.target_port.clone().unwrap_or(IntOrString::Int(p.port))),
        ..p.clone()
    };
    ports.iter().map(fill).collect()
}

fn or<'a>(value: Option<&'a String>, default: &'a str) -> &'a str {
    value.map_or(default, String::as_str)
}

#[cfg(test)]
mod tests;
