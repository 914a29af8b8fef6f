//! IPv4 and IPv6: which slices exist, and that they name the same pod.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::support::case::{Case, Routed, annotation, epoch};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, hollow, source};
use crate::support::waiting::{check, until};

tests![
    dual_stack_has_two_slices_of_one_leader,
    lost_leader_switches_the_lock_first,
    planned_switch_never_names_two_pods,
    ipv6_alone_has_one_slice,
    the_first_family_of_the_service_is_the_lock,
    adding_a_family_adds_a_slice_and_removing_it_removes_it,
    single_stack_pod_leads_a_dual_stack_service,
];

fn dual(first: &str, second: &str) -> serde_json::Value {
    json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": [first, second]}})
}

async fn pods(t: &Case, names: &[&str]) {
    for name in names {
        t.pod(hollow(name, "web").dual()).await;
    }
}

async fn dual_stack_has_two_slices_of_one_leader(t: Arc<Case>) {
    t.pod(hollow("a", "web").dual()).await;
    let pod = t.pods().get("a").await.unwrap();
    t.create(&source("web", &dual("IPv4", "IPv6"))).await;
    let v4 = t.until_led_by("web-leader", "a").await;
    let v6 = t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    assert_eq!(v4.name_any(), "web-leader-zen-lead-ipv4");
    assert_eq!(v6.name_any(), "web-leader-zen-lead-ipv6");
    let ips = pod.status.unwrap().pod_ips.unwrap();
    assert_eq!(v4.endpoints.as_ref().unwrap()[0].addresses, [ips[0].ip.clone()]);
    assert_eq!(v6.endpoints.as_ref().unwrap()[0].addresses, [ips[1].ip.clone()]);
    assert_eq!(epoch(&v4), epoch(&v6));
    assert_eq!(annotation(&v4, names::POD_UID), annotation(&v6, names::POD_UID));
    assert_eq!(json!(v4.ports), json!(v6.ports));
    assert_eq!(json!(v4.owner_references()), json!(v6.owner_references()));
    let leader = t.services().get("web-leader").await.unwrap().spec.unwrap();
    assert_eq!(leader.ip_family_policy.as_deref(), Some("RequireDualStack"));
    assert_eq!(leader.ip_families.unwrap(), ["IPv4", "IPv6"]);
    assert_eq!(leader.cluster_ips.unwrap().len(), 2);
}

async fn lost_leader_switches_the_lock_first(t: Arc<Case>) {
    pods(&t, &["a", "b"]).await;
    t.create(&source("web", &dual("IPv4", "IPv6"))).await;
    t.until_led_by("web-leader", "a").await;
    t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    let v4 = t.until_led_by("web-leader", "b").await;
    let v6 = t.until_family("web-leader", "IPv6", &[Routed::ready("b")]).await;
    assert_eq!(epoch(&v4), epoch(&v6));
    let history = recorder.finish().await;
    history.holds("web-leader");
    // From the first version that names b: the lock, then the follower, nothing in between.
    let order: Vec<(&str, bool)> = history
        .0
        .iter()
        .filter(|s| s.slice.labels()[names::SERVICE_NAME] == "web-leader")
        .map(|s| (s.slice.address_type.as_str(), annotation(&s.slice, names::POD_NAME) == "b"))
        .skip_while(|(_, of_b)| !of_b)
        .collect();
    assert_eq!(order, [("IPv4", true), ("IPv6", true)]);
}

async fn planned_switch_never_names_two_pods(t: Arc<Case>) {
    pods(&t, &["a", "b"]).await;
    t.create(&source("web", &dual("IPv4", "IPv6"))).await;
    t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    t.set_ready("a", false).await;
    t.until_family("web-leader", "IPv6", &[Routed::ready("b")]).await;
    t.set_ready("a", true).await;
    t.until_message("web-leader", "b leads; a: standby").await;
    let recorder = t.record().await;
    // b is healthy when a takes over.
    t.patch_service("web", &annotations(&[(names::STICKY, "false")])).await;
    let v6 = t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    let v4 = t.until_led_by("web-leader", "a").await;
    assert_eq!(epoch(&v4), epoch(&v6));
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_two_across_families("web-leader");
    assert_eq!(history.leaders("web-leader"), ["b", "a"]);
    let follower = history.states("web-leader", "IPv6");
    let expected: [&[Routed]; 3] = [&[Routed::ready("b")], &[], &[Routed::ready("a")]];
    assert_eq!(follower, expected, "the follower is emptied before the lock is switched");
}

async fn ipv6_alone_has_one_slice(t: Arc<Case>) {
    pods(&t, &["a"]).await;
    let v6 = json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}});
    t.create(&source("web", &v6)).await;
    let slice = t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    assert!(slice.endpoints.unwrap()[0].addresses[0].starts_with("fd00:200::"));
    let ours = ListParams::default().labels("kubernetes.io/service-name=web-leader");
    assert_eq!(t.slices().list(&ours).await.unwrap().items.len(), 1);
}

async fn the_first_family_of_the_service_is_the_lock(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.pod(hollow("b", "web").dual()).await;
    t.create(&source("web", &dual("IPv6", "IPv4"))).await;
    // a comes first, but has no IPv6 address: it cannot lead.
    t.until_family("web-leader", "IPv6", &[Routed::ready("b")]).await;
    t.until_led_by("web-leader", "b").await;
    let reason = "b leads; a: no address of the Service's first IP family";
    t.until_message("web-leader", reason).await;
}

async fn adding_a_family_adds_a_slice_and_removing_it_removes_it(t: Arc<Case>) {
    pods(&t, &["a"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    assert!(t.slice("web-leader", "IPv6").await.is_err());
    let recorder = t.record().await;
    let both = json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}});
    t.patch_service("web", &both).await;
    t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    let one = json!({"spec": {
        "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
        "clusterIPs": [t.services().get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap()],
    }});
    t.patch_service("web", &one).await;
    until("the IPv6 slice is gone", || async {
        check(t.slice("web-leader", "IPv6").await.is_err(), "it is there")
    })
    .await;
    let after = t.until_led_by("web-leader", "a").await;
    assert_eq!(after.uid(), before.uid());
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
}

async fn single_stack_pod_leads_a_dual_stack_service(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &dual("IPv4", "IPv6"))).await;
    t.until_led_by("web-leader", "a").await;
    t.until_family("web-leader", "IPv6", &[]).await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
}
