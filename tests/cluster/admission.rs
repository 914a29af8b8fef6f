//! What admission answers to `kubectl apply` before anything is stored.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::response::StatusDetails;
use serde_json::{Value, json};

use crate::support::case::{Case, annotation, refusal};
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;
use crate::support::objects::{annotations, source, source_json};
use crate::support::waiting::{check, until};

tests![
    refusal_is_a_complete_status,
    all_violations_are_named_at_once,
    kubectl_apply_prints_field_and_advice,
    unknown_key_is_answered_with_the_nearest_one,
    default_name_that_is_too_long_is_refused_with_advice,
    status_keys_are_refused_on_the_service,
    status_keys_are_refused_on_the_status_subresource,
    dry_run_creates_nothing,
    bad_change_of_a_good_service_is_refused,
    unrelated_change_of_a_bad_service_passes,
    opting_out_of_a_bad_service_passes,
    warnings_reach_the_user,
    services_without_keys_are_not_reviewed,
];

async fn try_create(t: &Case, service: &Service) -> kube::Result<Service> {
    t.user_services().create(&PostParams::default(), service).await
}

fn causes(details: Option<StatusDetails>) -> Vec<(String, String, String)> {
    let causes = details.unwrap().causes;
    causes.into_iter().map(|c| (c.reason, c.field, c.message)).collect()
}

fn own(texts: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    texts.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

async fn refusal_is_a_complete_status(t: Arc<Case>) {
    let bad = source("web", &annotations(&[(names::STICKY, "yes")]));
    let status = refusal(try_create(&t, &bad).await);
    assert_eq!(status.code, 422);
    assert_eq!(status.reason, "Invalid");
    assert!(
        status.message.contains("admission webhook \"validate.zen-lead.io\" denied the request"),
        "{}",
        status.message
    );
    let details = status.details.clone().unwrap();
    assert_eq!((details.kind.as_str(), details.name.as_str()), ("Service", "web"));
    assert_eq!(
        causes(status.details),
        own(&[(
            "FieldValueInvalid",
            "metadata.annotations[zen-lead.io/sticky]",
            "Invalid value: \"yes\": must be \"true\" or \"false\"; write \"true\"",
        )])
    );
    assert!(t.services().get_opt("web").await.unwrap().is_none());
}

async fn all_violations_are_named_at_once(t: Arc<Case>) {
    let bad = source(
        "web",
        &json!({
            "metadata": {"annotations": {
                names::STICKY: "1", names::MIN_READY: "soon", "zen-lead.io/strategi": "x",
            }},
            "spec": {"selector": null},
        }),
    );
    let status = refusal(try_create(&t, &bad).await);
    let fields: Vec<String> = causes(status.details).into_iter().map(|(_, f, _)| f).collect();
    assert_eq!(
        fields,
        [
            "metadata.annotations[zen-lead.io/sticky]",
            "metadata.annotations[zen-lead.io/min-ready-duration]",
            "metadata.annotations[zen-lead.io/strategi]",
            "spec.selector",
        ]
    );
}

async fn kubectl_apply_prints_field_and_advice(t: Arc<Case>) {
    let bad = source_json("web", &annotations(&[(names::MIN_READY, "30")]));
    let said = t.kubectl(As::Alice, &["apply", "-f", "-"], Some(&bad)).await;
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains(
            "metadata.annotations[zen-lead.io/min-ready-duration]: Invalid value: \"30\": has no \
             unit; write \"30s\" for seconds"
        ),
        "{}",
        said.err
    );
    let good = source_json("web", &annotations(&[(names::MIN_READY, "30s")]));
    let said = t.kubectl(As::Alice, &["apply", "-f", "-"], Some(&good)).await;
    assert_eq!((said.code, said.out.as_str()), (0, "service/web created\n"), "{said:?}");
    // The value that the webhook wrote does not conflict with the next apply.
    let said = t.kubectl(As::Alice, &["apply", "-f", "-"], Some(&good)).await;
    assert_eq!((said.code, said.out.as_str()), (0, "service/web unchanged\n"), "{said:?}");
    let server = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let said = t.kubectl(As::Alice, &server, Some(&good)).await;
    assert_eq!(said.code, 0, "{said:?}");
    let web = t.services().get("web").await.unwrap();
    assert_eq!(annotation(&web, names::LEADER_NAME), "web-leader");
}

