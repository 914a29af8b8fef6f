//! What people and controllers do to objects that are not theirs: labels, owners, annotations,
//! conditions, finalizers, deletions, restores, squatted names, conversions, and what refuses writes.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use zen_lead_core::keys::{CONDITION_LEADER_READY, kubernetes, setting, status};

use crate::checks::Ledger;
use crate::facts::{leader_name, text};
use crate::world::PODS;
use zen_lead_core::fixtures::api::refuse::{FOREGROUND, Refuses, STRANGER, Write};
use zen_lead_core::fixtures::api::{Event, Server, Store, Stored};
use zen_lead_core::fixtures::{NAMESPACE, Object, ServiceFixture, foreign_slice, service};

mod chance;

pub use chance::clumsy;

/// An object that is changed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Source,
    Leader,
    Lock,
    Follower,
    Pod(&'static str),
}

/// What becomes of an owner reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    None,
    /// A Service that is gone.
    Past,
    /// An object that zen-lead did not make.
    Stranger,
    /// Ours, and no longer as controller.
    Plain,
    Right,
}

/// How an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// What a user puts under a name that zen-lead will want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squat {
    /// A slice without labels.
    Bare,
    /// A slice with the labels of a stranger.
    Labelled,
    /// A slice with our labels and the owner of a stranger.
    LookAlike,
    /// A Service, plain.
    Service,
    /// A Service with our labels and the owner of a stranger.
    ServiceLookAlike,
}

