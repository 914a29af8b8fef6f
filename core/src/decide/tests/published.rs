//! Mirrored sources with provider annotations: what is held back, and what never is.

use super::protocol::pair;
use super::*;
use crate::keys::kubernetes;

const INTERNAL: &str = "service.beta.kubernetes.io/aws-load-balancer-internal";

fn balancer() -> Service {
    let mut source = service("web").enabled().set("leader-type", "mirror");
    source.spec().type_ = Some("LoadBalancer".into());
    source.spec().external_traffic_policy = Some("Cluster".into());
    source
}

fn type_of(scene: &Scene) -> String {
    scene.leader().spec.unwrap().type_.unwrap()
}

#[test]
fn an_annotation_that_appears_holds_back_publishing_and_never_the_choice() {
    let pods = vec![pod("p1").age(20).ready_for(20), pod("p2").age(10).ready_for(10)];
    let mut scene = Scene::with(balancer(), pods);
    scene.settle();
    assert_eq!((scene.routed(), type_of(&scene)), (Some("p1".to_owned()), "LoadBalancer".into()));
    let source = scene.source().annotation(INTERNAL, "true");
    scene.server.put_service(source);
    scene.server.remove_pod("p1");
    scene.settle();
    assert_eq!((scene.routed(), type_of(&scene)), (Some("p2".to_owned()), "LoadBalancer".into()));
    let (status, reason, _) = scene.condition();
    assert_eq!((&*status, &*reason), ("True", "LeaderRoutingAvailable"));
    let expected = "web-leader stays of type LoadBalancer, and no provider annotation is copied: \
                    leader-type \"mirror\" makes a second load balancer, and these annotations of \
                    the Service may say who can reach it: \
                    \"service.beta.kubernetes.io/aws-load-balancer-internal\"; name each of them, \
                    or with a leading \"-\" where it must not be copied";
    assert_eq!(
        condition(&scene.source()),
        ("False".into(), "InvalidService".into(), expected.into())
    );
    // Named: copied, and the condition goes.
    let named = scene.source().set("copy-annotations", INTERNAL);
    scene.server.put_service(named);
    scene.settle();
    assert_eq!(scene.leader().metadata.annotations.unwrap()[INTERNAL], "true");
    assert_eq!(condition(&scene.source()), Default::default());
}

#[test]
fn what_a_controller_reports_changes_nothing() {
    let mut scene = Scene::with(balancer(), vec![pod("p1").ready_for(20)]);
    scene.settle();
    let before = scene.leader();
    let reports = ["kubernetes.digitalocean.com/load-balancer-id", "kube-vip.io/loadbalancerIPs"];
    let source =
        reports.into_iter().fold(scene.source(), |source, key| source.annotation(key, "x"));
    scene.server.put_service(source.annotation("meta.helm.sh/release-name", "internal"));
    scene.settle();
    assert_eq!(scene.leader(), before);
    assert_eq!(condition(&scene.source()), Default::default());
}

#[test]
fn a_first_leader_service_is_made_unpublished_until_the_annotation_is_named() {
    let mut scene =
        Scene::with(balancer().annotation(INTERNAL, "true"), vec![pod("p1").ready_for(20)]);
    scene.settle();
    assert_eq!((scene.routed(), type_of(&scene)), (Some("p1".to_owned()), "ClusterIP".into()));
    let (status, reason, message) = condition(&scene.source());
    assert_eq!((&*status, &*reason), ("False", "InvalidService"));
    assert!(message.starts_with("web-leader stays of type ClusterIP, and"), "{message}");
    let named = scene.source().set("copy-annotations", &format!("-{INTERNAL}"));
    scene.server.put_service(named);
    scene.settle();
    assert_eq!(type_of(&scene), "LoadBalancer");
    assert!(!scene.leader().metadata.annotations.unwrap().contains_key(INTERNAL));
    assert_eq!(condition(&scene.source()), Default::default());
}

#[test]
fn the_name_of_another_proxy_is_on_the_leader_service_and_its_slices() {
    let proxy = "service.kubernetes.io/service-proxy-name";
    let mut scene =
        Scene::with(service("web").enabled().label(proxy, "mesh"), vec![pod("p1").ready_for(20)]);
    scene.settle();
    let on = |scene: &Scene| {
        let slice = scene.server.slices.now.values().next().unwrap().clone();
        [scene.leader().metadata.labels, slice.metadata.labels]
            .map(|labels| labels.and_then(|l| l.get(proxy).cloned()))
    };
    assert_eq!(on(&scene), [Some("mesh".to_owned()), Some("mesh".to_owned())]);
    scene.server.put_service(scene.source().label(proxy, "other"));
    scene.settle();
    assert_eq!(on(&scene), [Some("other".to_owned()), Some("other".to_owned())]);
    let mut source = scene.source();
    source.metadata.labels = None;
    scene.server.put_service(source);
    scene.settle();
    assert_eq!(on(&scene), [None, None]);
    assert_eq!(scene.routed().as_deref(), Some("p1"));
}

#[test]
fn a_label_that_hides_a_slice_from_kube_proxy_is_taken_off() {
    let mut scene = Scene::served(pair());
    scene.server.put_slice(scene.lock().label(kubernetes::HEADLESS, ""));
    let epoch = scene.epoch();
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice]);
    assert!(!scene.lock().labels().contains_key(kubernetes::HEADLESS));
    assert_eq!((scene.routed().as_deref(), scene.epoch()), (Some("a"), epoch));
}

#[test]
fn what_a_user_adds_to_the_leader_service_is_no_drift_and_takes_no_traffic_away() {
    let mut scene = Scene::served(pair());
    let mut leader = scene.leader();
    let spec = leader.spec.as_mut().unwrap();
    spec.external_ips = Some(vec!["192.0.2.1".into()]);
    spec.publish_not_ready_addresses = Some(true);
    spec.traffic_distribution = Some("PreferClose".into());
    spec.external_traffic_policy = Some("Cluster".into());
    scene.server.put_service(leader.annotation("service.kubernetes.io/topology-mode", "Auto"));
    assert_eq!(kinds(&scene.settle()), []);
}
