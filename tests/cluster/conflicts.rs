//! Names that are taken and endpoints that are not ours: objects of other owners are never changed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::case::{Case, annotation, refusal, routed};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, foreign_slice, source};
use crate::support::waiting::{check, until};

tests![
    taken_name_is_refused_at_admission,
    taken_name_is_reported_where_admission_is_off,
    taken_name_is_used_once_it_is_free,
    plain_service_beside_its_namesake_is_never_touched,
    look_alike_of_a_leader_service_is_not_adopted,
    two_sources_cannot_share_a_leader_name,
    the_older_of_two_sources_keeps_the_name,
    foreign_slice_is_reported_and_left_alone,
    foreign_slice_does_not_stop_a_failover,
];

/// A user's Service with the name that a leader Service would get.
fn own(name: &str) -> Service {
    source(
        name,
        &json!({
            "metadata": {"annotations": {names::ENABLED: null}, "labels": {"team": "blue"}},
            "spec": {"selector": {"app": "mine"}},
        }),
    )
}

async fn versions(t: &Case, names: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        all.push(t.services().get(name).await.unwrap().resource_version().unwrap());
    }
    all
}

async fn taken_name_is_refused_at_admission(t: Arc<Case>) {
    let own = t.create(&own("foo-leader")).await;
    // The webhook sees it through its watch, a moment later.
    let services = t.user_services();
    let status = until("foo is refused", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match services.create(&dry, &source("foo", &json!({}))).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(status),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(status.code, 422);
    assert_eq!(status.reason, "Invalid");
    let details = status.details.unwrap();
    assert_eq!(details.causes.len(), 1, "{details:?}");
    assert_eq!(details.causes[0].field, "metadata.annotations[zen-lead.io/leader-service-name]");
    let message = &details.causes[0].message;
    assert!(message.contains("\"foo-leader\""), "{message}");
    assert_eq!(
        refusal(services.create(&PostParams::default(), &source("foo", &json!({}))).await).code,
        422
    );
    let named = annotations(&[(names::LEADER_NAME, "foo-primary")]);
    t.create(&source("foo", &named)).await;
    t.ready_pods("foo", &["a"]).await;
    t.until_led_by("foo-primary", "a").await;
    let after = t.services().get("foo-leader").await.unwrap();
    assert_eq!(after.resource_version(), own.resource_version());
}

async fn taken_name_is_reported_where_admission_is_off(t: Arc<Case>) {
    let t = t.outside().await;
    let before = t.create(&own("foo-leader")).await;
    t.ready_pods("foo", &["a"]).await;
    t.create(&source("foo", &json!({}))).await;
    let message = t.until_condition("foo", "False", "OwnershipConflict").await;
    assert_eq!(
        message,
        "Service \"foo-leader\" exists and was not made by zen-lead; it is left alone; choose \
         another name with the annotation zen-lead.io/leader-service-name or delete it"
    );
    assert_eq!(t.until_event("foo", "OwnershipConflict").await, message);
    let after = t.services().get("foo-leader").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    assert!(t.slice("foo-leader", "IPv4").await.is_err());
}

async fn taken_name_is_used_once_it_is_free(t: Arc<Case>) {
    let t = t.outside().await;
    t.create(&own("foo-leader")).await;
    t.ready_pods("foo", &["a"]).await;
    t.create(&source("foo", &json!({}))).await;
    t.until_condition("foo", "False", "OwnershipConflict").await;
    t.delete_service("foo-leader").await;
    t.until_led_by("foo-leader", "a").await;
    until("the problem is not reported any more", || async {
        let now = t.condition("foo").await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}

async fn plain_service_beside_its_namesake_is_never_touched(t: Arc<Case>) {
    t.create(&own("foo-leader")).await;
    t.create(&source("foo", &json!({"metadata": {"annotations": {names::ENABLED: null}}}))).await;
    t.ready_pods("foo", &["a"]).await;
    t.ready_pods("mine", &["m"]).await;
    let before = versions(&t, &["foo", "foo-leader"]).await;
    // This proves that zen-lead has handled all of it.
    t.web(&[]).await;
    t.ready_pods("web", &["w"]).await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    assert_eq!(versions(&t, &["foo", "foo-leader"]).await, before);
    let written = t.world.writes(&t.ns);
    let about_foo =
        |w: &&Value| w["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with("foo"));
    assert_eq!(written.iter().filter(about_foo).count(), 0, "{written:?}");
    let labelled = ListParams::default().labels("kubernetes.io/service-name=foo-leader");
    let slices = t.slices().list(&labelled).await.unwrap();
    assert!(
        slices
            .iter()
            .all(|s| { s.labels()[names::SLICE_MANAGED_BY] == "endpointslice-controller.k8s.io" })
    );
}

async fn look_alike_of_a_leader_service_is_not_adopted(t: Arc<Case>) {
    let t = t.outside().await;
    // Both labels are right; only the owner is missing.
    let fake = source(
        "web-leader",
        &json!({
            "metadata": {
                "annotations": {names::ENABLED: null},
                "labels": {names::MANAGED_BY: "zen-lead", names::SOURCE_LABEL: "web"},
            },
            "spec": {"selector": null},
        }),
    );
    let before = t.services().create(&PostParams::default(), &fake).await.unwrap();
    t.ready_pods("web", &["a"]).await;
    t.create(&source("web", &json!({}))).await;
    let message = t.until_condition("web", "False", "OwnershipConflict").await;
    assert!(message.starts_with("Service \"web-leader\" "), "{message}");
    let after = t.services().get("web-leader").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    t.delete_service("web").await;
    // It is not deleted with the source either.
    t.create(&source("other", &json!({}))).await;
    t.until_condition("other-leader", "False", "NoPodsFound").await;
    t.services().get("web-leader").await.unwrap();
}

async fn two_sources_cannot_share_a_leader_name(t: Arc<Case>) {
    t.create(&source("one", &annotations(&[(names::LEADER_NAME, "primary")]))).await;
    let second = source("two", &annotations(&[(names::LEADER_NAME, "primary")]));
    let status = until("the second is refused", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match t.user_services().create(&dry, &second).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(status),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(status.code, 422);
    let message = &status.details.unwrap().causes[0].message;
    assert!(message.contains("\"one\""), "{message}");
}

async fn the_older_of_two_sources_keeps_the_name(t: Arc<Case>) {
    let t = t.outside().await;
    t.ready_pods("one", &["a"]).await;
    t.ready_pods("two", &["b"]).await;
    let named = annotations(&[(names::LEADER_NAME, "primary")]);
    t.create(&source("one", &named)).await;
    t.until_led_by("primary", "a").await;
    t.create(&source("two", &named)).await;
    let message = t.until_condition("two", "False", "OwnershipConflict").await;
    assert_eq!(
        message,
        "Service \"primary\" is the leader Service of \"one\"; choose another name with the \
         annotation zen-lead.io/leader-service-name"
    );
    t.patch_service("one", &annotations(&[(names::ENABLED, "false")])).await;
    t.until_led_by("primary", "b").await;
    let leader = t.services().get("primary").await.unwrap();
    assert_eq!(leader.labels()[names::SOURCE_LABEL], "two");
}

async fn foreign_slice_is_reported_and_left_alone(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    let before =
        t.slices().create(&PostParams::default(), &foreign_slice("web-leader")).await.unwrap();
    let message = t.until_condition("web-leader", "False", "ForeignEndpoints").await;
    assert_eq!(
        message,
        "EndpointSlices not written by zen-lead add endpoints to this Service: by-hand; delete \
         them; a leads"
    );
    assert_eq!(t.until_event("web-leader", "ForeignEndpoints").await, message);
    let after = t.slices().get("by-hand").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    let leader = t.services().get("web-leader").await.unwrap();
    assert_eq!(annotation(&leader, names::CURRENT), "");
    t.until_led_by("web-leader", "a").await;
    t.slices().delete("by-hand", &DeleteParams::default()).await.unwrap();
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
}

async fn foreign_slice_does_not_stop_a_failover(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let before =
        t.slices().create(&PostParams::default(), &foreign_slice("web-leader")).await.unwrap();
    t.until_condition("web-leader", "False", "ForeignEndpoints").await;
    t.vanish("a").await;
    t.until_led_by("web-leader", "b").await;
    let after = t.slices().get("by-hand").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(routed(&t.slice("web-leader", "IPv4").await.unwrap()).len(), 1);
}
