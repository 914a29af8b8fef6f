//! What objects say, read by rules of the model's own.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zen_lead::index::slice::controller_uid;
use zen_lead::keys::{kubernetes, setting, status};

use crate::fixtures::api::{Server, Stored};

pub fn text(meta: &ObjectMeta, key: &str) -> String {
    meta.annotations.as_ref().and_then(|a| a.get(key)).cloned().unwrap_or_default()
}

pub fn label(meta: &ObjectMeta, key: &str) -> String {
    meta.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default()
}

pub fn number(meta: &ObjectMeta, key: &str) -> u64 {
    text(meta, key).parse().unwrap_or(0)
}

/// Uids of the pods a slice names, and whether they are routed to.
pub fn named(slice: &EndpointSlice) -> Vec<(String, bool)> {
    let uid = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        e.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default()
    };
    let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        e.conditions.as_ref().and_then(|c| c.ready) != Some(false)
    };
    slice.endpoints.iter().flatten().map(|e| (uid(e), ready(e))).collect()
}

pub fn routed(slice: &EndpointSlice) -> Option<String> {
    named(slice).into_iter().find(|(_, ready)| *ready).map(|(uid, _)| uid)
}

pub fn healthy(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ready =
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !finished && pod.metadata.deletion_timestamp.is_none()
}

pub fn ready_since(pod: &Pod) -> Timestamp {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .find_map(|c| c.last_transition_time.as_ref().map(|t| t.0))
        .unwrap_or_default()
}

pub fn has_address(pod: &Pod, family: &str) -> bool {
    let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    ips.into_iter().any(|ip| ip.ip.contains(':') == (family == "IPv6"))
}

pub fn selected(pod: &Pod, source: &Service) -> bool {
    let selector = source.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    !selector.is_empty() && selector.iter().all(|(k, v)| label(&pod.metadata, k) == *v)
}

pub fn seconds(source: &Service, key: &str) -> SignedDuration {
    let value = text(&source.metadata, key);
    SignedDuration::from_secs(value.trim_end_matches('s').parse().unwrap_or(0))
}

/// What a source asks for, by the few values that the model writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Nothing,
    Invalid,
    Leader,
}

pub fn asks(source: &Service) -> Asks {
    let value = |key| text(&source.metadata, key);
    if value(setting::STICKY) == "perhaps" {
        Asks::Invalid
    } else if value(setting::ENABLED) == "true" {
        Asks::Leader
    } else {
        Asks::Nothing
    }
}

pub fn leader_name(source: &Service) -> String {
    let asked = text(&source.metadata, setting::LEADER_SERVICE_NAME);
    if asked.is_empty() { format!("{}-leader", source.name()) } else { asked }
}

pub fn sticky(source: &Service) -> bool {
    text(&source.metadata, setting::STICKY) != "false"
}

/// Label, source name and controller owner all say that it leads for this source.
pub fn is_leader_of(service: &Service, source: &str, uid: &str) -> bool {
    label(&service.metadata, kubernetes::MANAGED_BY) == "zen-lead"
        && label(&service.metadata, status::SOURCE_SERVICE) == source
        && controller_uid(&service.metadata) == Some(uid)
}

pub fn is_slice_of(slice: &EndpointSlice, leader: &Service) -> bool {
    label(&slice.metadata, kubernetes::SLICE_MANAGED_BY) == "zen-lead"
        && label(&slice.metadata, kubernetes::SERVICE_NAME) == leader.name()
        && controller_uid(&slice.metadata) == Some(&*leader.id())
}

/// Lock and follower of the leader Service a slice belongs to.
pub fn siblings<'a>(
    server: &'a Server,
    slice: &EndpointSlice,
) -> (Option<&'a EndpointSlice>, Option<&'a EndpointSlice>) {
    let service = label(&slice.metadata, kubernetes::SERVICE_NAME);
    let find = |family: &str| {
        let name = format!("{service}-zen-lead-{family}");
        server
            .slices
            .now
            .get(&name)
            .filter(|s| controller_uid(&s.metadata) == controller_uid(&slice.metadata))
    };
    (find("ipv4"), find("ipv6"))
}
