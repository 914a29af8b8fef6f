//! Whole reviews: bodies in, answers out, as the API server sends and reads them.

mod at_once;
mod conditions;
mod refused;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::index::Reached;
use crate::index::view::Neighbour;
use crate::settings::LeaderOf;

const SELF: &str = "system:serviceaccount:zen-lead-system:zen-lead";

/// A namespace `shop` with a plain Service `plain`, and source `api` with leader Service `api-leader`.
struct Shop;

impl Neighbours for Shop {
    fn service(&self, namespace: &str, name: &str) -> Option<Neighbour> {
        let leader_of = LeaderOf { source: "api".into(), owned: true };
        match (namespace, name) {
            ("shop", "plain" | "api") => Some(Neighbour::default()),
            ("shop", "api-leader") => Some(Neighbour { leader_of: Some(leader_of), uid: None }),
            _ => None,
        }
    }

    fn claimants(&self, namespace: &str, leader_name: &str) -> Vec<String> {
        match (namespace, leader_name) {
            ("shop", "api-leader") => vec!["api".into()],
            ("shop", "soon") => (1..=5).map(|n| format!("s{n}")).collect(),
            _ => Vec::new(),
        }
    }

    fn services_at_limit(&self, namespace: &str) -> Option<Reached> {
        (namespace == "full").then_some(Reached { found: 501, bound: 500 })
    }

    fn synced(&self) -> bool {
        true
    }
}

/// A good Service `shop/web` with these annotations.
fn service(annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    })
}

/// The body of a review.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "4b7a",
            "kind": {"group": "", "version": "v1", "kind": "Service"},
            "resource": {"group": "", "version": "v1", "resource": "services"},
            "operation": operation,
            "namespace": object.pointer("/metadata/namespace").cloned().unwrap_or_default(),
            "name": object.pointer("/metadata/name").cloned().unwrap_or_default(),
            "userInfo": {"username": "jane"},
            "object": object,
            "oldObject": old,
            "dryRun": false,
        },
    })
}

fn judged(path: Path, body: &Value) -> (Judged, Value) {
    let body = serde_json::to_vec(body).unwrap();
    let judged = judge(path, &body, &Shop, NameRule::Dns1123, SELF).unwrap();
    let answer = serde_json::from_slice(&judged.body).unwrap();
    (judged, answer)
}

/// The causes of a refusal, a line each; empty when it was allowed.
fn causes(answer: &Value) -> Vec<String> {
    let causes = answer.pointer("/response/status/details/causes");
    let text = |cause: &Value, key: &str| cause[key].as_str().unwrap().to_owned();
    causes
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|c| format!("{} | {} | {}", text(c, "reason"), text(c, "field"), text(c, "message")))
        .collect()
}

/// `object` with the value at the pointer replaced (its parent must exist).
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// One annotation beside `enabled: "true"`.
fn on(key: &str, value: &str) -> Value {
    service(&[("zen-lead.io/enabled", "true"), (&format!("zen-lead.io/{key}"), value)])
}

/// A mirrored load balancer with these annotations.
fn load_balancer(annotations: &[(&str, &str)]) -> Value {
    let settings = [("zen-lead.io/enabled", "true"), ("zen-lead.io/leader-type", "mirror")];
    let object = service(&[&settings, annotations].concat());
    with(object, "/spec/type", "LoadBalancer".into())
}

#[test]
fn every_mistake_is_named_with_what_to_write_instead() {
    for (object, expected) in refused::refused() {
        let (judged, answer) = judged(Path::Validate, &review("CREATE", &object, &Value::Null));
        assert_eq!(
            causes(&answer),
            expected,
            "expected by core/src/admission/review/tests/refused.rs"
        );
        assert_eq!(judged.outcome, Outcome::Denied);
        assert_eq!(judged.rules.len(), expected.len());
        assert_eq!(answer.pointer("/response/allowed"), Some(&Value::Bool(false)));
    }
}

