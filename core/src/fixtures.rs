//! Objects for tests: pods, Services and slices in a line each, and a double of the API server.
//!
//! Behind the feature `fixtures`, for the tests of this crate, its model and zen-lead. Nothing here
//! decides or asserts.

pub mod api;
pub mod dice;
mod index;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Namespace of every fixture.
pub const NAMESPACE: &str = "ns";

/// The moment at which tests begin, in seconds since 1970.
const START: i64 = 1_800_000_000;

/// The beginning of a test plus some seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("a test's times are near its beginning")
}

/// The beginning of a test plus some milliseconds.
pub fn at_ms(milliseconds: i64) -> Timestamp {
    at(0) + SignedDuration::from_millis(milliseconds)
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(NAMESPACE.into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("1".into()),
        creation_timestamp: Some(Time(at(-3600))),
        ..ObjectMeta::default()
    }
}

/// What all builders of objects can do.
pub trait Object: Sized {
    /// Its metadata.
    fn meta(&mut self) -> &mut ObjectMeta;

    /// Gives it another uid.
    fn uid(mut self, uid: &str) -> Self {
        self.meta().uid = Some(uid.into());
        self
    }

    /// Gives it a resourceVersion.
    fn version(mut self, version: u64) -> Self {
        self.meta().resource_version = Some(version.to_string());
        self
    }

    /// Puts it into another namespace than [`NAMESPACE`].
    fn within(mut self, namespace: &str) -> Self {
        self.meta().namespace = Some(namespace.to_owned());
        self
    }

