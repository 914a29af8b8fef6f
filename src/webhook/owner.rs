//! Makes zen-lead's Namespace own the webhook configurations, so that deleting the Namespace deletes them
//! too and Services can still be written.
//!
//! Done at run time because the manifests cannot know the uid of the Namespace.

use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::Duration;

use crate::config::Serve;
use crate::platform::api::{self, CallError, Caller};
use crate::platform::operation::{Operation, Target};
use crate::platform::runtime::Runtime;

/// Field manager of the owner references.
const FIELD_MANAGER: &str = "zen-lead-ownership";
/// Deadline of a pass: up to five calls, each with its own deadline.
const PASS: Duration = Duration::from_secs(30);
/// Pause between two passes.
const AGAIN: Duration = Duration::from_mins(1);

/// Starts the task that keeps the owner references in place.
pub fn start(args: &Serve, runtime: &Runtime) {
    let (client, caller) = (runtime.client.clone(), runtime.caller.clone());
    let (namespace, validating, mutating) =
        (args.namespace.clone(), args.validating_webhook.clone(), args.mutating_webhook.clone());
    runtime.supervisor.spawn_until_stopping("ownership", async move {
        loop {
            let pass = own(&client, &caller, &namespace, &validating, &mutating);
            let (operation, about) = (Operation::OwnershipPass, Target::own(&namespace));
            let pass = api::collection(&caller.metrics, operation, about, PASS, pass);
            if let Err(error) = pass.await {
                tracing::warn!(
                    "cannot make the Namespace {namespace} own the webhook configurations: {error}; \
                     tried again in {AGAIN:?}"
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

async fn own(
    client: &Client,
    caller: &Caller,
    namespace: &str,
    validating: &str,
    mutating: &str,
) -> Result<(), CallError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let about = Target::own(namespace);
    let found = api::call(caller, Operation::GetNamespace, about, || api.get(namespace)).await?;
    let uid = found.metadata.uid.unwrap_or_default();
    set::<ValidatingWebhookConfiguration>(client, caller, validating, namespace, &uid).await?;
    set::<MutatingWebhookConfiguration>(client, caller, mutating, namespace, &uid).await
}

async fn set<K>(
    client: &Client,
    caller: &Caller,
    name: &str,
    namespace: &str,
    namespace_uid: &str,
) -> Result<(), CallError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let about = Target::own(name);
    let Some(now) = api::call(caller, Operation::GetWebhook, about, || api.get_opt(name)).await?
    else {
        return Ok(());
    };
    let owners = now.meta().owner_references.iter().flatten();
    if owners.into_iter().any(|o| o.uid == namespace_uid) {
        return Ok(());
    }
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name,
            "uid": now.meta().uid,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": namespace_uid,
            }],
        },
    });
    let (params, patch) = (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(&body));
    api::call(caller, Operation::ApplyWebhook, about, || api.patch(name, &params, &patch)).await?;
    Ok(())
}
