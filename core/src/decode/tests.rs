//! Exact inputs, as the API server may send them, and what is read of each.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_core::ObjectList;
use kube_core::WatchEvent;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

mod trim;

fn decode<K: Shape + Resource>(text: &str) -> Decoded<K> {
    serde_json::from_str(text).unwrap()
}

fn object<K: Shape + Resource>(value: &Value) -> K {
    match decode(&value.to_string()) {
        Decoded::Object(object) => object,
        Decoded::Unreadable(found) => panic!("{}: {value}", found.error),
    }
}

fn error<K: Shape + Resource>(value: &Value) -> String {
    match decode::<K>(&value.to_string()) {
        Decoded::Object(_) => panic!("it can be read: {value}"),
        Decoded::Unreadable(found) => {
            assert_eq!(found.metadata.name.as_deref(), Some("web"), "{value}");
            found.error
        }
    }
}

/// An object named web whose value at the pointer is replaced.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
    object
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"team": "a"}, "annotations": {"zen-lead.io/enabled": "true"},
            "finalizers": ["example.com/hold"],
            "managedFields": [{"manager": "kubectl", "time": null}],
        },
        "spec": {
            "type": "ClusterIP", "selector": {"app": "web"}, "clusterIP": "10.0.0.9",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
        },
        "status": {"loadBalancer": {}, "conditions": []},
    })
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
            ],
        },
    })
}

fn slice() -> Value {
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
            "generateName": "we", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/service-name": "web-leader", "team": "a"},
            "annotations": {"zen-lead.io/leader-epoch": "5", "example.com/note": "x"},
            "finalizers": ["example.com/hold"],
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web-leader", "uid": "u2",
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.1.0.1"], "hostname": "h", "nodeName": "n1", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "deprecatedTopology": {"k": "v"},
            "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]},
            "targetRef": {
                "apiVersion": "v1", "fieldPath": "p", "kind": "Pod", "name": "a",
                "namespace": "shop", "resourceVersion": "3", "uid": "u3",
            },
        }],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
    })
}

/// As k8s-openapi reads it.
fn whole<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_is_well_formed_is_read_as_ever() {
    let mut want: Service = whole(service());
    want.metadata.managed_fields = None;
    // No status of others is read.
    want.status = Some(Default::default());
    assert_eq!(object::<Service>(&service()), want);

    let mut want: Pod = whole(pod());
    want.spec.as_mut().unwrap().containers[0].name = String::new();
    assert_eq!(object::<Pod>(&pod()), want);

    let mut want: EndpointSlice = whole(slice());
    want.metadata.generation = None;
    assert_eq!(object::<EndpointSlice>(&slice()), want, "all that a PUT writes back");
}