async fn unknown_key_is_answered_with_the_nearest_one(t: Arc<Case>) {
    let bad = source("web", &annotations(&[("zen-lead.io/leader-service-nam", "x")]));
    let status = refusal(try_create(&t, &bad).await);
    assert_eq!(
        causes(status.details),
        own(&[(
            "FieldValueNotSupported",
            "metadata.annotations[zen-lead.io/leader-service-nam]",
            "Unsupported value: \"zen-lead.io/leader-service-nam\": no such key; did you mean \
             \"zen-lead.io/leader-service-name\"?",
        )])
    );
}

async fn default_name_that_is_too_long_is_refused_with_advice(t: Arc<Case>) {
    let name = "a".repeat(57);
    let status = refusal(try_create(&t, &source(&name, &json!({}))).await);
    let causes = causes(status.details);
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(causes[0].1, "metadata.annotations[zen-lead.io/leader-service-name]");
    assert_eq!(
        causes[0].2,
        format!(
            "Required value: the default \"{name}-leader\" has 64 characters, and a Service name \
             at most 63; set a shorter one here"
        )
    );
    let named = source(&name, &annotations(&[(names::LEADER_NAME, "short")]));
    t.create(&named).await;
    t.until_condition("short", "False", "NoPodsFound").await;
}

const FORBIDDEN: &str = "only zen-lead writes this key, on the leader Services it makes; remove it";

async fn status_keys_are_refused_on_the_service(t: Arc<Case>) {
    for key in [names::EPOCH, names::POD_UID, names::CURRENT, "zen-lead.io/writer"] {
        let bad = source("web", &annotations(&[(key, "5")]));
        let status = refusal(try_create(&t, &bad).await);
        let causes = causes(status.details);
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert_eq!(causes[0].0, "FieldValueForbidden");
        assert_eq!(causes[0].1, format!("metadata.annotations[{key}]"));
        assert!(causes[0].2.contains(FORBIDDEN), "{}", causes[0].2);
    }
    t.web(&[]).await;
    let patch = Patch::Merge(annotations(&[(names::EPOCH, "5")]));
    let changed = t.user_services().patch("web", &PatchParams::default(), &patch).await;
    assert_eq!(refusal(changed).code, 422);
}

async fn status_keys_are_refused_on_the_status_subresource(t: Arc<Case>) {
    t.web(&[]).await;
    let patch = Patch::Merge(annotations(&[(names::EPOCH, "5")]));
    t.create(&source("lb", &json!({"spec": {"type": "LoadBalancer"}}))).await;
    // Only an admin may write to it, and even an admin is refused.
    let changed = t.services().patch_status("web", &PatchParams::default(), &patch).await;
    let status = refusal(changed);
    assert_eq!(status.code, 422);
    let causes = causes(status.details);
    assert_eq!(causes[0].1, "metadata.annotations[zen-lead.io/leader-epoch]");
    assert!(causes[0].2.contains(FORBIDDEN), "{}", causes[0].2);
    let load_balancer = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let patch = Patch::Merge(load_balancer);
    let changed = t.services().patch_status("lb", &PatchParams::default(), &patch).await.unwrap();
    let ingress = changed.status.unwrap().load_balancer.unwrap().ingress.unwrap();
    assert_eq!(ingress[0].ip.as_deref(), Some("192.0.2.1"));
}

