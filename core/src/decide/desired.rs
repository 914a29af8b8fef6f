//! The leader Service: how it should look, and the smallest patch towards that.
//!
//! Fields are taken over by an allow-list. Never copied: nodePort, clusterIP(s),
//! healthCheckNodePort, externalIPs, loadBalancerIP, publishNotReadyAddresses, and labels and
//! annotations that copy-labels and copy-annotations do not name. What the API server does not let
//! a Service become in one step is reached in two; the rules are those of pkg/apis/core/validation
//! and pkg/registry/core/service of Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::bookkeeping;
use crate::keys::{self, status};
use crate::settings::{LeaderSpec, LeaderType};

/// Labels or annotations.
type Texts = BTreeMap<String, String>;

const CLUSTER_IP: &str = "ClusterIP";
const LOAD_BALANCER: &str = "LoadBalancer";

/// Annotation that the API server takes on Services of type LoadBalancer only.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The leader Service for a source, as it is created by this version of the decision rules. While a
/// provider annotation of a mirrored source is not named, it is not published.
pub fn leader_service(source: &Service, spec: &LeaderSpec, version: u32) -> Service {
    let type_ = if is_held_back(spec) { CLUSTER_IP } else { type_of(source, spec) };
    of_type(source, spec, version, type_)
}

/// The JSON merge patch that brings the present leader Service closer to what its source asks for, or
/// `None` when it is right.
pub fn repair(
    present: &Service,
    source: &Service,
    spec: &LeaderSpec,
    version: u32,
) -> Option<Value> {
    let wanted = type_of(source, spec);
    let desired = if is_held_back(spec) {
        held_back(present, source, spec, version)
    } else if wanted == LOAD_BALANCER && has_other_class(present, source) {
        // The class is immutable while the type is LoadBalancer: by way of ClusterIP.
        of_type(source, spec, version, CLUSTER_IP)
    } else {
        of_type(source, spec, version, wanted)
    };
    drift(present, &desired)
}

/// Says why the leader Service cannot have the IP family of its source, or `None`. A source gets
/// another first family while it is headless or of type ExternalName; a Service with a cluster IP
/// cannot change it.
pub fn stuck_family(present: &Service, source: &Service) -> Option<String> {
    let families = |service: &Service| -> Vec<String> {
        service.spec.iter().flat_map(|s| s.ip_families.iter().flatten()).cloned().collect()
    };
    let (now, want) = (families(present), families(source));
    let missing = want.first().filter(|f| want.len() == 1 && !now.contains(f))?;
    let name = present.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "the leader Service {name:?} keeps its IP family {}, because Kubernetes does not let a \
         Service change its first one; delete it to have it made anew with {missing}",
        now.first()?
    ))
}

/// Whether publishing waits for `copy-annotations` to name a provider annotation.
fn is_held_back(spec: &LeaderSpec) -> bool {
    !spec.unnamed_provider_annotations.is_empty()
}

/// The leader Service of a source with a provider annotation that is not named: type and copied
/// annotations stay as they are, and so does what belongs to that type alone, where the source is of
/// another one.
fn held_back(present: &Service, source: &Service, spec: &LeaderSpec, version: u32) -> Service {
    let now = present.spec.clone().unwrap_or_default();
    let type_ = now.type_.as_deref().filter(|t| is_published(t)).unwrap_or(CLUSTER_IP);
    let mut desired = of_type(source, spec, version, type_);
    if type_ == CLUSTER_IP {
        return desired;
    }
    let want = desired.spec.get_or_insert_default();
    if type_ == LOAD_BALANCER {
        want.load_balancer_class = now.load_balancer_class;
        if source.spec.as_ref().and_then(|s| s.type_.as_deref()) != Some(type_) {
            want.load_balancer_source_ranges = now.load_balancer_source_ranges;
            want.allocate_load_balancer_node_ports = now.allocate_load_balancer_node_ports;
        }
    }
    let annotations = present.annotations();
    let is_kept = |key: &str| {
        key == status::COPIED
            || key == status::BALANCER_CLASS
            || listed(annotations, status::COPIED).any(|copied| copied == key)
    };
    let wanted = desired.metadata.annotations.get_or_insert_default();
    let named = |key: &str| spec.copy_annotations.iter().any(|named| named == key);
    wanted.retain(|key, _| !named(key) && !is_kept(key));
    wanted.extend(
        annotations.iter().filter(|(k, _)| is_kept(k)).map(|(k, v)| (k.clone(), v.clone())),
    );
    desired
}

