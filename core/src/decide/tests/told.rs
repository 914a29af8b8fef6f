//! What is reported about a leader Service beside its slices: the report for the metrics, the condition,
//! and whom the first election of a new leader Service takes for the last leader.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::protocol::{dual, pair};
use super::*;
use crate::fixtures::port;

fn report(scene: &Scene) -> ServiceReport {
    scene.decide().report.expect("it is served")
}

#[test]
fn the_report_is_about_who_leads() {
    let scene = Scene::served(pair());
    let expected = ServiceReport {
        leader_since: Some(at(0)),
        leader_pod_created: Some(at(-9)),
        pods_available: 2,
        endpoints: 1,
        epoch: scene.epoch(),
        stable: true,
        leader_service: true,
        slices: 1,
    };
    assert_eq!(report(&scene), expected);
    let scene = Scene::served(vec![pod("a").unready_for(5)]);
    let expected = ServiceReport {
        leader_since: None,
        leader_pod_created: None,
        pods_available: 0,
        endpoints: 0,
        epoch: 0,
        stable: false,
        ..report(&scene)
    };
    assert_eq!(report(&scene), expected);
}

#[test]
fn the_report_counts_every_slice_of_ours() {
    let count = |scene: &Scene| report(scene).slices;
    assert_eq!(count(&Scene::served(pair())), 1);
    let mut scene = dual(pair());
    assert_eq!(count(&scene), 2);
    scene.server.put_slice(foreign_slice("by-hand", "web-leader"));
    assert_eq!(count(&scene), 2);
    // Back to one family: there are two until the other is deleted.
    let mut leader = scene.leader();
    leader.spec().ip_families = Some(vec!["IPv4".into()]);
    scene.server.put_service(leader);
    assert_eq!(count(&scene), 2);
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    assert_eq!(count(&scene), 1, "the superfluous one alone");
    scene.server.remove_slice("web-leader-zen-lead-ipv6");
    assert_eq!(count(&scene), 0);
}

#[test]
fn a_leader_is_stable_while_it_is_routed_with_all_its_ports() {
    let judged = |source: Service| {
        let mut source = source.enabled().named_port("grpc");
        source.spec().ports.as_mut().unwrap().push(port("http", 90, IntOrString::Int(8080)));
        let mut scene = Scene::with(source, pair());
        scene.settle();
        let found = report(&scene);
        (found.endpoints, found.stable)
    };
    assert_eq!(judged(service("web").set("ports-mode", "partial")), (1, false));
    assert_eq!(judged(service("web")), (0, false), "withheld");
    let mut scene = Scene::served(pair());
    scene.server.put_slice(foreign_slice("by-hand", "web-leader"));
    assert_eq!((report(&scene).endpoints, report(&scene).stable), (0, false));
    // What is decided counts once it is written.
    let source = service("web").enabled().set("failover-min-delay", "10s");
    let mut scene = Scene::with(source, pair());
    scene.settle();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert!(!report(&scene).stable);
    scene.server.now = at(10);
    assert_eq!((report(&scene).endpoints, report(&scene).stable), (0, false));
    scene.settle();
    assert_eq!((report(&scene).endpoints, report(&scene).stable), (1, true));
}

#[test]
fn only_pods_that_could_lead_are_waited_for() {
    let scene = Scene::served(vec![pod("a").unready_for(5)]);
    let told = ("False".into(), "NoReadyPods".into(), "a: not Ready".into());
    assert_eq!(scene.condition(), told);
    let scene = Scene::served(Vec::new());
    let told = ("False".into(), "NoPodsFound".into(), "the selector matches no pod".into());
    assert_eq!(scene.condition(), told);
}

#[test]
fn a_leader_of_before_that_is_out_of_service_is_not_told_as_leading() {
    let mut scene = Scene::served(vec![pod("a").ready_for(5)]);
    scene.server.put_pod(pod("a").unready_for(0));
    scene.settle();
    assert_eq!(scene.condition(), ("False".into(), "NoReadyPods".into(), "a: not Ready".into()));
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::CURRENT_LEADER], "");
}

