//! The fields that the leader Service takes from the source, and those that it never takes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;
use serde_json::json;

use crate::support::case::{Case, annotation};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::source;
use crate::support::waiting::{check, until};

tests![
    headless_source_gets_a_cluster_ip_leader,
    node_port_source_gets_a_cluster_ip_leader,
    mirrored_node_port_has_a_port_of_its_own,
    mirrored_load_balancer_keeps_its_class_and_ranges,
    mirror_of_a_cluster_ip_is_a_cluster_ip,
    copied_annotations_follow_the_list,
    affinity_and_traffic_policies_are_taken_over,
    service_proxy_name_is_taken_over,
    addresses_of_the_source_are_never_copied,
    changes_of_the_source_are_followed,
    a_balancer_with_source_ranges_becomes_a_cluster_ip,
    another_class_is_followed_by_way_of_a_cluster_ip,
    what_a_cloud_writes_on_the_source_keeps_no_pod_from_leading,
    two_sources_share_a_leader,
];

async fn leader(t: &Case) -> Service {
    t.until_led_by("web-leader", "a").await;
    t.services().get("web-leader").await.unwrap()
}

async fn until_leader(t: &Case, what: &str, holds: fn(&ServiceSpec) -> bool) {
    until(what, || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let spec = leader.spec.unwrap();
        check(holds(&spec), format!("{spec:?}"))
    })
    .await;
}

async fn headless_source_gets_a_cluster_ip_leader(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &json!({"spec": {"clusterIP": "None"}}))).await;
    let spec = leader(&t).await.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    let ip = spec.cluster_ip.unwrap();
    assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip}");
}

async fn node_port_source_gets_a_cluster_ip_leader(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Local"}});
    let web = t.create(&source("web", &web)).await;
    assert!(web.spec.unwrap().ports.unwrap()[0].node_port.is_some());
    let spec = leader(&t).await.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(spec.ports.unwrap()[0].node_port, None);
    assert_eq!(spec.external_traffic_policy, None);
}

async fn mirrored_node_port_has_a_port_of_its_own(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({
        "metadata": {"annotations": {names::LEADER_TYPE: "mirror"}},
        "spec": {"type": "NodePort", "externalTrafficPolicy": "Local"},
    });
    let web = t.create(&source("web", &web)).await;
    let first = leader(&t).await;
    let spec = first.spec.clone().unwrap();
    assert_eq!(spec.type_.as_deref(), Some("NodePort"));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    let own = spec.ports.unwrap()[0].node_port;
    assert!(own.is_some());
    assert_ne!(own, web.spec.unwrap().ports.unwrap()[0].node_port);
    // The number stays when something else about the port changes.
    let ports = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8090}]}});
    t.patch_service("web", &ports).await;
    until_leader(&t, "the target port is followed", |spec| {
        json!(spec.ports.as_ref().unwrap()[0].target_port) == json!(8090)
    })
    .await;
    let after = t.services().get("web-leader").await.unwrap();
    assert_eq!(after.uid(), first.uid());
    assert_eq!(after.spec.unwrap().ports.unwrap()[0].node_port, own);
}

async fn mirrored_load_balancer_keeps_its_class_and_ranges(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({
        "metadata": {"annotations": {
            names::LEADER_TYPE: "mirror",
            names::COPY: "service.beta.kubernetes.io/aws-load-balancer-internal",
            "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
            "example.com/note": "not named",
        }},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "allocateLoadBalancerNodePorts": false,
            "externalTrafficPolicy": "Local",
        },
    });
    let web = t.create(&source("web", &web)).await;
    let leader = leader(&t).await;
    let spec = leader.spec.clone().unwrap();
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(spec.load_balancer_class.as_deref(), Some("example.com/lb"));
    assert_eq!(spec.load_balancer_source_ranges.unwrap(), ["192.0.2.0/24"]);
    assert_eq!(spec.allocate_load_balancer_node_ports, Some(false));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    let source_spec = web.spec.unwrap();
    assert!(source_spec.health_check_node_port.is_some());
    assert_ne!(spec.health_check_node_port, source_spec.health_check_node_port);
    let internal = "service.beta.kubernetes.io/aws-load-balancer-internal";
    assert_eq!(annotation(&leader, internal), "true");
    assert_eq!(annotation(&leader, "example.com/note"), "");
}

