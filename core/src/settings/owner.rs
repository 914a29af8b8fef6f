//! The signs that zen-lead leaves on what it makes, and whose leader Service a Service is by them.
//!
//! Only reads an object; what to do about the answer is the caller's business. The reasons are in
//! docs/decisions/evidence.md.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::source_label;
use crate::keys::status;

/// Annotations of which zen-lead puts at least one on everything it makes, and which admission and the
/// policies let no one else write.
const STAMPS: [&str; 4] =
    [status::DECISION_VERSION, status::LEADER_EPOCH, status::DECIDED_AT, status::WRITE_ID];

/// The source that a leader Service of ours belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderOf {
    /// Name of the source Service.
    pub source: String,
    /// Its controller owner says so; otherwise only label and annotations do.
    pub owned: bool,
}

/// Whether the object carries an annotation that only zen-lead writes.
pub fn is_stamped(meta: &ObjectMeta) -> bool {
    meta.annotations.iter().flat_map(BTreeMap::keys).any(|key| STAMPS.contains(&&**key))
}

/// The controller owner of an object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// Whether this reference names a Service.
pub fn is_service(owner: &OwnerReference) -> bool {
    owner.api_version == "v1" && owner.kind == "Service"
}

/// Reads whose leader Service this is; `None` where the signs on it do not prove that zen-lead made it:
/// a Service as controller owner together with the label or an annotation of ours, or, where it has no
/// controller owner any more, both.
pub fn leader_of(service: &Service) -> Option<LeaderOf> {
    let meta = &service.metadata;
    let label = source_label(service);
    let stamped = is_stamped(meta);
    let (source, owned) = match controller(meta) {
        Some(owner) => {
            let proved = is_service(owner) && (stamped || label == Some(&owner.name));
            (proved.then_some(&owner.name), true)
        }
        None => (label.filter(|_| stamped), false),
    };
    source.map(|source| LeaderOf { source: source.clone(), owned })
}
