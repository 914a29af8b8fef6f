//! Leader Services are created and deleted as their source asks.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::case::{Case, Routed, annotation, epoch, refusal, routed};
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;
use crate::support::objects::{annotations, source};
use crate::support::waiting::{check, until, within};

tests![
    opting_out_by_false_removes_exactly_ours,
    opting_out_by_removing_the_keys_removes_exactly_ours,
    opting_out_and_in_again_makes_a_new_leader_service,
    rename_removes_the_old_one_after_the_new_one_serves,
    leader_name_moves_to_another_source_in_the_documented_order,
    deleted_source_takes_its_leader_service_along,
    recreated_source_gets_a_new_leader_service,
    changed_selector_changes_the_leader,
    widened_selector_keeps_the_leader,
    leader_service_deleted_by_hand_comes_back,
    slice_deleted_by_hand_comes_back_with_a_higher_epoch,
    terminating_namespace_is_left_alone,
];

/// A user's Service and slice with names that look like ours.
async fn users_own(t: &Case) -> Vec<String> {
    let own = json!({
        "metadata": {"annotations": {names::ENABLED: null}, "labels": {"app": "web"}},
    });
    t.create(&source("web-leader-2", &own)).await;
    let slice = serde_json::from_value(json!({
        "metadata": {
            "name": "web-leader-zen-lead-own",
            "labels": {names::SERVICE_NAME: "web-leader-2", names::SLICE_MANAGED_BY: "me"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.9"]}],
        "ports": [],
    }))
    .unwrap();
    t.slices().create(&Default::default(), &slice).await.unwrap();
    vec!["web".to_owned(), "web-leader-2".to_owned()]
}

async fn until_only(t: &Case, left: &[String]) {
    until(format!("only {left:?} are left"), || async {
        let all = ListParams::default();
        let services = t.services().list(&all).await.map_err(|e| e.to_string())?;
        let mut services: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
        services.sort();
        check(services == left, format!("{services:?}"))?;
        let slices = t.slices().list(&all).await.map_err(|e| e.to_string())?;
        let ours: Vec<String> = slices
            .iter()
            .filter(|s| s.labels().get(names::SLICE_MANAGED_BY).is_some_and(|m| m == "zen-lead"))
            .map(ResourceExt::name_any)
            .collect();
        check(ours.is_empty(), format!("{ours:?}"))
    })
    .await;
    t.slices().get("web-leader-zen-lead-own").await.expect("the user's slice is untouched");
}

async fn opting_out_by_false_removes_exactly_ours(t: Arc<Case>) {
    let left = users_own(&t).await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.patch_service("web", &annotations(&[(names::ENABLED, "false")])).await;
    until_only(&t, &left).await;
    let note = t.until_event("web", "LeaderServiceDeleted").await;
    assert_eq!(note, "removed leader Service web-leader: it is not asked for any longer");
}

async fn opting_out_by_removing_the_keys_removes_exactly_ours(t: Arc<Case>) {
    let left = users_own(&t).await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let none =
        json!({"metadata": {"annotations": {names::ENABLED: null, names::LEADER_NAME: null}}});
    t.patch_service("web", &none).await;
    until_only(&t, &left).await;
}

async fn opting_out_and_in_again_makes_a_new_leader_service(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let first = t.until_led_by("web-leader", "a").await;
    t.patch_service("web", &annotations(&[(names::ENABLED, "false")])).await;
    t.until_gone("web-leader").await;
    t.patch_service("web", &annotations(&[(names::ENABLED, "true")])).await;
    let second = t.until_led_by("web-leader", "a").await;
    assert_ne!(second.uid(), first.uid());
    assert!(epoch(&second) > epoch(&first));
}

/// Pods `a` and `b` are Ready, and `b` leads although `a` comes first in order.
async fn the_second_pod_leads(t: &Case) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    t.set_ready("a", true).await;
    t.until_message("web-leader", "b leads; a: standby").await;
}

async fn rename_removes_the_old_one_after_the_new_one_serves(t: Arc<Case>) {
    the_second_pod_leads(&t).await;
    let recorder = t.record().await;
    t.patch_service("web", &annotations(&[(names::LEADER_NAME, "primary")])).await;
    t.until_led_by("primary", "b").await;
    t.until_gone("web-leader").await;
    t.until_condition("primary", "True", "LeaderRoutingAvailable").await;
    let history = recorder.finish().await;
    // The same leader, although a comes first in order.
    assert_eq!(history.leaders("primary"), ["b"]);
    let first = |service: &str, serves: bool| {
        history.0.iter().position(|s| {
            let routes = s.slice.endpoints.as_ref().is_some_and(|e| !e.is_empty());
            s.slice.labels().get(names::SERVICE_NAME).is_some_and(|n| n == service)
                && serves == (routes && !s.deleted)
        })
    };
    // The old slice is emptied first; the garbage collector deletes it, perhaps later.
    let (serves, ceases) = (first("primary", true).unwrap(), first("web-leader", false).unwrap());
    assert!(serves < ceases, "the old slice ended at {ceases}, the new one served at {serves}");
}

/// docs/troubleshooting.md, "Move a leader name from one Service to another".
async fn leader_name_moves_to_another_source_in_the_documented_order(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    let services = t.user_services();
    let (to_main, params) = (annotations(&[(names::LEADER_NAME, "main")]), PatchParams::default());
    t.ready_pods("web", &["a"]).await;
    t.ready_pods("api", &["b"]).await;
    t.web(&[(names::LEADER_NAME, "main")]).await;
    t.create(&source("api", &json!({"spec": {"selector": {"app": "api"}}}))).await;
    t.until_led_by("main", "a").await;
    t.until_led_by("api-leader", "b").await;

    // The other order is refused.
    let status = refusal(services.patch("api", &params, &Patch::Merge(&to_main)).await);
    assert_eq!(status.code, 422, "{status:?}");

    t.patch_service("web", &annotations(&[(names::LEADER_NAME, "web-leader")])).await;
    t.until_gone("main").await;
    t.until_led_by("web-leader", "a").await;
    services.patch("api", &params, &Patch::Merge(&to_main)).await.unwrap();
    t.until_led_by("main", "b").await;
    t.until_condition("main", "True", "LeaderRoutingAvailable").await;
    t.until_gone("api-leader").await;

    // And back, by opting out of it.
    t.patch_service("api", &json!({"metadata": {"annotations": {names::ENABLED: null}}})).await;
    t.until_gone("main").await;
    services.patch("web", &params, &Patch::Merge(&to_main)).await.unwrap();
    t.until_led_by("main", "a").await;
    t.until_condition("main", "True", "LeaderRoutingAvailable").await;
}

async fn deleted_source_takes_its_leader_service_along(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.delete_service("web").await;
    t.until_gone("web-leader").await;
    until("its slices are gone", || async {
        check(t.slice("web-leader", "IPv4").await.is_err(), "one is there")
    })
    .await;
}

async fn recreated_source_gets_a_new_leader_service(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let first = t.services().get("web-leader").await.unwrap();
    t.delete_service("web").await;
    let web = t.web(&[]).await;
    let owner = until("a leader Service of the new source", || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let owner = leader.owner_references()[0].uid.clone();
        check(Some(&owner) == web.uid().as_ref(), format!("owner {owner}"))?;
        Ok::<_, String>(leader)
    })
    .await;
    assert_ne!(owner.uid(), first.uid());
    until("its own slice is led by a, after the old one was collected", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        let uid = &slice.owner_references()[0].uid;
        check(Some(uid) == owner.uid().as_ref(), format!("of {uid}"))?;
        check(routed(&slice) == [Routed::ready("a")], format!("{:?}", slice.endpoints))
    })
    .await;
    until("no problem is reported any more", || async {
        let now = t.condition("web").await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}

async fn changed_selector_changes_the_leader(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.ready_pods("other", &["o"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "a").await;
    let recorder = t.record().await;
    t.patch_service("web", &json!({"spec": {"selector": {"app": "other"}}})).await;
    let after = t.until_led_by("web-leader", "o").await;
    assert_eq!(annotation(&after, names::REASON), "pod_gone");
    assert_ne!(annotation(&after, "zen-lead.io/asked"), annotation(&before, "zen-lead.io/asked"));
    recorder.finish().await.never_empty("web-leader");
}

async fn widened_selector_keeps_the_leader(t: Arc<Case>) {
    let labels = json!({"metadata": {"labels": {"tier": "front"}}});
    for name in ["a", "b"] {
        t.pod(crate::support::objects::hollow(name, "web").patch(&labels)).await;
    }
    t.create(&source("web", &json!({"spec": {"selector": {"app": "web", "tier": "front"}}}))).await;
    let before = t.until_led_by("web-leader", "a").await;
    t.patch_service("web", &json!({"spec": {"selector": {"app": null}}})).await;
    let after = until("the slice is marked with the new question", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        let asked = annotation(&slice, "zen-lead.io/asked");
        check(asked != annotation(&before, "zen-lead.io/asked"), asked)?;
        Ok::<_, String>(slice)
    })
    .await;
    assert_eq!(epoch(&after), epoch(&before));
    assert_eq!(json!(after.endpoints), json!(before.endpoints));
}

async fn leader_service_deleted_by_hand_comes_back(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    let before = t.until_led_by("web-leader", "b").await;
    let old = t.services().get("web-leader").await.unwrap();
    let said =
        t.kubectl(As::Alice, &["delete", "service", "web-leader", "--wait=false"], None).await;
    assert_eq!(said.code, 0, "{said:?}");
    let new = until("another leader Service", || async {
        let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        check(leader.uid() != old.uid(), "the old one")?;
        Ok::<_, String>(leader)
    })
    .await;
    let after = until("its slice", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        check(slice.owner_references()[0].uid == new.uid().unwrap(), "the old slice")?;
        check(epoch(&slice) > epoch(&before), format!("epoch {}", epoch(&slice)))?;
        Ok::<_, String>(slice)
    })
    .await;
    assert_ne!(after.uid(), before.uid());
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
}

