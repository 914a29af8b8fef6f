//! While zen-lead is stopped: which writes pass, which are refused, what stays routed, and what a new start
//! catches up with.

use std::sync::Arc;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::case::{Case, epoch, refusal};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, source, source_set};
use crate::support::waiting::{check, until};

tests![
    writes_without_our_keys_pass_while_stopped,
    a_thousand_plain_writes_succeed_while_every_process_is_dead,
    changed_keys_are_refused_naming_the_webhook,
    opting_out_and_deleting_pass_while_stopped,
    last_leader_stays_routed_and_is_replaced_after_the_start,
    changes_made_while_stopped_are_caught_up_with,
    sigterm_ends_with_success_and_the_other_takes_over,
];

/// A led Service, then no replica that serves it.
async fn led_then_stopped(t: &Case) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    t.world.product.stop_all().await;
}

async fn writes_without_our_keys_pass_while_stopped(t: Arc<Case>) {
    led_then_stopped(&t).await;
    t.patch_service("web", &annotations(&[("example.com/note", "x")])).await;
    t.patch_service("web", &json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    t.patch_service("web", &json!({"metadata": {"finalizers": null}})).await;
    t.patch_service("web", &json!({"metadata": {"labels": {"team": "blue"}}})).await;
    t.patch_service("web-leader", &annotations(&[("example.com/note", "x")])).await;
    let plain = json!({"metadata": {"annotations": {names::ENABLED: null}}});
    t.create(&source("plain", &plain)).await;
    t.patch_service("plain", &json!({"spec": {"selector": {"app": "other"}}})).await;
    let status = Patch::Merge(json!({"status": {"conditions": []}}));
    t.services().patch_status("web", &PatchParams::default(), &status).await.unwrap();
}

/// Writes of Services without our keys, at a time and in all.
const AT_ONCE: usize = 8;
const WRITES: usize = 1000;

/// One Service's life, as users and the service controller write it: five writes.
async fn life(t: &Case, name: &str) -> Vec<Result<(), String>> {
    let (services, params) = (t.user_services(), PatchParams::default());
    let plain = json!({"metadata": {"annotations": {names::ENABLED: null, "example.com/a": "b"}}});
    let said =
        |what: &str, done: Result<(), kube::Error>| done.map_err(|e| format!("{what} {name}: {e}"));
    let spec = json!({"spec": {"type": "LoadBalancer", "selector": {"app": "other"}}});
    let meta =
        json!({"metadata": {"annotations": {"example.com/a": "c"}, "labels": {"team": "x"}}});
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
    vec![
        said("create", services.create(&Default::default(), &source(name, &plain)).await.map(drop)),
        said("spec of", services.patch(name, &params, &Patch::Merge(spec)).await.map(drop)),
        said("metadata of", services.patch(name, &params, &Patch::Merge(meta)).await.map(drop)),
        said(
            "status of",
            t.services().patch_status(name, &params, &Patch::Merge(status)).await.map(drop),
        ),
        said("delete", services.delete(name, &Default::default()).await.map(drop)),
    ]
}

async fn a_thousand_plain_writes_succeed_while_every_process_is_dead(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    t.world.product.kill_all().await;
    // The webhooks are in force for this namespace: a key of ours is refused.
    let named = t.user_services().create(&Default::default(), &source("ours", &json!({}))).await;
    assert!(refusal(named).message.contains("failed calling webhook"));
    let began = std::time::Instant::now();
    let lives = (0..WRITES / 5).map(|n| {
        let t = t.clone();
        async move { life(&t, &format!("plain-{n}")).await }
    });
    let results: Vec<_> = stream::iter(lives).buffer_unordered(AT_ONCE).concat().await;
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    println!(
        "{} of {} writes of plain Services failed, {:.1} s",
        failed.len(),
        results.len(),
        began.elapsed().as_secs_f64()
    );
    assert_eq!((results.len(), failed), (WRITES, vec![]));
}

async fn changed_keys_are_refused_naming_the_webhook(t: Arc<Case>) {
    led_then_stopped(&t).await;
    let services = t.user_services();
    for patch in
        [annotations(&[(names::STICKY, "false")]), json!({"spec": {"selector": {"app": "other"}}})]
    {
        let changed = services.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await;
        let status = refusal(changed);
        assert_eq!(status.code, 500, "{status:?}");
        assert!(
            status.message.contains("failed calling webhook \"validate.zen-lead.io\""),
            "{}",
            status.message
        );
    }
    let created = services.create(&Default::default(), &source_set("new", &[])).await;
    assert!(refusal(created).message.contains("validate.zen-lead.io"));
}

async fn opting_out_and_deleting_pass_while_stopped(t: Arc<Case>) {
    led_then_stopped(&t).await;
    let none =
        json!({"metadata": {"annotations": {names::ENABLED: null, names::LEADER_NAME: null}}});
    t.patch_service("web", &none).await;
    t.world.product.ensure_started().await;
    t.until_gone("web-leader").await;
    t.create(&source("other", &json!({}))).await;
    t.create(&source("third", &json!({}))).await;
    t.until_condition("other-leader", "False", "NoPodsFound").await;
    t.until_condition("third-leader", "False", "NoPodsFound").await;
    t.world.product.stop_all().await;
    let off = json!({"metadata": {"annotations": {names::ENABLED: "false"}}});
    t.patch_service("third", &off).await;
    t.delete_service("other").await;
    t.until_gone("other-leader").await;
    t.world.product.ensure_started().await;
    t.until_gone("third-leader").await;
}

async fn last_leader_stays_routed_and_is_replaced_after_the_start(t: Arc<Case>) {
    led_then_stopped(&t).await;
    let before = t.slice("web-leader", "IPv4").await.unwrap();
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    let still = t.slice("web-leader", "IPv4").await.unwrap();
    assert_eq!(still.resource_version(), before.resource_version());
    t.world.product.ensure_started().await;
    let after = t.until_led_by("web-leader", "b").await;
    assert!(epoch(&after) > epoch(&before));
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.versions("web-leader"), 2, "one write for the switch");
    t.until_event("web-leader", "LeaderChanged").await;
}