#[test]
fn a_refusal_is_the_api_servers_own_invalid_error() {
    let object = service(&[("zen-lead.io/enabled", "on"), ("zen-lead.io/sticky", "n")]);
    let (_, answer) = judged(Path::Validate, &review("CREATE", &object, &Value::Null));
    assert_eq!(
        answer,
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": "4b7a",
                "allowed": false,
                "status": {
                    "status": "Failure",
                    "code": 422,
                    "reason": "Invalid",
                    "message": "Service \"web\" is invalid: [metadata.annotations[zen-lead.io/enabled]: \
                        Invalid value: \"on\": must be \"true\" or \"false\"; write \"true\", \
                        metadata.annotations[zen-lead.io/sticky]: \
                        Invalid value: \"n\": must be \"true\" or \"false\"; write \"false\"]",
                    "details": {
                        "name": "web",
                        "group": "",
                        "kind": "Service",
                        "causes": [
                            {
                                "reason": "FieldValueInvalid",
                                "message": "Invalid value: \"on\": must be \"true\" or \"false\"; write \"true\"",
                                "field": "metadata.annotations[zen-lead.io/enabled]",
                            },
                            {
                                "reason": "FieldValueInvalid",
                                "message": "Invalid value: \"n\": must be \"true\" or \"false\"; write \"false\"",
                                "field": "metadata.annotations[zen-lead.io/sticky]",
                            },
                        ],
                    },
                },
            },
        })
    );
    let one = service(&[("zen-lead.io/sticky", "n")]);
    let (_, answer) = judged(Path::Validate, &review("CREATE", &one, &Value::Null));
    assert_eq!(
        answer["response"]["status"]["message"],
        "Service \"web\" is invalid: metadata.annotations[zen-lead.io/sticky]: \
         Invalid value: \"n\": must be \"true\" or \"false\"; write \"false\""
    );
}

#[test]
fn good_services_are_allowed_with_at_most_a_warning() {
    let cases = [
        (on("sticky", "true"), Outcome::Allowed, json!(null)),
        (
            on("sticky", "false"),
            Outcome::Warned,
            json!([
                "zen-lead.io/sticky is false: connections stay with a leader that was replaced while it was healthy"
            ]),
        ),
        (
            load_balancer(&[
                ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"),
                ("metallb.io/loadBalancerIPs", "10.0.0.1"),
                (
                    "zen-lead.io/copy-annotations",
                    "service.beta.kubernetes.io/aws-load-balancer-scheme,-metallb.io/loadBalancerIPs",
                ),
            ]),
            Outcome::Allowed,
            json!(null),
        ),
        (on("leader-service-name", "1st"), Outcome::Allowed, json!(null)),
    ];
    for (object, outcome, warnings) in cases {
        let (judged, answer) = judged(Path::Validate, &review("CREATE", &object, &Value::Null));
        assert_eq!(causes(&answer), Vec::<String>::new());
        assert_eq!(judged.outcome, outcome);
        assert_eq!(answer["response"]["warnings"], warnings);
        assert_eq!(answer["response"]["allowed"], true);
    }
}

#[test]
fn mutation_answers_with_a_patch_in_base64() {
    let object = service(&[("zen-lead.io/enabled", "true")]);
    let body = review("CREATE", &object, &Value::Null);
    let (judged, answer) = judged(Path::Mutate, &body);
    assert_eq!(judged.outcome, Outcome::Patched);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(patch).unwrap(),
        r#"[{"op":"add","path":"/metadata/annotations/zen-lead.io~1leader-service-name","value":"web-leader"}]"#
    );
    let unpatched = [
        with(body.clone(), "/request/subResource", "status".into()),
        with(body, "/request/userInfo/username", SELF.into()),
        review("CREATE", &on("leader-service-name", "x"), &Value::Null),
    ];
    for body in unpatched {
        let (_, answer) = self::judged(Path::Mutate, &body);
        assert_eq!(answer["response"], json!({"uid": "4b7a", "allowed": true}));
    }
}

#[test]
fn what_is_not_a_change_of_a_service_is_allowed_unread() {
    let bad = service(&[("zen-lead.io/enabled", "yes")]);
    let create = review("CREATE", &bad, &Value::Null);
    let cases = [
        review("DELETE", &Value::Null, &bad),
        review("CONNECT", &Value::Null, &Value::Null),
        with(create.clone(), "/request/kind/kind", "Pod".into()),
        with(create.clone(), "/request/kind/group", "serving.knative.dev".into()),
        with(create.clone(), "/request/userInfo/username", SELF.into()),
    ];
    for body in cases {
        for path in [Path::Validate, Path::Mutate] {
            let (judged, answer) = judged(path, &body);
            assert_eq!(judged.outcome, Outcome::Exempt);
            assert_eq!(answer["response"], json!({"uid": "4b7a", "allowed": true}));
        }
    }
    let (judged, _) = judged(Path::Validate, &with(create, "/request/dryRun", true.into()));
    assert!(judged.dry_run);
    assert_eq!(judged.outcome, Outcome::Denied);
    assert_eq!(judged.service.to_string(), "shop/web");
    assert_eq!((judged.verb.as_str(), judged.outcome.as_str()), ("create", "denied"));
}