#[test]
fn where_no_slice_may_be_written_nobody_is_told_as_leading() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    scene.server.put_slice(foreign_slice("web-leader-zen-lead-ipv4", "web-leader"));
    scene.settle();
    let (_, reason, message) = scene.condition();
    assert_eq!(reason, "ForeignEndpoints");
    assert!(message.ends_with("delete them; a: standby; b: standby"), "{message}");
    // The source goes, and a user has deleted the lock.
    let mut scene = Scene::served(pair());
    let mut source = scene.source();
    source.metadata.deletion_timestamp = Some(Time(at(0)));
    source.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    scene.server.put_service(source);
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    scene.settle();
    let (state, _, message) = scene.condition();
    assert_eq!(state, "False");
    assert!(message.ends_with("; a: standby; b: standby"), "{message}");
    assert_eq!((report(&scene).endpoints, report(&scene).stable), (0, false));
}

#[test]
fn a_pod_without_the_port_is_named_and_does_not_lead() {
    let mut scene = Scene::with(service("web").enabled().named_port("grpc"), pair());
    scene.settle();
    let words = "pod a is to lead and has no container port named grpc/TCP; add it to the pod or set \
                 zen-lead.io/ports-mode: partial; a: standby; b: standby";
    assert_eq!(scene.condition(), ("False".into(), "PortResolutionFailed".into(), words.into()));
}

#[test]
fn the_trigger_time_of_a_recovery_is_the_recovery() {
    use crate::keys::kubernetes::LAST_CHANGE_TRIGGER_TIME;
    let mut scene = Scene::served(vec![pod("a").age(9).ready_for(5), pod("b").unready_for(9)]);
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    scene.server.now = at(7);
    scene.server.put_pod(pod("a").age(9).readiness(true, at(5)));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
    assert_eq!(mark(&scene.lock(), LAST_CHANGE_TRIGGER_TIME), at(5).to_string());
}

#[test]
fn the_leader_service_is_not_repaired_by_a_source_that_cannot_be_read() {
    let mut scene = Scene::served(pair());
    let mut source = scene.source().set("sticky", "perhaps");
    source.spec().session_affinity = Some("ClientIP".into());
    scene.server.put_service(source);
    assert!(!kinds(&scene.settle()).contains(&StepKind::PatchLeader));
    scene.server.put_service(scene.source().set("sticky", "true"));
    assert!(kinds(&scene.settle()).contains(&StepKind::PatchLeader));
}

#[test]
fn the_leader_of_an_earlier_source_of_the_name_is_nobodys_last_leader() {
    let mut scene = Scene::served(pair());
    // b leads, so that order alone would choose a.
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.server.remove_service("web");
    scene.server.put_service(service("web").enabled().set("leader-service-name", "front"));
    scene.settle();
    let lock = &scene.server.slices.now["front-zen-lead-ipv4"];
    assert_eq!(routed(lock).as_deref(), Some("a"));
    assert_eq!(mark(lock, status::SWITCH_REASON), "first_leader");
    assert_eq!(scene.routed(), None);
}

#[test]
fn only_slices_of_ours_say_who_led_under_the_old_name() {
    let mut scene = Scene::served(pair());
    let mut copy = scene.lock().owned_by("Service", "web-leader", "uid-of-another");
    copy.metadata.name = Some("restored".into());
    copy = copy.annotation(status::LEADER_POD_UID, &scene.server.pods.now["b"].id());
    scene.server.put_slice(copy.annotation(status::LEADER_EPOCH, "9800000000000"));
    scene.server.put_service(scene.source().set("leader-service-name", "front"));
    scene.settle();
    let lock = &scene.server.slices.now["front-zen-lead-ipv4"];
    assert_eq!(routed(lock).as_deref(), Some("a"));
}
