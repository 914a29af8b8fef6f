//! Tests of the explanation, over a double of the API server.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use zen_lead_core::decode::Decoded;
use zen_lead_core::fixtures::api::Server;
use zen_lead_core::fixtures::{NAMESPACE, PodFixture, ServiceFixture, at, pod, service};
use zen_lead_core::index::Limits;

const SLICE: &str = "web-leader-zen-lead-ipv4";

fn snapshot(server: &Server) -> Snapshot {
    let key = ServiceKey::new(NAMESPACE, "web");
    Snapshot { consistent: true, ..server.read(Limits::default()).snapshot(&key) }
}

/// The Service web over pods a (older) and b, served until nothing is left to do.
fn served() -> Server {
    let mut server = Server::default();
    server.put_service(service("web").enabled());
    server.put_pod(pod("a").ready_for(60));
    server.put_pod(pod("b").ready_for(50));
    while let Action::Do(step) = decide::decide(&snapshot(&server), &context(at(0))).action {
        server.perform(&step).expect("no other writer");
    }
    server
}

/// The lines from this heading on.
fn after(server: &Server, heading: &str) -> String {
    let snapshot = snapshot(server);
    let said = text(&snapshot, &decide::decide(&snapshot, &context(at(0))), at(0));
    let found = said.find(heading).unwrap_or_else(|| panic!("no {heading} in {said}"));
    said[found..].to_owned()
}

fn with_slice(mut server: Server, change: impl FnOnce(&mut EndpointSlice)) -> Server {
    let mut slice = server.slices.now[SLICE].clone();
    change(&mut slice);
    server.put_slice(slice);
    server
}

#[test]
fn all_is_as_it_should_be_only_while_the_right_pod_is_routed_and_reported() {
    assert_eq!(
        after(&served(), "Routed now"),
        "Routed now by the EndpointSlices of web-leader\n  \
           IPv4 a, ready (web-leader-zen-lead-ipv4)\n\
         Reported now\n  \
           web-leader: LeaderReady is True, LeaderRoutingAvailable: a leads; b: standby\n\
         Next: nothing, all is as it should be\n"
    );
}

#[test]
fn a_pod_that_is_gone_and_still_routed_is_wrong() {
    let mut server = served();
    server.remove_pod("a");
    assert_eq!(
        after(&server, "Wrong now"),
        "Wrong now\n  \
           web-leader-zen-lead-ipv4 routes a, a pod that no longer exists\n\
         Next: make b leader (pod_gone)\n"
    );
}

#[test]
fn a_pod_that_should_not_lead_and_is_routed_is_wrong() {
    let mut server = served();
    server.put_pod(pod("a").unready_for(1));
    assert_eq!(
        after(&server, "Wrong now"),
        "Wrong now\n  \
           web-leader-zen-lead-ipv4 routes a, but b should lead\n\
         Next: make b leader (pod_not_ready)\n"
    );
}

#[test]
fn an_emptied_slice_contradicts_the_condition() {
    let server = with_slice(served(), |slice| slice.endpoints = None);
    assert_eq!(
        after(&server, "Routed now"),
        "Routed now by the EndpointSlices of web-leader\n  \
           IPv4 no pod (web-leader-zen-lead-ipv4)\n\
         Reported now\n  \
           web-leader: LeaderReady is True, LeaderRoutingAvailable: a leads; b: standby\n\
         Wrong now\n  \
           no pod is routed by web-leader, but a should lead\n  \
           Service web-leader says LeaderReady is True, but no pod is routed\n\
         Next: write the slice\n"
    );
}

/// There is nothing to do although no pod is routed.
#[test]
fn nothing_to_do_without_a_leader_is_never_as_it_should_be() {
    let mut server = served();
    server.remove_pod("a");
    server.remove_pod("b");
    while let Action::Do(step) = decide::decide(&snapshot(&server), &context(at(0))).action {
        server.perform(&step).expect("no other writer");
    }
    assert_eq!(
        after(&server, "Routed now"),
        "Routed now by the EndpointSlices of web-leader\n  \
           IPv4 no pod (web-leader-zen-lead-ipv4)\n\
         Reported now\n  \
           web-leader: LeaderReady is False, NoPodsFound: the selector matches no pod\n\
         Wrong now\n  \
           no pod is routed by web-leader\n\
         Next: nothing that zen-lead may do by itself; see the lines above\n"
    );
}

#[test]
fn a_stale_annotation_is_wrong() {
    let mut server = served();
    let mut leader = server.services.now["web-leader"].clone();
    let annotations = leader.metadata.annotations.as_mut().unwrap();
    annotations.insert("zen-lead.io/current-leader".into(), "ns/b".into());
    server.put_service(leader);
    let said = after(&server, "Wrong now");
    assert_eq!(
        said.lines().nth(1).unwrap(),
        "  Service web-leader names b in zen-lead.io/current-leader, but a is routed"
    );
}

#[test]
fn a_source_without_leader_service_and_one_that_asks_for_none() {
    let mut server = Server::default();
    server.put_service(service("web").enabled());
    server.put_pod(pod("a").ready_for(60));
    assert_eq!(
        after(&server, "Wrong now"),
        "Wrong now\n  there is no leader Service, so no pod is routed\n\
         Next: create leader Service web-leader\n"
    );
    server.put_service(service("web").set("enabled", "false"));
    assert_eq!(after(&server, "Next"), "Next: nothing\n");
}

#[test]
fn a_leader_service_leads_to_its_source() {
    let index = served().read(Limits::default());
    let source = |name: &str| index.source_of(&ServiceKey::new(NAMESPACE, name));
    assert_eq!(source("web-leader"), Some(ServiceKey::new(NAMESPACE, "web")));
    assert_eq!((source("web"), source("none")), (None, None));
}

#[test]
fn a_service_that_does_not_exist_is_reported() {
    let mut server = served();
    let asked =
        |server: &Server, name| missing(&snapshot(server), &ServiceKey::new(NAMESPACE, name));
    server.remove_service("web");
    assert_eq!(
        asked(&server, "web"),
        "Service ns/web does not exist; its leader Service web-leader is still there"
    );
    assert_eq!(
        asked(&server, "web-leader"),
        "Service ns/web-leader is the leader Service of ns/web, which does not exist; delete \
         ns/web-leader if garbage collection does not"
    );
    server.remove_service("web-leader");
    assert_eq!(asked(&server, "web"), "Service ns/web does not exist");
}

#[test]
fn what_cannot_be_read_is_named() {
    let server = served();
    let mut index = server.read(Limits::default());
    let mut meta = server.services.now["web"].metadata.clone();
    meta.resource_version = Some((server.version + 1).to_string());
    let error = "spec.ports: expected a list, found a text".to_owned();
    index.apply_service(Decoded::unreadable(meta, error));
    let key = ServiceKey::new(NAMESPACE, "web");
    let snapshot = Snapshot { consistent: true, ..index.snapshot(&key) };
    let said = text(&snapshot, &decide::decide(&snapshot, &context(at(0))), at(0));
    assert!(
        said.starts_with(
            "Service ns/web\n  cannot be read: the current leader stays, no new one is chosen\n\
             Routed now by the EndpointSlices of web-leader\n  IPv4 a, ready ("
        ),
        "{said}"
    );
    let named = "Cannot be read, so what exists for it is left unchanged\n  Service web: spec.ports: \
                 expected a list, found a text\n";
    assert!(said.contains(named), "{said}");
}
