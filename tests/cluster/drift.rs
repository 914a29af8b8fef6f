//! Leader Services and slices that a user changed are repaired.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::built_in;
use crate::support::case::{Case, Routed, annotation, epoch};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::waiting::{check, until};

tests![
    changed_ports_type_and_policies_are_repaired,
    removed_label_is_repaired,
    label_that_hides_from_kube_proxy_is_taken_off,
    removed_mirror_is_repaired,
    selector_is_taken_off_with_what_it_left_behind,
    a_late_built_in_controller_leaves_nothing_behind,
    endpoints_written_by_hand_into_our_slice_are_repaired,
    what_others_add_to_the_leader_service_stays,
];

/// The fields of the leader Service that zen-lead decides.
async fn shape(t: &Case) -> Result<Value, String> {
    let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
    let spec = leader.spec.clone().unwrap();
    Ok(json!({
        "ports": spec.ports, "type": spec.type_, "selector": spec.selector,
        "affinity": spec.session_affinity, "policy": spec.internal_traffic_policy,
        "external": spec.external_traffic_policy, "labels": leader.labels(),
    }))
}

async fn until_shape(t: &Case, wanted: &Value) {
    until("the leader Service is as before", || async {
        let now = shape(t).await?;
        check(now == *wanted, now.to_string())
    })
    .await;
}

async fn led(t: &Case) -> Value {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    shape(t).await.unwrap()
}

async fn changed_ports_type_and_policies_are_repaired(t: Arc<Case>) {
    let before = led(&t).await;
    for patch in [
        json!({"spec": {"ports": [{"name": "http", "port": 81, "targetPort": 1}]}}),
        json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Local"}}),
        json!({"spec": {"sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local"}}),
    ] {
        t.patch_service("web-leader", &patch).await;
        assert_ne!(shape(&t).await.unwrap_or_default(), Value::Null);
        until_shape(&t, &before).await;
    }
    let notes = t.until_event("web-leader", "DriftRepaired").await;
    assert!(notes.starts_with("repaired: "), "{notes}");
    t.until_led_by("web-leader", "a").await;
}

async fn removed_label_is_repaired(t: Arc<Case>) {
    let before = led(&t).await;
    let uid = t.services().get("web-leader").await.unwrap().uid();
    t.patch_service("web-leader", &json!({"metadata": {"labels": {names::MANAGED_BY: null}}}))
        .await;
    // Its owner and the other label still prove that it is ours.
    until_shape(&t, &before).await;
    t.until_led_by("web-leader", "a").await;
    assert_eq!(t.services().get("web-leader").await.unwrap().uid(), uid);
}

async fn label_that_hides_from_kube_proxy_is_taken_off(t: Arc<Case>) {
    let before = led(&t).await;
    let hidden = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    t.patch_service("web-leader", &hidden).await;
    until_shape(&t, &before).await;
    let slice = t.slice("web-leader", "IPv4").await.unwrap().name_any();
    t.slices().patch(&slice, &PatchParams::default(), &Patch::Merge(&hidden)).await.unwrap();
    until("the slice is not hidden", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        check(!slice.labels().contains_key("service.kubernetes.io/headless"), "it is")
    })
    .await;
    t.until_led_by("web-leader", "a").await;
}

async fn removed_mirror_is_repaired(t: Arc<Case>) {
    led(&t).await;
    t.until_reported("web-leader", 1).await;
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    let patch = json!({"metadata": {"annotations": {
        names::EPOCH: null, names::POD_NAME: null, names::CURRENT: null,
    }}});
    t.patch_service("web-leader", &patch).await;
    until("the mirror is back", || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        check(epoch(&leader) == epoch(&slice), format!("epoch {}", epoch(&leader)))?;
        check(annotation(&leader, names::POD_NAME) == "a", "no pod")?;
        check(!annotation(&leader, names::CURRENT).is_empty(), "no current leader")
    })
    .await;
    // It was not a switch.
    assert_eq!(t.events("web-leader", "LeaderChanged").await.len(), 1);
}

async fn selector_is_taken_off_with_what_it_left_behind(t: Arc<Case>) {
    let before = led(&t).await;
    t.patch_service("web-leader", &json!({"spec": {"selector": {"app": "web"}}})).await;
    until_shape(&t, &before).await;
    let note = t.until_event("web-leader", "SelectorRemoved").await;
    assert_eq!(
        note,
        "a selector was put on the leader Service; removed, because it would route to every pod \
         it matches"
    );
    built_in::until_gone(&t).await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    t.until_led_by("web-leader", "a").await;
}

async fn a_late_built_in_controller_leaves_nothing_behind(t: Arc<Case>) {
    led(&t).await;
    for _ in 0..2 {
        built_in::make_late(&t).await;
        built_in::until_gone(&t).await;
    }
    t.until_led_by("web-leader", "a").await;
}

async fn endpoints_written_by_hand_into_our_slice_are_repaired(t: Arc<Case>) {
    led(&t).await;
    let before = t.slice("web-leader", "IPv4").await.unwrap();
    let patch = Patch::Merge(json!({"endpoints": [
        {"addresses": ["192.0.2.9"], "conditions": {"ready": true}},
        {"addresses": ["192.0.2.10"], "conditions": {"ready": true}},
    ]}));
    t.slices().patch(&before.name_any(), &PatchParams::default(), &patch).await.unwrap();
    until("the endpoints are as before", || async {
        let now = t.slices().get(&before.name_any()).await.map_err(|e| e.to_string())?;
        check(json!(now.endpoints) == json!(before.endpoints), json!(now.endpoints).to_string())
    })
    .await;
    let after = t.until_routed("web-leader", &[Routed::ready("a")]).await;
    assert_eq!(epoch(&after), epoch(&before));
}

async fn what_others_add_to_the_leader_service_stays(t: Arc<Case>) {
    led(&t).await;
    let patch = json!({"metadata": {
        "labels": {"team": "blue"}, "annotations": {"example.com/note": "x"},
        "finalizers": ["example.com/hold"],
    }, "spec": {
        "externalIPs": ["192.0.2.1"], "publishNotReadyAddresses": true, "trafficDistribution": "PreferClose",
    }});
    t.patch_service("web-leader", &patch).await;
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    let on_slice = Patch::Merge(json!({"metadata": {
        "labels": {"team": "blue"}, "annotations": {"example.com/note": "x"},
    }}));
    t.slices().patch(&slice.name_any(), &PatchParams::default(), &on_slice).await.unwrap();
    t.set_ready("a", false).await;
    let slice = t.until_led_by("web-leader", "b").await;
    t.until_message("web-leader", "b leads; a: not Ready").await;
    let leader = t.services().get("web-leader").await.unwrap();
    for (labels, annotations) in
        [(leader.labels(), leader.annotations()), (slice.labels(), slice.annotations())]
    {
        assert_eq!(labels.get("team").map(String::as_str), Some("blue"));
        assert_eq!(annotations.get("example.com/note").map(String::as_str), Some("x"));
    }
    assert_eq!(leader.finalizers(), ["example.com/hold"]);
    let spec = leader.spec.as_ref().unwrap();
    assert_eq!(spec.external_ips.as_deref(), Some(&["192.0.2.1".to_owned()][..]));
    assert_eq!(spec.publish_not_ready_addresses, Some(true));
    assert_eq!(spec.traffic_distribution.as_deref(), Some("PreferClose"));
    // The API server fills in externalTrafficPolicy beside external IPs: that is no drift.
    assert_eq!(t.events("web-leader", "DriftRepaired").await, Vec::<String>::new());
    t.patch_service("web-leader", &json!({"metadata": {"finalizers": null}})).await;
}
