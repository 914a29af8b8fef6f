//! A leader is lost in every way in which a pod can be lost: which pod follows, and in how many writes.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::case::{Case, Routed, annotation, epoch};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{hollow, source};
use crate::support::waiting::{check, until};

tests![
    not_ready_leader_is_replaced_in_one_write,
    only_pod_not_ready_is_taken_out_and_put_back,
    deleted_leader_is_replaced_while_it_terminates,
    terminating_leader_without_successor_keeps_serving,
    terminating_leader_that_stops_serving_says_so,
    vanished_leader_is_replaced,
    vanished_only_pod_leaves_no_leader,
    finished_leader_is_replaced,
    finished_only_leader_is_not_published,
    relabelled_leader_is_replaced,
    same_name_with_a_new_uid_is_another_pod,
    pod_without_address_cannot_lead,
    not_ready_leader_that_recovers_stays_when_alone,
    every_switch_counts_one_epoch,
];

async fn not_ready_leader_is_replaced_in_one_write(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    let after = t.until_led_by("web-leader", "b").await;
    t.until_message("web-leader", "b leads; a: not Ready; c: standby").await;

    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b"]);
    // The earlier version, and one write.
    assert_eq!(history.versions("web-leader"), 2);
    assert!(epoch(&after) > epoch(&before));
    assert_eq!(annotation(&after, names::REASON), "pod_not_ready");
    assert_eq!(after.uid(), before.uid(), "the slice is replaced in place");
}

async fn only_pod_not_ready_is_taken_out_and_put_back(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    let message = t.until_condition("web-leader", "False", "NoReadyPods").await;
    assert_eq!(message, "a: not Ready");
    until("the mirror names no leader", || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let current = leader.annotations().get(names::CURRENT).cloned();
        check(current.as_deref() == Some(""), format!("{current:?}"))
    })
    .await;
    t.set_ready("a", true).await;
    let after = t.until_led_by("web-leader", "a").await;
    // It never stopped being the leader.
    assert_eq!(epoch(&after), epoch(&before));
    assert_eq!(annotation(&after, names::SWITCHED_AT), annotation(&before, names::SWITCHED_AT));
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
}

