//! From an annotation to a routed leader: every write, in full.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::case::{Case, annotation, epoch, routed};
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;
use crate::support::objects::{hollow, source};
use crate::support::waiting::{check, until};

tests![
    leader_service_is_complete,
    slice_is_complete,
    mirror_repeats_the_slice,
    kubectl_wait_sees_the_leader,
    admission_writes_the_default_name_down,
    oldest_ready_pod_leads,
    pods_may_come_before_or_after_the_service,
    without_pods_no_pod_is_routed,
    without_ready_pods_no_pod_is_routed,
    pods_of_other_namespaces_never_lead,
    plain_services_get_nothing,
];

async fn leader_service_is_complete(t: Arc<Case>) {
    let patch = json!({
        "metadata": {
            "labels": {"team": "blue"},
            "annotations": {"example.com/note": "not for the leader"},
        },
        "spec": {"ports": [{
            "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http",
            "appProtocol": "kubernetes.io/h2c",
        }]},
    });
    let web = t.create(&source("web", &patch)).await;
    t.ready_pods("web", &["a", "b"]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;

    let leader = t.services().get("web-leader").await.unwrap();
    let labels: Value = json!(leader.labels());
    assert_eq!(labels, json!({names::MANAGED_BY: "zen-lead", names::SOURCE_LABEL: "web"}));
    assert_eq!(
        json!(leader.owner_references()),
        json!([{
            "apiVersion": "v1", "kind": "Service", "name": "web", "uid": web.uid().unwrap(),
            "controller": true,
        }])
    );
    let spec = leader.spec.clone().unwrap();
    assert_eq!(spec.selector, None);
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(
        json!(spec.ports),
        json!([{
            "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http",
            "appProtocol": "kubernetes.io/h2c",
        }])
    );
    let own_ip = spec.cluster_ip.unwrap();
    assert_ne!(Some(own_ip.as_str()), web.spec.unwrap().cluster_ip.as_deref());
    assert_ne!(own_ip, "None");
    assert_eq!(annotation(&leader, "example.com/note"), "");
    let keys: Vec<&String> = leader.annotations().keys().collect();
    assert!(keys.iter().all(|k| k.starts_with(names::PREFIX)), "{keys:?}");
}

async fn slice_is_complete(t: Arc<Case>) {
    let before = Timestamp::now();
    let patch = json!({"spec": {"ports": [{
        "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http",
        "appProtocol": "kubernetes.io/h2c",
    }]}});
    t.create(&source("web", &patch)).await;
    let pods = t.ready_pods("web", &["a"]).await;
    let slice = t.until_led_by("web-leader", "a").await;

    assert_eq!(slice.name_any(), "web-leader-zen-lead-ipv4");
    assert_eq!(slice.address_type, "IPv4");
    let leader = t.services().get("web-leader").await.unwrap();
    assert_eq!(
        json!(slice.owner_references()),
        json!([{
            "apiVersion": "v1", "kind": "Service", "name": "web-leader",
            "uid": leader.uid().unwrap(), "controller": true,
        }])
    );
    assert_eq!(
        json!(slice.labels()),
        json!({
            names::SERVICE_NAME: "web-leader",
            names::SLICE_MANAGED_BY: "zen-lead",
            names::MANAGED_BY: "zen-lead",
            names::SOURCE_LABEL: "web",
        })
    );
    let address = pods[0].status.clone().unwrap().pod_ip.unwrap();
    assert_eq!(
        json!(slice.endpoints),
        json!([{
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "hollow",
            "zone": "hollow-zone",
            "targetRef": {
                "kind": "Pod", "namespace": t.ns, "name": "a", "uid": pods[0].uid().unwrap(),
            },
        }])
    );
    assert_eq!(
        json!(slice.ports),
        json!([{
            "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c",
        }])
    );
    let get = |key| annotation(&slice, key);
    assert_eq!(get(names::POD_NAME), "a");
    assert_eq!(get(names::POD_UID), pods[0].uid().unwrap());
    assert_eq!(get(names::REASON), "first_leader");
    assert!(["zl-0", "zl-1"].contains(&get("zen-lead.io/writer").as_str()), "{slice:?}");
    assert_eq!(get("zen-lead.io/decision-version"), "1");
    assert!(!get("zen-lead.io/write-id").is_empty());
    let marks = get("zen-lead.io/decided-at");
    assert!(marks.starts_with("services=") && marks.contains(",pods="), "{marks}");
    let switched: Timestamp = get(names::SWITCHED_AT).parse().unwrap();
    assert!(switched >= before && switched <= Timestamp::now(), "{switched}");
    let first = u64::try_from(before.as_millisecond()).unwrap();
    let last = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
    assert!((first..=last).contains(&epoch(&slice)), "{} not in time", epoch(&slice));
    let trigger: Timestamp =
        get("endpoints.kubernetes.io/last-change-trigger-time").parse().unwrap();
    assert!(trigger <= Timestamp::now(), "{trigger}");
}

async fn mirror_repeats_the_slice(t: Arc<Case>) {
    t.web(&[(names::MIN_READY, "0s"), (names::PORTS_MODE, "partial")]).await;
    t.ready_pods("web", &["a", "b"]).await;
    let slice = t.until_led_by("web-leader", "a").await;
    t.until_message("web-leader", "a leads; b: standby").await;
    let leader = t.services().get("web-leader").await.unwrap();
    for key in [names::POD_NAME, names::POD_UID, names::EPOCH, names::SWITCHED_AT, names::REASON] {
        assert_ne!(annotation(&slice, key), "", "{key}");
        assert_eq!(annotation(&leader, key), annotation(&slice, key), "{key}");
    }
    assert_eq!(annotation(&leader, names::CURRENT), format!("{}/a", t.ns));
    let settings: Value =
        serde_json::from_str(&annotation(&leader, "zen-lead.io/effective-settings")).unwrap();
    assert_eq!(
        settings,
        json!({
            "leader-service-name": "web-leader", "strategy": "oldest-ready", "sticky": true,
            "min-ready-duration": "0s", "failover-min-delay": "0s", "ports-mode": "partial",
            "leader-type": "ClusterIP", "copy-annotations": [], "copy-labels": [],
            "same-leader-as": "",
        })
    );
}

async fn kubectl_wait_sees_the_leader(t: Arc<Case>) {
    t.web(&[]).await;
    t.ready_pods("web", &["a"]).await;
    let wait =
        ["wait", "--for=condition=zen-lead.io/LeaderReady", "service/web-leader", "--timeout=60s"];
    t.until_led_by("web-leader", "a").await;
    let said = t.kubectl(As::Alice, &wait, None).await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "service/web-leader condition met\n"),
        "{said:?}"
    );
}

