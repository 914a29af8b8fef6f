//! What objects say, read by the model's own rules.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use zen_lead_core::keys::{kubernetes, setting, status};

use zen_lead_core::fixtures::api::{Server, Stored};

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
    let type_ = source.spec.as_ref().and_then(|s| s.type_.as_deref());
    let set = !value(setting::ENABLED).is_empty();
    if value(setting::STICKY) == "perhaps" || (set && type_ == Some("ExternalName")) {
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

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The annotations by which objects of ours are known (docs/decisions/evidence.md).
const STAMPS: [&str; 4] =
    [status::DECISION_VERSION, status::LEADER_EPOCH, status::DECIDED_AT, status::WRITE_ID];

fn is_stamped(meta: &ObjectMeta) -> bool {
    meta.annotations.iter().flatten().any(|(key, _)| STAMPS.contains(&key.as_str()))
}

/// The Services and slices that evidence is taken from.
pub type Slices = BTreeMap<String, EndpointSlice>;

/// The evidence for a leader Service of this source, which asks for the name `wanted`: the controller
/// owner and a second sign, or without any controller owner all the others together.
pub fn is_leader_of(
    service: &Service,
    slices: &Slices,
    source: &str,
    uid: &str,
    wanted: &str,
) -> bool {
    let meta = &service.metadata;
    let named = label(meta, status::SOURCE_SERVICE) == source;
    if service.name() == source {
        return false;
    }
    let Some(owner) = controller(meta) else {
        let of_ours = |slice: &EndpointSlice| {
            controller(&slice.metadata).is_some() && is_slice_of(slice, service)
        };
        return named
            && is_stamped(meta)
            && (service.name() == wanted || slices.values().any(of_ours));
    };
    let right = owner.kind == "Service" && owner.api_version == "v1";
    right && owner.uid == uid && (named || (is_stamped(meta) && owner.name == source))
}

/// It was made for a source of this name, whichever that was.
pub fn was_made_for(service: &Service, source: &str) -> bool {
    let meta = &service.metadata;
    let named = label(meta, status::SOURCE_SERVICE) == source;
    match controller(meta) {
        Some(owner) => {
            owner.kind == "Service" && owner.name == source && (named || is_stamped(meta))
        }
        None => named && is_stamped(meta),
    }
}

/// [`is_leader_of`] for the present source.
pub fn leads_for(service: &Service, slices: &Slices, source: &Service) -> bool {
    is_leader_of(service, slices, &source.name(), &source.id(), &leader_name(source))
}

/// The evidence for a slice of this leader Service: the label, or name and stamp together, with the
/// controller owner; without any controller owner name, stamp, and that label or the source label.
pub fn is_slice_of(slice: &EndpointSlice, leader: &Service) -> bool {
    let meta = &slice.metadata;
    let managed = label(meta, kubernetes::SLICE_MANAGED_BY) == "zen-lead";
    let named = led_by(&slice.name()) == Some(&leader.name());
    if let Some(owner) = controller(meta) {
        return owner.uid == leader.id() && (managed || (named && is_stamped(meta)));
    }
    let source = label(meta, status::SOURCE_SERVICE);
    let owner = controller(&leader.metadata).map(|o| o.name.clone());
    let of_source = label(&leader.metadata, status::SOURCE_SERVICE) == source;
    let sourced = !source.is_empty() && (of_source || owner == Some(source));
    named && is_stamped(meta) && (managed || sourced)
}

/// The name of the leader Service in the name of a slice.
pub fn led_by(slice: &str) -> Option<&str> {
    slice.strip_suffix("-zen-lead-ipv4").or_else(|| slice.strip_suffix("-zen-lead-ipv6"))
}

/// Lock and follower of the leader Service a slice belongs to.
pub fn siblings<'a>(
    server: &'a Server,
    slice: &EndpointSlice,
) -> (Option<&'a EndpointSlice>, Option<&'a EndpointSlice>) {
    let name = slice.name();
    let service = led_by(&name).unwrap_or_default();
    let leader = server.services.now.get(service);
    let same = |s: &&EndpointSlice| {
        let owner = |meta| controller(meta).map(|o| o.uid.clone());
        s.name() == name
            || leader.is_some_and(|l| is_slice_of(s, l))
            || owner(&s.metadata) == owner(&slice.metadata)
    };
    let find =
        |family: &str| server.slices.now.get(&format!("{service}-zen-lead-{family}")).filter(same);
    (find("ipv4"), find("ipv6"))
}
