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

proptest! {
    #[test]
    fn a_patch_only_adds_and_is_never_followed_by_another(
        name in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        enabled in prop_oneof![Just("true"), Just("false"), Just("x")],
        annotations in proptest::collection::btree_map(
            "(zen-lead\\.io/)?(leader-service-name|sticky|[a-z~/]{1,10})", ".{0,10}", 0..5,
        ),
    ) {
        let mut annotations = json!(annotations);
        annotations["zen-lead.io/enabled"] = enabled.into();
        let before = service(&name, &annotations);
        let (after, first) = patched(&before);
        let (again, second) = patched(&after);
        prop_assert_eq!(&second, &None);
        prop_assert_eq!(&again, &after);
        let mut undone = after;
        if first.is_some() {
            let annotations = undone["metadata"]["annotations"].as_object_mut().unwrap();
            let added = annotations.remove("zen-lead.io/leader-service-name");
            prop_assert_eq!(added, Some(format!("{name}-leader").into()));
        }
        prop_assert_eq!(undone, before);
    }
}
