//! Policies of deploy/ under names of the run, for the namespaces of a run that ask for them.

use std::path::Path;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::case::Case;
use super::world::World;

/// Creates the policies and bindings of a file. They hold where the namespace has the label, whose value is
/// the run, and an API server notices them a moment later.
pub async fn install(world: &World, file: &str, label: &str) {
    let namespaces: Api<Namespace> = Api::all(world.admin.clone());
    let own = namespaces.get(&world.system).await.unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).unwrap().replace("zen-lead-system", &world.system);
    for mut object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        let kind = object["kind"].as_str().unwrap().to_owned();
        object["metadata"]["name"] = json!(name_of(world, &object["metadata"]["name"]));
        // They are deleted with zen-lead's namespace.
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Namespace",
            "name": world.system, "uid": own.uid()}]);
        if kind == "ValidatingAdmissionPolicyBinding" {
            object["spec"]["policyName"] = json!(name_of(world, &object["spec"]["policyName"]));
            let run = json!({"matchLabels": {label: world.run}});
            object["spec"]["matchResources"] = json!({"namespaceSelector": run});
        }
        let version = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
        let resource = ApiResource::from_gvk(&version);
        let api: Api<DynamicObject> = Api::all_with(world.admin.clone(), &resource);
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
}

fn name_of(world: &World, name: &Value) -> String {
    format!("{}-{}", world.system, name.as_str().unwrap())
}

/// Puts what [`install`] made for this label in force in the namespace of a test.
pub async fn hold_in(t: &Case, label: &str) {
    let namespaces: Api<Namespace> = Api::all(t.admin());
    let patch = Patch::Merge(json!({"metadata": {"labels": {label: t.world.run}}}));
    namespaces.patch(&t.ns, &PatchParams::default(), &patch).await.unwrap();
}