async fn slice_deleted_by_hand_comes_back_with_a_higher_epoch(t: Arc<Case>) {
    // Only the mirror remembers that b leads.
    the_second_pod_leads(&t).await;
    let before = t.slice("web-leader", "IPv4").await.unwrap();
    let recorder = t.record().await;
    t.slices().delete(&before.name_any(), &DeleteParams::default()).await.unwrap();
    let after = until("another slice", || async {
        let slice = t.slice("web-leader", "IPv4").await?;
        check(slice.uid() != before.uid(), "the old one")?;
        Ok::<_, String>(slice)
    })
    .await;
    assert!(epoch(&after) > epoch(&before));
    t.until_led_by("web-leader", "b").await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    assert_eq!(history.leaders("web-leader"), ["b"], "it stays the leader");
}

async fn terminating_namespace_is_left_alone(t: Arc<Case>) {
    let other = t.outside().await;
    // The namespace controller comes back after half of the longest grace period.
    let short = json!({"spec": {"terminationGracePeriodSeconds": 2}});
    other.pod(crate::support::objects::hollow("a", "web").patch(&short)).await;
    other.create(&source("web", &json!({}))).await;
    other.until_led_by("web-leader", "a").await;
    // The pod has a finalizer, so the namespace stays Terminating for a while.
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let pods = other.pods();
    pods.patch("a", &Default::default(), &kube::api::Patch::Merge(held)).await.unwrap();
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(t.admin());
    namespaces.delete(&other.ns, &DeleteParams::default()).await.unwrap();
    // Pods are deleted first (when depends on the namespace controller); the rest waits for them.
    // The remaining objects are still kept right.
    other.terminate("a").await;
    let last = Routed { pod: "a".into(), ready: false, serving: true, terminating: true };
    let slice = other.until_routed("web-leader", &[last]).await;
    other.slices().delete(&slice.name_any(), &DeleteParams::default()).await.unwrap();
    other.delete_service("web-leader").await;
    // Time passes on purpose: the API server refuses every creation, and few are tried.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let created = |w: &&Value| w["verb"] == "create" && w["objectRef"]["resource"] != "events";
    let tried = t.world.writes(&other.ns);
    let refused = |w: &&Value| w["responseStatus"]["code"] == 403;
    let refused = tried.iter().filter(created).filter(refused).count();
    assert!(refused <= 8, "{refused} creations were refused");
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("a", &Default::default(), &kube::api::Patch::Merge(free)).await.unwrap();
    other.vanish("a").await;
    within(std::time::Duration::from_mins(2), "the namespace is gone", || async {
        let left = namespaces.get_opt(&other.ns).await.map_err(|e| e.to_string())?;
        check(left.is_none(), "it is there")
    })
    .await;
}
