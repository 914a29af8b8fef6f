//! What a replica takes in of the objects that it is sent: those that it cannot decode are unknown.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead::index::{Dirty, Index};
use zen_lead::version::Rv;

use crate::clumsy::unreadable;
use crate::fixtures::NAMESPACE;
use crate::fixtures::api::{Answer, Event, Server, Stored};

/// A Service from the watch.
pub fn service(index: &mut Index, event: &Event<Service>) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_service(object.clone()),
        Event::Gone(object) => index.delete_service(object),
    }
}

/// A pod from the watch.
pub fn pod(index: &mut Index, event: &Event<Pod>) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_pod(object),
        Event::Gone(object) => index.delete_pod(object),
    }
}

/// A slice from the watch.
pub fn slice(index: &mut Index, event: &Event<EndpointSlice>) -> Dirty {
    match event {
        Event::Set(object) if unreadable(&object.metadata) => Dirty::new(),
        Event::Set(object) => index.apply_slice(object.clone()),
        Event::Gone(object) => index.delete_slice(object),
    }
}

fn decoded<T: Stored>(objects: impl Iterator<Item = T>) -> Vec<T> {
    objects.filter(|o| !unreadable(o.metadata())).collect()
}

/// A list of the Services.
pub fn services(index: &mut Index, server: &Server, version: Rv) -> Dirty {
    index.reset_services(decoded(server.services.now.values().cloned()), version)
}

/// A list of the pods.
pub fn pods(index: &mut Index, server: &Server, version: Rv) -> Dirty {
    let pods = decoded(server.pods.now.values().cloned());
    index.reset_pods(Some(NAMESPACE), &pods, version)
}

/// A list of slices, from now or a moment ago.
pub fn slices(index: &mut Index, listed: Vec<EndpointSlice>, version: Rv) -> Dirty {
    index.reset_slices(decoded(listed.into_iter()), version)
}

/// The object in an answer cannot be decoded.
pub fn is_unreadable(answer: &Answer) -> bool {
    match answer {
        Answer::Service(service) => unreadable(&service.metadata),
        Answer::Slice(slice) => unreadable(&slice.metadata),
        Answer::ServiceGone(_) | Answer::SliceGone(_) => false,
    }
}