/// Whether the leader Service is a load balancer of another class than the source asks for. What was
/// filled in where none was asked for is none of another class.
fn has_other_class(present: &Service, source: &Service) -> bool {
    let class = |service: &Service| service.spec.as_ref()?.load_balancer_class.clone();
    if present.spec.as_ref().and_then(|s| s.type_.as_deref()) != Some(LOAD_BALANCER) {
        return false;
    }
    let asked_before = present.annotations().get(status::BALANCER_CLASS);
    let asks = class(source).unwrap_or_default();
    let asked_otherwise = asked_before.is_some_and(|before| *before != asks);
    asked_otherwise || (!asks.is_empty() && class(present).as_deref() != Some(&*asks))
}

/// The leader Service of this type.
fn of_type(source: &Service, spec: &LeaderSpec, version: u32, type_: &str) -> Service {
    let from = source.spec.clone().unwrap_or_default();
    let external = is_published(type_);
    let balancer = type_ == LOAD_BALANCER;
    let (labels, copied_labels) = labels(source, spec);
    let identity = &source.metadata;
    let owner = bookkeeping::owner(
        identity.name.as_deref().unwrap_or_default(),
        identity.uid.as_deref().unwrap_or_default(),
    );
    let mut annotations = annotations(source, spec, version, type_);
    if !copied_labels.is_empty() {
        annotations.insert(status::COPIED_LABELS.to_owned(), copied_labels.join(","));
    }
    if balancer {
        let class = from.load_balancer_class.clone().unwrap_or_default();
        annotations.insert(status::BALANCER_CLASS.to_owned(), class);
    }
    Service {
        metadata: ObjectMeta {
            name: Some(spec.leader_service_name.clone()),
            namespace: source.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
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
            type_: Some(type_.to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Headless becomes ClusterIP: its type is ClusterIP already, and clusterIP is never copied.
fn type_of<'a>(source: &'a Service, spec: &LeaderSpec) -> &'a str {
    let type_ = source.spec.as_ref().and_then(|s| s.type_.as_deref());
    type_
        .filter(|t| spec.leader_type == LeaderType::Mirror && is_published(t))
        .unwrap_or(CLUSTER_IP)
}

/// Reachable from outside of the cluster by its type.
fn is_published(type_: &str) -> bool {
    matches!(type_, "NodePort" | LOAD_BALANCER)
}

/// The labels of the leader Service, and the keys of those that `copy-labels` names.
fn labels(source: &Service, spec: &LeaderSpec) -> (Texts, Vec<String>) {
    let known = source.labels();
    let (mut labels, copied) = named(known, &spec.copy_labels);
    labels.insert(keys::kubernetes::MANAGED_BY.to_owned(), keys::MANAGER.to_owned());
    let name = source.metadata.name.clone().unwrap_or_default();
    labels.insert(status::SOURCE_SERVICE.to_owned(), name);
    // Without it kube-proxy and the proxy the user chose would both serve the leader.
    if let Some(proxy) = known.get(keys::kubernetes::SERVICE_PROXY_NAME) {
        labels.insert(keys::kubernetes::SERVICE_PROXY_NAME.to_owned(), proxy.clone());
    }
    (labels, copied)
}

fn annotations(source: &Service, spec: &LeaderSpec, version: u32, type_: &str) -> Texts {
    let (mut wanted, mut copied) = named(source.annotations(), &spec.copy_annotations);
    if type_ != LOAD_BALANCER && wanted.remove(SOURCE_RANGES).is_some() {
        copied.retain(|key| key != SOURCE_RANGES);
    }
    if !copied.is_empty() {
        wanted.insert(status::COPIED.to_owned(), copied.join(","));
    }
    wanted.insert(status::DECISION_VERSION.to_owned(), version.to_string());
    wanted
}

/// What the source has of the named keys.
fn named(known: &Texts, keys: &[String]) -> (Texts, Vec<String>) {
    let found: Texts =
        keys.iter().filter_map(|key| Some((key.clone(), known.get(key)?.clone()))).collect();
    let names = found.keys().cloned().collect();
    (found, names)
}

/// The keys in an annotation that records what was copied.
fn listed<'a>(annotations: &'a Texts, record: &str) -> impl Iterator<Item = &'a str> {
    let text = annotations.get(record).map(String::as_str).unwrap_or_default();
    text.split(',').filter(|key| !key.is_empty())
}

fn ports(from: &ServiceSpec) -> Vec<ServicePort> {
    let copy = |p: &ServicePort| ServicePort { node_port: None, ..p.clone() };
    from.ports.iter().flatten().map(copy).collect()
}