async fn dry_run_creates_nothing(t: Arc<Case>) {
    let good = source_json("web", &json!({}));
    let dry = ["apply", "--dry-run=server", "-o", "json", "-f", "-"];
    let said = t.kubectl(As::Alice, &dry, Some(&good)).await;
    assert_eq!(said.code, 0, "{said:?}");
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown["metadata"]["annotations"][names::LEADER_NAME], "web-leader");
    // A later Service is served: this proves that zen-lead has handled the earlier one.
    t.create(&source("later", &json!({}))).await;
    t.until_condition("later-leader", "False", "NoPodsFound").await;
    let all = t.services().list(&ListParams::default()).await.unwrap();
    let mut names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    names.sort();
    assert_eq!(names, ["later", "later-leader"]);
}

async fn bad_change_of_a_good_service_is_refused(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    let before = t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let services = t.user_services();
    for (patch, field) in [
        (annotations(&[(names::STICKY, "no")]), "metadata.annotations[zen-lead.io/sticky]"),
        (json!({"spec": {"selector": null}}), "spec.selector"),
        (json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}), "spec.type"),
    ] {
        let changed = services.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await;
        let status = refusal(changed);
        assert_eq!(status.code, 422, "{patch}");
        assert_eq!(causes(status.details)[0].1, field);
    }
    let after = t.services().get("web").await.unwrap();
    assert_eq!(json!(after.spec), json!(before.spec));
    t.until_led_by("web-leader", "a").await;
}

/// A Service that is already invalid: created before the webhooks saw the namespace.
async fn wrong_already(t: &Case) -> Case {
    let other = t.outside().await;
    other.create(&source("web", &annotations(&[(names::STICKY, "yes")]))).await;
    other.until_condition("web", "False", "InvalidService").await;
    other.show_to_webhooks().await;
    let bad = source("probe", &annotations(&[(names::STICKY, "yes")]));
    until("the webhooks see the namespace", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        check(other.user_services().create(&dry, &bad).await.is_err(), "not yet")
    })
    .await;
    other
}

async fn unrelated_change_of_a_bad_service_passes(t: Arc<Case>) {
    let other = wrong_already(&t).await;
    other.patch_service("web", &annotations(&[("example.com/note", "x")])).await;
    other.patch_service("web", &json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    other.patch_service("web", &json!({"metadata": {"finalizers": null}})).await;
    other.patch_service("web", &json!({"spec": {"selector": {"app": "other"}}})).await;
    let worse = Patch::Merge(annotations(&[(names::STICKY, "nope")]));
    let worse = other.user_services().patch("web", &PatchParams::default(), &worse).await;
    assert_eq!(refusal(worse).code, 422);
}

async fn opting_out_of_a_bad_service_passes(t: Arc<Case>) {
    let other = wrong_already(&t).await;
    other.patch_service("web", &annotations(&[(names::ENABLED, "false")])).await;
    other.delete_service("web").await;
}

async fn warnings_reach_the_user(t: Arc<Case>) {
    let odd = source_json(
        "web",
        &json!({
            "metadata": {"annotations": {names::STICKY: "false"}},
            "spec": {"internalTrafficPolicy": "Local"},
        }),
    );
    let said = t.kubectl(As::Alice, &["apply", "-f", "-"], Some(&odd)).await;
    assert_eq!(said.code, 0, "{said:?}");
    let warnings: Vec<&str> = said.err.lines().filter(|l| l.starts_with("Warning: ")).collect();
    assert_eq!(
        warnings,
        [
            "Warning: zen-lead.io/sticky is false: connections stay with a leader that was \
             replaced while it was healthy",
            "Warning: spec.internalTrafficPolicy is Local: only clients on the leader's node will \
             be answered",
        ]
    );
}

async fn services_without_keys_are_not_reviewed(t: Arc<Case>) {
    // Everything that would be invalid on an enabled Service.
    let plain = source(
        "plain",
        &json!({
            "metadata": {"annotations": {names::ENABLED: null}},
            "spec": {"selector": null, "clusterIP": "None", "ports": null},
        }),
    );
    t.create(&plain).await;
    let external = source(
        "external",
        &json!({
            "metadata": {"annotations": {names::ENABLED: null}},
            "spec": {"type": "ExternalName", "externalName": "example.com", "ports": null},
        }),
    );
    t.create(&external).await;
}
