//! A valid Service becomes invalid (while admission is off): its leader stays, and no other pod is
//! promoted.

use std::sync::Arc;

use kube::ResourceExt;
use serde_json::json;

use crate::support::case::{Case, Routed, epoch};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, source};
use crate::support::waiting::{check, until};

tests![
    invalid_source_keeps_its_leader_and_promotes_no_pod,
    repaired_source_is_served,
    source_without_selector_keeps_its_leader_service,
];

async fn invalid_source_keeps_its_leader_and_promotes_no_pod(t: Arc<Case>) {
    let t = t.outside().await;
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    let leader = t.services().get("web-leader").await.unwrap();
    t.patch_service("web", &annotations(&[(names::STICKY, "banana")])).await;
    let message = t.until_condition("web", "False", "InvalidService").await;
    assert_eq!(
        message,
        "metadata.annotations[zen-lead.io/sticky]: Invalid value: \"banana\": must be \"true\" or \
         \"false\""
    );
    let kept = t.until_led_by("web-leader", "a").await;
    assert_eq!(epoch(&kept), epoch(&before));
    assert_eq!(t.services().get("web-leader").await.unwrap().uid(), leader.uid());

    let recorder = t.record().await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    let words = "no new leader while the source is invalid; a: not Ready; b: standby";
    t.until_message("web-leader", words).await;
    t.set_ready("a", true).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_routed("web-leader", &[Routed::not_ready("a")]).await;
    assert_eq!(recorder.finish().await.leaders("web-leader"), ["a"]);

    t.patch_service("web", &annotations(&[(names::STICKY, "true")])).await;
    t.until_led_by("web-leader", "b").await;
    until("the problem is not reported any more", || async {
        let now = t.condition("web").await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}

async fn repaired_source_is_served(t: Arc<Case>) {
    let t = t.outside().await;
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &annotations(&[(names::MIN_READY, "soon")]))).await;
    t.until_condition("web", "False", "InvalidService").await;
    assert!(t.services().get_opt("web-leader").await.unwrap().is_none());
    t.patch_service("web", &annotations(&[(names::MIN_READY, "0s")])).await;
    t.until_led_by("web-leader", "a").await;
    until("the problem is not reported any more", || async {
        let now = t.condition("web").await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}

async fn source_without_selector_keeps_its_leader_service(t: Arc<Case>) {
    let t = t.outside().await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let before = t.services().get("web-leader").await.unwrap();
    t.patch_service("web", &json!({"spec": {"selector": null}})).await;
    let message = t.until_condition("web", "False", "InvalidService").await;
    assert!(message.starts_with("spec.selector: Required value: "), "{message}");
    let after = t.services().get("web-leader").await.unwrap();
    assert_eq!(after.uid(), before.uid());
    // Without a selector there are no pods: no pod may be routed by a rule that does not exist.
    t.until_routed("web-leader", &[]).await;
    t.patch_service("web", &json!({"spec": {"selector": {"app": "web"}}})).await;
    t.until_led_by("web-leader", "a").await;
}
