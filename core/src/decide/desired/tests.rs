//! Tables of the leader Service: what is copied, what never is, and the patch that repairs drift.

mod conversions;

use std::time::Duration;

use super::*;
use crate::fixtures::{Object, ServiceFixture, port, service};
use crate::ranking::DECISION_VERSION;
use crate::settings::{PortsMode, Strategy};
use k8s_openapi::api::core::v1::{ClientIPConfig, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

fn spec(leader_type: LeaderType, copy: &[&str]) -> LeaderSpec {
    LeaderSpec {
        leader_service_name: "web-leader".into(),
        strategy: Strategy::OldestReady,
        sticky: true,
        min_ready_duration: Duration::ZERO,
        failover_min_delay: Duration::ZERO,
        ports_mode: PortsMode::Strict,
        leader_type,
        copy_annotations: copy.iter().map(|c| (*c).to_owned()).collect(),
        ..LeaderSpec::default()
    }
}

fn affinity_for(seconds: i32) -> SessionAffinityConfig {
    let client_ip = Some(ClientIPConfig { timeout_seconds: Some(seconds) });
    SessionAffinityConfig { client_ip }
}

/// A field of the spec, a change of it, and its new value.
type Differs = (&'static str, fn(&mut ServiceSpec), Value);

/// A source with everything on it that must not be taken over.
fn rich() -> Service {
    let mut source = service("web")
        .label("team", "a")
        .annotation("external-dns.alpha.kubernetes.io/hostname", "a.example")
        .annotation("lb.example/internal", "true");
    let s = source.spec();
    s.type_ = Some("LoadBalancer".into());
    s.cluster_ips = Some(vec!["10.0.0.9".into()]);
    s.external_ips = Some(vec!["1.2.3.4".into()]);
    s.load_balancer_ip = Some("1.2.3.5".into());
    s.health_check_node_port = Some(30100);
    s.publish_not_ready_addresses = Some(true);
    s.load_balancer_class = Some("example.com/lb".into());
    s.load_balancer_source_ranges = Some(vec!["10.0.0.0/8".into()]);
    s.allocate_load_balancer_node_ports = Some(false);
    s.external_traffic_policy = Some("Local".into());
    s.session_affinity = Some("ClientIP".into());
    s.session_affinity_config = Some(affinity_for(600));
    s.ports = Some(vec![ServicePort {
        node_port: Some(30080),
        app_protocol: Some("http".into()),
        ..port("http", 80, IntOrString::String("http".into()))
    }]);
    source
}

#[test]
fn only_what_is_on_the_allow_list_is_taken_over() {
    let made = leader_service(&rich(), &spec(LeaderType::ClusterIp, &[]), DECISION_VERSION);
    assert_eq!(made.metadata.namespace, rich().metadata.namespace);
    assert_eq!(made.metadata.name.as_deref(), Some("web-leader"));
    let labels: Vec<_> = made.metadata.labels.iter().flatten().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        labels,
        [("app.kubernetes.io/managed-by", "zen-lead"), ("zen-lead.io/source-service", "web")]
    );
    let annotations: Vec<_> = made.metadata.annotations.iter().flatten().map(|a| &**a.0).collect();
    assert_eq!(annotations, ["zen-lead.io/decision-version"]);
    let owner = &made.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.name, &*owner.uid), ("Service", "web", "uid-web"));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), None));
    let got = made.spec.unwrap();
    let expected = ServiceSpec {
        type_: Some("ClusterIP".into()),
        ports: Some(vec![ServicePort {
            app_protocol: Some("http".into()),
            ..port("http", 80, IntOrString::String("http".into()))
        }]),
        ip_families: Some(vec!["IPv4".into()]),
        ip_family_policy: Some("SingleStack".into()),
        session_affinity: Some("ClientIP".into()),
        session_affinity_config: Some(affinity_for(600)),
        internal_traffic_policy: Some("Cluster".into()),
        ..ServiceSpec::default()
    };
    assert_eq!(got, expected);
}