async fn mirror_of_a_cluster_ip_is_a_cluster_ip(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[(names::LEADER_TYPE, "mirror")]).await;
    assert_eq!(leader(&t).await.spec.unwrap().type_.as_deref(), Some("ClusterIP"));
}

async fn copied_annotations_follow_the_list(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({
        "metadata": {"annotations": {
            names::LEADER_TYPE: "mirror",
            names::COPY: "example.com/one,example.com/two",
            "example.com/one": "1",
            "example.com/two": "2",
        }},
        "spec": {"type": "NodePort"},
    });
    t.create(&source("web", &web)).await;
    let first = leader(&t).await;
    assert_eq!(annotation(&first, "example.com/one"), "1");
    assert_eq!(annotation(&first, "example.com/two"), "2");
    // Additions of others to the leader Service stay.
    t.patch_service("web-leader", &json!({"metadata": {"annotations": {"example.com/own": "x"}}}))
        .await;
    let patch = json!({"metadata": {"annotations": {
        names::COPY: "example.com/two,-example.com/one", "example.com/two": "22",
    }}});
    t.patch_service("web", &patch).await;
    until("the copies follow", || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let now = ["one", "two", "own"].map(|k| annotation(&leader, &format!("example.com/{k}")));
        check(now == ["", "22", "x"], format!("{now:?}"))
    })
    .await;
}

async fn affinity_and_traffic_policies_are_taken_over(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({"spec": {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}},
        "internalTrafficPolicy": "Local",
    }});
    t.create(&source("web", &web)).await;
    let spec = leader(&t).await.spec.unwrap();
    assert_eq!(spec.session_affinity.as_deref(), Some("ClientIP"));
    assert_eq!(json!(spec.session_affinity_config), json!({"clientIP": {"timeoutSeconds": 77}}));
    assert_eq!(spec.internal_traffic_policy.as_deref(), Some("Local"));
    let back = json!({"spec": {
        "sessionAffinity": "None", "sessionAffinityConfig": null, "internalTrafficPolicy": "Cluster",
    }});
    t.patch_service("web", &back).await;
    until_leader(&t, "affinity and policy are followed back", |spec| {
        spec.session_affinity.as_deref() == Some("None")
            && spec.session_affinity_config.is_none()
            && spec.internal_traffic_policy.as_deref() == Some("Cluster")
    })
    .await;
}

async fn service_proxy_name_is_taken_over(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let proxy = "service.kubernetes.io/service-proxy-name";
    let web = json!({"metadata": {"labels": {proxy: "mesh", "team": "blue"}}});
    t.create(&source("web", &web)).await;
    let leader = leader(&t).await;
    assert_eq!(leader.labels().get(proxy).map(String::as_str), Some("mesh"));
    assert_eq!(leader.labels().get("team"), None);
    let slice = t.slices().get("web-leader-zen-lead-ipv4").await.unwrap();
    assert_eq!(slice.labels().get(proxy).map(String::as_str), Some("mesh"));
}

async fn addresses_of_the_source_are_never_copied(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let web = json!({"spec": {
        "externalIPs": ["198.51.100.7"], "publishNotReadyAddresses": true,
    }});
    let web = t.create(&source("web", &web)).await;
    let spec = leader(&t).await.spec.unwrap();
    assert_eq!(spec.external_ips, None);
    assert_eq!(spec.publish_not_ready_addresses, None);
    assert_ne!(spec.cluster_ip, web.spec.unwrap().cluster_ip);
}

