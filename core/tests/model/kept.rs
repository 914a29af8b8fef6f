//! R-a and R-b, checked at every write of a slice: a healthy leader stays routed, even if labels,
//! owners, annotations or conditions were changed or an object cannot be read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::Step;
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::keys::{kubernetes, status};
use zen_lead_core::version::Marks;

use crate::checks::{Bad, bad};
use crate::clumsy::unreadable;
use crate::describe::describe;
use crate::facts::{
    Asks, asks, has_address, healthy, is_slice_of, label, leader_name, leads_for, led_by, named,
    routed, selected, sticky, text,
};
use zen_lead_core::fixtures::api::{Event, Server, Store, Stored};

/// The pod that a slice is about: the one it names, or, if it names none, the last leader it records.
pub fn leader_of(slice: &EndpointSlice) -> String {
    let named = named(slice).into_iter().next().map(|(uid, _)| uid).filter(|uid| !uid.is_empty());
    named.unwrap_or_else(|| text(&slice.metadata, status::LEADER_POD_UID))
}

/// The objects at a version, each in its last readable state.
pub fn readable<T: Stored>(store: &Store<T>, version: u64) -> BTreeMap<String, T> {
    let mut objects: BTreeMap<String, T> = BTreeMap::new();
    for (_, event) in store.log.iter().take_while(|(v, _)| *v <= version) {
        match event {
            Event::Set(object) if unreadable(object.metadata()) => {
                let same = objects.get(&object.name()).is_some_and(|o| o.id() == object.id());
                if !same {
                    objects.insert(object.name(), object.clone());
                }
            }
            Event::Set(object) => _ = objects.insert(object.name(), object.clone()),
            Event::Gone(object) => _ = objects.remove(&object.name()),
        }
    }
    objects
}

/// The pods at a version, each in its last readable state. Labels and deletion are metadata, which can be
/// read whatever else cannot.
pub fn readable_pods(server: &Server, version: u64) -> BTreeMap<String, Pod> {
    let mut pods = readable(&server.pods, version);
    for (name, pod) in server.pods.at(version) {
        if let Some(known) = pods.get_mut(&name).filter(|k| k.id() == pod.id()) {
            known.metadata.labels = pod.metadata.labels;
            known.metadata.deletion_timestamp = pod.metadata.deletion_timestamp;
        }
    }
    pods
}

/// No write takes a healthy, selected, sticky leader out of the lock of the leader Service that an
/// enabled, valid source asks for.
pub fn kept(
    server: &Server,
    old: Option<&EndpointSlice>,
    new: &EndpointSlice,
    view: &Snapshot,
    reach: Marks,
    step: &Step,
) -> Result<(), Bad> {
    let Some(old) = old else { return Ok(()) };
    let Some(was) = routed(old).filter(|uid| !uid.is_empty()) else { return Ok(()) };
    if routed(new).as_ref() == Some(&was) {
        return Ok(());
    }
    let name = new.name();
    let services = readable(&server.services, reach.services.0);
    // Answers to its own writes may have shown the writer more than its watch.
    let source = match &view.source {
        SourceState::Judged { source, .. } => Some(&*source.object),
        _ => services.get(&*view.key.name),
    };
    let asking = |s: &&Service| {
        asks(s) == Asks::Leader && sticky(s) && s.metadata.deletion_timestamp.is_none()
    };
    let Some(source) = source.filter(asking) else { return Ok(()) };
    let wanted = leader_name(source);
    let leads = |l: &&Service| leads_for(l, &server.slices.now, source) && is_slice_of(old, l);
    let Some(leader) = services.get(&wanted).filter(leads) else { return Ok(()) };
    let first = leader.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let lock = format!("{wanted}-zen-lead-{}", first.unwrap_or_default().to_ascii_lowercase());
    if led_by(&name) != Some(&wanted) || name != lock {
        return Ok(());
    }
    let pods = readable_pods(server, reach.pods.0);
    let fit = |p: &&Pod| healthy(p) && selected(p, source) && has_address(p, &new.address_type);
    match pods.values().filter(fit).find(|p| p.id() == was) {
        Some(pod) => {
            let found = format!("{} led well: {}, was {:?}", pod.name(), describe(step), old);
            bad("R-b: a healthy leader stays routed", found)
        }
        None => Ok(()),
    }
}

/// A removed object carries every sign: name, labels and owner.
pub fn fully(old: &EndpointSlice, view: &Snapshot, step: &Step) -> Result<(), Bad> {
    let meta = &old.metadata;
    let service = label(meta, kubernetes::SERVICE_NAME);
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    let is = |uid: &str| owner.is_some_and(|o| o.uid == uid);
    let right = label(meta, kubernetes::SLICE_MANAGED_BY) == "zen-lead"
        && view.leaders.iter().any(|l| l.name() == service && is(l.uid()));
    if right {
        return Ok(());
    }
    bad("R-b: only what is ours by every sign is removed", format!("{} of {old:?}", describe(step)))
}
