//! What a replica takes in of the objects that it is sent: those that it cannot decode are unknown.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zen_lead::index::{Dirty, Index};
use zen_lead::keys::{PREFIX, kubernetes, status};
use zen_lead::version::Rv;

use super::Without;
use crate::clumsy::unreadable;
use crate::facts::{label, text};
use crate::fixtures::NAMESPACE;
use crate::fixtures::api::{Answer, Event, Server, Stored};

/// A Service from the watch.
pub fn service(index: &mut Index, event: &Event<Service>, without: Without) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_service(seen_service(object.clone(), without)),
        Event::Gone(object) => index.delete_service(object),
    }
}

/// A pod from the watch.
pub fn pod(index: &mut Index, event: &Event<Pod>, _: Without) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_pod(object),
        Event::Gone(object) => index.delete_pod(object),
    }
}

/// A slice from the watch.
pub fn slice(index: &mut Index, event: &Event<EndpointSlice>, without: Without) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_slice(seen_slice(object.clone(), without)),
        Event::Gone(object) => index.delete_slice(object),
    }
}

fn decoded<T: Stored>(objects: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    objects.filter(|o| !unreadable(o.metadata()))
}

/// A list of the Services.
pub fn services(index: &mut Index, server: &Server, version: Rv, without: Without) -> Dirty {
    let all = decoded(server.services.now.values().cloned());
    index.reset_services(all.map(|s| seen_service(s, without)).collect(), version)
}

/// A list of the pods.
pub fn pods(index: &mut Index, server: &Server, version: Rv, _: Without) -> Dirty {
    let pods: Vec<_> = decoded(server.pods.now.values().cloned()).collect();
    index.reset_pods(Some(NAMESPACE), &pods, version)
}

/// A list of slices, from now or a moment ago.
pub fn slices(
    index: &mut Index,
    listed: Vec<EndpointSlice>,
    version: Rv,
    without: Without,
) -> Dirty {
    let all = decoded(listed.into_iter()).map(|s| seen_slice(s, without));
    index.reset_slices(all.collect(), version)
}

/// The object in an answer cannot be decoded.
pub fn is_unreadable(answer: &Answer) -> bool {
    match answer {
        Answer::Service(service) => unreadable(&service.metadata),
        Answer::Slice(slice) => unreadable(&slice.metadata),
        Answer::ServiceGone(_) | Answer::SliceGone(_) => false,
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
