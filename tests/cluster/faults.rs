//! Replicas that die, hang or start in the middle of a switch: the switch happens, once.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::support::case::{Case, Routed, annotation, epoch, switch_notes};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{hollow, source};
use crate::support::recorder::Recorder;
use crate::support::together::{SIX, Together};
use crate::support::waiting::{DEADLINE, check, until};

tests![
    killed_replica_0_during_a_switch,
    killed_replica_1_during_a_switch,
    both_killed_and_started_again_change_nothing,
    paused_replica_does_not_bring_an_old_leader_back,
    one_replica_alone_serves,
];

async fn six_led_services(t: &Case) -> Together<'_> {
    t.world.product.ensure_started().await;
    let services = Together::led(t, &SIX, &["a", "b"], DEADLINE).await;
    for leader in services.leaders() {
        t.until_condition(&leader, "True", "LeaderRoutingAvailable").await;
    }
    services
}

async fn all_switched_once(t: &Case, services: &Together<'_>, recorder: Recorder) {
    for leader in services.leaders() {
        let lock = t.until_led_by(&leader, "b").await;
        let follower = t.until_family(&leader, "IPv6", &[Routed::ready("b")]).await;
        assert_eq!(epoch(&follower), epoch(&lock));
        until("the mirror follows", || async {
            let service = t.services().get(&leader).await.map_err(|e| e.to_string())?;
            check(epoch(&service) == epoch(&lock), format!("epoch {}", epoch(&service)))?;
            check(annotation(&service, names::POD_NAME) == "b", "another pod")
        })
        .await;
        let notes = switch_notes("a", "b", epoch(&lock));
        until("the Event is written even if the writer died", || async {
            let found = t.events(&leader, "LeaderChanged").await;
            let times = found.iter().filter(|n| notes.contains(n)).count();
            check(times == 1, format!("{times} times one of {notes:?} in {found:?}"))
        })
        .await;
    }
    let history = recorder.finish().await;
    services.were_led_by(&history, &["a", "b"]).await;
    services.were_never_empty(&history);
}

async fn killed_during_a_switch(t: &Case, victim: usize) {
    let services = six_led_services(t).await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    // The status write has just returned: the switches are under way.
    t.world.product.kill(victim);
    for leader in services.leaders() {
        t.until_led_by(&leader, "b").await;
        t.until_family(&leader, "IPv6", &[Routed::ready("b")]).await;
        t.until_message(&leader, "b leads; a: not Ready").await;
    }
    // The dead replica had mirrored the switch without an Event: the next replica sends the Event.
    t.world.product.ensure_started().await;
    all_switched_once(t, &services, recorder).await;
}

async fn killed_replica_0_during_a_switch(t: Arc<Case>) {
    killed_during_a_switch(&t, 0).await;
}

async fn killed_replica_1_during_a_switch(t: Arc<Case>) {
    killed_during_a_switch(&t, 1).await;
}

async fn both_killed_and_started_again_change_nothing(t: Arc<Case>) {
    let services = six_led_services(&t).await;
    let versions = async || {
        // Events of the built-in controller may come at any time.
        let ours = ListParams::default().labels(&format!("{}=zen-lead", names::SLICE_MANAGED_BY));
        let slices = t.slices().list(&ours).await.unwrap();
        let services = t.services().list(&Default::default()).await.unwrap();
        let mut all: Vec<(String, String)> = slices
            .iter()
            .map(|s| (s.name_any(), s.resource_version().unwrap()))
            .chain(services.iter().map(|s| (s.name_any(), s.resource_version().unwrap())))
            .collect();
        all.sort();
        all
    };
    // Every switch has its Event before they die.
    for leader in services.leaders() {
        t.until_event(&leader, "LeaderRoutingAvailable").await;
    }
    let before = versions().await;
    t.world.product.kill_all().await;
    t.world.product.ensure_started().await;
    // This proves that they work again.
    t.pod(hollow("x", "probe")).await;
    t.create(&source("probe", &json!({}))).await;
    t.until_led_by("probe-leader", "x").await;
    let mut after = versions().await;
    after.retain(|(name, _)| !name.starts_with("probe"));
    assert_eq!(after, before);
}

async fn paused_replica_does_not_bring_an_old_leader_back(t: Arc<Case>) {
    for victim in [0, 1] {
        t.world.product.ensure_started().await;
        let app = format!("web{victim}");
        let leader = format!("{app}-leader");
        let [a, b] = ["a", "b"].map(|p| format!("{p}{victim}"));
        t.ready_pods(&app, &[&a, &b]).await;
        t.create(&source(&app, &json!({}))).await;
        t.until_led_by(&leader, &a).await;
        let recorder = t.record().await;
        t.world.product.signal(victim, "STOP");
        t.set_ready(&a, false).await;
        t.until_led_by(&leader, &b).await;
        t.set_ready(&a, true).await;
        t.set_ready(&b, false).await;
        let slice = t.until_led_by(&leader, &a).await;
        t.set_ready(&b, true).await;
        t.world.product.signal(victim, "CONT");
        t.world.product.until_ready(victim).await;
        t.until_message(&leader, &format!("{a} leads; {b}: standby")).await;
        let after = t.until_led_by(&leader, &a).await;
        assert_eq!(epoch(&after), epoch(&slice), "no switch by the one that had slept");
        let history = recorder.finish().await;
        history.holds(&leader);
        history.never_empty(&leader);
        assert_eq!(history.leaders(&leader), [a.as_str(), b.as_str(), a.as_str()]);
    }
}

async fn one_replica_alone_serves(t: Arc<Case>) {
    // It is listed as the second of two and must do the work of the first.
    t.world.product.spawn(1, &[]);
    t.world.product.until_ready(1).await;
    let outside = t.outside().await;
    outside.ready_pods("web", &["a", "b"]).await;
    for name in SIX {
        outside.create(&source(name, &json!({"spec": {"selector": {"app": "web"}}}))).await;
    }
    for name in SIX {
        outside.until_led_by(&format!("{name}-leader"), "a").await;
    }
    outside.set_ready("a", false).await;
    for name in SIX {
        outside.until_led_by(&format!("{name}-leader"), "b").await;
    }
}
