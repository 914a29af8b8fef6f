//! Which fields of which kinds are read: an allow-list. A field that is not named here is not seen
//! by any part of zen-lead: one more that is needed is added here.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{
    ClientIPConfig, Container, ContainerPort, Endpoints, ObjectReference, Pod, PodCondition, PodIP,
    PodSpec, PodStatus, Secret, Service, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};

use super::shape::{Each, Field, FieldFault, fields};
use crate::keys;

/// What a creation or deletion time becomes that cannot be read: Go writes years beyond 9999, which
/// no reader of RFC 3339 takes. The object still is being deleted, and is older than nothing.
const NEVER: Time = Time(Timestamp::MAX);

// All that a PUT of a slice must write back. managedFields that are left out stay as they are, and
// generation and selfLink are the server's own (k8s.io/apiserver, registry/rest/update.go).
fields!(ObjectMeta {
    needed annotations = "annotations",
    time creation_timestamp = "creationTimestamp",
    extra deletion_grace_period_seconds = "deletionGracePeriodSeconds",
    time deletion_timestamp = "deletionTimestamp",
    needed finalizers = "finalizers",
    extra generate_name = "generateName",
    needed labels = "labels",
    needed name = "name",
    needed namespace = "namespace",
    needed owner_references = "ownerReferences",
    needed resource_version = "resourceVersion",
    needed uid = "uid",
});

fields!(OwnerReference {
    plain api_version = "apiVersion",
    needed block_owner_deletion = "blockOwnerDeletion",
    needed controller = "controller",
    plain kind = "kind",
    plain name = "name",
    plain uid = "uid",
});

fields!(Service {
    plain metadata = "metadata",
    needed spec = "spec",
    needed status = "status",
});

fields!(ServiceSpec {
    needed allocate_load_balancer_node_ports = "allocateLoadBalancerNodePorts",
    needed cluster_ip = "clusterIP",
    needed external_name = "externalName",
    needed external_traffic_policy = "externalTrafficPolicy",
    extra health_check_node_port = "healthCheckNodePort",
    needed internal_traffic_policy = "internalTrafficPolicy",
    needed ip_families = "ipFamilies",
    needed ip_family_policy = "ipFamilyPolicy",
    needed load_balancer_class = "loadBalancerClass",
    needed load_balancer_source_ranges = "loadBalancerSourceRanges",
    needed ports = "ports",
    needed publish_not_ready_addresses = "publishNotReadyAddresses",
    needed selector = "selector",
    needed session_affinity = "sessionAffinity",
    needed session_affinity_config = "sessionAffinityConfig",
    needed type_ = "type",
});

fields!(ServicePort {
    needed app_protocol = "appProtocol",
    needed name = "name",
    needed node_port = "nodePort",
    plain port = "port",
    needed protocol = "protocol",
    needed target_port = "targetPort",
});

fields!(SessionAffinityConfig { needed client_ip = "clientIP" });
fields!(ClientIPConfig { needed timeout_seconds = "timeoutSeconds" });

// Of a load balancer's status nothing is read.
fields!(ServiceStatus { (own_conditions) conditions = "conditions" });

/// A condition as it may come: the API server takes one without a time.
#[derive(Default)]
struct AnyCondition {
    last_transition_time: Option<Time>,
    message: String,
    observed_generation: Option<i64>,
    reason: String,
    status: String,
    type_: String,
}

fields!(AnyCondition {
    extra last_transition_time = "lastTransitionTime",
    plain message = "message",
    extra observed_generation = "observedGeneration",
    plain reason = "reason",
    plain status = "status",
    plain type_ = "type",
});

/// Conditions of our types, as far as they can be read: one that cannot is written anew. What others
/// wrote is none of our business.
fn own_conditions(
    found: Field<Each<AnyCondition>>,
) -> (Option<Vec<Condition>>, Option<FieldFault>) {
    let all = found.value.unwrap_or_default().0.into_iter().filter_map(|c| c.value);
    let own = all.filter(|c| c.type_.starts_with(keys::PREFIX)).map(|c| Condition {
        last_transition_time: c.last_transition_time.unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        message: c.message,
        observed_generation: c.observed_generation,
        reason: c.reason,
        status: c.status,
        type_: c.type_,
    });
    let own: Vec<Condition> = own.collect();
    ((!own.is_empty()).then_some(own), None)
}

fields!(Pod {
    plain metadata = "metadata",
    needed spec = "spec",
    needed status = "status",
});

fields!(PodSpec {
    plain containers = "containers",
    needed host_network = "hostNetwork",
    needed init_containers = "initContainers",
    needed node_name = "nodeName",
});

fields!(Container {
    needed ports = "ports",
    needed restart_policy = "restartPolicy",
});

fields!(ContainerPort {
    plain container_port = "containerPort",
    needed name = "name",
    needed protocol = "protocol",
});

fields!(PodStatus {
    (ready_condition) conditions = "conditions",
    needed phase = "phase",
    needed pod_ip = "podIP",
    needed pod_ips = "podIPs",
});

fields!(PodIP { plain ip = "ip" });

fields!(PodCondition {
    extra last_transition_time = "lastTransitionTime",
    plain status = "status",
    plain type_ = "type",
});

/// The Ready condition alone. Whether a pod is Ready must not be guessed: where its status cannot be
/// read, the pod cannot.
fn ready_condition(
    found: Field<Each<PodCondition>>,
) -> (Option<Vec<PodCondition>>, Option<FieldFault>) {
    let mut wrong = found.wrong;
    let mut ready = Vec::new();
    for (place, condition) in found.value.unwrap_or_default().0.into_iter().enumerate() {
        let Some(value) = condition.value.filter(|c| c.type_ == "Ready") else { continue };
        if let Some(fault) = condition.wrong {
            wrong.get_or_insert(fault.below(&format!("[{place}]")));
        }
        ready.push(value);
    }
    ((!ready.is_empty()).then_some(ready), wrong)
}

fields!(EndpointSlice {
    plain address_type = "addressType",
    needed endpoints = "endpoints",
    plain metadata = "metadata",
    needed ports = "ports",
});

// All of it: whether a slice of ours says what it should is found by comparing.
fields!(Endpoint {
    plain addresses = "addresses",
    needed conditions = "conditions",
    needed deprecated_topology = "deprecatedTopology",
    needed hints = "hints",
    needed hostname = "hostname",
    needed node_name = "nodeName",
    needed target_ref = "targetRef",
    needed zone = "zone",
});

fields!(EndpointConditions {
    needed ready = "ready",
    needed serving = "serving",
    needed terminating = "terminating",
});

fields!(EndpointHints {
    needed for_nodes = "forNodes",
    needed for_zones = "forZones",
});

fields!(ForNode { plain name = "name" });
fields!(ForZone { plain name = "name" });

fields!(EndpointPort {
    needed app_protocol = "appProtocol",
    needed name = "name",
    needed port = "port",
    needed protocol = "protocol",
});

fields!(ObjectReference {
    needed api_version = "apiVersion",
    needed field_path = "fieldPath",
    needed kind = "kind",
    needed name = "name",
    needed namespace = "namespace",
    needed resource_version = "resourceVersion",
    needed uid = "uid",
});

// Watched for their changes only, or for their names and labels.
fields!(Endpoints { plain metadata = "metadata" });
fields!(Secret { plain metadata = "metadata" });
fields!(ValidatingWebhookConfiguration { plain metadata = "metadata" });
fields!(MutatingWebhookConfiguration { plain metadata = "metadata" });
