//! The one thing that admission adds: the default name of the leader Service.
//!
//! Never changes or removes what a user wrote (GitOps would fight it), and adds nothing where
//! validation will refuse. Judging is `verdict`'s.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::Service;
use kube_core::ResourceExt;
use serde_json::Value;

use crate::keys::setting;
use crate::names::NameRule;
use crate::settings;

/// The patch for a Service on its way into the API server, or `None` when nothing is missing.
pub fn patch(service: &Service, names: NameRule) -> Option<Patch> {
    if service.metadata.deletion_timestamp.is_some()
        || settings::source_label(service).is_some()
        || service.annotations().contains_key(setting::LEADER_SERVICE_NAME)
    {
        return None;
    }
    // A Service that is wrong already must stay writable: an added key would have it judged again,
    // and an unrelated change refused.
    settings::read(service, names).ok()?;
    let name = settings::claimed_name(service, names)?;
    let path = PointerBuf::from_tokens(["metadata", "annotations", setting::LEADER_SERVICE_NAME]);
    Some(Patch(vec![PatchOperation::Add(AddOperation { path, value: Value::String(name) })]))
}

#[cfg(test)]
mod tests;
