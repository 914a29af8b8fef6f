//! The protecting policies of deploy/, for the namespaces of a run that ask for them.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::raw::Hand;
use crate::support::case::Case;
use crate::support::world::World;

const LABEL: &str = "zen-lead-tests/protected";

static MADE: OnceCell<()> = OnceCell::const_new();

/// Puts the policies in force in the namespace of a test.
pub async fn protect(t: &Case) {
    MADE.get_or_init(|| make(t.world.clone(), Hand::admin(t))).await;
    let namespaces: Api<Namespace> = Api::all(t.admin());
    let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: t.world.run}}}));
    namespaces.patch(&t.ns, &PatchParams::default(), &patch).await.unwrap();
}

async fn make(world: Arc<World>, admin: Hand) {
    let namespaces: Api<Namespace> = Api::all(world.admin.clone());
    let own = namespaces.get(&world.system).await.unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manifests/70-protection.yaml");
    let text = std::fs::read_to_string(path).unwrap().replace("zen-lead-system", &world.system);
    for mut object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let name = format!("{}-{name}", world.system);
        object["metadata"]["name"] = json!(name);
        // They are deleted with zen-lead's namespace.
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Namespace",
            "name": world.system, "uid": own.uid()}]);
        let group = "/apis/admissionregistration.k8s.io/v1";
        let path = if object["kind"] == "ValidatingAdmissionPolicyBinding" {
            let policy = object["spec"]["policyName"].as_str().unwrap();
            object["spec"]["policyName"] = json!(format!("{}-{policy}", world.system));
            let run = json!({"matchLabels": {LABEL: world.run}});
            object["spec"]["matchResources"] = json!({"namespaceSelector": run});
            format!("{group}/validatingadmissionpolicybindings")
        } else {
            format!("{group}/validatingadmissionpolicies")
        };
        admin.call("POST", &path, "application/json", &object).await.unwrap();
    }
    // An API server compiles and notices them a moment later.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}