/// The JSON merge patch that turns the present leader Service into the desired one, or `None`.
///
/// Only fields that differ are in it; annotations and labels that zen-lead does not own are left
/// alone. A field that the desired type does not have is taken off in the same patch: the API server
/// refuses some of them (`loadBalancerSourceRanges`) where they are left over.
fn drift(present: &Service, desired: &Service) -> Option<Value> {
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
    set("externalName", now.external_name.as_ref().is_some_and(|n| !n.is_empty()), Value::Null);
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
    // Cluster is the default, for a type that has the field and beside external IPs, which are their owner's.
    // Elsewhere the API server takes the field off.
    let policy = |spec: &ServiceSpec| {
        spec.external_traffic_policy
            .clone()
            .filter(|policy| !["", "Cluster"].contains(&policy.as_str()))
    };
    set("externalTrafficPolicy", policy(now) != policy(want), json!(want.external_traffic_policy));
    let balancer = want.type_.as_deref() == Some(LOAD_BALANCER);
    let checked = balancer && policy(want).as_deref() == Some("Local");
    let has_port = now.health_check_node_port.is_some_and(|port| port != 0);
    set("healthCheckNodePort", has_port && !checked, Value::Null);
    set(
        "loadBalancerSourceRanges",
        ranges(now) != ranges(want),
        json!(want.load_balancer_source_ranges),
    );
    let allocates =
        |spec: &ServiceSpec| spec.allocate_load_balancer_node_ports.or(balancer.then_some(true));
    set(
        "allocateLoadBalancerNodePorts",
        allocates(now) != allocates(want),
        json!(want.allocate_load_balancer_node_ports),
    );
    // Immutable while the Service stays a load balancer: only with a change of type.
    set(
        "loadBalancerClass",
        (type_changes || !balancer) && now.load_balancer_class != want.load_balancer_class,
        json!(want.load_balancer_class),
    );
    if let Some((policy, families)) = families(now, want) {
        set("ipFamilyPolicy", now.ip_family_policy.as_ref() != policy, json!(policy));
        set("ipFamilies", now.ip_families.as_ref() != Some(&families), json!(families));
    }

    let patch: Map<String, Value> = [("metadata", metadata(present, desired)), ("spec", spec)]
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(field, part)| (field.to_owned(), Value::Object(part)))
        .collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The ranges of a load balancer; none and an empty list are the same.
fn ranges(spec: &ServiceSpec) -> &[String] {
    spec.load_balancer_source_ranges.as_deref().unwrap_or_default()
}

/// The policy and the families to be written, as far as the API server lets the present Service have
/// them; `None` where there is nothing to change. Its first family stays its first.
fn families<'a>(
    now: &ServiceSpec,
    want: &'a ServiceSpec,
) -> Option<(Option<&'a String>, Vec<String>)> {
    let wanted = want.ip_families.as_ref()?;
    let policy = want.ip_family_policy.as_ref();
    let present = now.ip_families.as_deref().unwrap_or_default();
    let Some(first) = present.first() else { return Some((policy, wanted.clone())) };
    if !wanted.contains(first) {
        return None;
    }
    let mut families = wanted.clone();
    families.sort_by_key(|family| family != first);
    // Made or changed on a dual-stack cluster, it may have got a second one that the source, which is
    // older, has not: the server adds it again.
    let prefers = policy.is_some_and(|policy| policy == "PreferDualStack");
    if prefers && present.starts_with(&families) {
        families = present.to_vec();
    }
    Some((policy, families))
}

/// Labels and annotations that differ.
fn metadata(present: &Service, desired: &Service) -> Map<String, Value> {
    let records = present.annotations();
    // What differs, and what was copied and is not wanted any longer.
    let differing = |now: &Texts, want: &Texts, removed: &[&str]| {
        let mut changes = Map::new();
        for (key, value) in want.iter().filter(|(key, value)| now.get(*key) != Some(*value)) {
            changes.insert(key.clone(), json!(value));
        }
        for key in removed.iter().filter(|k| now.contains_key(**k) && !want.contains_key(**k)) {
            changes.insert((*key).to_owned(), Value::Null);
        }
        changes
    };
    let mut gone: Vec<&str> = listed(records, status::COPIED_LABELS).collect();
    // Never copied, and with it kube-proxy looks at no Service.
    gone.extend([keys::kubernetes::SERVICE_PROXY_NAME, keys::kubernetes::HEADLESS]);
    let labels = differing(present.labels(), desired.labels(), &gone);
    let mut gone: Vec<&str> = listed(records, status::COPIED).collect();
    gone.extend([status::COPIED, status::COPIED_LABELS, status::BALANCER_CLASS]);
    let annotations = differing(records, desired.annotations(), &gone);
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
