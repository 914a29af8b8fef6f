//! Reviews of Services with odd times and conditions, as kube-apiserver sends them.

use super::*;

/// What kube-apiserver 1.37 sends for an annotation set on a Service to which a controller gave a
/// condition without a time (`kubectl patch --subresource=status`), shortened by managedFields.
fn recorded() -> Value {
    let object = |enabled: Option<&str>| {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "shop",
                "uid": "2c4d1f39-5c0e-4a0e-9c39-0b2b8d3a7d11", "resourceVersion": "412",
                "creationTimestamp": "2026-11-29T12:00:00Z",
            },
            "spec": {
                "clusterIP": "10.0.0.42", "clusterIPs": ["10.0.0.42"],
                "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
                "selector": {"app": "web"}, "sessionAffinity": "None", "type": "ClusterIP",
            },
            "status": {
                "conditions": [{
                    "lastTransitionTime": null, "message": "", "reason": "", "status": "True",
                    "type": "x.example/Ready",
                }],
                "loadBalancer": {},
            },
        });
        if let Some(enabled) = enabled {
            object["metadata"]["annotations"] = json!({"zen-lead.io/enabled": enabled});
        }
        object
    };
    review("UPDATE", &object(Some("true")), &object(None))
}

#[test]
fn a_condition_of_others_without_a_time_is_not_judged() {
    let (allowed, answer) = judged(Path::Validate, &recorded());
    assert_eq!(allowed.outcome, Outcome::Allowed, "{answer}");
    let (patched, answer) = judged(Path::Mutate, &recorded());
    assert_eq!(patched.outcome, Outcome::Patched, "{answer}");
    let wrong = json!({"zen-lead.io/enabled": "yes"});
    let wrong = with(recorded(), "/request/object/metadata/annotations", wrong);
    let (denied, answer) = judged(Path::Validate, &wrong);
    assert_eq!((denied.outcome, causes(&answer).len()), (Outcome::Denied, 1), "{answer}");
}

#[test]
fn times_beyond_the_year_9999_are_no_reason_to_refuse() {
    for (pointer, outcome) in [
        ("/request/object/metadata/creationTimestamp", Outcome::Patched),
        ("/request/object/status/conditions/0/lastTransitionTime", Outcome::Patched),
        ("/request/oldObject/metadata/deletionTimestamp", Outcome::Patched),
        // It is being deleted: nothing is added.
        ("/request/object/metadata/deletionTimestamp", Outcome::Allowed),
    ] {
        let body = with(recorded(), pointer, "10000-01-01T00:00:00Z".into());
        assert_eq!(judged(Path::Validate, &body).0.outcome, Outcome::Allowed, "{pointer}");
        assert_eq!(judged(Path::Mutate, &body).0.outcome, outcome, "{pointer}");
    }
}

#[test]
fn an_old_object_that_cannot_be_read_lets_the_new_one_be_judged() {
    let body = with(recorded(), "/request/oldObject/spec/ports", "x".into());
    assert_eq!(judged(Path::Validate, &body).0.outcome, Outcome::Allowed);
    let wrong = json!({"zen-lead.io/enabled": "yes"});
    let body = with(body, "/request/object/metadata/annotations", wrong);
    assert_eq!(judged(Path::Validate, &body).0.outcome, Outcome::Denied);
}
