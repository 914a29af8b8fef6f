//! Input 9: a mirrored load balancer whose source asks for something else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Input, listed};
use crate::clumsy::moves::Who;
use crate::clumsy::raw::{LEADER, WEB};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;

pub fn tests() -> Vec<Test> {
    listed![a_mirror_with_source_ranges_becomes_a_cluster_ip]
}

pub fn alone() -> Vec<Test> {
    listed![a_class_changed_in_quick_succession_is_followed]
}

/// Waits until the spec of the leader Service has these values.
async fn becomes(input: &mut Input, wanted: &[(&str, Value)]) {
    let began = Instant::now();
    loop {
        let leader = input.ground.admin.get(LEADER).await.unwrap().unwrap_or_default();
        let spec = &leader["spec"];
        if wanted.iter().all(|(field, value)| spec[field] == *value) {
            return;
        }
        if began.elapsed() > Duration::from_secs(10) {
            let now: Vec<String> =
                wanted.iter().map(|(field, _)| format!("{field}={}", spec[field])).collect();
            return input.unless(false, format!("the leader Service still has {}", now.join(" ")));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn mirror(spec: &Value) -> Value {
    json!({"metadata": {"annotations": {names::LEADER_TYPE: "mirror"}}, "spec": spec})
}

async fn a_mirror_with_source_ranges_becomes_a_cluster_ip(t: Arc<Case>) {
    let source = mirror(&json!({
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }));
    let mut input = Input::led(&t, &source).await;
    let patch = json!({"metadata": {"annotations": {names::LEADER_TYPE: "ClusterIP"}}});
    input.ground.hand(Who::Alice).merge(WEB, &patch).await.unwrap();
    becomes(&mut input, &[("type", json!("ClusterIP")), ("loadBalancerSourceRanges", Value::Null)])
        .await;
    input.is_quiet().await;
    // Other drift is repaired too.
    let drift = json!({"spec": {"sessionAffinity": "ClientIP"}});
    input.ground.hand(Who::Alice).merge(LEADER, &drift).await.unwrap();
    becomes(&mut input, &[("sessionAffinity", json!("None"))]).await;
    input.follows_a_loss().await;
    input.reports_agree().await;
    input.passes().await;
}

async fn a_class_changed_in_quick_succession_is_followed(t: Arc<Case>) {
    let class = |name: &str| json!({"type": "LoadBalancer", "loadBalancerClass": name});
    t.world.product.ensure_started().await;
    // Outside of the webhooks: no replica answers during the two changes.
    let t = Arc::new(t.outside().await);
    let mut input = Input::led(&t, &mirror(&class("example.com/one"))).await;
    for replica in t.world.product.replicas() {
        t.world.product.signal(replica, "STOP");
    }
    let away = json!({"type": "ClusterIP", "loadBalancerClass": null});
    for spec in [away, class("example.com/two")] {
        input.ground.hand(Who::Alice).merge(WEB, &json!({"spec": spec})).await.unwrap();
    }
    for replica in t.world.product.replicas() {
        t.world.product.signal(replica, "CONT");
    }
    let wanted = [("type", json!("LoadBalancer")), ("loadBalancerClass", json!("example.com/two"))];
    becomes(&mut input, &wanted).await;
    input.is_quiet().await;
    input.follows_a_loss().await;
    input.reports_agree().await;
    input.passes().await;
}
