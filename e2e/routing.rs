//! Which pod answers behind a leader Service, on every way in.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::case::{Case, annotation};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, source, source_set};
use crate::support::traffic::{Answers, Load, ask, until_answered};
use crate::support::waiting::{check, until};

tests![
    one_pod_answers_over_both_families,
    node_port_of_a_mirror_reaches_the_leader_only,
    headless_source_gets_a_leader_with_an_address,
    opting_out_under_traffic_spares_the_source,
    renaming_under_traffic_spares_the_source,
];

/// Sends 150 requests at 150 a second.
async fn some(to: SocketAddr) -> Answers {
    let load = Load::start(to, 150);
    load.more(150).await;
    load.finish().await
}

async fn one_pod_answers_over_both_families(t: Arc<Case>) {
    let pods = t.app("web", 3, &[]).await;
    let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    t.create(&source("web", &dual)).await;
    let leader = t.until_leader("web-leader", "").await;
    for v6 in [false, true] {
        let to = t.address("web-leader", v6).await;
        until_answered(to).await;
        some(to).await.assert_only(&leader);
        // The counterexample: the source's own address is shared by all pods, so the test can fail.
        let shared = t.address("web", v6).await;
        until_answered(shared).await;
        let all = some(shared).await;
        assert_eq!(all.pods().len(), pods.len(), "{all}");
    }
}

async fn node_port_of_a_mirror_reaches_the_leader_only(t: Arc<Case>) {
    t.app("web", 3, &[]).await;
    let node_port = json!({"spec": {"type": "NodePort"}});
    t.create(&source("web", &node_port)).await;
    let leader = t.until_leader("web-leader", "").await;
    let plain = t.services().get("web-leader").await.unwrap().spec.unwrap();
    assert_eq!(plain.type_.as_deref(), Some("ClusterIP"), "only a mirror is published");
    assert_eq!(plain.ports.unwrap()[0].node_port, None);

    t.patch_service("web", &annotations(&[(names::LEADER_TYPE, "mirror")])).await;
    let port = until("the mirror has a node port", || async {
        let spec = t.services().get("web-leader").await.map_err(|e| e.to_string())?.spec.unwrap();
        let port = spec.ports.as_ref().unwrap()[0].node_port;
        check(spec.type_.as_deref() == Some("NodePort"), format!("{:?}", spec.type_))?;
        port.ok_or_else(|| "it has none".to_owned())
    })
    .await;
    let of_source =
        t.services().get("web").await.unwrap().spec.unwrap().ports.unwrap()[0].node_port;
    assert_ne!(Some(port), of_source);
    let node: std::net::IpAddr = std::env::var("CLUSTER_NODE_IP").unwrap().parse().unwrap();
    let to = SocketAddr::new(node, u16::try_from(port).unwrap());
    until_answered(to).await;
    some(to).await.assert_only(&leader);
    let shared = SocketAddr::new(node, u16::try_from(of_source.unwrap()).unwrap());
    let all = some(shared).await;
    assert_eq!(all.pods().len(), 3, "{all}");
    assert_eq!(t.leader_now("web-leader").await.as_deref(), Ok(leader.as_str()));
}

async fn headless_source_gets_a_leader_with_an_address(t: Arc<Case>) {
    t.app("web", 3, &[]).await;
    t.create(&source("web", &json!({"spec": {"clusterIP": "None"}}))).await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    // A headless Service has no port translation to copy: the pods are asked on port 80.
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    assert_eq!(slice.ports.unwrap()[0].port, Some(8080));
    until_answered(to).await;
    some(to).await.assert_only(&leader);
}

fn merged(a: &Value, b: &Value) -> Value {
    let mut all = a.clone();
    json_patch::merge(&mut all, b);
    all
}

async fn opting_out_under_traffic_spares_the_source(t: Arc<Case>) {
    let pods = t.app("web", 2, &[]).await;
    t.web(&[]).await;
    let leader = t.until_leader("web-leader", "").await;
    let (to, shared) = (t.address("web-leader", false).await, t.address("web", false).await);
    until_answered(to).await;
    until_answered(shared).await;
    let (led, plain) = (Load::start(to, 50), Load::start(shared, 100));
    led.more(50).await;
    t.patch_service("web", &annotations(&[(names::ENABLED, "false")])).await;
    t.until_gone("web-leader").await;
    until("no pod answers at the old address", || async {
        match ask(to, "GET", "/").await {
            Ok(pod) => Err(format!("{pod} answers")),
            Err(_) => Ok(()),
        }
    })
    .await;
    plain.more(50).await;
    let led = led.finish().await;
    assert!(led.pods().into_iter().eq([leader.as_str()]), "{led}");
    let plain = plain.finish().await;
    assert!(plain.failures().is_empty() && plain.pods().len() == pods.len(), "{plain}");

    // Opting in again: a new Service, and one pod, the same or another, leads alone.
    t.patch_service("web", &annotations(&[(names::ENABLED, "true")])).await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    until_answered(to).await;
    some(to).await.assert_only(&leader);
}

async fn renaming_under_traffic_spares_the_source(t: Arc<Case>) {
    let pods = t.app("web", 2, &[]).await;
    let web = t.create(&source_set("web", &[(names::LEADER_NAME, "primary")])).await;
    assert_eq!(annotation(&web, names::LEADER_NAME), "primary");
    let leader = t.until_leader("primary", "").await;
    let shared = t.address("web", false).await;
    until_answered(shared).await;
    let plain = Load::start(shared, 100);
    let name = annotations(&[(names::LEADER_NAME, "main")]);
    let labels = json!({"metadata": {"labels": {"renamed": "yes"}}});
    t.patch_service("web", &merged(&name, &labels)).await;
    let after = t.until_leader("main", "").await;
    t.until_gone("primary").await;
    plain.more(50).await;
    let plain = plain.finish().await;
    assert!(plain.failures().is_empty() && plain.pods().len() == pods.len(), "{plain}");
    let to = t.address("main", false).await;
    until_answered(to).await;
    some(to).await.assert_only(&after);
    // The new leader Service has no history, but the oldest pod is still the oldest.
    assert_eq!(after, leader);
    let owner = t.services().get("main").await.unwrap();
    assert_eq!(owner.owner_references()[0].uid, web.uid().unwrap());
}
