//! Which leader Services are ours: label, source name and controller owner must all agree.
//!
//! Only reads an object; what to do about the answer is the caller's business.

use k8s_openapi::api::core::v1::Service;

use crate::keys::{self, kubernetes, status};

/// The source that a leader Service of ours belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderOf {
    /// Name of the source Service.
    pub source: String,
    /// Uid of the source Service it was made for.
    pub owner_uid: String,
}

/// Reads whose leader Service this is; `None` unless the managed-by label, the source label and the
/// controller ownerReference agree.
pub fn leader_of(service: &Service) -> Option<LeaderOf> {
    let labels = service.metadata.labels.as_ref()?;
    if labels.get(kubernetes::MANAGED_BY).map(String::as_str) != Some(keys::MANAGER) {
        return None;
    }
    let source = labels.get(status::SOURCE_SERVICE)?;
    let owners = service.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let agrees = owner.api_version == "v1" && owner.kind == "Service" && owner.name == *source;
    agrees.then(|| LeaderOf { source: source.clone(), owner_uid: owner.uid.clone() })
}
