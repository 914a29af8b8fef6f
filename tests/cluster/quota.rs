//! A leader Service that the API server refuses: reported once, tried rarely, served later.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::case::Case;
use crate::support::harness::tests;
use crate::support::waiting::{check, until, within};

tests![quota_is_reported_tried_rarely_and_served_when_raised];

async fn quota_is_reported_tried_rarely_and_served_when_raised(t: Arc<Case>) {
    let quotas = t.one_service_quota().await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let message = t.until_condition("web", "False", "QuotaExceeded").await;
    assert!(message.contains("exceeded quota: few, requested: services=1"), "{message}");
    assert_eq!(t.until_event("web", "QuotaExceeded").await, message);

    // The time passes on purpose: "few calls" needs a period.
    let creations = || {
        let all = t.world.writes(&t.ns);
        let services =
            |w: &&Value| w["verb"] == "create" && w["objectRef"]["resource"] == "services";
        all.iter().filter(services).count()
    };
    tokio::time::sleep(Duration::from_secs(6)).await;
    let tried = creations();
    assert!((1..=8).contains(&tried), "two replicas tried {tried} times in 6 s");

    let more = Patch::Merge(json!({"spec": {"hard": {"services": "5"}}}));
    quotas.patch("few", &PatchParams::default(), &more).await.unwrap();
    within(Duration::from_secs(100), "it is served after the quota was raised", || async {
        let leader = t.services().get_opt("web-leader").await.map_err(|e| e.to_string())?;
        check(leader.is_some(), "no leader Service")
    })
    .await;
    t.until_led_by("web-leader", "a").await;
    until("the problem is not reported any more", || async {
        let now = t.condition("web").await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}