    /// Sets a label.
    fn label(mut self, key: &str, value: &str) -> Self {
        self.meta().labels.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// Sets an annotation.
    fn annotation(mut self, key: &str, value: &str) -> Self {
        self.meta().annotations.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// Created this many seconds before the beginning.
    fn age(mut self, seconds: i64) -> Self {
        self.meta().creation_timestamp = Some(Time(at(-seconds)));
        self
    }

    /// Owned, as by a controller.
    fn owned_by(mut self, kind: &str, name: &str, uid: &str) -> Self {
        self.meta().owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        self
    }
}

impl Object for core::Pod {
    fn meta(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Object for core::Service {
    fn meta(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Object for EndpointSlice {
    fn meta(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pod labelled `app: web`, with both addresses, not Ready yet.
pub fn pod(name: &str) -> core::Pod {
    let number = name.bytes().fold(0u16, |n, b| n.wrapping_mul(31).wrapping_add(u16::from(b)));
    core::Pod {
        metadata: ObjectMeta {
            labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
            ..meta(name)
        },
        spec: Some(core::PodSpec {
            node_name: Some("node-1".into()),
            containers: vec![core::Container {
                name: "web".into(),
                ports: Some(vec![port_of("http", "TCP", 8080)]),
                ..core::Container::default()
            }],
            ..core::PodSpec::default()
        }),
        status: Some(core::PodStatus {
            phase: Some("Running".into()),
            pod_ip: Some(v4(number)),
            pod_ips: Some(vec![
                core::PodIP { ip: v4(number) },
                core::PodIP { ip: format!("fd00::{number:x}") },
            ]),
            ..core::PodStatus::default()
        })
        .map(|status| core::PodStatus {
            conditions: Some(vec![ready(false, at(-3600))]),
            ..status
        }),
    }
}

fn v4(number: u16) -> String {
    format!("10.1.{}.{}", number >> 8, number & 0xff)
}

fn port_of(name: &str, protocol: &str, number: i32) -> core::ContainerPort {
    core::ContainerPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        container_port: number,
        ..core::ContainerPort::default()
    }
}

fn ready(ready: bool, since: Timestamp) -> core::PodCondition {
    core::PodCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        last_transition_time: Some(Time(since)),
        ..core::PodCondition::default()
    }
}

/// What a pod can be.
pub trait PodFixture: Object {
    /// The pod.
    fn pod(&mut self) -> &mut core::Pod;

    /// Its status.
    fn status(&mut self) -> &mut core::PodStatus {
        self.pod().status.get_or_insert_default()
    }

    /// Ready since this many seconds before the beginning.
    fn ready_for(self, seconds: i64) -> Self {
        self.readiness(true, at(-seconds))
    }

    /// Not Ready since this many seconds before the beginning.
    fn unready_for(self, seconds: i64) -> Self {
        self.readiness(false, at(-seconds))
    }

    /// Sets the Ready condition.
    fn readiness(mut self, is: bool, since: Timestamp) -> Self {
        self.status().conditions = Some(vec![ready(is, since)]);
        self
    }

    /// Deletion asked for at the beginning, with half a minute of grace.
    fn terminating(mut self) -> Self {
        self.meta().deletion_timestamp = Some(Time(at(30)));
        self.meta().deletion_grace_period_seconds = Some(30);
        self
    }

    /// Phase Succeeded or Failed.
    fn phase(mut self, phase: &str) -> Self {
        self.status().phase = Some(phase.into());
        self
    }

    /// Replaces its addresses.
    fn ips(mut self, ips: &[&str]) -> Self {
        self.status().pod_ip = ips.first().map(|ip| (*ip).to_owned());
        self.status().pod_ips =
            Some(ips.iter().map(|ip| core::PodIP { ip: (*ip).to_owned() }).collect());
        self
    }

    /// Replaces the ports of its container.
    fn ports(mut self, ports: &[(&str, &str, i32)]) -> Self {
        let ports = ports.iter().map(|(n, p, i)| port_of(n, p, *i)).collect();
        let spec = self.pod().spec.get_or_insert_default();
        spec.containers[0].ports = Some(ports);
        self
    }

    /// Adds an init container that keeps running.
    fn sidecar(mut self, ports: &[(&str, &str, i32)]) -> Self {
        let ports = ports.iter().map(|(n, p, i)| port_of(n, p, *i)).collect();
        let spec = self.pod().spec.get_or_insert_default();
        spec.init_containers.get_or_insert_default().push(core::Container {
            name: "sidecar".into(),
            restart_policy: Some("Always".into()),
            ports: Some(ports),
            ..core::Container::default()
        });
        self
    }

    /// Made by a revision of the Deployment `web`.
    fn revision(self, hash: &str) -> Self {
        let owner = format!("web-{hash}");
        self.label("pod-template-hash", hash).owned_by("ReplicaSet", &owner, &owner)
    }
}

impl PodFixture for core::Pod {
    fn pod(&mut self) -> &mut core::Pod {
        self
    }
}

/// A Service as the API server stores it: one port, selector `app: web`, IPv4.
pub fn service(name: &str) -> core::Service {
    core::Service {
        metadata: meta(name),
        spec: Some(core::ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("10.0.0.9".into()),
            selector: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
            ports: Some(vec![port("http", 80, IntOrString::Int(8080))]),
            ip_families: Some(vec!["IPv4".into()]),
            ip_family_policy: Some("SingleStack".into()),
            session_affinity: Some("None".into()),
            internal_traffic_policy: Some("Cluster".into()),
            ..core::ServiceSpec::default()
        }),
        status: None,
    }
}

/// A TCP port of a Service.
pub fn port(name: &str, number: i32, target: IntOrString) -> core::ServicePort {
    core::ServicePort {
        name: Some(name.into()),
        port: number,
        protocol: Some("TCP".into()),
        target_port: Some(target),
        ..core::ServicePort::default()
    }
}

/// What a Service can be.
pub trait ServiceFixture: Object {
    /// The Service.
    fn service(&mut self) -> &mut core::Service;

    /// Its spec.
    fn spec(&mut self) -> &mut core::ServiceSpec {
        self.service().spec.get_or_insert_default()
    }

    /// Asks for a leader Service.
    fn enabled(self) -> Self {
        self.set("enabled", "true")
    }

    /// A setting, by the name after `zen-lead.io/`.
    fn set(self, setting: &str, value: &str) -> Self {
        self.annotation(&format!("zen-lead.io/{setting}"), value)
    }

    /// Replaces the selector by one pair.
    fn selecting(mut self, key: &str, value: &str) -> Self {
        self.spec().selector = Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
        self
    }

    /// Replaces the ports by one whose target is named.
    fn named_port(mut self, target: &str) -> Self {
        self.spec().ports = Some(vec![port("http", 80, IntOrString::String(target.into()))]);
        self
    }

    /// IPv4 first, IPv6 second.
    fn dual_stack(mut self) -> Self {
        self.spec().ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        self.spec().ip_family_policy = Some("RequireDualStack".into());
        self
    }

    /// A leader Service of ours for `source`, as labels and owner say.
    fn leading(mut self, source: &str, source_uid: &str) -> Self {
        self.spec().selector = None;
        self.label("app.kubernetes.io/managed-by", "zen-lead")
            .label("zen-lead.io/source-service", source)
            .annotation("zen-lead.io/decision-version", "1")
            .owned_by("Service", source, source_uid)
    }
}

impl ServiceFixture for core::Service {
    fn service(&mut self) -> &mut core::Service {
        self
    }
}

/// A slice that a user made by hand for a Service, routing to one address.
pub fn foreign_slice(name: &str, service: &str) -> EndpointSlice {
    EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: Some(vec![Endpoint {
            addresses: vec!["10.9.9.9".into()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }]),
        ports: Some(vec![EndpointPort {
            name: Some("http".into()),
            port: Some(8080),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]),
        metadata: meta(name),
    }
    .label("kubernetes.io/service-name", service)
}

/// The slice of a leader Service that routes to these pods, without an owner.
pub fn own_slice(leader: &str, pods: &[&str]) -> EndpointSlice {
    let slice = foreign_slice(&format!("{leader}-zen-lead-ipv4"), leader);
    let endpoint = |name: &&str| Endpoint {
        target_ref: Some(core::ObjectReference {
            name: Some((*name).into()),
            uid: Some(format!("uid-{name}")),
            ..core::ObjectReference::default()
        }),
        ..Endpoint::default()
    };
    EndpointSlice { endpoints: Some(pods.iter().map(endpoint).collect()), ..slice }
        .label("endpointslice.kubernetes.io/managed-by", "zen-lead")
}
