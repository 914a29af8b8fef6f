//! What users see: kubectl wait, Events, metrics, probes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::case::{Case, epoch};
use crate::support::exposition::parse;
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::promtool;
use crate::support::traffic::ask;
use crate::support::waiting::{check, until};

tests![
    kubectl_wait_waits_for_a_leader,
    every_switch_has_one_event,
    metrics_pass_promtool,
    replicas_are_ready_and_miss_nothing,
];

async fn kubectl_wait_waits_for_a_leader(t: Arc<Case>) {
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    // It starts before there is a leader, and ends when there is one.
    let args =
        ["wait", "--for=condition=zen-lead.io/LeaderReady", "service/web-leader", "--timeout=60s"];
    let early =
        ["wait", "--for=condition=zen-lead.io/LeaderReady", "service/web-leader", "--timeout=1s"];
    let said = t.kubectl(As::Alice, &early, None).await;
    assert_eq!(said.code, 1, "there is no leader yet: {said:?}");
    let (said, _) = tokio::join!(t.kubectl(As::Alice, &args, None), t.app("web", 2, &[]));
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "service/web-leader condition met\n"),
        "{said:?}"
    );
    t.until_leader("web-leader", "").await;
}

async fn every_switch_has_one_event(t: Arc<Case>) {
    t.app("web", 2, &[]).await;
    t.web(&[]).await;
    let mut leader = t.until_leader("web-leader", "").await;
    let mut epochs = BTreeSet::new();
    for _ in 0..4 {
        t.until_ready_pods("web", 2).await;
        epochs.insert(epoch(&t.slice("web-leader", "IPv4").await.unwrap()));
        // The mirror belongs to this epoch before the next one begins.
        until("the mirror has the epoch", || async {
            let found = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
            check(epochs.last() == Some(&epoch(&found)), format!("{}", epoch(&found)))
        })
        .await;
        t.set_ready_in_pod(&leader, false).await;
        let next = t.until_leader("web-leader", &leader).await;
        t.set_ready_in_pod(&leader, true).await;
        leader = next;
    }
    epochs.insert(epoch(&t.slice("web-leader", "IPv4").await.unwrap()));
    assert_eq!(epochs.len(), 5);
    let uid = t.services().get("web-leader").await.unwrap().uid().unwrap();
    let wanted: BTreeSet<String> = epochs.iter().map(|e| format!("{uid}.{e}")).collect();
    let changed = || async {
        let events = t.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let of_switches =
            events.into_iter().filter(|e| e.reason.as_deref() == Some("LeaderChanged"));
        of_switches.collect::<Vec<_>>()
    };
    until("an event for each epoch", || async {
        let found = changed().await.len();
        check(found >= wanted.len(), format!("{found} of {}", wanted.len()))
    })
    .await;
    let events = changed().await;
    let found: BTreeSet<String> = events.iter().map(ResourceExt::name_any).collect();
    assert_eq!(found, wanted);
    assert_eq!(events.len(), wanted.len());
    let last = events.iter().find(|e| Some(&e.name_any()) == wanted.last()).unwrap();
    let note = last.note.as_deref().unwrap();
    assert!(note.contains(&format!(" to {leader} (pod_not_ready), epoch ")), "{note}");
}

/// Every replica's admin address.
async fn replicas(t: &Case) -> Vec<SocketAddr> {
    let pods = t.world.product.pods().await;
    let ips = pods.into_iter().map(|p| p.status.unwrap().pod_ip.unwrap().parse().unwrap());
    let all: Vec<_> = ips.map(|ip| SocketAddr::new(ip, 8080)).collect();
    assert_eq!(all.len(), 2);
    all
}

async fn metrics_pass_promtool(t: Arc<Case>) {
    t.app("web", 1, &[]).await;
    t.web(&[]).await;
    t.until_leader("web-leader", "").await;
    let mut switches = 0.0;
    for at in replicas(&t).await {
        // Both replicas know the Service, the one that did not write a moment later.
        let epoch = format!("zen_lead_leader_epoch{{namespace=\"{}\",service=\"web\"}} ", t.ns);
        let text = until(format!("{at} has an epoch of it"), || async {
            let text = ask(at, "GET", "/metrics").await.map_err(|e| format!("{e:?}"))?;
            check(text.lines().any(|line| line.starts_with(&epoch)), "none yet").map(|()| text)
        })
        .await;
        let promtool = std::env::var("PROMTOOL").expect("the cluster brings promtool");
        // `ask` drops the end of the last line.
        let text = format!("{text}\n");
        promtool::passes(Path::new(&promtool), &text);
        let found = parse(&text).unwrap();
        let about = [("namespace", t.ns.as_str())];
        switches += found.value("zen_lead_failover_count_total", &about).unwrap_or_default();
    }
    assert!((switches - 1.0).abs() < f64::EPSILON, "one replica made the one switch: {switches}");
}

async fn replicas_are_ready_and_miss_nothing(t: Arc<Case>) {
    for at in replicas(&t).await {
        let ready: Value = serde_json::from_str(&ask(at, "GET", "/readyz").await.unwrap()).unwrap();
        assert_eq!(ready, json!({"ready": true, "missing": [], "draining": false}));
        ask(at, "GET", "/livez").await.unwrap();
    }
}