/// A clumsy move.
#[derive(Clone, Copy, Debug)]
pub enum Clumsy {
    /// A label is set, or removed by an empty value.
    Label(On, &'static str, &'static str),
    /// An annotation is set, or removed by an empty value.
    Annotate(On, &'static str, &'static str),
    Own(On, Owner),
    /// A condition of another controller appears.
    ForeignCondition(On),
    /// Our condition says the opposite, or goes.
    OurCondition(On, bool),
    Finalizer(On, bool),
    Delete(On, Cascade),
    /// The object is replaced by a copy of it as it was so many changes ago: a new uid, and the owner of
    /// then, or none.
    Restore(On, u8, bool),
    Squat(Squat, &'static str),
    /// The squatters leave.
    Vacate,
    Webhook(Write, Refuses),
    WebhooksOff,
    /// The namespace is being deleted.
    Terminating,
    /// The source gets another type, which the leader Service is to have too.
    Convert(&'static str, u8),
    /// No replica can decode the object any longer, or all can again.
    Unreadable(On, bool),
}

/// Marks what no client can decode.
const UNREADABLE: &str = "model.example/unreadable";
/// Marks what a user put under a name.
const SQUATS: &str = "model.example/squats";

/// Whether clients cannot decode it.
pub fn unreadable(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.contains_key(UNREADABLE))
}

fn leader_of_web(server: &Server) -> String {
    server.services.now.get("web").map_or_else(|| "web-leader".to_owned(), leader_name)
}

/// Changes an object as a plain update does; false where there is none.
fn change(server: &mut Server, on: On, change: &dyn Fn(&mut ObjectMeta)) -> bool {
    let name = match on {
        On::Source => "web".to_owned(),
        On::Leader => leader_of_web(server),
        On::Lock => format!("{}-zen-lead-ipv4", leader_of_web(server)),
        On::Follower => format!("{}-zen-lead-ipv6", leader_of_web(server)),
        On::Pod(name) => name.to_owned(),
    };
    match on {
        On::Source | On::Leader => {
            let Some(mut object) = server.services.now.get(&name).cloned() else { return false };
            change(&mut object.metadata);
            server.put_service(object);
        }
        On::Lock | On::Follower => {
            let Some(mut object) = server.slices.now.get(&name).cloned() else { return false };
            change(&mut object.metadata);
            server.put_slice(object);
        }
        On::Pod(_) => {
            let Some(mut object) = server.pods.now.get(&name).cloned() else { return false };
            change(&mut object.metadata);
            server.put_pod(object);
        }
    }
    true
}

fn slice_on(server: &Server, on: On) -> Option<EndpointSlice> {
    let family = match on {
        On::Lock => "ipv4",
        On::Follower => "ipv6",
        _ => return None,
    };
    server.slices.now.get(&format!("{}-zen-lead-{family}", leader_of_web(server))).cloned()
}

fn service_on(server: &Server, on: On) -> Option<Service> {
    match on {
        On::Source => server.services.now.get("web").cloned(),
        On::Leader => server.services.now.get(&leader_of_web(server)).cloned(),
        _ => None,
    }
}

/// Lets it happen.
pub fn happen(server: &mut Server, what: Clumsy, ledger: &mut Ledger) {
    let leader = leader_of_web(server);
    match what {
        Clumsy::Label(on, key, value) => {
            change(server, on, &|meta| set(meta.labels.get_or_insert_default(), key, value));
        }
        Clumsy::Annotate(on, key, value) => {
            change(server, on, &|meta| set(meta.annotations.get_or_insert_default(), key, value));
            if let Some(slice) = slice_on(server, on) {
                ledger.edited(&leader, &slice.id());
            } else if on == On::Leader {
                ledger.by_hand(&leader);
            }
        }
        Clumsy::Own(on, owner) => own(server, on, owner),
        Clumsy::ForeignCondition(on) => {
            conditions(server, on, &|all| {
                all.retain(|c| c.type_ != "clumsy.example/Ready");
                all.push(condition("clumsy.example/Ready", "True"));
            });
        }
        Clumsy::OurCondition(on, gone) => conditions(server, on, &|all| {
            for c in all.iter_mut().filter(|c| c.type_ == CONDITION_LEADER_READY) {
                c.status = if c.status == "True" { "False" } else { "True" }.into();
            }
            all.retain(|c| !gone || c.type_ != CONDITION_LEADER_READY);
        }),
        Clumsy::Finalizer(on, there) => {
            change(server, on, &|meta| {
                let all = meta.finalizers.get_or_insert_default();
                all.retain(|f| f != "clumsy.example/keep");
                if there && meta.deletion_timestamp.is_none() {
                    all.push("clumsy.example/keep".into());
                }
                meta.finalizers.take_if(|all| all.is_empty());
            });
        }
        Clumsy::Delete(on, cascade) => delete(server, on, cascade, &leader, ledger),
        Clumsy::Restore(on, back, with_owner) => {
            restore(server, on, back.into(), with_owner);
            ledger.by_hand(&leader);
        }
        Clumsy::Squat(squat, family) => squatting(server, squat, family, &leader),
        Clumsy::Vacate => vacate(server),
        Clumsy::Webhook(write, refuses) => _ = server.disturbed.webhooks.insert(write, refuses),
        Clumsy::WebhooksOff => server.disturbed.webhooks.clear(),
        Clumsy::Terminating => server.disturbed.terminating = true,
        Clumsy::Convert(to, n) => convert(server, to, n),
        Clumsy::Unreadable(on, is) => {
            let value = if is { "true" } else { "" };
            change(server, on, &|meta| {
                set(meta.annotations.get_or_insert_default(), UNREADABLE, value);
            });
        }
    }
}

fn set(map: &mut std::collections::BTreeMap<String, String>, key: &str, value: &str) {
    if value.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value.to_owned());
    }
}

fn reference(name: &str, uid: &str, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: name.into(),
        uid: uid.into(),
        controller: controller.then_some(true),
        block_owner_deletion: None,
    }
}

