//! Rights, memory and removal of the installed zen-lead. These come last: they check the log of the whole
//! run, and at the end zen-lead is removed.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::case::{Case, refusal};
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;
use crate::support::objects::{annotations, source};
use crate::support::product::{BREAK_GLASS, SYSTEM, uninstall};
use crate::support::rights;
use crate::support::waiting::until;

tests![
    zen_lead_had_every_right_it_used,
    uninstalling_with_every_process_dead_leaves_a_writable_cluster,
    deleting_only_the_namespace_leaves_a_writable_cluster,
];

/// Used only after a lost answer: tests/cluster/rights.rs causes one.
const LOST_ANSWER: (&str, &str) = ("get endpointslices.discovery.k8s.io", "a lost answer");

async fn zen_lead_had_every_right_it_used(t: Arc<Case>) {
    // Impersonation drops the admin's own groups: the rights come from the group named here.
    let group = format!("--as-group={BREAK_GLASS}");
    let selector = r#"{"spec":{"selector":{"app":"web"}}}"#;
    let put_on = || async {
        let patch = ["patch", "service", "web-leader", "--type=merge", "-p", selector];
        let as_who = ["--as=admin", &group, "--as-group=system:masters"];
        let said = t.kubectl(As::Admin, &[&patch[..], &as_who[..]].concat(), None).await;
        assert_eq!(said.code, 0, "{said:?}");
    };
    // So that this test also has calls to check when it runs alone.
    rights::exercise(&t, SYSTEM, "zen-lead", put_on).await;
    let granted = rights::granted(&t.admin(), SYSTEM).await;
    let calls = rights::calls(&t.world.cluster, SYSTEM, t.world.began);
    let ending = calls.iter().filter(|call| call.ending).count();
    t.world.figure(
        "calls of zen-lead to the API server",
        format!("{}, of them {ending} to namespaces that were being deleted", calls.len()),
    );
    assert!(calls.len() > 30, "{} calls since {}", calls.len(), t.world.began);
    let uncovered = rights::uncovered(&granted, &calls);
    assert!(uncovered.is_empty(), "10-rbac.yaml lacks a right: {uncovered:#?}");
    let denied = rights::denied(&calls);
    assert!(denied.is_empty(), "75-own-account.yaml is too narrow: {denied:#?}");
    let (unused, rare) =
        (rights::unused(&granted, &calls), rights::rarely(&granted, &[LOST_ANSWER]));
    let idle: Vec<_> = unused.difference(&rare).collect();
    assert!(idle.is_empty(), "no call needs these of 10-rbac.yaml: {idle:#?}");
    let said = t.world.product.logs.lines_with(&["forbidden", "panicked"]);
    let said: Vec<_> =
        said.iter().filter(|l| !l.contains("because it is being terminated")).collect();
    assert!(said.is_empty(), "{said:#?}");
    assert!(!t.world.product.logs.files().is_empty());
}

/// Whether the webhook configurations exist.
async fn webhooks_exist(t: &Case) -> bool {
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(t.admin());
    let validating = validating.get_opt("zen-lead").await.unwrap();
    let mutating = mutating.get_opt("zen-lead").await.unwrap();
    assert_eq!(validating.is_some(), mutating.is_some());
    validating.is_some()
}

/// Without zen-lead, the objects that it reviewed and maintained are ordinary objects again. Deletes the
/// Service web in the end.
pub async fn is_writable(t: &Case) {
    // The API server notices it a moment later.
    until("annotated Services can be written", || async {
        let web = annotations(&[(names::STICKY, "maybe")]);
        let patch = Patch::Merge(&web);
        let patched = t.user_services().patch("web", &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|e| e.to_string())
    })
    .await;
    t.create(&source("new", &json!({}))).await;
    t.create(&source("plain", &json!({"metadata": {"annotations": null}}))).await;
    // The policies protect nothing any more.
    until("leader Services can be changed by hand", || async {
        let selector = json!({"spec": {"selector": {"app": "web"}}});
        let patch = Patch::Merge(&selector);
        let patched = t.user_services().patch("web-leader", &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let slice = t.slice("web-leader", "IPv4").await.unwrap();
    let empty = Patch::Merge(json!({"endpoints": []}));
    t.slices().patch(&slice.name_any(), &PatchParams::default(), &empty).await.unwrap();
    let leader = t.services().get("web-leader").await.unwrap();
    assert!(leader.finalizers().is_empty() && slice.finalizers().is_empty());
    t.delete_service("web").await;
    t.until_gone("web-leader").await;
}

async fn uninstalling_with_every_process_dead_leaves_a_writable_cluster(t: Arc<Case>) {
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    t.world.product.scale(0).await;
    let change = annotations(&[(names::STICKY, "false")]);
    let patch = Patch::Merge(&change);
    let refused = t.user_services().patch("web", &PatchParams::default(), &patch).await;
    assert!(refusal(refused).message.contains("failed calling webhook"));
    uninstall(&t.world.cluster).await.unwrap();
    assert!(!webhooks_exist(&t).await);
    is_writable(&t).await;
    let left = left(&t).await;
    assert!(left.is_empty(), "{left:?}");
}

/// The objects of zen-lead that are not in a namespace, and its namespace.
pub async fn left(t: &Case) -> Vec<String> {
    let kinds = "clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,validatingwebhookconfigurations,\
                 mutatingwebhookconfigurations,namespaces";
    let all = t.world.product.kubectl(&["get", kinds, "-o", "name"]).await.unwrap();
    // Namespaces of tests carry the name of the run.
    let ours = |name: &&str| name.contains("zen-lead") && !name.ends_with(&t.world.run);
    all.lines().filter(ours).map(str::to_owned).collect()
}

async fn deleting_only_the_namespace_leaves_a_writable_cluster(t: Arc<Case>) {
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    t.world.product.delete_namespace(SYSTEM).await;
    // They stay, but ask for a right that went with the namespace (docs/decisions/webhooks-ask-for-a-right.md).
    assert!(webhooks_exist(&t).await);
    is_writable(&t).await;
}