#[test]
fn a_mirrored_type_brings_what_belongs_to_it_and_the_named_annotations() {
    let made = leader_service(
        &rich(),
        &spec(LeaderType::Mirror, &["lb.example/internal"]),
        DECISION_VERSION,
    );
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations["lb.example/internal"], "true");
    assert_eq!(annotations["zen-lead.io/copied-annotations"], "lb.example/internal");
    assert!(!annotations.contains_key("external-dns.alpha.kubernetes.io/hostname"));
    let got = made.spec.unwrap();
    assert_eq!(got.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(got.load_balancer_class.as_deref(), Some("example.com/lb"));
    assert_eq!(got.load_balancer_source_ranges, Some(vec!["10.0.0.0/8".to_owned()]));
    assert_eq!(got.allocate_load_balancer_node_ports, Some(false));
    assert_eq!(got.external_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(got.ports.unwrap()[0].node_port, None);
    assert_eq!(
        (got.load_balancer_ip, got.health_check_node_port, got.external_ips),
        (None, None, None)
    );
}

#[test]
fn headless_becomes_cluster_ip_and_the_proxy_name_is_taken_over() {
    let mut source = service("web").label("service.kubernetes.io/service-proxy-name", "other");
    source.spec().cluster_ip = Some("None".into());
    let made = leader_service(&source, &spec(LeaderType::Mirror, &[]), DECISION_VERSION);
    let labels = made.metadata.labels.unwrap();
    assert_eq!(labels["service.kubernetes.io/service-proxy-name"], "other");
    let got = made.spec.unwrap();
    assert_eq!((got.type_.as_deref(), got.cluster_ip), (Some("ClusterIP"), None));
}

/// The leader Service as the API server stores it.
fn stored(source: &Service, spec: &LeaderSpec) -> Service {
    let mut made = leader_service(source, spec, DECISION_VERSION).uid("u1").version(5);
    let s = made.spec.as_mut().unwrap();
    s.cluster_ip = Some("10.0.0.20".into());
    for (i, p) in s.ports.iter_mut().flatten().enumerate() {
        if s.type_.as_deref() != Some("ClusterIP") {
            p.node_port = Some(31000 + i32::try_from(i).unwrap());
        }
    }
    if s.type_.as_deref() == Some("LoadBalancer") {
        s.health_check_node_port = Some(31999);
    }
    made
}

fn patch(present: &Service, source: &Service, spec: &LeaderSpec) -> Option<Value> {
    repair(present, source, spec, DECISION_VERSION)
}

#[test]
fn what_the_server_filled_in_is_no_drift() {
    for kind in [LeaderType::ClusterIp, LeaderType::Mirror] {
        let spec = spec(kind, &["lb.example/internal"]);
        assert_eq!(patch(&stored(&rich(), &spec), &rich(), &spec), None);
    }
    // Defaults that a source of before did not carry.
    let mut bare = service("web");
    bare.spec().session_affinity = None;
    bare.spec().internal_traffic_policy = None;
    bare.spec().ports = Some(vec![ServicePort { port: 80, ..ServicePort::default() }]);
    let spec = spec(LeaderType::ClusterIp, &[]);
    let mut present = stored(&bare, &spec);
    let s = present.spec();
    s.session_affinity = Some("None".into());
    s.internal_traffic_policy = Some("Cluster".into());
    s.ports = Some(vec![ServicePort {
        port: 80,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::Int(80)),
        ..ServicePort::default()
    }]);
    assert_eq!(patch(&present, &bare, &spec), None);
}