#[test]
fn status_updates_are_judged_like_others() {
    let old = service(&[]);
    let new = service(&[("zen-lead.io/sticky", "no"), ("zen-lead.io/writer", "me")]);
    let body = with(review("UPDATE", &new, &old), "/request/subResource", "status".into());
    let (judged, _) = judged(Path::Validate, &body);
    assert_eq!(judged.rules, [Rule::StatusKey, Rule::Boolean]);
}

#[test]
fn bodies_that_are_no_reviews_are_errors_that_say_why() {
    let good = review("CREATE", &service(&[]), &Value::Null);
    let without = |pointer: &str| with(good.clone(), pointer, Value::Null).to_string();
    let megabyte = with(good.clone(), "/request/operation", "x".repeat(1 << 20).into()).to_string();
    let crowd =
        with(good.clone(), "/request/object/metadata/managedFields", json!(vec![(); 500_000]));
    let cases = [
        (
            &*crowd.to_string(),
            "too_many_values",
            "the body has more than 500000 values; an object with so many fields is not read",
        ),
        (
            "",
            "malformed",
            "the body is not a readable AdmissionReview: EOF while parsing a value at line 1 column 0",
        ),
        (
            "[]",
            "malformed",
            "the body is not a readable AdmissionReview: invalid length 0, expected struct Review with 3 elements at line 1 column 2",
        ),
        (
            "{}",
            "wrong_kind",
            r#"expected an AdmissionReview of admission.k8s.io/v1, found "" of """#,
        ),
        (
            &with(good.clone(), "/apiVersion", "admission.k8s.io/v1beta1".into()).to_string(),
            "wrong_kind",
            r#"expected an AdmissionReview of admission.k8s.io/v1, found "AdmissionReview" of "admission.k8s.io/v1beta1""#,
        ),
        (&without("/request"), "no_request", "the AdmissionReview has no request"),
        (&without("/request/uid"), "no_uid", "the request has no uid"),
        (
            &with(good.clone(), "/request/uid", "".into()).to_string(),
            "no_uid",
            "the request has no uid",
        ),
        (&without("/request/kind"), "no_kind", r#"the request "4b7a" has no kind"#),
        (&without("/request/object"), "no_object", r#"the request "4b7a" has no object"#),
        (
            &with(good.clone(), "/request/object/spec/ports", "x".into()).to_string(),
            "bad_object",
            r#"the request "4b7a" has an object that is not a readable Service: spec.ports: expected a list, found a text"#,
        ),
        (
            &megabyte,
            "malformed",
            &format!(
                "the body is not a readable AdmissionReview: unknown variant `{}... (line 1, column ",
                "x".repeat(183)
            ),
        ),
    ];
    for (body, label, words) in cases {
        let error = judge(Path::Validate, body.as_bytes(), &Shop, NameRule::Dns1123, SELF)
            .expect_err(label);
        assert_eq!(error.as_str(), label);
        let text = error.to_string();
        assert!(text.starts_with(words), "{text:.400}");
        assert!(text.len() < 400, "{} bytes", text.len());
    }
}

#[test]
fn warnings_keep_to_the_limits_of_the_api_server() {
    let long = bounded(vec!["w".repeat(200)]);
    assert_eq!(long, [format!("{}...", "w".repeat(117))]);
    let many = bounded(vec!["w".repeat(120); 100]);
    assert_eq!(many.len(), 34);
    assert_eq!(bounded(vec!["one".into(), "two".into()]), ["one", "two"]);
}

#[test]
fn an_object_of_a_mistake_a_key_is_refused_in_bounds() {
    let mistakes: Vec<_> = (0..70_000).map(|n| (format!("zen-lead.io/k{n:05}"), "x")).collect();
    let mistakes: Vec<_> = mistakes.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let (judged, answer) =
        judged(Path::Validate, &review("CREATE", &service(&mistakes), &Value::Null));
    assert_eq!(judged.rules.len(), 17);
    assert_eq!(
        causes(&answer)[16],
        "FieldValueNotSupported | metadata.annotations | Unsupported value: 69984 more keys that \
         begin with \"zen-lead.io/\" do not exist"
    );
    assert!(judged.body.len() < 20_000, "{} bytes", judged.body.len());
}

/// Any JSON, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z./-]{0,12}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in any_json()) {
        for body in [bytes, serde_json::to_vec(&json).unwrap()] {
            for path in [Path::Validate, Path::Mutate] {
                if let Err(error) = judge(path, &body, &Shop, NameRule::Dns1123, SELF) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    #[test]
    fn no_piece_of_a_review_panics(
        pointer in prop_oneof![
            Just("/request"), Just("/request/object"), Just("/request/oldObject"),
            Just("/request/object/metadata"), Just("/request/object/spec"), Just("/request/name"),
            Just("/request/object/metadata/annotations"), Just("/request/kind"),
        ],
        update in any::<bool>(),
        json in any_json(),
    ) {
        let object = service(&[("zen-lead.io/enabled", "true")]);
        let operation = if update { "UPDATE" } else { "CREATE" };
        let body = with(review(operation, &object, &object), pointer, json).to_string();
        for path in [Path::Validate, Path::Mutate] {
            match judge(path, body.as_bytes(), &Shop, NameRule::Dns1123, SELF) {
                Ok(judged) => {
                    let answer: Value = serde_json::from_slice(&judged.body).unwrap();
                    prop_assert_eq!(&answer["response"]["uid"], "4b7a");
                    prop_assert_eq!(
                        &answer["response"]["allowed"],
                        &Value::from(judged.outcome != Outcome::Denied)
                    );
                    prop_assert_eq!(judged.outcome == Outcome::Denied, !judged.rules.is_empty());
                }
                Err(error) => prop_assert!(!error.as_str().is_empty()),
            }
        }
    }

    #[test]
    fn no_annotations_panic(
        annotations in proptest::collection::btree_map("(zen-lead\\.io/)?[a-z-]{0,20}", ".{0,40}", 0..6),
    ) {
        let pairs: Vec<_> = annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let body = review("CREATE", &service(&pairs), &Value::Null);
        let (judged, answer) = judged(Path::Validate, &body);
        let unknown = annotations.keys().any(|key| key.starts_with("zen-lead.io/"));
        prop_assert_eq!(judged.outcome == Outcome::Denied, !causes(&answer).is_empty());
        prop_assert!(unknown || judged.outcome == Outcome::Allowed);
    }
}

/// Removed, not null. What says which write it is must be there; an UPDATE without the object before
/// it is judged as if everything had changed: it fails closed.
#[test]
fn a_field_that_is_missing_is_refused_or_judged_without_it() {
    let bad = service(&[("zen-lead.io/enabled", "true"), ("zen-lead.io/sticky", "yes")]);
    let verdict = |operation: &str, gone: &str| {
        let mut body = review(operation, &bad, &bad);
        let (parent, key) = gone.rsplit_once('/').unwrap();
        let removed = body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        assert!(removed.is_some(), "{gone}");
        let bytes = body.to_string();
        match judge(Path::Validate, bytes.as_bytes(), &Shop, NameRule::Dns1123, SELF) {
            Ok(judged) => {
                assert_eq!(judged.uid, "4b7a");
                format!("{:?}", judged.outcome)
            }
            Err(error) => error.as_str().to_owned(),
        }
    };
    for (gone, create, update) in [
        ("/apiVersion", "wrong_kind", "wrong_kind"),
        ("/kind", "wrong_kind", "wrong_kind"),
        ("/request", "no_request", "no_request"),
        ("/request/uid", "no_uid", "no_uid"),
        ("/request/operation", "malformed", "malformed"),
        ("/request/object", "no_object", "no_object"),
        ("/request/oldObject", "Denied", "Denied"),
        ("/request/kind", "no_kind", "no_kind"),
        ("/request/kind/kind", "no_kind", "no_kind"),
        // The core group has no name.
        ("/request/kind/group", "Denied", "Allowed"),
        ("/request/resource", "Denied", "Allowed"),
        ("/request/namespace", "Denied", "Allowed"),
        ("/request/name", "Denied", "Allowed"),
        ("/request/userInfo", "Denied", "Allowed"),
        ("/request/dryRun", "Denied", "Allowed"),
    ] {
        assert_eq!(
            (&*verdict("CREATE", gone), &*verdict("UPDATE", gone)),
            (create, update),
            "{gone}"
        );
    }
}