async fn admission_writes_the_default_name_down(t: Arc<Case>) {
    let web = t.web(&[]).await;
    assert_eq!(annotation(&web, names::LEADER_NAME), "web-leader");
    let named = t
        .create(&source(
            "db",
            &json!({"metadata": {"annotations": {names::LEADER_NAME: "primary"}}}),
        ))
        .await;
    assert_eq!(annotation(&named, names::LEADER_NAME), "primary");
    let off = t
        .create(&source("off", &json!({"metadata": {"annotations": {names::ENABLED: "false"}}})))
        .await;
    assert_eq!(annotation(&off, names::LEADER_NAME), "");
}

async fn oldest_ready_pod_leads(t: Arc<Case>) {
    t.pod(hollow("z", "web").not_ready()).await;
    let first = t.pod(hollow("y", "web")).await;
    // creationTimestamp has whole seconds: the next pod must be younger, not first by name.
    until("a second has passed", || async {
        let created = first.creation_timestamp().unwrap().0;
        check(Timestamp::now().as_second() > created.as_second(), "not yet")
    })
    .await;
    t.pod(hollow("a", "web")).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "y").await;
    t.until_message("web-leader", "y leads; a: standby; z: not Ready").await;
}

async fn pods_may_come_before_or_after_the_service(t: Arc<Case>) {
    t.ready_pods("before", &["b"]).await;
    t.create(&source("before", &json!({}))).await;
    t.create(&source("after", &json!({}))).await;
    t.until_led_by("before-leader", "b").await;
    t.until_routed("after-leader", &[]).await;
    t.ready_pods("after", &["a"]).await;
    t.until_led_by("after-leader", "a").await;
}

async fn without_pods_no_pod_is_routed(t: Arc<Case>) {
    t.web(&[]).await;
    let slice = t.until_routed("web-leader", &[]).await;
    assert_eq!(annotation(&slice, names::POD_UID), "");
    let message = t.until_condition("web-leader", "False", "NoPodsFound").await;
    assert_eq!(message, "the selector matches no pod");
    assert_eq!(t.until_event("web-leader", "NoPodsFound").await, message);
}

async fn without_ready_pods_no_pod_is_routed(t: Arc<Case>) {
    t.pod(hollow("a", "web").not_ready()).await;
    t.pod(hollow("b", "web")).await;
    t.set_phase("b", "Succeeded").await;
    t.web(&[]).await;
    t.until_routed("web-leader", &[]).await;
    let message = t.until_condition("web-leader", "False", "NoReadyPods").await;
    assert_eq!(message, "a: not Ready; b: finished");
}

async fn pods_of_other_namespaces_never_lead(t: Arc<Case>) {
    let other = t.outside().await;
    other.ready_pods("web", &["a"]).await;
    let recorder = t.record().await;
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    t.ready_pods("web", &["b"]).await;
    t.until_led_by("web-leader", "b").await;
    assert_eq!(recorder.finish().await.leaders("web-leader"), ["b"]);
}

async fn plain_services_get_nothing(t: Arc<Case>) {
    let plain = json!({"metadata": {"annotations": {names::ENABLED: null}}});
    t.create(&source("plain", &plain)).await;
    t.ready_pods("plain", &["a"]).await;
    let off = json!({"metadata": {"annotations": {names::ENABLED: "false"}}});
    t.create(&source("off", &off)).await;
    // This proves that zen-lead has seen everything before.
    t.web(&[]).await;
    t.ready_pods("web", &["w"]).await;
    t.until_led_by("web-leader", "w").await;
    let services = t.services().list(&ListParams::default()).await.unwrap().items;
    let mut all: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
    all.sort();
    assert_eq!(all, ["off", "plain", "web", "web-leader"]);
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = t.slices();
    let ours = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=zen-lead");
    for slice in slices.list(&ours).await.unwrap() {
        assert_eq!(slice.labels()[names::SERVICE_NAME], "web-leader", "{:?}", routed(&slice));
    }
}