#[test]
fn drift_is_patched_field_by_field_and_foreign_annotations_stay() {
    let spec = spec(LeaderType::ClusterIp, &[]);
    let source = service("web");
    let mut present = stored(&source, &spec).annotation("theirs", "stays");
    present.spec().ports.as_mut().unwrap()[0].port = 81;
    let expected = json!({"spec": {"ports": [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}});
    assert_eq!(patch(&present, &source, &spec), Some(expected));
    let mut present = stored(&source, &spec);
    present.metadata.labels.as_mut().unwrap().remove("app.kubernetes.io/managed-by");
    let expected = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "zen-lead"}}});
    assert_eq!(patch(&present, &source, &spec), Some(expected));
}

#[test]
fn a_field_that_differs_is_patched_alone() {
    let spec = spec(LeaderType::Mirror, &["lb.example/internal"]);
    let cases: [Differs; 8] = [
        ("sessionAffinity", |s| s.session_affinity = Some("None".into()), json!("None")),
        (
            "sessionAffinityConfig",
            |s| s.session_affinity_config = Some(affinity_for(5)),
            json!({"clientIP": {"timeoutSeconds": 5}}),
        ),
        (
            "internalTrafficPolicy",
            |s| s.internal_traffic_policy = Some("Local".into()),
            json!("Local"),
        ),
        (
            "externalTrafficPolicy",
            |s| s.external_traffic_policy = Some("Cluster".into()),
            json!("Cluster"),
        ),
        (
            "loadBalancerSourceRanges",
            |s| s.load_balancer_source_ranges = Some(vec!["10.1.0.0/16".into()]),
            json!(["10.1.0.0/16"]),
        ),
        (
            "allocateLoadBalancerNodePorts",
            |s| s.allocate_load_balancer_node_ports = Some(true),
            json!(true),
        ),
        (
            "ipFamilyPolicy",
            |s| s.ip_family_policy = Some("PreferDualStack".into()),
            json!("PreferDualStack"),
        ),
        (
            "ipFamilies",
            |s| s.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]),
            json!(["IPv4", "IPv6"]),
        ),
    ];
    for (field, change, value) in cases {
        let mut source = rich();
        change(source.spec());
        let mut expected = json!({"spec": {field: value}});
        if field == "externalTrafficPolicy" {
            expected["spec"]["healthCheckNodePort"] = Value::Null;
        }
        assert_eq!(patch(&stored(&rich(), &spec), &source, &spec), Some(expected), "{field}");
    }
}

#[test]
fn a_selector_is_taken_off() {
    let spec = spec(LeaderType::ClusterIp, &[]);
    let present = stored(&service("web"), &spec).selecting("app", "web");
    let expected = json!({"spec": {"selector": null}});
    assert_eq!(patch(&present, &service("web"), &spec), Some(expected));
}

#[test]
fn node_ports_stay_with_their_port() {
    let spec = spec(LeaderType::Mirror, &["lb.example/internal"]);
    let present = stored(&rich(), &spec);
    let mut source = rich();
    source.spec().ports.as_mut().unwrap().push(port("admin", 90, IntOrString::Int(9090)));
    let found = patch(&present, &source, &spec).unwrap();
    let ports = found["spec"]["ports"].as_array().unwrap().clone();
    assert_eq!((&ports[0]["nodePort"], ports[1].get("nodePort")), (&json!(31000), None));
}

#[test]
fn annotations_no_longer_named_are_taken_off() {
    let named = spec(LeaderType::Mirror, &["lb.example/internal"]);
    let present = stored(&rich(), &named);
    let found = patch(&present, &rich(), &spec(LeaderType::Mirror, &[])).unwrap();
    let expected = json!({"metadata": {"annotations": {
        "lb.example/internal": null, "zen-lead.io/copied-annotations": null}}});
    assert_eq!(found, expected);
}