fn own(server: &mut Server, on: On, owner: Owner) {
    let above = match on {
        On::Leader => server.services.now.get("web").cloned(),
        On::Lock | On::Follower => service_on(server, On::Leader),
        _ => return,
    };
    let name = above.as_ref().map_or_else(|| "web".to_owned(), Stored::name);
    let uid = above.map(|s| s.id());
    let owners = match (owner, uid) {
        (Owner::None, _) => None,
        (Owner::Past, _) => Some(vec![reference(&name, "uid-past", true)]),
        (Owner::Stranger, _) => Some(vec![OwnerReference {
            kind: "ConfigMap".into(),
            ..reference("theirs", STRANGER, true)
        }]),
        (Owner::Plain, Some(uid)) => Some(vec![reference(&name, &uid, false)]),
        (Owner::Right, Some(uid)) => Some(vec![reference(&name, &uid, true)]),
        (_, None) => return,
    };
    change(server, on, &|meta| meta.owner_references.clone_from(&owners));
}

fn condition(kind: &str, status: &str) -> Condition {
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: "Clumsy".into(),
        message: String::new(),
        last_transition_time: Time(zen_lead_core::fixtures::at(0)),
        observed_generation: None,
    }
}

fn conditions(server: &mut Server, on: On, change: &dyn Fn(&mut Vec<Condition>)) {
    if let Some(mut object) = service_on(server, on) {
        change(object.status.get_or_insert_default().conditions.get_or_insert_default());
        server.put_service(object);
    }
}

fn delete(server: &mut Server, on: On, cascade: Cascade, leader: &str, ledger: &mut Ledger) {
    let name = match on {
        On::Source => "web".to_owned(),
        _ => leader.to_owned(),
    };
    match (on, cascade) {
        (On::Lock | On::Follower, _) => {
            if let Some(slice) = slice_on(server, on) {
                server.remove_slice(&slice.name());
            }
        }
        (_, Cascade::Background) => _ = server.remove_service(&name),
        (_, Cascade::Orphan) => server.orphan_service(&name),
        (_, Cascade::Foreground) => {
            let finalize = |meta: &mut ObjectMeta| {
                let all = meta.finalizers.get_or_insert_default();
                all.retain(|f| f != FOREGROUND);
                all.push(FOREGROUND.into());
            };
            let on = if on == On::Source { On::Source } else { On::Leader };
            if change(server, on, &finalize) {
                server.remove_service(&name);
            }
        }
    }
    ledger.by_hand(leader);
}

/// The object of this name as it was so many changes ago.
fn earlier<T: Stored>(store: &Store<T>, name: &str, back: usize) -> Option<T> {
    let versions = store.log.iter().rev().filter_map(|(_, event)| match event {
        Event::Set(object) if object.name() == name => Some(object),
        _ => None,
    });
    versions.clone().nth(back).or_else(|| versions.last()).cloned()
}

fn as_restored(meta: &mut ObjectMeta, with_owner: bool) {
    (meta.finalizers, meta.deletion_timestamp) = (None, None);
    if !with_owner {
        meta.owner_references = None;
    }
}

fn restore(server: &mut Server, on: On, back: usize, with_owner: bool) {
    let leader = leader_of_web(server);
    match on {
        On::Leader => {
            let Some(mut copy) = earlier(&server.services, &leader, back) else { return };
            server.remove_service(&leader);
            if !server.services.now.contains_key(&leader) {
                as_restored(&mut copy.metadata, with_owner);
                server.put_service(copy);
            }
        }
        On::Lock | On::Follower => {
            let family = if on == On::Lock { "ipv4" } else { "ipv6" };
            let name = format!("{leader}-zen-lead-{family}");
            let Some(mut copy) = earlier(&server.slices, &name, back) else { return };
            server.remove_slice(&name);
            if !server.slices.now.contains_key(&name) {
                as_restored(&mut copy.metadata, with_owner);
                server.put_slice(copy);
            }
        }
        On::Source | On::Pod(_) => {}
    }
}

