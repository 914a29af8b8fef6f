//! From Service ports to the numbers in the slice, for the pod that leads.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::support::case::{Case, Routed, annotation, routed};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, hollow, source};
use crate::support::waiting::{check, until};

tests![
    named_ports_are_those_of_the_leading_pod,
    strict_publishes_no_pod_when_a_port_is_missing,
    partial_leaves_the_missing_port_out,
    partial_without_any_port_publishes_no_pod,
    names_are_looked_up_with_their_protocol,
    sidecar_ports_count_and_plain_init_containers_do_not,
    udp_ports_stay_udp,
    a_missing_target_port_is_the_port_itself,
    changed_ports_of_the_source_are_followed,
];

/// The ports of a slice, as `name number/protocol`.
fn ports(slice: &EndpointSlice) -> Vec<String> {
    let all = slice.ports.iter().flatten();
    all.map(|p| {
        let (name, number) = (p.name.as_deref().unwrap(), p.port.unwrap());
        format!("{name} {number}/{}", p.protocol.as_deref().unwrap())
    })
    .collect()
}

fn named(ports: &Value) -> Value {
    json!({"spec": {"ports": ports}})
}

async fn named_ports_are_those_of_the_leading_pod(t: Arc<Case>) {
    let http = |n: u16| json!([{"name": "http", "containerPort": n}]);
    t.pod(hollow("a", "web").ports(&http(8001))).await;
    t.pod(hollow("b", "web").ports(&http(8002))).await;
    let spec = named(&json!([{"name": "web", "port": 80, "targetPort": "http"}]));
    t.create(&source("web", &spec)).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), ["web 8001/TCP"]);
    t.set_ready("a", false).await;
    let slice = t.until_led_by("web-leader", "b").await;
    assert_eq!(ports(&slice), ["web 8002/TCP"]);
}

fn two_ports() -> Value {
    named(&json!([
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "grpc", "port": 90, "targetPort": "grpc"},
    ]))
}

async fn strict_publishes_no_pod_when_a_port_is_missing(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &two_ports())).await;
    let message = t.until_condition("web-leader", "False", "PortResolutionFailed").await;
    assert_eq!(
        message,
        "pod a is to lead and has no container port named grpc/TCP; add it to the pod or set \
         zen-lead.io/ports-mode: partial; a: standby"
    );
    t.until_routed("web-leader", &[]).await;
    let note = t.until_event("web-leader", "PortResolutionFailed").await;
    assert_eq!(note, message);
    // The pod is still the leader: no other pod takes its place, and partial publishes it.
    t.patch_service("web", &annotations(&[(names::PORTS_MODE, "partial")])).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), ["http 8080/TCP"]);
    t.patch_service("web", &annotations(&[(names::PORTS_MODE, "strict")])).await;
    t.until_routed("web-leader", &[]).await;
}

async fn partial_leaves_the_missing_port_out(t: Arc<Case>) {
    let both = json!([
        {"name": "http", "containerPort": 8080},
        {"name": "grpc", "containerPort": 9090},
    ]);
    t.ready_pods("web", &["a"]).await;
    t.pod(hollow("b", "web").ports(&both)).await;
    let mut patch = two_ports();
    json_patch::merge(&mut patch, &annotations(&[(names::PORTS_MODE, "partial")]));
    t.create(&source("web", &patch)).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), ["http 8080/TCP"]);
    t.vanish("a").await;
    let slice = t.until_led_by("web-leader", "b").await;
    assert_eq!(ports(&slice), ["http 8080/TCP", "grpc 9090/TCP"]);
}

async fn partial_without_any_port_publishes_no_pod(t: Arc<Case>) {
    t.pod(hollow("a", "web").ports(&json!([]))).await;
    let mut patch = two_ports();
    json_patch::merge(&mut patch, &annotations(&[(names::PORTS_MODE, "partial")]));
    t.create(&source("web", &patch)).await;
    t.until_condition("web-leader", "False", "PortResolutionFailed").await;
    t.until_routed("web-leader", &[]).await;
}

async fn names_are_looked_up_with_their_protocol(t: Arc<Case>) {
    let dns = json!([
        {"name": "dns", "containerPort": 5301, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 5302, "protocol": "TCP"},
    ]);
    t.pod(hollow("a", "web").ports(&dns)).await;
    // A port "dns" exists, but only for UDP.
    let tcp = named(&json!([{"name": "q", "port": 53, "targetPort": "dns", "protocol": "TCP"}]));
    t.create(&source("web", &tcp)).await;
    let message = t.until_condition("web-leader", "False", "PortResolutionFailed").await;
    assert!(message.contains("no container port named dns/TCP"), "{message}");
}

async fn sidecar_ports_count_and_plain_init_containers_do_not(t: Arc<Case>) {
    let inits = |policy: Value| {
        json!({"spec": {"initContainers": [{
            "name": "side", "image": "none", "restartPolicy": policy,
            "ports": [{"name": "admin", "containerPort": 7070}],
        }]}})
    };
    t.pod(hollow("a", "web").patch(&inits(json!("Always")))).await;
    let spec = named(&json!([{"name": "admin", "port": 70, "targetPort": "admin"}]));
    t.create(&source("web", &spec)).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), ["admin 7070/TCP"]);

    t.pod(hollow("b", "init").patch(&inits(Value::Null))).await;
    let spec = named(&json!([{"name": "admin", "port": 70, "targetPort": "admin"}]));
    t.create(&source("init", &spec)).await;
    t.until_condition("init-leader", "False", "PortResolutionFailed").await;
}

async fn udp_ports_stay_udp(t: Arc<Case>) {
    let dns = json!([
        {"name": "dns", "containerPort": 5301, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 5302, "protocol": "TCP"},
    ]);
    t.pod(hollow("a", "web").ports(&dns)).await;
    let both = named(&json!([
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": 5302, "protocol": "TCP"},
    ]));
    t.create(&source("web", &both)).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), ["dns 5301/UDP", "dns-tcp 5302/TCP"]);
    let leader = t.services().get("web-leader").await.unwrap();
    let protocols = leader.spec.unwrap().ports.unwrap();
    let protocols: Vec<_> = protocols.iter().map(|p| p.protocol.as_deref().unwrap()).collect();
    assert_eq!(protocols, ["UDP", "TCP"]);
}

async fn a_missing_target_port_is_the_port_itself(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &named(&json!([{"port": 8081}])))).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(ports(&slice), [" 8081/TCP"]);
}

async fn changed_ports_of_the_source_are_followed(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    let more = named(&json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "metrics", "port": 9100, "targetPort": 9100},
    ]));
    t.patch_service("web", &more).await;
    until("slice and leader Service have both ports", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        check(ports(&slice) == ["http 8080/TCP", "metrics 9100/TCP"], format!("{slice:?}"))?;
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let numbers: Vec<i32> =
            leader.spec.unwrap().ports.unwrap().iter().map(|p| p.port).collect();
        check(numbers == [80, 9100], format!("{numbers:?}"))
    })
    .await;
    let history = recorder.finish().await;
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a"]);
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    assert_eq!(routed(&slice), [Routed::ready("a")]);
    assert_eq!(annotation(&slice, names::POD_NAME), "a");
}
