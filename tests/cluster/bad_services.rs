//! Every invalid Service is refused by admission, and reported on the Service itself where admission is
//! off, with the same words.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::case::{Case, refusal};
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::names;
use crate::support::objects::{annotations, source_json};

tests![
    every_bad_service_is_refused_with_field_and_advice,
    kubectl_shows_the_same_words,
    every_bad_service_is_reported_where_admission_is_off,
];

/// A Service with one fault.
struct Bad {
    name: String,
    patch: Value,
    field: String,
    message: String,
}

impl Bad {
    fn json(&self) -> Value {
        source_json(&self.name, &self.patch)
    }

    fn service(&self) -> Service {
        serde_json::from_value(self.json()).unwrap()
    }

    /// Only its publication is refused.
    fn is_unpublished(&self) -> bool {
        self.field.ends_with("[zen-lead.io/copy-annotations]")
            && self.message.starts_with("these annotations")
    }
}

fn all() -> Vec<Bad> {
    let mut all = Vec::new();
    let mut add = |patch: Value, field: &str, message: &str| {
        let name = format!("bad-{:02}", all.len() + 1);
        all.push(Bad { name, patch, field: field.to_owned(), message: message.to_owned() });
    };
    let mut value = |key: &str, value: &str, message: &str| {
        add(annotations(&[(key, value)]), &format!("metadata.annotations[{key}]"), message);
    };
    let known = "\"zen-lead.io/enabled\", \"zen-lead.io/leader-service-name\"";
    value(
        names::ENABLED,
        "yes",
        r#"Invalid value: "yes": must be "true" or "false"; write "true""#,
    );
    value(names::STICKY, "maybe", r#"Invalid value: "maybe": must be "true" or "false""#);
    value(
        "zen-lead.io/strategy",
        "newest",
        r#"Unsupported value: "newest": supported values: "oldest-ready""#,
    );
    value(names::MIN_READY, "30", r#"Invalid value: "30": has no unit; write "30s" for seconds"#);
    value(
        names::MIN_READY,
        "soon",
        r#"Invalid value: "soon": must be a duration such as "30s", "1m30s" or "2h""#,
    );
    value(names::MIN_READY, "24h1s", r#"Invalid value: "24h1s": must be at most "24h"#);
    value(names::MIN_READY, "-1s", r#"Invalid value: "-1s": must not be negative; write "0s""#);
    value(names::FAILOVER_DELAY, "61m", r#"Invalid value: "61m": must be at most "1h"#);
    value(
        names::FAILOVER_DELAY,
        "5x",
        r#"Invalid value: "5x": unknown unit "x"; units are "ns", "us", "ms", "s", "m" and "h", such as "1m30s""#,
    );
    value(
        names::PORTS_MODE,
        "loose",
        r#"Unsupported value: "loose": supported values: "strict", "partial""#,
    );
    value(
        names::LEADER_TYPE,
        "NodePort",
        r#"Unsupported value: "NodePort": supported values: "ClusterIP", "mirror"; write "mirror""#,
    );
    value(
        names::LEADER_NAME,
        "",
        r#"Invalid value: "": must not be empty; leave the annotation out for the default"#,
    );
    value(
        names::LEADER_NAME,
        "Web_Leader",
        r#"Invalid value: "Web_Leader": must consist of lower case letters, digits or '-' (for example 'my-leader'); write "web-leader""#,
    );
    value(names::LEADER_NAME, &"x".repeat(64), "must be no more than 63 characters (it has 64)");
    value(
        names::COPY,
        "zen-lead.io/sticky",
        r#""zen-lead.io/sticky" is zen-lead's own; leave it out"#,
    );
    value("zen-lead.io/stiky", "true", r#"no such key; did you mean "zen-lead.io/sticky"?"#);
    value("zen-lead.io/colour", "blue", &format!("no such key; the known keys are {known}"));
    add(
        json!({"metadata": {"annotations": {names::LEADER_NAME: "bad-18"}}}),
        "metadata.annotations[zen-lead.io/leader-service-name]",
        "must not be the Service itself; the leader Service is a second one, for example \
         \"bad-18-leader\"",
    );
    add(
        json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
        "spec.type",
        r#"Invalid value: "ExternalName": an ExternalName Service has no pods"#,
    );
    add(
        json!({"spec": {"selector": null}}),
        "spec.selector",
        "Required value: the leader is chosen among the pods it matches; set it, or remove \
         zen-lead.io/enabled",
    );
    add(
        json!({"spec": {"ports": null, "clusterIP": "None"}}),
        "spec.ports",
        "Required value: the leader Service has the ports of this one; set at least one, or \
         remove zen-lead.io/enabled",
    );
    let internal = "service.beta.kubernetes.io/aws-load-balancer-internal";
    add(
        json!({
            "metadata": {"annotations": {names::LEADER_TYPE: "mirror", internal: "true"}},
            "spec": {"type": "LoadBalancer"},
        }),
        "metadata.annotations[zen-lead.io/copy-annotations]",
        &format!("these annotations of the Service may say who can reach it: \"{internal}\""),
    );
    all
}

async fn every_bad_service_is_refused_with_field_and_advice(t: Arc<Case>) {
    for bad in all() {
        let created = t.user_services().create(&PostParams::default(), &bad.service()).await;
        let status = refusal(created);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{:?}", bad.patch);
        let causes = status.details.unwrap().causes;
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert_eq!(causes[0].field, bad.field);
        assert!(causes[0].message.contains(&bad.message), "{}", causes[0].message);
    }
    let left = t.services().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(left.len(), 0, "something was created");
}

async fn kubectl_shows_the_same_words(t: Arc<Case>) {
    let list: Vec<Value> = all().iter().map(Bad::json).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
    let said = t.kubectl(As::Alice, &["create", "-f", "-"], Some(&list)).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    for bad in all() {
        let lines: Vec<&str> = said.err.lines().filter(|l| l.contains(&bad.name)).collect();
        assert!(!lines.is_empty(), "nothing about {}: {}", bad.name, said.err);
        let whole = format!("{}: ", bad.field);
        let printed = said.err.lines().any(|l| l.contains(&whole) && l.contains(&bad.message));
        assert!(printed, "{} / {}: {}", bad.field, bad.message, said.err);
    }
}

async fn every_bad_service_is_reported_where_admission_is_off(t: Arc<Case>) {
    let t = t.outside().await;
    let all = all();
    for bad in &all {
        t.create(&bad.service()).await;
    }
    for bad in &all {
        let message = t.until_condition(&bad.name, "False", "InvalidService").await;
        let begins = if bad.is_unpublished() {
            format!("{}-leader stays of type ClusterIP, ", bad.name)
        } else {
            format!("{}: ", bad.field)
        };
        assert!(message.starts_with(&begins), "{message}");
        assert!(message.contains(&bad.message), "{message}");
        assert_eq!(t.until_event(&bad.name, "InvalidService").await, message);
    }
    let services = t.services().list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
    // A Service that is not published is served inside the cluster.
    let served = all.iter().filter(|bad| bad.is_unpublished()).count();
    assert_eq!(names.len(), all.len() + served, "a leader Service was made: {names:?}");
}
