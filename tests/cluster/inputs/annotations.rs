//! Inputs 8 and 12: annotations and labels that controllers write, and those that have to be copied.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Input, listed};
use crate::clumsy::moves::Who;
use crate::clumsy::raw::{self, LEADER, SLICE, WEB};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

pub fn tests() -> Vec<Test> {
    listed![
        annotations_of_load_balancer_controllers_stop_no_failover,
        words_in_values_of_strangers_steer_nothing,
        the_proxy_name_is_on_the_slice_as_well,
        a_cluster_ip_leader_gets_the_copied_annotations,
        a_cluster_ip_leader_gets_the_copied_labels,
    ]
}

/// The mirrored load balancer of the inputs.
fn mirror() -> Value {
    json!({
        "metadata": {"annotations": {names::LEADER_TYPE: "mirror"}},
        "spec": {"type": "LoadBalancer"},
    })
}

/// A controller writes these while p1 leads; then p1 is lost, and alice changes a setting.
async fn written(t: Arc<Case>, all: &[(&str, &str)]) {
    let mut input = Input::led(&t, &mirror()).await;
    let all: serde_json::Map<String, Value> =
        all.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let patch = json!({"metadata": {"annotations": all}});
    input.ground.hand(Who::Robot).merge(WEB, &patch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    input.never_emptied();
    input.follows_a_loss().await;
    input.reports_agree().await;
    let setting = json!({"metadata": {"annotations": {names::STICKY: "false"}}});
    let changed = input.ground.hand(Who::Alice).merge(WEB, &setting).await;
    input.unless(changed.is_ok(), format!("a later change is refused: {changed:?}"));
    input.is_quiet().await;
    input.passes().await;
}

/// Input 8.
async fn annotations_of_load_balancer_controllers_stop_no_failover(t: Arc<Case>) {
    let all = [
        ("kubernetes.digitalocean.com/load-balancer-id", "4de7ac8b-495b-4884-9a69-1050c6793cd6"),
        ("loadbalancer.openstack.org/load-balancer-id", "8f2b1c4e"),
        ("service.beta.kubernetes.io/scw-loadbalancer-id", "fr-par-1/11111111"),
        ("kube-vip.io/loadbalancerIPs", "192.0.2.10"),
        ("service.kubernetes.io/tcp-forwarding-rule-ipv6", "k8s2-tcp-x"),
    ];
    written(t, &all).await;
}

/// Input 8.
async fn words_in_values_of_strangers_steer_nothing(t: Arc<Case>) {
    let all = [("meta.helm.sh/release-name", "internal"), ("example.com/team", "private")];
    written(t, &all).await;
}

/// Input 12.
async fn the_proxy_name_is_on_the_slice_as_well(t: Arc<Case>) {
    let source = json!({"metadata": {"labels": {PROXY_NAME: "other-proxy"}}});
    let mut input = Input::led(&t, &source).await;
    for on in [LEADER, SLICE] {
        let object = input.ground.admin.get(on).await.unwrap().unwrap();
        let value = raw::label(&object, PROXY_NAME).to_owned();
        input.unless(value == "other-proxy", format!("{on} has {PROXY_NAME}={value:?}"));
    }
    input.passes().await;
}

/// Input 12.
async fn a_cluster_ip_leader_gets_the_copied_annotations(t: Arc<Case>) {
    let source = json!({"metadata": {"annotations": {
        names::COPY: "mesh.example.com/inject, example.com/team",
        "mesh.example.com/inject": "true", "example.com/team": "blue",
    }}});
    let mut input = Input::led(&t, &source).await;
    let leader = input.ground.admin.get(LEADER).await.unwrap().unwrap();
    for (key, wanted) in [("mesh.example.com/inject", "true"), ("example.com/team", "blue")] {
        let value = raw::annotation(&leader, key).to_owned();
        input.unless(value == wanted, format!("the leader Service has {key}={value:?}"));
    }
    input.passes().await;
}

/// Input 12: labels that a policy requires.
async fn a_cluster_ip_leader_gets_the_copied_labels(t: Arc<Case>) {
    let mut input = Input::bare(&t).await;
    let source = json!({"metadata": {
        "annotations": {"zen-lead.io/copy-labels": "team"},
        "labels": {"team": "blue"},
    }});
    let made = input.ground.source(&source).await;
    input.unless(made.is_ok(), format!("copy-labels is refused: {:?}", made.err()));
    if input.wrong.is_empty() {
        t.until_led_by("web-leader", "p1").await;
        let leader = input.ground.admin.get(LEADER).await.unwrap().unwrap();
        let value = raw::label(&leader, "team").to_owned();
        input.unless(value == "blue", format!("the leader Service has team={value:?}"));
    }
    input.passes().await;
}
