//! Settings about time: sticky, min-ready-duration, failover-min-delay; and rollouts.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::case::{Case, Routed, annotation, epoch, routed};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{self, hollow};
use crate::support::waiting::{check, until};

tests![
    sticky_leader_stays_when_a_better_one_returns,
    without_sticky_the_first_in_order_returns,
    rolling_update_costs_one_switch,
    min_ready_duration_promotes_by_itself,
    min_ready_duration_is_not_asked_of_the_incumbent,
    failover_min_delay_holds_and_then_fires,
    failover_min_delay_ends_when_the_leader_recovers,
    failover_min_delay_does_not_keep_deleted_leaders,
    failover_min_delay_does_not_keep_finished_leaders,
];

fn switched(object: &impl ResourceExt) -> Timestamp {
    annotation(object, names::SWITCHED_AT).parse().unwrap()
}

async fn sticky_leader_stays_when_a_better_one_returns(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    let led = t.until_led_by("web-leader", "b").await;
    t.set_ready("a", true).await;
    t.until_message("web-leader", "b leads; a: standby").await;
    let slice = t.until_led_by("web-leader", "b").await;
    assert_eq!(epoch(&slice), epoch(&led));
}

async fn without_sticky_the_first_in_order_returns(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[(names::STICKY, "false")]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    t.set_ready("a", true).await;
    let slice = t.until_led_by("web-leader", "a").await;
    assert_eq!(annotation(&slice, names::REASON), "preferred");
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b", "a"]);
}

/// Acts as the kubelet of the node hollow for a namespace: pods become Ready 300 ms after they were
/// first seen, and end 300 ms after their deletion.
async fn kubelet(t: Arc<Case>) {
    let pods = t.pods();
    loop {
        for pod in pods.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default() {
            let name = pod.name_any();
            let t = t.clone();
            if pod.metadata.deletion_timestamp.is_some() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                t.vanish(&name).await;
            } else if pod.status.and_then(|s| s.pod_ip).is_none() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let (v4, _) = t.world.next_addresses();
                t.write_status(&name, &objects::status(true, &[v4])).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn rolling_update_costs_one_switch(t: Arc<Case>) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "nodeName": "hollow",
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "app", "image": "none"}],
                },
            },
        },
    }))
    .unwrap();
    let deployments: Api<Deployment> = t.api();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let kubelet = tokio::spawn(kubelet(t.clone()));
    t.web(&[]).await;
    let rolled_out = |generation: i64| {
        let deployments = deployments.clone();
        until(format!("generation {generation} is rolled out"), move || {
            let deployments = deployments.clone();
            async move {
                let now = deployments.get("web").await.map_err(|e| e.to_string())?;
                let status = now.status.unwrap_or_default();
                let done = status.observed_generation >= Some(generation)
                    && [status.replicas, status.updated_replicas, status.available_replicas]
                        == [Some(3); 3];
                check(done, format!("{status:?}"))
            }
        })
    };
    rolled_out(1).await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    let old = t.slice("web-leader", "IPv4").await.unwrap();
    let old = routed(&old)[0].pod.clone();

    let recorder = t.record().await;
    let next = json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(next)).await.unwrap();
    rolled_out(2).await;
    let new = until("the old pods are gone, and one of the new ones leads", || async {
        let pods = t.pods().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        check(pods.items.len() == 3, format!("{} pods", pods.items.len()))?;
        let led = routed(&t.slice("web-leader", "IPv4").await?);
        let new = led.iter().find(|r| r.ready && pods.iter().any(|p| p.name_any() == r.pod));
        new.map(|r| r.pod.clone()).ok_or_else(|| format!("{led:?}"))
    })
    .await;
    kubelet.abort();
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), [old, new], "more than one switch");
}

async fn min_ready_duration_promotes_by_itself(t: Arc<Case>) {
    t.web(&[(names::MIN_READY, "15s")]).await;
    let pod = t.pod(hollow("a", "web")).await;
    let conditions = pod.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    let ready_at = ready.last_transition_time.clone().unwrap().0;
    // Whether it is too early depends on the clock of the replica; the pod itself is on standby.
    let waiting = "waiting for failover-min-delay or min-ready-duration; a: standby";
    t.until_message("web-leader", waiting).await;
    t.until_routed("web-leader", &[]).await;
    // Nothing happens to the pod any more.
    let slice = t.until_led_by("web-leader", "a").await;
    let waited = switched(&slice).duration_since(ready_at);
    assert!(waited >= SignedDuration::from_secs(15), "after {waited:?}");
}

async fn min_ready_duration_is_not_asked_of_the_incumbent(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    t.patch_service("web", &objects::annotations(&[(names::MIN_READY, "1h")])).await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    t.set_ready("a", true).await;
    let after = t.until_led_by("web-leader", "a").await;
    assert_eq!(epoch(&after), epoch(&before));
}

async fn failover_min_delay_holds_and_then_fires(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[(names::FAILOVER_DELAY, "15s")]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    let held = t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    let since: Timestamp = annotation(&held, "zen-lead.io/not-ready-since").parse().unwrap();
    let message = t.until_condition("web-leader", "False", "NoReadyPods").await;
    assert_eq!(
        message,
        "waiting for failover-min-delay or min-ready-duration; a: not Ready; b: standby"
    );
    let slice = t.until_led_by("web-leader", "b").await;
    let waited = switched(&slice).duration_since(since);
    assert!(waited >= SignedDuration::from_secs(15), "after {waited:?}");
    assert_eq!(annotation(&slice, names::REASON), "pod_not_ready");
    assert_eq!(annotation(&slice, "zen-lead.io/not-ready-since"), "");
    let history = recorder.finish().await;
    history.holds("web-leader");
    let states = history.states("web-leader", "IPv4");
    assert_eq!(states, [[Routed::ready("a")], [Routed::not_ready("a")], [Routed::ready("b")]],);
}

async fn failover_min_delay_ends_when_the_leader_recovers(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[(names::FAILOVER_DELAY, "1h")]).await;
    let before = t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    t.set_ready("a", true).await;
    let after = t.until_led_by("web-leader", "a").await;
    assert_eq!(epoch(&after), epoch(&before));
    assert_eq!(annotation(&after, "zen-lead.io/not-ready-since"), "");
}

async fn failover_min_delay_does_not_keep_deleted_leaders(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[(names::FAILOVER_DELAY, "1h")]).await;
    t.until_led_by("web-leader", "a").await;
    t.terminate("a").await;
    t.until_led_by("web-leader", "b").await;
    t.vanish("b").await;
    t.until_led_by("web-leader", "c").await;
}

async fn failover_min_delay_does_not_keep_finished_leaders(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[(names::FAILOVER_DELAY, "1h")]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_phase("a", "Failed").await;
    t.until_led_by("web-leader", "b").await;
}
