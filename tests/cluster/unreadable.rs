//! Odd values of other writers in the status of a Service or a pod, which zen-lead does not need, cost no
//! leader: not at a restart, and not at the next loss.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::case::Case;
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;

tests![conditions_without_a_time_are_not_read, times_that_cannot_be_read_do_not_matter];

/// A condition without lastTransitionTime, by kubectl as any controller may write it: the API server
/// keeps it with null.
async fn odd_condition(t: &Case, service: &str) {
    let url = format!("/api/v1/namespaces/{}/services/{service}", t.ns);
    let now: Value = serde_json::from_str(&raw(t, &url).await).unwrap();
    let mut conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.push(json!({
        "type": "x.example/Ready", "status": "True", "reason": "", "message": "",
    }));
    let patch = json!({"status": {"conditions": conditions}}).to_string();
    let args = ["patch", "svc", service, "--subresource=status", "--type=merge", "-p", &patch];
    let said = t.kubectl(As::Admin, &args, None).await;
    assert_eq!(said.code, 0, "{said:?}");
    let kept: Value = serde_json::from_str(&raw(t, &url).await).unwrap();
    let kept = kept["status"]["conditions"].as_array().unwrap().clone();
    let odd = kept.iter().find(|c| c["type"] == "x.example/Ready").unwrap();
    assert_eq!(odd["lastTransitionTime"], Value::Null, "{odd}");
}

/// The object as the API server sends it: the types of this test would not read it.
async fn raw(t: &Case, path: &str) -> String {
    let said = t.kubectl(As::Admin, &["get", "--raw", path], None).await;
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// Deletes a pod at once, by kubectl for the same reason.
async fn remove(t: &Case, pod: &str) {
    let args = ["delete", "pod", pod, "--grace-period=0", "--force"];
    let said = t.kubectl(As::Admin, &args, None).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// Replaces one replica after the other, as a rolling upgrade does.
async fn restart(t: &Case) {
    let product = &t.world.product;
    for replica in product.replicas() {
        product.kill(replica);
        product.ensure_started().await;
        product.until_ready(replica).await;
    }
}

async fn conditions_without_a_time_are_not_read(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    let recorder = t.record().await;
    odd_condition(&t, "web").await;
    odd_condition(&t, "web-leader").await;
    restart(&t).await;
    // Through the webhook: admission reads it too.
    let patch = json!({"metadata": {"annotations": {(names::STICKY): "true"}}}).to_string();
    let said = t.kubectl(As::Admin, &["patch", "svc", "web", "-p", &patch], None).await;
    assert_eq!(said.code, 0, "{said:?}");
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    restart(&t).await;
    t.vanish("b").await;
    t.until_led_by("web-leader", "c").await;

    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b", "c"]);
}

async fn times_that_cannot_be_read_do_not_matter(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    // The last second that Kubernetes accepts is later than this process can represent.
    for pod in ["a", "b"] {
        let condition = json!({
            "type": "Ready", "status": "True", "lastTransitionTime": "9999-12-31T23:59:59Z",
        });
        let patch = json!({"status": {"conditions": [condition]}}).to_string();
        let args = ["patch", "pod", pod, "--subresource=status", "-p", &patch];
        let said = t.kubectl(As::Admin, &args, None).await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    restart(&t).await;
    remove(&t, "a").await;
    t.until_led_by("web-leader", "b").await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b"]);
    remove(&t, "b").await;
}