#[test]
fn conditions_of_others_are_none_of_our_business() {
    for condition in [
        // As kube-apiserver keeps it when a controller leaves the time out.
        json!({"type": "x.example/Ready", "status": "True", "reason": "", "message": "",
               "lastTransitionTime": null}),
        json!({"type": "x.example/Ready", "status": "True"}),
        json!({"type": "x.example/Ready", "lastTransitionTime": "10000-01-01T00:00:00Z"}),
        json!({"type": 5, "status": {}}),
        json!({}),
        json!(null),
        json!("text"),
    ] {
        let ours = json!({"type": "zen-lead.io/LeaderReady", "status": "True", "reason": "R",
                          "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let alone = with(service(), "/status/conditions", json!([condition]));
        assert_eq!(object::<Service>(&alone).status, Some(Default::default()), "{condition}");
        let both = with(service(), "/status/conditions", json!([condition, ours]));
        let read = object::<Service>(&both).status.unwrap().conditions.unwrap();
        assert_eq!(read, [whole(ours)], "{condition}");
    }
}

#[test]
fn a_condition_of_ours_that_is_spoilt_spoils_nothing_else() {
    for (time, status) in [
        (json!(null), json!("True")),
        (json!("9999-12-31T23:59:59Z"), json!("True")),
        (json!(7), json!("True")),
        (json!("2026-01-01"), json!(true)),
    ] {
        let condition = json!({
            "type": "zen-lead.io/LeaderReady", "status": status, "lastTransitionTime": time,
        });
        let value = with(service(), "/status/conditions", json!([condition]));
        let read = object::<Service>(&value).status.unwrap().conditions.unwrap();
        assert_eq!(read.len(), 1, "{condition}");
        assert_eq!(read[0].last_transition_time.0, Timestamp::UNIX_EPOCH, "{condition}");
        assert_eq!(read[0].status, status.as_str().unwrap_or_default());
    }
    for conditions in [json!(null), json!("x"), json!({"a": 1}), json!([[]])] {
        let value = with(service(), "/status/conditions", conditions);
        assert_eq!(object::<Service>(&value).status, Some(Default::default()));
    }
}

#[test]
fn times_that_cannot_be_read_still_say_that_there_is_one() {
    for time in ["10000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday", ""] {
        for field in ["creationTimestamp", "deletionTimestamp"] {
            let value = with(pod(), &format!("/metadata/{field}"), json!(time));
            let meta = object::<Pod>(&value).metadata;
            let read = if field.starts_with('c') {
                meta.creation_timestamp
            } else {
                meta.deletion_timestamp
            };
            assert_eq!(read.map(|t| t.0), Some(Timestamp::MAX), "{field} {time}");
        }
        let value = with(pod(), "/status/conditions/0/lastTransitionTime", json!(time));
        let ready = object::<Pod>(&value).status.unwrap().conditions.unwrap().remove(0);
        assert_eq!((&*ready.status, ready.last_transition_time), ("True", None), "{time}");
    }
    let none = with(pod(), "/metadata/deletionTimestamp", json!(null));
    assert_eq!(object::<Pod>(&none).metadata.deletion_timestamp, None);
}

#[test]
fn a_null_is_nothing_there() {
    for pointer in [
        "/metadata/labels",
        "/metadata/annotations",
        "/metadata/finalizers",
        "/metadata/ownerReferences",
        "/spec/ports",
        "/spec/selector",
        "/spec/ipFamilies",
        "/spec/sessionAffinityConfig",
        "/spec/loadBalancerSourceRanges",
        "/status",
        "/spec",
    ] {
        let (null, mut gone) = (with(service(), pointer, json!(null)), service());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        gone.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        assert_eq!(object::<Service>(&null), object::<Service>(&gone), "{pointer}");
    }
    let null = with(pod(), "/spec/containers", json!(null));
    assert!(object::<Pod>(&null).spec.unwrap().containers.is_empty());
    let null = with(slice(), "/endpoints", json!(null));
    assert_eq!(object::<EndpointSlice>(&null).endpoints, None);
    let null = with(slice(), "/endpoints/0/addresses", json!(null));
    assert!(object::<EndpointSlice>(&null).endpoints.unwrap()[0].addresses.is_empty());
    let null = with(service(), "/metadata/labels/team", json!(null));
    assert_eq!(object::<Service>(&null).metadata.labels.unwrap()["team"], "", "as Go reads it");
}

#[test]
fn fields_that_nothing_needs_may_be_anything() {
    let odd =
        [json!(null), json!(1), json!(-1.5), json!("x"), json!([{"a": [1]}]), json!({"b": {}})];
    for value in odd {
        for pointer in [
            "/metadata/managedFields",
            "/metadata/selfLink",
            "/spec/healthCheckNodePort",
            "/spec/externalIPs",
            "/spec/newField",
            "/status/loadBalancer",
            "/newPart",
            "/kind",
        ] {
            object::<Service>(&with(service(), pointer, value.clone()));
        }
        for pointer in [
            "/spec/volumes",
            "/spec/containers/0/resources",
            "/spec/affinity",
            "/status/containerStatuses",
            "/status/startTime",
            "/status/qosClass",
        ] {
            object::<Pod>(&with(pod(), pointer, value.clone()));
        }
        object::<Secret>(&with(service(), "/data", value));
    }
}

#[test]
fn what_is_needed_and_wrong_is_named_and_the_metadata_are_kept() {
    let services = [
        ("/spec/ports", json!("x"), "spec.ports: expected a list, found a text"),
        (
            "/spec/ports/0/port",
            json!("80"),
            "spec.ports[0].port: expected a whole number of 32 bits, found a text",
        ),
        (
            "/spec/ports/0/port",
            json!(4_294_967_376_u64),
            "spec.ports[0].port: expected a whole number of 32 bits, found a number",
        ),
        ("/spec/ports/0", json!(null), "spec.ports[0]: expected an object, found null"),
        (
            "/spec/ports/0/targetPort",
            json!(true),
            "spec.ports[0].targetPort: expected a port number or name, found true or false",
        ),
        ("/spec/selector", json!([]), "spec.selector: expected an object, found a list"),
        ("/spec/selector/app", json!(1), "spec.selector[app]: expected a text, found a number"),
        ("/spec", json!([1]), "spec: expected an object, found a list"),
        ("/status", json!("x"), "status: expected an object, found a text"),
        ("/metadata/uid", json!(1), "metadata.uid: expected a text, found a number"),
        (
            "/metadata/labels/team",
            json!({}),
            "metadata.labels[team]: expected a text, found an object",
        ),
        (
            "/metadata/finalizers",
            json!([1.5]),
            "metadata.finalizers[0]: expected a text, found a number",
        ),
    ];
    for (pointer, value, want) in services {
        assert_eq!(error::<Service>(&with(service(), pointer, value)), want);
    }
    let pods = [
        (
            "/status/conditions/0/status",
            json!(true),
            "status.conditions[0].status: expected a text, found true or false",
        ),
        ("/status/podIPs", json!({}), "status.podIPs: expected a list, found an object"),
        ("/status/phase", json!(1), "status.phase: expected a text, found a number"),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!("http"),
            "spec.containers[0].ports[0].containerPort: expected a whole number of 32 bits, found a \
             text",
        ),
    ];
    for (pointer, value, want) in pods {
        assert_eq!(error::<Pod>(&with(pod(), pointer, value)), want);
    }
    let bad = with(slice(), "/endpoints/0/conditions/ready", json!("yes"));
    assert_eq!(
        error::<EndpointSlice>(&bad),
        "endpoints[0].conditions.ready: expected true or false, found a text"
    );

    // Everything else of the metadata is known.
    let bad = with(service(), "/metadata/labels/team", json!(1));
    let Decoded::Unreadable(found) = decode::<Service>(&bad.to_string()) else { panic!("{bad}") };
    assert_eq!(found.metadata.uid.as_deref(), Some("u1"));
    assert_eq!(found.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(found.metadata.annotations.unwrap()["zen-lead.io/enabled"], "true");
}

#[test]
fn watches_and_lists_go_on_with_what_cannot_be_read_and_end_at_what_is_no_object() {
    let bad = with(service(), "/spec/ports", json!("x"));
    let event = json!({"type": "MODIFIED", "object": bad}).to_string();
    let event: WatchEvent<Decoded<Service>> = serde_json::from_str(&event).unwrap();
    let WatchEvent::Modified(Decoded::Unreadable(found)) = event else { panic!("{event:?}") };
    assert_eq!(found.error, "spec.ports: expected a list, found a text");
    let list = json!({
        "apiVersion": "v1", "kind": "ServiceList", "metadata": {"resourceVersion": "9"},
        "items": [bad, service()],
    });
    let list: ObjectList<Decoded<Service>> = serde_json::from_str(&list.to_string()).unwrap();
    let read: Vec<bool> = list.iter().map(|s| matches!(s, Decoded::Object(_))).collect();
    assert_eq!(read, [false, true]);
    for (text, want) in [
        ("null", "expected an object, found null"),
        ("[1]", "expected an object, found a list"),
        ("\"x\"", "expected an object, found a text"),
    ] {
        let error = serde_json::from_str::<Decoded<Service>>(text).unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
    }
}

#[test]
fn only_what_was_read_is_written() {
    let read = decode::<EndpointSlice>(&slice().to_string());
    let mut want = slice();
    want["metadata"].as_object_mut().unwrap().remove("generation");
    let mut written = serde_json::to_value(&read).unwrap();
    for key in ["apiVersion", "kind"] {
        written.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(written, want);
    let bad = with(slice(), "/ports", json!("x"));
    let refused = serde_json::to_value(decode::<EndpointSlice>(&bad.to_string())).unwrap_err();
    assert_eq!(refused.to_string(), "ports: expected a list, found a text");
}