async fn changes_of_the_source_are_followed(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[(names::LEADER_TYPE, "mirror")]).await;
    let first = leader(&t).await;
    t.patch_service("web", &json!({"spec": {"type": "NodePort"}})).await;
    until_leader(&t, "it becomes a NodePort", |spec| spec.type_.as_deref() == Some("NodePort"))
        .await;
    t.patch_service(
        "web",
        &json!({"spec": {"type": "ClusterIP", "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "nodePort": null},
        ]}}),
    )
    .await;
    until_leader(&t, "it becomes a ClusterIP again", |spec| {
        spec.type_.as_deref() == Some("ClusterIP")
            && spec.ports.as_ref().unwrap()[0].node_port.is_none()
    })
    .await;
    let after = leader(&t).await;
    assert_eq!(after.uid(), first.uid(), "changed in place");
    assert_eq!(after.spec.unwrap().cluster_ip, first.spec.unwrap().cluster_ip);
}

/// A mirrored load balancer of a class that no controller here serves.
async fn balancer(t: &Case, class: &str) -> Service {
    t.ready_pods("web", &["a"]).await;
    let web = json!({
        "metadata": {"annotations": {names::LEADER_TYPE: "mirror"}},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": class,
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "externalTrafficPolicy": "Local",
        },
    });
    t.create(&source("web", &web)).await;
    leader(t).await
}

async fn a_balancer_with_source_ranges_becomes_a_cluster_ip(t: Arc<Case>) {
    let first = balancer(&t, "example.com/a").await;
    assert_eq!(first.spec.unwrap().load_balancer_source_ranges.unwrap(), ["192.0.2.0/24"]);
    let plain = json!({"metadata": {"annotations": {names::LEADER_TYPE: "ClusterIP"}}});
    t.patch_service("web", &plain).await;
    until_leader(&t, "it becomes a ClusterIP", |spec| {
        spec.type_.as_deref() == Some("ClusterIP")
            && spec.load_balancer_source_ranges.is_none()
            && spec.load_balancer_class.is_none()
            && spec.external_traffic_policy.is_none()
            && spec.health_check_node_port.is_none()
            && spec.ports.as_ref().unwrap()[0].node_port.is_none()
    })
    .await;
}

async fn another_class_is_followed_by_way_of_a_cluster_ip(t: Arc<Case>) {
    let first = balancer(&t, "example.com/a").await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080, "nodePort": null}]);
    let away = json!({"spec": {
        "type": "ClusterIP", "ports": ports, "loadBalancerSourceRanges": null,
        "loadBalancerClass": null, "externalTrafficPolicy": null,
    }});
    t.patch_service("web", &away).await;
    let back = json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/b"}});
    t.patch_service("web", &back).await;
    until_leader(&t, "it has the other class", |spec| {
        spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref() == Some("example.com/b")
            && spec.load_balancer_source_ranges.is_none()
    })
    .await;
    assert_eq!(leader(&t).await.uid(), first.uid(), "changed in place");
}

async fn what_a_cloud_writes_on_the_source_keeps_no_pod_from_leading(t: Arc<Case>) {
    balancer(&t, "example.com/a").await;
    let written = json!({"metadata": {"annotations": {
        "kubernetes.digitalocean.com/load-balancer-id": "x",
        "cloud.google.com/not-known-yet": "x",
        "meta.helm.sh/release-name": "internal",
    }}});
    t.patch_service("web", &written).await;
    t.ready_pods("web", &["b"]).await;
    t.vanish("a").await;
    t.until_led_by("web-leader", "b").await;
    // Another setting does not change it.
    t.patch_service("web", &json!({"metadata": {"annotations": {names::STICKY: "true"}}})).await;
    until_leader(&t, "it stays published", |spec| spec.type_.as_deref() == Some("LoadBalancer"))
        .await;
}

async fn two_sources_share_a_leader(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let follows = json!({
        "metadata": {"annotations": {"zen-lead.io/same-leader-as": "web"}},
        "spec": {"selector": {"app": "web"}},
    });
    t.create(&source("udp", &follows)).await;
    t.until_led_by("udp-leader", "a").await;
    t.vanish("a").await;
    t.until_led_by("web-leader", "b").await;
    t.until_led_by("udp-leader", "b").await;
}
