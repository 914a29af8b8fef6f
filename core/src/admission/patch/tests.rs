//! The patch: what it adds, when it adds nothing, and that a second one never follows.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(service: &Value) -> (Value, Option<Patch>) {
    let patch = patch(&serde_json::from_value(service.clone()).unwrap(), NameRule::Dns1035);
    let mut after = service.clone();
    if let Some(patch) = &patch {
        json_patch::patch(&mut after, patch).unwrap();
    }
    (after, patch)
}

fn service(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

#[test]
fn the_default_name_is_added_to_an_enabled_service() {
    let (after, patch) = patched(&service("web", &json!({"zen-lead.io/enabled": "true"})));
    assert_eq!(
        serde_json::to_value(patch).unwrap(),
        json!([{
            "op": "add",
            "path": "/metadata/annotations/zen-lead.io~1leader-service-name",
            "value": "web-leader",
        }])
    );
    assert_eq!(
        after["metadata"]["annotations"],
        json!({"zen-lead.io/enabled": "true", "zen-lead.io/leader-service-name": "web-leader"})
    );
}

#[test]
fn nothing_is_added_where_nothing_is_missing_or_nothing_would_help() {
    let on = json!({"zen-lead.io/enabled": "true"});
    let mut deleted = service("web", &on);
    deleted["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z".into();
    let mut leader = service("web", &on);
    leader["metadata"]["labels"] = json!({"zen-lead.io/source-service": "api"});
    let mut unnamed = service("web", &on);
    unnamed["metadata"] = json!({"generateName": "web-", "annotations": on});
    for unchanged in [
        service("web", &json!(null)),
        service("web", &json!({})),
        service("web", &json!({"zen-lead.io/sticky": "true"})),
        service("web", &json!({"zen-lead.io/enabled": "false"})),
        service("web", &json!({"zen-lead.io/enabled": "True"})),
        service(
            "web",
            &json!({"zen-lead.io/enabled": "true", "zen-lead.io/leader-service-name": ""}),
        ),
        // Wrong already: an unrelated change of it must not touch our keys.
        service("web", &json!({"zen-lead.io/enabled": "true", "zen-lead.io/sticky": "yes"})),
        service(&"a".repeat(57), &on),
        service("1web", &on),
        deleted,
        leader,
        unnamed,
    ] {
        let (_, patch) = patched(&unchanged);
        assert_eq!(patch, None, "{unchanged}");
    }
    assert!(patched(&service(&"a".repeat(56), &on)).1.is_some());
}

/// Any Service that the API server could send: ours or not, right or wrong, of any shape.
fn any_service() -> impl Strategy<Value = Value> {
    let one_of = |all: &'static [&'static str]| proptest::sample::select(all);
    let name = prop_oneof![
        4 => "[a-z]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|name| json!({"name": name})),
        1 => "[a-z]{1,10}-".prop_map(|prefix| json!({"generateName": prefix})),
        1 => Just(json!({"name": "1web"})),
    ];
    let key = prop_oneof![
        one_of(&setting::ALL).prop_map(str::to_owned),
        one_of(&crate::keys::status::ALL).prop_map(str::to_owned),
        "(zen-lead\\.io/)?[a-z~/.]{1,12}",
    ];
    let value = prop_oneof![
        one_of(&["true", "false", "oldest-ready", "5s", "1h", "strict", "mirror", "ClusterIP", ""]),
        one_of(&["web", "web-leader", "yes", "-1s", "a,-b", "internal", "NodePort"]),
    ]
    .prop_map(str::to_owned);
    let value = prop_oneof![3 => value, 1 => ".{0,10}"];
    let enabled = one_of(&["true", "true", "true", "false", "x"]);
    let labels = prop_oneof![
        4 => Just(Value::Null),
        2 => Just(json!({"app": "web", "zen-lead.io/sticky": "true"})),
        1 => Just(json!({"zen-lead.io/source-service": "api"})),
    ];
    let spec = prop_oneof![
        4 => Just(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})),
        1 => Just(json!({"type": "ExternalName", "externalName": "a.b"})),
        1 => Just(json!({"type": "LoadBalancer", "selector": {"a": "b"}, "ports": [{"port": 1}]})),
        1 => Just(json!({"ports": []})),
        1 => Just(Value::Null),
    ];
    let annotations = (
        proptest::option::weighted(0.8, enabled),
        proptest::collection::btree_map(key, value, 0..4),
    );
    (name, annotations, labels, spec, proptest::bool::weighted(0.1), proptest::bool::weighted(0.05))
        .prop_map(|(mut metadata, (enabled, annotations), labels, spec, deleted, bare)| {
            if !bare {
                metadata["annotations"] = json!(annotations);
                if let Some(enabled) = enabled {
                    metadata["annotations"][setting::ENABLED] = enabled.into();
                }
            }
            if !labels.is_null() {
                metadata["labels"] = labels;
            }
            if deleted {
                metadata["deletionTimestamp"] = "2026-11-23T00:00:00Z".into();
            }
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_patch_only_adds_and_is_never_followed_by_another(before in any_service()) {
        let (after, first) = patched(&before);
        let (again, second) = patched(&after);
        prop_assert_eq!(&second, &None);
        prop_assert_eq!(&again, &after);
        let mut undone = after.clone();
        if first.is_some() {
            let annotations = undone["metadata"]["annotations"].as_object_mut().unwrap();
            let added = annotations.remove(setting::LEADER_SERVICE_NAME);
            let name = before["metadata"]["name"].as_str().unwrap();
            prop_assert_eq!(added, Some(format!("{name}-leader").into()));
        }
        prop_assert_eq!(&undone, &before);
        // What was right stays right, and asks for the same.
        let read = |service: &Value| {
            settings::read(&serde_json::from_value(service.clone()).unwrap(), NameRule::Dns1035)
        };
        prop_assert_eq!(read(&before), read(&after));
    }
}