fn squatting(server: &mut Server, squat: Squat, family: &str, leader: &str) {
    let name = format!("{leader}-zen-lead-{family}");
    let theirs = |slice: EndpointSlice| {
        let mut slice = slice.annotation(SQUATS, "true");
        if family == "ipv6" {
            slice.address_type = "IPv6".into();
            slice.endpoints = None;
        }
        slice
    };
    let slice = match squat {
        Squat::Bare => {
            let mut slice = foreign_slice(&name, leader);
            slice.metadata.labels = None;
            slice
        }
        Squat::Labelled => {
            foreign_slice(&name, "another").label(kubernetes::SLICE_MANAGED_BY, "clumsy.example")
        }
        Squat::LookAlike => foreign_slice(&name, leader)
            .label(kubernetes::SLICE_MANAGED_BY, "zen-lead")
            .label(status::SOURCE_SERVICE, "web")
            .owned_by("Service", leader, STRANGER),
        Squat::Service | Squat::ServiceLookAlike => {
            if server.services.now.contains_key(leader) {
                return;
            }
            let plain = service(leader).selecting("app", "theirs").annotation(SQUATS, "true");
            server.put_service(if squat == Squat::Service {
                plain
            } else {
                plain.leading("web", STRANGER)
            });
            return;
        }
    };
    if !server.slices.now.contains_key(&name) {
        server.put_slice(theirs(slice));
    }
}

/// The squatters leave.
pub fn vacate(server: &mut Server) {
    let squats = |meta: &ObjectMeta| !text(meta, SQUATS).is_empty();
    let slices: Vec<_> =
        server.slices.now.values().filter(|s| squats(&s.metadata)).map(Stored::name).collect();
    for name in &slices {
        server.remove_slice(name);
    }
    let services: Vec<_> =
        server.services.now.values().filter(|s| squats(&s.metadata)).map(Stored::name).collect();
    for name in &services {
        server.remove_service(name);
    }
}

/// The source as it is after a change of type; classes and ranges differ with `n`.
fn convert(server: &mut Server, to: &str, n: u8) {
    let Some(source) = server.services.now.get("web").cloned() else { return };
    let mut source = source.annotation(setting::LEADER_TYPE, "mirror");
    let balancer = to == "LoadBalancer";
    let spec = source.spec();
    spec.type_ = Some(to.to_owned());
    spec.load_balancer_class = (balancer && n > 0).then(|| format!("clumsy.example/{n}"));
    spec.load_balancer_source_ranges =
        (balancer && n.is_multiple_of(2)).then(|| vec!["10.0.0.0/8".to_owned()]);
    spec.external_name = (to == "ExternalName").then(|| "clumsy.example".to_owned());
    spec.external_traffic_policy = None;
    spec.allocate_load_balancer_node_ports = None;
    server.put_service(source);
}

/// Ends all that refuses, hangs or cannot be read; what was done to objects stays done.
pub fn over(server: &mut Server) {
    server.disturbed.webhooks.clear();
    (server.slice_quota, server.service_quota) = (false, false);
    if std::mem::take(&mut server.disturbed.terminating) {
        // The namespace went, and was made anew.
        let services: Vec<_> = server.services.now.keys().cloned().collect();
        let slices: Vec<_> = server.slices.now.keys().cloned().collect();
        free(server);
        for name in &services {
            server.remove_service(name);
        }
        for name in &slices {
            server.remove_slice(name);
        }
        crate::world::put_source(server, false);
    }
    free(server);
    for on in [On::Source, On::Leader, On::Lock, On::Follower] {
        happen(server, Clumsy::Unreadable(on, false), &mut Ledger::default());
    }
    for pod in PODS {
        happen(server, Clumsy::Unreadable(On::Pod(pod), false), &mut Ledger::default());
    }
}

/// Takes every finalizer off.
fn free(server: &mut Server) {
    let services: Vec<_> = server.services.now.values().cloned().collect();
    for mut object in services {
        object.metadata.finalizers = None;
        server.put_service(object);
    }
    let slices: Vec<_> = server.slices.now.values().cloned().collect();
    for mut object in slices {
        object.metadata.finalizers = None;
        server.put_slice(object);
    }
}

/// The namespace of all of it, in the form of an annotation's value.
pub fn qualified(pod: &str) -> String {
    format!("{NAMESPACE}/{pod}")
}