#[test]
fn a_change_of_type_goes_both_ways() {
    let mirror = spec(LeaderType::Mirror, &["lb.example/internal"]);
    let plain = spec(LeaderType::ClusterIp, &[]);
    let up = patch(&stored(&rich(), &plain), &rich(), &mirror).unwrap();
    assert_eq!(up["spec"]["type"], "LoadBalancer");
    assert_eq!(up["spec"]["loadBalancerClass"], "example.com/lb");
    let down = patch(&stored(&rich(), &mirror), &rich(), &plain).unwrap();
    assert_eq!(down["spec"]["type"], "ClusterIP");
    assert_eq!(down["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn node_ports_stay_with_port_and_protocol() {
    let spec = spec(LeaderType::Mirror, &[]);
    let udp = |name: &str| ServicePort {
        protocol: Some("UDP".into()),
        ..port(name, 53, IntOrString::Int(5353))
    };
    let mut source = service("web");
    source.spec().type_ = Some("NodePort".into());
    source.spec().ports = Some(vec![port("dns", 53, IntOrString::Int(5353)), udp("dns-udp")]);
    let present = stored(&source, &spec);
    assert_eq!(patch(&present, &source, &spec), None);
    let added = port("http", 80, IntOrString::Int(8080));
    source.spec().ports.as_mut().unwrap().insert(0, added);
    let found = patch(&present, &source, &spec).unwrap();
    let ports = found["spec"]["ports"].as_array().unwrap();
    let nodes: Vec<_> = ports.iter().map(|p| p.get("nodePort").cloned()).collect();
    assert_eq!(nodes, [None, Some(json!(31000)), Some(json!(31001))]);
}

#[test]
fn ports_without_protocol_are_tcp_and_without_target_go_to_themselves() {
    let spec = spec(LeaderType::Mirror, &[]);
    let mut source = service("web");
    source.spec().type_ = Some("NodePort".into());
    let bare = |port: i32| ServicePort { port, ..ServicePort::default() };
    source.spec().ports = Some(vec![bare(80)]);
    let mut present = stored(&source, &spec);
    let stored = &mut present.spec().ports.as_mut().unwrap()[0];
    stored.protocol = Some("TCP".into());
    stored.target_port = Some(IntOrString::Int(80));
    assert_eq!(patch(&present, &source, &spec), None);
    source.spec().ports = Some(vec![bare(80), ServicePort { name: Some("x".into()), ..bare(81) }]);
    let found = patch(&present, &source, &spec).unwrap();
    assert_eq!(found["spec"]["ports"][0]["nodePort"], 31000);
}

#[test]
fn the_proxy_name_comes_and_goes_with_the_sources() {
    let proxy = "service.kubernetes.io/service-proxy-name";
    let spec = spec(LeaderType::ClusterIp, &[]);
    let (plain, proxied) = (service("web"), service("web").label(proxy, "other"));
    assert_eq!(patch(&stored(&proxied, &spec), &proxied, &spec), None);
    let labels = |value: Value| Some(json!({"metadata": {"labels": {proxy: value}}}));
    assert_eq!(patch(&stored(&proxied, &spec), &plain, &spec), labels(Value::Null));
    assert_eq!(patch(&stored(&plain, &spec), &proxied, &spec), labels(json!("other")));
}

#[test]
fn a_label_that_hides_the_leader_service_from_kube_proxy_is_taken_off() {
    let headless = "service.kubernetes.io/headless";
    let spec = spec(LeaderType::ClusterIp, &[]);
    // That of a headless source is not copied.
    for source in [service("web"), service("web").label(headless, "")] {
        let present = stored(&source, &spec);
        assert_eq!(patch(&present, &source, &spec), None);
        let taken_off = json!({"metadata": {"labels": {headless: null}}});
        assert_eq!(patch(&present.label(headless, ""), &source, &spec), Some(taken_off));
    }
}

#[test]
fn fields_of_other_owners_stay_with_what_the_server_fills_in_for_them() {
    let spec = spec(LeaderType::ClusterIp, &[]);
    let source = service("web");
    let mut present = stored(&source, &spec);
    let s = present.spec();
    // What of them is not decoded is not seen.
    s.publish_not_ready_addresses = Some(true);
    // SetDefaults_Service in pkg/apis/core/v1/defaults.go does so for a Service with external IPs.
    s.external_traffic_policy = Some("Cluster".into());
    assert_eq!(patch(&present, &source, &spec), None);
    present.spec().external_traffic_policy = Some("Local".into());
    let expected = json!({"spec": {"externalTrafficPolicy": null}});
    assert_eq!(patch(&present, &source, &spec), Some(expected), "Cluster again, by default");
}

#[test]
fn named_labels_and_annotations_are_copied_whatever_the_type() {
    let spec = |annotations: &[&str], labels: &[&str]| LeaderSpec {
        copy_labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        ..spec(LeaderType::ClusterIp, annotations)
    };
    let source = service("web")
        .annotation("mesh.example/inject", "no")
        .annotation("example.com/cost", "7")
        .label("team", "a")
        .label("tier", "b");
    let all = spec(&["mesh.example/inject", "example.com/none"], &["team", "tier", "none"]);
    let made = stored(&source, &all);
    let annotations = made.metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations.iter().map(|(k, v)| (&**k, &**v)).collect::<Vec<_>>(),
        [
            ("mesh.example/inject", "no"),
            ("zen-lead.io/copied-annotations", "mesh.example/inject"),
            ("zen-lead.io/copied-labels", "team,tier"),
            ("zen-lead.io/decision-version", &*DECISION_VERSION.to_string()),
        ]
    );
    let labels = made.metadata.labels.clone().unwrap();
    assert_eq!((&*labels["team"], &*labels["tier"], labels.len()), ("a", "b", 4));
    assert_eq!(patch(&made, &source, &all), None);
    // No longer named, or no longer on the source: taken off. What others put there stays.
    let made = made.label("own", "x").annotation("own", "x");
    let expected = json!({"metadata": {
        "labels": {"tier": null},
        "annotations": {
            "mesh.example/inject": null,
            "zen-lead.io/copied-annotations": null,
            "zen-lead.io/copied-labels": "team",
        },
    }});
    assert_eq!(patch(&made, &source, &spec(&[], &["team"])), Some(expected));
    let mut bare = source.clone();
    bare.metadata.labels = None;
    let expected = json!({"metadata": {
        "labels": {"team": null, "tier": null}, "annotations": {"zen-lead.io/copied-labels": null}}});
    assert_eq!(patch(&made, &bare, &all), Some(expected));
}

#[test]
fn of_several_copied_annotations_only_those_no_longer_named_are_taken_off() {
    let hostname = "external-dns.alpha.kubernetes.io/hostname";
    let both = spec(LeaderType::Mirror, &[hostname, "lb.example/internal"]);
    let present = stored(&rich(), &both);
    assert_eq!(patch(&present, &rich(), &both), None);
    let expected = json!({"metadata": {"annotations": {
        "lb.example/internal": null, "zen-lead.io/copied-annotations": hostname}}});
    assert_eq!(patch(&present, &rich(), &spec(LeaderType::Mirror, &[hostname])), Some(expected));
    let changed = rich().annotation(hostname, "b.example");
    let expected = json!({"metadata": {"annotations": {hostname: "b.example"}}});
    assert_eq!(patch(&present, &changed, &both), Some(expected));
}

#[test]
fn with_another_type_node_ports_are_the_servers_to_keep_or_not() {
    let spec = spec(LeaderType::Mirror, &[]);
    let mut source = rich();
    source.spec().type_ = Some("NodePort".into());
    let present = stored(&source, &spec);
    assert_eq!(present.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, Some(31000));
    // A balancer that is to do without node ports must not be given those of before.
    let found = patch(&present, &rich(), &spec).unwrap();
    assert_eq!(found["spec"]["type"], "LoadBalancer");
    assert_eq!(found["spec"]["allocateLoadBalancerNodePorts"], false);
    assert_eq!(found["spec"]["ports"][0].get("nodePort"), None);
}
