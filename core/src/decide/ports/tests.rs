//! Tables of port resolution: by name and protocol, sidecars, strict and partial.

use super::*;
use crate::fixtures::{Object, PodFixture, ServiceFixture, pod, port, service};

fn trimmed(pod: &k8s_openapi::api::core::v1::Pod) -> Pod {
    Pod::trim(pod).unwrap()
}

fn numbers(ports: &Ports) -> Vec<(String, i32, String)> {
    let Ports::Resolved { ports, .. } = ports else { panic!("not resolved: {ports:?}") };
    let text = |t: &Option<String>| t.clone().unwrap();
    ports.iter().map(|p| (text(&p.name), p.port.unwrap(), text(&p.protocol))).collect()
}

fn mixed() -> Service {
    let mut service = service("web");
    let named = |name: &str, target: &str, protocol: &str| ServicePort {
        protocol: Some(protocol.into()),
        ..port(name, 53, IntOrString::String(target.into()))
    };
    service.spec().ports = Some(vec![
        ServicePort { target_port: None, ..port("plain", 80, IntOrString::Int(0)) },
        port("fixed", 81, IntOrString::Int(8081)),
        named("dns", "dns", "UDP"),
        named("dns-tcp", "dns", "TCP"),
    ]);
    service
}

#[test]
fn named_ports_are_found_by_name_and_protocol() {
    let pod = trimmed(&pod("a").ports(&[("dns", "TCP", 5353), ("dns", "UDP", 5354)]));
    let found = resolve(&mixed(), &pod, PortsMode::Strict);
    let expected = [
        ("plain", 80, "TCP"),
        ("fixed", 8081, "TCP"),
        ("dns", 5354, "UDP"),
        ("dns-tcp", 5353, "TCP"),
    ];
    assert_eq!(numbers(&found), expected.map(|(n, p, t)| (n.to_owned(), p, t.to_owned())));
}

#[test]
fn ports_of_containers_come_before_those_of_sidecars() {
    let service = service("web").named_port("http");
    let both = trimmed(&pod("a").sidecar(&[("http", "TCP", 9)]).ports(&[("http", "TCP", 8)]));
    assert_eq!(numbers(&resolve(&service, &both, PortsMode::Strict))[0].1, 8);
    let sidecar = trimmed(&pod("a").ports(&[]).sidecar(&[("http", "TCP", 9)]));
    assert_eq!(numbers(&resolve(&service, &sidecar, PortsMode::Strict))[0].1, 9);
    // An init container that ends does not serve.
    let mut ended = pod("a").ports(&[]).sidecar(&[("http", "TCP", 9)]);
    ended.pod().spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].restart_policy = None;
    let failed = resolve(&service, &trimmed(&ended), PortsMode::Strict);
    assert_eq!(failed, Ports::Failed { missing: vec!["http/TCP".into()] });
}

#[test]
fn strict_publishes_nothing_and_partial_leaves_out() {
    let pod = trimmed(&pod("a").ports(&[("dns", "TCP", 5353)]));
    let strict = resolve(&mixed(), &pod, PortsMode::Strict);
    assert_eq!(strict, Ports::Failed { missing: vec!["dns/UDP".into()] });
    let partial = resolve(&mixed(), &pod, PortsMode::Partial);
    assert_eq!(partial.missing(), ["dns/UDP"]);
    let names: Vec<_> = numbers(&partial).into_iter().map(|p| p.0).collect();
    assert_eq!(names, ["plain", "fixed", "dns-tcp"]);
    // With no port left there is nothing to publish.
    let none = resolve(&service("web").named_port("grpc"), &pod, PortsMode::Partial);
    assert_eq!(none, Ports::Failed { missing: vec!["grpc/TCP".into()] });
}

#[test]
fn app_protocol_is_taken_over_and_an_unnamed_port_has_an_empty_name() {
    let mut service = service("web").uid("u");
    service.spec().ports = Some(vec![ServicePort {
        name: None,
        app_protocol: Some("kubernetes.io/h2c".into()),
        ..port("", 80, IntOrString::Int(8080))
    }]);
    let pod = trimmed(&pod("a"));
    let Ports::Resolved { ports, .. } = resolve(&service, &pod, PortsMode::Strict) else {
        panic!("a fixed port is always found")
    };
    assert_eq!(ports[0].name.as_deref(), Some(""));
    assert_eq!(ports[0].app_protocol.as_deref(), Some("kubernetes.io/h2c"));
}

#[test]
fn without_a_pod_only_fixed_ports_are_known() {
    let names: Vec<_> = without_pod(&mixed()).into_iter().map(|p| p.name.unwrap()).collect();
    assert_eq!(names, ["plain", "fixed"]);
}
