//! R-b at rest: objects that are ours by the evidence carry all of their signs again.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zen_lead_core::keys::{kubernetes, status};

use crate::checks::{Bad, bad};
use crate::facts::{is_slice_of, label, text};
use zen_lead_core::fixtures::api::{Server, Stored};

fn owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    owners.any(|o| o.controller == Some(true) && o.kind == "Service" && o.uid == uid)
}

/// Labels, owners and annotations of a leader Service and its slices.
pub fn repaired(server: &Server, source: &Service, leader: &Service) -> Result<(), Bad> {
    let meta = &leader.metadata;
    let signs = [
        ("managed-by", label(meta, kubernetes::MANAGED_BY) == "zen-lead"),
        ("source-service", label(meta, status::SOURCE_SERVICE) == source.name()),
        ("owner", owned_by(meta, &source.id())),
        ("decision-version", !text(meta, status::DECISION_VERSION).is_empty()),
    ];
    let lost: Vec<_> = signs.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if !lost.is_empty() && meta.deletion_timestamp.is_none() {
        return bad("R-b: the leader Service is repaired", format!("{lost:?} of {leader:?}"));
    }
    // Without a lock of ours the only writes are those that take endpoints out.
    let lock = server.slices.now.get(&format!("{}-zen-lead-ipv4", leader.name()));
    if lock.is_none_or(|lock| !is_slice_of(lock, leader)) {
        return Ok(());
    }
    for slice in server.slices.now.values().filter(|s| is_slice_of(s, leader)) {
        let meta = &slice.metadata;
        let set = |key: &str| !text(meta, key).is_empty();
        let signs = [
            ("service-name", label(meta, kubernetes::SERVICE_NAME) == leader.name()),
            ("managed-by", label(meta, kubernetes::SLICE_MANAGED_BY) == "zen-lead"),
            ("source-service", label(meta, status::SOURCE_SERVICE) == source.name()),
            ("owner", owned_by(meta, &leader.id())),
            ("decided-at", set(status::DECIDED_AT)),
        ];
        let lost: Vec<_> =
            signs.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
        if !lost.is_empty() && meta.deletion_timestamp.is_none() {
            return bad("R-b: the slice is repaired", format!("{lost:?} of {slice:?}"));
        }
    }
    Ok(())
}
