//! The webhook router with the real rules, fed with AdmissionReviews recorded from a real
//! kube-apiserver (tests/reviews, written by scripts/record_reviews.py).

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Service;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tower::ServiceExt;
use zen_lead::platform::metrics::Metrics;
use zen_lead::platform::telemetry::spans::Tracer;
use zen_lead::webhook;
use zen_lead::webhook::verdicts::Verdicts;
use zen_lead_core::index::{Index, Limits};
use zen_lead_core::names::NameRule;

const ZEN_LEAD: &str = "system:serviceaccount:zen-lead-system:zen-lead";

fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/reviews/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Sends a review to the router; `others` are the Services the index knows.
async fn review(path: &str, review: &Value, others: &[Value]) -> Value {
    let mut index = Index::new(NameRule::Dns1123, Limits::default());
    let services: Vec<Service> =
        others.iter().map(|s| serde_json::from_value(s.clone()).unwrap()).collect();
    index.reset_services(services, zen_lead_core::version::Rv(9));
    let verdicts = Verdicts::new(
        Arc::new(RwLock::new(index)),
        Box::new(|| true),
        NameRule::Dns1123,
        ZEN_LEAD.to_owned(),
        Arc::new(Metrics::new().unwrap()),
    );
    let router =
        webhook::router(Arc::new(verdicts), Arc::new(Metrics::new().unwrap()), Tracer::off());
    let request = Request::post(format!("{path}?timeout=1s"))
        .header("content-type", "application/json")
        .body(Body::from(review.to_string()))
        .unwrap();
    let answer = router.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"], "the uid is echoed");
    answer["response"].clone()
}

fn causes(response: &Value) -> Vec<(String, String)> {
    assert_eq!(response["allowed"], false, "{response}");
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(response["status"]["reason"], "Invalid");
    assert_eq!(response["status"]["details"]["kind"], "Service");
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    causes.iter().map(|c| (text(&c["field"]), text(&c["message"]))).collect()
}

#[tokio::test]
async fn what_is_right_is_allowed() {
    for name in [
        "create-plain",
        "create-enabled",
        "create-dry-run",
        "apply-server-side",
        "update-add-key",
        "update-opt-out",
        "delete",
    ] {
        let response = review("/validate", &recorded(name), &[]).await;
        assert_eq!(response["allowed"], true, "{name}: {response}");
    }
}

#[tokio::test]
async fn all_violations_come_at_once_and_each_says_what_to_write() {
    let causes = causes(&review("/validate", &recorded("create-invalid"), &[]).await);
    let expected = [
        ("metadata.annotations[zen-lead.io/stratgy]", "zen-lead.io/strategy"),
        ("metadata.annotations[zen-lead.io/sticky]", r#""yes""#),
    ];
    assert_eq!(causes.len(), expected.len(), "{causes:?}");
    for (field, words) in expected {
        let cause = causes.iter().find(|(f, _)| f == field);
        let (_, message) = cause.unwrap_or_else(|| panic!("no cause for {field}: {causes:?}"));
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn a_changed_key_is_reviewed_although_the_rest_was_there_before() {
    let causes = causes(&review("/validate", &recorded("update-change-key"), &[]).await);
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(causes[0].0, "metadata.annotations[zen-lead.io/sticky]");
    assert!(causes[0].1.contains(r#""maybe""#), "{causes:?}");
}

#[tokio::test]
async fn status_keys_are_protected_on_the_object_and_on_its_status() {
    for (name, key) in [
        ("update-status-key", "zen-lead.io/leader-epoch"),
        ("status-subresource", "zen-lead.io/current-leader"),
    ] {
        let review_sent = recorded(name);
        let causes = causes(&review("/validate", &review_sent, &[]).await);
        let field = format!("metadata.annotations[{key}]");
        let cause = causes.iter().find(|(f, _)| *f == field);
        let (_, message) = cause.unwrap_or_else(|| panic!("{name}: {causes:?}"));
        assert!(message.contains("only zen-lead writes this key"), "{name}: {message}");

        let mut own = review_sent;
        own["request"]["userInfo"]["username"] = json!(ZEN_LEAD);
        let response = review("/validate", &own, &[]).await;
        assert_eq!(response["allowed"], true, "{name} by zen-lead itself");
    }
}

#[tokio::test]
async fn the_name_of_another_owners_service_is_refused() {
    let stranger = json!({
        "metadata": {"name": "web-leader", "namespace": "zen-lead-record", "uid": "u1", "resourceVersion": "5"},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]},
    });
    let causes = causes(&review("/validate", &recorded("create-enabled"), &[stranger]).await);
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert!(causes[0].1.contains("web-leader"), "{causes:?}");
}

#[tokio::test]
async fn mutation_only_adds_the_default_name_and_adds_it_once() {
    let mut sent = recorded("create-enabled");
    let response = review("/mutate", &sent, &[]).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let engine = base64::engine::general_purpose::STANDARD;
    let patch = engine.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    let added = "/metadata/annotations/zen-lead.io~1leader-service-name";
    assert_eq!(patch, json!([{"op": "add", "path": added, "value": "web-leader"}]));

    let annotations = &mut sent["request"]["object"]["metadata"]["annotations"];
    annotations["zen-lead.io/leader-service-name"] = json!("web-leader");
    let response = review("/mutate", &sent, &[]).await;
    assert_eq!(response["patch"], Value::Null, "{response}");

    for name in ["create-plain", "update-opt-out", "delete"] {
        let response = review("/mutate", &recorded(name), &[]).await;
        assert_eq!(
            (&response["allowed"], &response["patch"]),
            (&json!(true), &Value::Null),
            "{name}"
        );
    }
}