async fn changes_made_while_stopped_are_caught_up_with(t: Arc<Case>) {
    led_then_stopped(&t).await;
    let leader = t.services().get("web-leader").await.unwrap();
    // A user breaks the leader Service while no replica can repair it.
    t.patch_service("web-leader", &json!({"spec": {"selector": {"app": "web"}}})).await;
    until("the built-in controller routes to all pods", || async {
        let all = t.slices().list(&Default::default()).await.map_err(|e| e.to_string())?;
        let built_in = all.items.iter().filter(|s| {
            s.labels().get(names::SERVICE_NAME).is_some_and(|n| n == "web-leader")
                && s.labels().get(names::SLICE_MANAGED_BY).is_some_and(|m| m != "zen-lead")
        });
        check(built_in.count() == 1, "no such slice")
    })
    .await;
    t.world.product.ensure_started().await;
    until("the leader Service is right, and only our slice is left", || async {
        let now = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        check(now.uid() == leader.uid(), "another leader Service")?;
        check(now.spec.as_ref().is_some_and(|s| s.selector.is_none()), "it has a selector")?;
        let all = t.slices().list(&Default::default()).await.map_err(|e| e.to_string())?;
        let of_leader = all
            .items
            .iter()
            .filter(|s| s.labels().get(names::SERVICE_NAME).is_some_and(|n| n == "web-leader"));
        let names: Vec<String> = of_leader.map(ResourceExt::name_any).collect();
        check(names == ["web-leader-zen-lead-ipv4"], format!("{names:?}"))
    })
    .await;
    t.until_led_by("web-leader", "a").await;
}

async fn sigterm_ends_with_success_and_the_other_takes_over(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    let ended = t.world.product.stop(0).await.expect("replica 0 ran");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    t.world.product.ensure_started().await;
    let ended = t.world.product.stop(1).await.expect("replica 1 ran");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    t.set_ready("b", false).await;
    t.until_led_by("web-leader", "c").await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b", "c"]);
}
