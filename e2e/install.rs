//! Rights, memory and removal of zen-lead as installed. These come last: the log of the whole run
//! is judged, and at the end zen-lead is taken away.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::case::Case;
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::annotations;
use crate::support::product::USER;
use crate::support::waiting::{check, until};

tests![zen_lead_had_every_right_it_used, deleting_only_the_namespace_leaves_a_writable_cluster,];

async fn zen_lead_had_every_right_it_used(t: Arc<Case>) {
    // So that this test alone has something to judge, too.
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    let log = std::fs::read_to_string(&t.world.cluster.audit_log).unwrap();
    let (mut calls, mut refused, mut ending) = (0, Vec::new(), 0);
    for line in log.lines() {
        // The last line may be half written.
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let at =
            entry["requestReceivedTimestamp"].as_str().and_then(|s| s.parse::<Timestamp>().ok());
        let own = entry["user"]["username"] == USER && entry["impersonatedUser"].is_null();
        if !own || at.is_none_or(|at| at < t.world.began) {
            continue;
        }
        calls += 1;
        let status = &entry["responseStatus"];
        if status["code"] == 403 || status["code"] == 401 {
            // Not a matter of rights: nothing can be created in a namespace that is being deleted.
            if status["message"]
                .as_str()
                .is_some_and(|m| m.contains("because it is being terminated"))
            {
                ending += 1;
            } else {
                refused.push(format!("{} {}: {status}", entry["verb"], entry["requestURI"]));
            }
        }
    }
    t.world.figure(
        "calls of zen-lead to the API server",
        format!("{calls}, of them {ending} to namespaces that were being deleted"),
    );
    assert!(calls > 10, "the audit log has {calls} calls of {USER} since {}", t.world.began);
    assert!(refused.is_empty(), "{refused:#?}");
    let said = t.world.product.logs.lines_with(&["forbidden", "panicked"]);
    let said: Vec<_> =
        said.iter().filter(|l| !l.contains("because it is being terminated")).collect();
    assert!(said.is_empty(), "{said:#?}");
    assert!(!t.world.product.logs.files().is_empty());
}

async fn deleting_only_the_namespace_leaves_a_writable_cluster(t: Arc<Case>) {
    t.web(&[]).await;
    t.until_condition("web-leader", "False", "NoPodsFound").await;
    t.world.product.delete_namespace().await;
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(t.admin());
    until("the webhook configurations are gone", || async {
        let v = validating.get_opt("zen-lead").await.map_err(|e| e.to_string())?;
        let m = mutating.get_opt("zen-lead").await.map_err(|e| e.to_string())?;
        check(v.is_none() && m.is_none(), "one is there")
    })
    .await;
    // The API server hears of it a moment later.
    until("annotated Services can be written", || async {
        let web = annotations(&[(names::STICKY, "false")]);
        let patch = Patch::Merge(&web);
        t.user_services()
            .patch("web", &PatchParams::default(), &patch)
            .await
            .map_err(|e| e.to_string())
    })
    .await;
    t.create(&crate::support::objects::source("new", &json!({}))).await;
    // And the policies protect nothing any more.
    until("leader Services can be changed by hand", || async {
        let selector = json!({"spec": {"selector": {"app": "web"}}});
        let patch = Patch::Merge(&selector);
        let patched = t.user_services().patch("web-leader", &PatchParams::default(), &patch).await;
        patched.map_err(|e| e.to_string())
    })
    .await;
    t.delete_service("web").await;
    t.until_gone("web-leader").await;
}
