//! How a replica takes in the objects that it receives: those that it cannot decode are unknown.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;
use zen_lead_core::decode::{Decoded, Trim};
use zen_lead_core::index::pod::NamespacedPod;
use zen_lead_core::index::{Dirty, Index};
use zen_lead_core::keys::{PREFIX, kubernetes, status};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::version::Rv;

use super::{Kind, Without};
use crate::clumsy::unreadable;
use crate::facts::{label, text};
use zen_lead_core::fixtures::NAMESPACE;
use zen_lead_core::fixtures::api::{Answer, Event, Server, Stored};

/// The object as the decoding layer gives it, or none where what is unknown counts as absent.
fn decode<T: Stored + Trim + Resource>(object: T, without: Without) -> Option<Decoded<T>> {
    if !unreadable(object.metadata()) {
        return Some(Decoded::Object(object).trimmed());
    }
    let error = "status: it cannot be read".to_owned();
    let unknown = Decoded::unreadable(object.metadata().clone(), error);
    Some(unknown.trimmed()).filter(|_| without != Without::Unknown)
}

/// A Service from the watch.
pub fn service(index: &mut Index, event: &Event<Service>, without: Without) -> Dirty {
    match event {
        Event::Set(object) => decode(seen_service(object.clone(), without), without)
            .map(|object| index.apply_service(object))
            .unwrap_or_default(),
        Event::Gone(object) => index.delete_service(object),
    }
}

/// A pod from the watch.
pub fn pod(index: &mut Index, event: &Event<Pod>, without: Without) -> Dirty {
    match event {
        Event::Set(object) => decode(object.clone(), without)
            .and_then(NamespacedPod::trim_decoded)
            .map(|pod| index.apply_trimmed_pod(pod))
            .unwrap_or_default(),
        Event::Gone(object) => index.delete_pod(object),
    }
}

/// A slice from the watch.
pub fn slice(index: &mut Index, event: &Event<EndpointSlice>, without: Without) -> Dirty {
    match event {
        Event::Set(object) => decode(seen_slice(object.clone(), without), without)
            .map(|object| index.apply_slice(object))
            .unwrap_or_default(),
        Event::Gone(object) => index.delete_slice(object),
    }
}

/// A list of the Services.
pub fn services(index: &mut Index, server: &Server, version: Rv, without: Without) -> Dirty {
    let all = server.services.now.values().cloned().map(|s| seen_service(s, without));
    index.reset_decoded_services(all.filter_map(|s| decode(s, without)).collect(), version)
}

/// A list of the pods.
pub fn pods(index: &mut Index, server: &Server, version: Rv, without: Without) -> Dirty {
    let all = server.pods.now.values().cloned().filter_map(|pod| decode(pod, without));
    let pods = all.filter_map(NamespacedPod::trim_decoded).collect();
    index.reset_trimmed_pods(Some(NAMESPACE), pods, version)
}

/// A list of slices, from now or a moment ago.
pub fn slices(
    index: &mut Index,
    listed: Vec<EndpointSlice>,
    version: Rv,
    without: Without,
) -> Dirty {
    let all = listed.into_iter().map(|s| seen_slice(s, without));
    index.reset_decoded_slices(all.filter_map(|s| decode(s, without)).collect(), version)
}

/// Whether an object is known as it is now.
pub fn is_current(index: &Index, server: &Server, kind: Kind, name: &str) -> bool {
    let (known, now) = match kind {
        Kind::Services => {
            (index.service_version(NAMESPACE, name), server.services.now.get(name).map(version))
        }
        Kind::Slices => {
            (index.slice_version(NAMESPACE, name), server.slices.now.get(name).map(version))
        }
        Kind::Pods => (index.pod_version(NAMESPACE, name), server.pods.now.get(name).map(version)),
    };
    known == now
}

fn version(object: &impl Stored) -> Rv {
    Rv::of(object.metadata())
}

/// Takes in the answer to a write.
pub fn answer(index: &mut Index, key: &ServiceKey, answer: &Answer, without: Without) -> Dirty {
    match answer {
        Answer::Service(service) => decode((**service).clone(), without)
            .map(|object| index.answer_service(object))
            .unwrap_or_default(),
        Answer::Slice(slice) => decode((**slice).clone(), without)
            .map(|object| index.answer_slice(object))
            .unwrap_or_default(),
        Answer::ServiceGone(gone) => index.forget_service(key, &gone.name(), &gone.id()),
        Answer::SliceGone(gone) => index.forget_slice(key, &gone.name(), &gone.id()),
    }
}

/// Without evidence: a leader Service of which a sign was lost is a stranger's.
fn seen_service(mut service: Service, without: Without) -> Service {
    let meta = &service.metadata;
    let signs = [
        label(meta, kubernetes::MANAGED_BY) == "zen-lead",
        !label(meta, status::SOURCE_SERVICE).is_empty(),
        meta.owner_references.iter().flatten().any(|o| o.controller == Some(true)),
    ];
    let some = signs.contains(&true) && !text(meta, status::DECISION_VERSION).is_empty();
    if without == Without::Evidence && some && signs.contains(&false) {
        strip(&mut service.metadata);
    }
    service
}

/// Without evidence: a slice of which a sign was lost is a stranger's.
fn seen_slice(mut slice: EndpointSlice, without: Without) -> EndpointSlice {
    let meta = &slice.metadata;
    let whole = label(meta, kubernetes::SLICE_MANAGED_BY) == "zen-lead"
        && meta.owner_references.iter().flatten().any(|o| o.controller == Some(true));
    if without == Without::Evidence && !whole {
        strip(&mut slice.metadata);
    }
    slice
}

fn strip(meta: &mut ObjectMeta) {
    meta.owner_references = None;
    let ours = |key: &str| key.starts_with(PREFIX) || key == kubernetes::SLICE_MANAGED_BY;
    meta.annotations.get_or_insert_default().retain(|key, _| !ours(key));
    meta.labels.get_or_insert_default().retain(|key, _| !ours(key));
}