async fn deleted_leader_is_replaced_while_it_terminates(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.terminate("a").await;
    let slice = t.until_led_by("web-leader", "b").await;
    assert_eq!(annotation(&slice, names::REASON), "pod_terminating");
    t.until_message("web-leader", "b leads; a: terminating").await;
    let history = recorder.finish().await;
    history.never_empty("web-leader");
    assert_eq!(history.versions("web-leader"), 2);
    assert!(t.pods().get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    t.vanish("a").await;
    t.until_message("web-leader", "b leads").await;
}

async fn terminating_leader_without_successor_keeps_serving(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    t.terminate("a").await;
    let alone = Routed { pod: "a".into(), ready: false, serving: true, terminating: true };
    let slice = t.until_routed("web-leader", &[alone]).await;
    assert_eq!(epoch(&slice), epoch(&before));
    t.until_condition("web-leader", "False", "NoReadyPods").await;
    let recorder = t.record().await;
    t.ready_pods("web", &["b"]).await;
    t.until_led_by("web-leader", "b").await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    assert_eq!(history.leaders("web-leader"), ["b"]);
}

async fn terminating_leader_that_stops_serving_says_so(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.terminate("a").await;
    t.set_ready("a", false).await;
    let dead = Routed { pod: "a".into(), ready: false, serving: false, terminating: true };
    t.until_routed("web-leader", &[dead]).await;
}

async fn vanished_leader_is_replaced(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.vanish("a").await;
    let slice = t.until_led_by("web-leader", "b").await;
    // The API server marks a pod as deleted before it removes it; either may be seen first.
    let reason = annotation(&slice, names::REASON);
    assert!(["pod_gone", "pod_terminating"].contains(&reason.as_str()), "{reason}");
    let history = recorder.finish().await;
    history.never_empty("web-leader");
    assert_eq!(history.versions("web-leader"), 2);
}

async fn vanished_only_pod_leaves_no_leader(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.vanish("a").await;
    t.until_routed("web-leader", &[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
}

async fn finished_leader_is_replaced(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    // The Ready condition still says True: only the phase shows the end.
    t.set_phase("a", "Succeeded").await;
    let slice = t.until_led_by("web-leader", "b").await;
    assert_eq!(annotation(&slice, names::REASON), "pod_finished");
    t.set_phase("b", "Failed").await;
    t.until_led_by("web-leader", "c").await;
    t.until_message("web-leader", "c leads; a: finished; b: finished").await;
}

async fn finished_only_leader_is_not_published(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_phase("a", "Failed").await;
    // Its address may be given to another pod: it is not even published as not ready.
    t.until_routed("web-leader", &[]).await;
}

async fn relabelled_leader_is_replaced(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let away = Patch::Merge(json!({"metadata": {"labels": {"app": "elsewhere"}}}));
    t.pods().patch("a", &PatchParams::default(), &away).await.unwrap();
    t.until_led_by("web-leader", "b").await;
    t.until_message("web-leader", "b leads").await;
    let back = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
    t.pods().patch("a", &PatchParams::default(), &back).await.unwrap();
    // Sticky: the present leader stays.
    t.until_message("web-leader", "b leads; a: standby").await;
    t.until_led_by("web-leader", "b").await;
}

async fn same_name_with_a_new_uid_is_another_pod(t: Arc<Case>) {
    let old = t.ready_pods("web", &["web-0"]).await.remove(0);
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "web-0").await;
    assert_eq!(annotation(&before, names::POD_UID), old.uid().unwrap());
    t.vanish("web-0").await;
    let new = t.pod(hollow("web-0", "web")).await;
    assert_ne!(new.uid(), old.uid());
    let after = until("the slice names the new uid", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        let endpoints = slice.endpoints.clone().unwrap_or_default();
        let uid = endpoints.first().and_then(|e| e.target_ref.clone()).and_then(|r| r.uid);
        check(uid.is_some() && uid == new.uid(), format!("{uid:?}"))?;
        Ok::<_, String>(slice)
    })
    .await;
    assert!(epoch(&after) > epoch(&before));
    let address = new.status.unwrap().pod_ip.unwrap();
    assert_eq!(after.endpoints.unwrap()[0].addresses, [address]);
}

async fn pod_without_address_cannot_lead(t: Arc<Case>) {
    // Ready, but podIPs holds only the family the Service does not have.
    let a = t.pod(hollow("a", "web").not_ready()).await;
    let v6 = json!({"status": {"podIP": "fd00:200::ffff", "podIPs": [{"ip": "fd00:200::ffff"}]}});
    t.write_status("a", &v6).await;
    t.set_ready("a", true).await;
    assert!(a.status.unwrap().pod_ip.is_some());
    t.web(&[]).await;
    let message = t.until_condition("web-leader", "False", "NoReadyPods").await;
    assert_eq!(message, "a: no address of the Service's first IP family");
    t.ready_pods("web", &["b"]).await;
    t.until_led_by("web-leader", "b").await;
}

async fn not_ready_leader_that_recovers_stays_when_alone(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.pod(hollow("b", "web").not_ready()).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    t.set_ready("a", true).await;
    t.until_led_by("web-leader", "a").await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    assert_eq!(
        history.states("web-leader", "IPv4"),
        [[Routed::ready("a")], [Routed::not_ready("a")], [Routed::ready("a")],]
    );
}

async fn every_switch_counts_one_epoch(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.create(&source("web", &json!({}))).await;
    let mut last = epoch(&t.until_led_by("web-leader", "a").await);
    let recorder = t.record().await;
    for (down, up) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
        t.set_ready(down, false).await;
        let slice = t.until_led_by("web-leader", up).await;
        assert!(epoch(&slice) > last);
        last = epoch(&slice);
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
        assert!(last <= now, "an epoch is the time of its switch");
        t.set_ready(down, true).await;
        t.until_message("web-leader", &format!("{up} leads; {down}: standby")).await;
    }
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), ["a", "b", "a", "b", "a"]);
}
