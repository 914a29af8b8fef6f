//! Signs of ours that others change, remove or restore: they are put back, and the leader keeps its
//! traffic all the while (rules R-b and R-c of docs/contributing/reliability.md).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::protocol::{dual, pair};
use super::*;
use crate::fixtures::api::refuse::{Refuses, Write};
use crate::index::evidence::controller;
use crate::keys::kubernetes;
use crate::version::Marks;

/// A change to the metadata of an object.
type Change = (&'static str, fn(&mut ObjectMeta));

fn without_label(meta: &mut ObjectMeta, key: &str) {
    meta.labels.get_or_insert_default().remove(key);
}

fn with_label(meta: &mut ObjectMeta, key: &str, value: &str) {
    meta.labels.get_or_insert_default().insert(key.into(), value.into());
}

/// What a person, a tool or a restore does to the metadata of what is ours.
const CHANGES: [Change; 12] = [
    ("managed-by is changed", |m| with_label(m, kubernetes::MANAGED_BY, "Helm")),
    ("managed-by is removed", |m| without_label(m, kubernetes::MANAGED_BY)),
    ("the source label is removed", |m| without_label(m, status::SOURCE_SERVICE)),
    ("the source label is changed", |m| with_label(m, status::SOURCE_SERVICE, "api")),
    ("the service name is removed", |m| without_label(m, kubernetes::SERVICE_NAME)),
    ("the slice's managed-by is removed", |m| without_label(m, kubernetes::SLICE_MANAGED_BY)),
    ("all labels are removed", |m| m.labels = None),
    ("the owner is removed", |m| m.owner_references = None),
    ("the owner is no controller", |m| {
        m.owner_references.as_mut().expect("it has one")[0].controller = Some(false);
    }),
    ("the owner has another name", |m| {
        m.owner_references.as_mut().expect("it has one")[0].name = "else".into();
    }),
    ("our annotations are removed", |m| {
        m.annotations.get_or_insert_default().retain(|k, _| !k.starts_with("zen-lead.io/"));
    }),
    ("the leader's annotations are removed", |m| {
        m.annotations.get_or_insert_default().retain(|k, _| !k.contains("leader-"));
    }),
];

/// Settles, and asks after each write that the pod still leads in every family.
fn settle_led_by(scene: &mut Scene, pod: &str, what: &str) {
    for n in 0.. {
        for slice in scene.server.slices.now.values() {
            assert_eq!(routed(slice).as_deref(), Some(pod), "{what}: {}", slice.name());
        }
        let Action::Do(step) = scene.decide().action else { break };
        scene.perform(&step);
        assert!(n < 20, "{what}: does not come to rest at {step:?}");
    }
}

/// Everything by which objects are known to be ours is in place.
fn is_whole(scene: &Scene, what: &str) {
    let label = |meta: &ObjectMeta, key: &str| {
        meta.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default()
    };
    let leader = scene.leader();
    assert_eq!(label(&leader.metadata, kubernetes::MANAGED_BY), "zen-lead", "{what}");
    assert_eq!(label(&leader.metadata, status::SOURCE_SERVICE), "web", "{what}");
    let owner = controller(&leader.metadata).map(|o| (&*o.name, &*o.uid));
    assert_eq!(owner, Some(("web", "u1")), "{what}");
    for slice in scene.server.slices.now.values() {
        for (key, value) in [
            (kubernetes::MANAGED_BY, "zen-lead"),
            (kubernetes::SLICE_MANAGED_BY, "zen-lead"),
            (kubernetes::SERVICE_NAME, "web-leader"),
            (status::SOURCE_SERVICE, "web"),
        ] {
            assert_eq!(label(&slice.metadata, key), value, "{what}: {key}");
        }
        let owner = controller(&slice.metadata).map(|o| (o.name.clone(), o.uid.clone()));
        assert_eq!(owner, Some((leader.name(), leader.id())), "{what}");
    }
    assert_eq!(scene.condition().0, "True", "{what}");
    let annotations = scene.leader().metadata.annotations.unwrap();
    let current = scene.routed().unwrap();
    assert_eq!(annotations[status::CURRENT_LEADER], format!("ns/{current}"), "{what}");
}

/// b leads, so that order alone would choose a; then something happens, and b is lost.
fn survives(mut scene: Scene, what: &str, happens: impl FnOnce(&mut Scene)) {
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    let epoch = scene.epoch();
    happens(&mut scene);
    settle_led_by(&mut scene, "b", what);
    is_whole(&scene, what);
    assert!(scene.epoch() >= epoch, "{what}: epochs only grow");
    scene.server.remove_pod("b");
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"), "{what}");
    is_whole(&scene, what);
}

#[test]
fn signs_lost_on_the_leader_service_are_put_back() {
    for (what, change) in CHANGES {
        for scene in [Scene::served(pair()), dual(pair())] {
            survives(scene, what, |scene| {
                let mut leader = scene.leader();
                change(&mut leader.metadata);
                scene.server.put_service(leader);
            });
        }
    }
}

#[test]
fn signs_lost_on_a_slice_are_put_back() {
    for (what, change) in CHANGES {
        survives(Scene::served(pair()), what, |scene| {
            let mut lock = scene.lock();
            change(&mut lock.metadata);
            scene.server.put_slice(lock);
        });
        survives(dual(pair()), what, |scene| {
            let mut follower = scene.follower();
            change(&mut follower.metadata);
            scene.server.put_slice(follower);
        });
    }
}

#[test]
fn marks_that_were_removed_are_put_back_after_a_read() {
    for value in ["", "clumsy", "services=7"] {
        for follower in [false, true] {
            let mut scene = dual(pair());
            let slice = if follower { scene.follower() } else { scene.lock() };
            let slice = scene.server.put_slice(slice.annotation(status::DECIDED_AT, value));
            let step = scene.next();
            assert_eq!((step.kind(), step.object()), (StepKind::Slice, &*slice.name()), "{value}");
            scene.settle();
            let slice = scene.server.slices.now[&slice.name()].clone();
            let marks = Marks::parse(&mark(&slice, status::DECIDED_AT));
            assert!(!marks.lack(&scene.snapshot().marks), "{value}: {marks}");
        }
    }
    // How far the last decision had seen is not known then.
    let mut scene = Scene::served(pair());
    scene.server.put_slice(scene.lock().annotation(status::DECIDED_AT, ""));
    let cached = Snapshot { consistent: false, ..scene.snapshot() };
    assert_eq!(decide(&cached, &scene.context()).action, Action::Read);
}

#[test]
fn the_name_of_the_leader_is_put_back_on_slices_and_mirror() {
    for value in ["", "clumsy"] {
        for follower in [false, true] {
            let mut scene = dual(pair());
            let slice = if follower { scene.follower() } else { scene.lock() };
            scene.server.put_slice(slice.annotation(status::LEADER_POD_NAME, value));
            settle_led_by(&mut scene, "a", value);
            for slice in [scene.lock(), scene.follower()] {
                assert_eq!(mark(&slice, status::LEADER_POD_NAME), "a", "{value}");
            }
            let mirror = scene.leader().metadata.annotations.unwrap();
            assert_eq!(mirror[status::LEADER_POD_NAME], "a", "{value}");
        }
    }
    // The pod is gone by then: the mirror still names it.
    let mut scene = Scene::served(vec![pod("a").ready_for(5)]);
    scene.server.remove_pod("a");
    scene.settle();
    scene.server.put_slice(scene.lock().annotation(status::LEADER_POD_NAME, ""));
    scene.settle();
    assert_eq!(mark(&scene.lock(), status::LEADER_POD_NAME), "a");
}

#[test]
fn an_annotation_that_names_another_pod_moves_no_leader() {
    for value in ["uid-of-nothing", ""] {
        survives(Scene::served(pair()), value, |scene| {
            let lock = scene.lock().annotation(status::LEADER_POD_UID, value);
            scene.server.put_slice(lock);
        });
    }
}

#[test]
fn the_endpoint_of_the_lock_says_who_leads_also_where_it_takes_no_traffic() {
    // b, which is not Ready, is the leader until another pod can be.
    let mut scene = Scene::served(vec![pod("b").age(8).ready_for(5)]);
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    scene.settle();
    let epoch = scene.epoch();
    let lock = scene.lock().annotation(status::LEADER_POD_UID, "clumsy");
    scene.server.put_slice(lock.annotation(status::LEADER_POD_NAME, "clumsy"));
    scene.settle();
    let id = scene.server.pods.now["b"].id();
    assert_eq!(mark(&scene.lock(), status::LEADER_POD_UID), id);
    assert_eq!(mark(&scene.lock(), status::LEADER_POD_NAME), "b");
    // min-ready-duration does not apply to a leader that comes back.
    scene.server.put_service(scene.source().set("min-ready-duration", "1h"));
    scene.server.put_slice(scene.lock().annotation(status::LEADER_POD_UID, "clumsy"));
    scene.server.put_pod(pod("b").age(8).ready_for(0));
    scene.settle();
    assert_eq!((scene.routed().as_deref(), scene.epoch()), (Some("b"), epoch));
}

#[test]
fn a_lock_that_was_untied_and_names_another_leader_moves_none() {
    survives(dual(pair()), "untied", |scene| {
        for uid in ["clumsy", ""] {
            let mut lock = scene.lock().annotation(status::LEADER_POD_UID, uid);
            without_label(&mut lock.metadata, kubernetes::SERVICE_NAME);
            scene.server.put_slice(lock);
            settle_led_by(scene, "b", uid);
        }
    });
}

#[test]
fn the_mirror_never_goes_back_behind_a_slice_that_cannot_be_written() {
    let refused = [Blocked::all(StepKind::Slice, EventReason::WriteRefused, "no")];
    let mut scene = Scene::served(pair());
    let epoch = scene.epoch();
    let lock = scene.lock().annotation(status::LEADER_EPOCH, "");
    scene.server.put_slice(lock);
    scene.settle_without(&refused);
    let mirrored = scene.leader().metadata.annotations.unwrap()[status::LEADER_EPOCH].clone();
    assert_eq!(mirrored, epoch.to_string());
    assert_eq!(scene.condition().2, "a leads; b: standby; no");
}

#[test]
fn a_slice_that_is_tied_to_no_service_routes_no_pod() {
    let refused = [Blocked::all(StepKind::Slice, EventReason::WriteRefused, "no")];
    let mut scene = Scene::served(pair());
    let mut lock = scene.lock();
    without_label(&mut lock.metadata, kubernetes::SERVICE_NAME);
    scene.server.put_slice(lock);
    scene.settle_without(&refused);
    assert_eq!(scene.condition().0, "False", "no proxy reads it");
}

#[test]
fn labels_and_owners_of_others_stay() {
    survives(Scene::served(pair()), "shared", |scene| {
        let mut leader = scene.leader().label("team", "blue");
        leader.metadata.owner_references = None;
        let mut leader = leader.owned_by("ConfigMap", "theirs", "u99");
        leader.metadata.owner_references.as_mut().unwrap()[0].controller = None;
        scene.server.put_service(leader);
    });
    let mut scene = Scene::served(pair());
    let lock = scene.lock().label("team", "blue").annotation("example.com/note", "x");
    scene.server.put_slice(lock);
    scene.server.remove_pod("a");
    scene.settle();
    let lock = scene.lock();
    assert_eq!(lock.metadata.labels.unwrap()["team"], "blue");
    assert_eq!(lock.metadata.annotations.unwrap()["example.com/note"], "x");
}

#[test]
fn slices_that_an_orphaning_deletion_left_are_taken_back() {
    for scene in [Scene::served(pair()), dual(pair())] {
        survives(scene, "orphaned", |scene| {
            scene.server.remove_service("web-leader");
            for slice in scene.server.slices.now.clone().values() {
                let mut slice = slice.clone().label(kubernetes::SLICE_MANAGED_BY, "Helm");
                slice.metadata.owner_references = None;
                scene.server.put_slice(slice);
            }
        });
    }
}

#[test]
fn a_slice_of_a_family_that_went_is_signed_emptied_and_deleted() {
    let mut scene = dual(pair());
    let mut follower = scene.follower();
    follower.metadata.owner_references = None;
    scene.server.put_slice(follower);
    let mut leader = scene.leader();
    leader.spec().ip_families = Some(vec!["IPv4".into()]);
    leader.spec().ip_family_policy = Some("SingleStack".into());
    scene.server.put_service(leader);
    let mut source = scene.source();
    source.spec().ip_families = Some(vec!["IPv4".into()]);
    source.spec().ip_family_policy = Some("SingleStack".into());
    scene.server.put_service(source);
    let steps = scene.settle();
    let slices: Vec<_> = steps.iter().filter(|s| s.kind() == StepKind::Slice).collect();
    let last = slices.last().expect("the slice goes");
    assert!(matches!(last, Step::Slice(next) if matches!(next.write, SliceWrite::Delete { .. })));
    assert!(!scene.server.slices.now.contains_key("web-leader-zen-lead-ipv6"));
    assert_eq!(scene.routed().as_deref(), Some("a"));
}

#[test]
fn a_leader_service_without_owner_or_label_is_deleted_when_it_is_not_asked_for() {
    let losses: [fn(&mut ObjectMeta); 2] =
        [|m| m.owner_references = None, |m| without_label(m, status::SOURCE_SERVICE)];
    for lose in losses {
        let mut scene = Scene::served(pair());
        let mut leader = scene.leader();
        lose(&mut leader.metadata);
        scene.server.put_service(leader);
        scene.server.put_service(scene.source().set("enabled", "false"));
        // What is destroyed carries every sign first.
        let expected = [StepKind::Slice, StepKind::PatchLeader, StepKind::DeleteLeader];
        assert_eq!(kinds(&scene.settle()), expected);
    }
}

#[test]
fn an_invalid_source_has_lost_signs_put_back_too() {
    let mut scene = Scene::served(pair());
    scene.server.put_service(scene.source().set("sticky", "perhaps"));
    scene.settle();
    let mut leader = scene.leader();
    (leader.metadata.labels, leader.metadata.owner_references) = (
        leader.metadata.labels.take().map(|mut l| {
            l.remove(kubernetes::MANAGED_BY);
            l
        }),
        None,
    );
    scene.server.put_service(leader);
    settle_led_by(&mut scene, "a", "invalid");
    is_whole(&scene, "invalid");
}

#[test]
fn what_cannot_be_proved_keeps_a_fit_leader_and_loses_a_dead_one() {
    let mut scene = Scene::served(pair());
    // Neither its owner nor its annotations are left: it might be a copy.
    let mut leader = scene.leader();
    leader.metadata.owner_references = None;
    leader.metadata.annotations = None;
    let leader = scene.server.put_service(leader);
    assert_eq!(kinds(&scene.settle()), [StepKind::SourceConditions]);
    let words = condition(&scene.source()).2;
    assert!(words.contains("nothing else proves that zen-lead made it"), "{words}");
    assert_eq!(scene.routed().as_deref(), Some("a"));
    scene.server.remove_pod("a");
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice]);
    assert_eq!(scene.routed(), None);
    assert_eq!(scene.leader(), leader, "it is left alone");
}

#[test]
fn a_slice_without_labels_under_our_name_is_reported_and_left_alone() {
    for labelled in [false, true] {
        let mut squatter = foreign_slice("web-leader-zen-lead-ipv4", "other");
        if !labelled {
            squatter.metadata.labels = None;
        }
        let mut scene = Scene::with(service("web").enabled(), pair());
        let squatter = scene.server.put_slice(squatter);
        let expected = [StepKind::CreateLeader, StepKind::Mirror, StepKind::SourceConditions];
        assert_eq!(kinds(&scene.settle()), expected);
        let words = "EndpointSlice web-leader-zen-lead-ipv4 has the name that zen-lead needs and was not \
                     made by zen-lead; delete it; a: standby; b: standby";
        assert_eq!(scene.condition(), ("False".into(), "OwnershipConflict".into(), words.into()));
        let words = words.split("; a:").next().unwrap();
        assert_eq!(
            condition(&scene.source()),
            ("False".into(), "OwnershipConflict".into(), words.into())
        );
        assert_eq!(scene.lock(), squatter);
        scene.server.remove_slice("web-leader-zen-lead-ipv4");
        scene.settle();
        assert_eq!(scene.routed().as_deref(), Some("a"));
        assert_eq!(condition(&scene.source()), Default::default());
    }
}

#[test]
fn a_write_of_a_slice_that_is_refused_is_reported_as_it_is() {
    let message = "admission webhook \"x\" denied the request".to_owned();
    let refused = [Blocked::all(StepKind::Slice, EventReason::Forbidden, message.as_str())];
    // The leader is gone, and the slice cannot say so.
    let mut scene = Scene::served(pair());
    scene.server.remove_pod("a");
    scene.settle_without(&refused);
    assert_eq!(scene.routed().as_deref(), Some("a"));
    let words =
        format!("{message}; the EndpointSlice still names a, which cannot lead; b: standby");
    assert_eq!(scene.condition(), ("False".into(), "Forbidden".into(), words));
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::CURRENT_LEADER], "");
    // A planned switch is refused: the leader of before is fit and routed.
    let mut scene = Scene::served(pair());
    scene.server.put_service(scene.source().set("sticky", "false"));
    scene.settle();
    scene.server.put_pod(pod("c").age(99).ready_for(5));
    scene.settle_without(&refused);
    let words = format!("a leads; b: standby; c: standby; {message}");
    assert_eq!(scene.condition(), ("True".into(), "LeaderRoutingAvailable".into(), words));
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::CURRENT_LEADER], "ns/a");
}

#[test]
fn a_leader_service_held_by_a_finalizer_says_what_is_routed() {
    let mut scene = Scene::served(pair());
    let mut leader = scene.leader();
    leader.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    leader.metadata.deletion_timestamp = Some(Time(at(0)));
    scene.server.put_service(leader);
    scene.server.remove_pod("a");
    scene.settle();
    assert_eq!(scene.condition().2, "b leads");
    scene.server.remove_pod("b");
    scene.settle();
    assert_eq!(scene.condition().0, "False");
}

#[test]
fn a_slice_of_an_earlier_leader_service_that_a_finalizer_keeps_is_reported_as_it_routes() {
    let mut scene = Scene::served(pair());
    let mut lock = scene.lock();
    lock.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    scene.server.put_slice(lock);
    scene.server.remove_service("web-leader");
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    scene.settle();
    let words = "EndpointSlice web-leader-zen-lead-ipv4 of an earlier leader Service is being deleted, a \
                 finalizer keeps it, and it routes a; remove the finalizer; a: standby; b: standby";
    assert_eq!(scene.condition(), ("False".into(), "OwnershipConflict".into(), words.into()));
    assert_eq!(scene.decide().report.unwrap().endpoints, 1, "the gauge follows what is routed");
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.decide().report.unwrap().endpoints, 0, "it routes, and to no use");
}

/// A deletion that leaves dependents behind, which a webhook keeps from ending.
fn orphaning(name: &str) -> Scene {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("a").age(9).ready_for(5));
    let denied = Refuses::BadRequest;
    scene.server.orphan_service(name);
    scene.server.collect_garbage();
    scene.server.disturbed.webhooks.insert(Write::PatchService, denied);
    assert!(!scene.server.collect_garbage(), "nothing is left to do but what is refused");
    scene
}

#[test]
fn an_owner_that_the_garbage_collector_takes_off_is_not_put_back() {
    let mut scene = orphaning("web-leader");
    assert_eq!(scene.lock().metadata.owner_references, None);
    assert!(!kinds(&scene.settle()).contains(&StepKind::Slice), "it would be undone each time");
    assert_eq!((scene.routed().as_deref(), scene.condition().0), (Some("a"), "True".into()));
    // The leader goes on being followed, and it keeps no owner.
    scene.server.remove_pod("a");
    scene.settle();
    assert_eq!((scene.routed().as_deref(), scene.condition().0), (Some("b"), "True".into()));
    assert_eq!(scene.lock().metadata.owner_references, None);
    // Once it is gone, its successor takes the slice back.
    scene.server.disturbed.webhooks.clear();
    while scene.server.collect_garbage() {}
    scene.settle();
    is_whole(&scene, "made anew");
    assert_eq!(scene.routed().as_deref(), Some("b"));

    let mut scene = orphaning("web");
    assert_eq!(scene.leader().metadata.owner_references, None);
    assert_eq!(kinds(&scene.settle()), []);
    assert_eq!((scene.routed().as_deref(), scene.condition().0), (Some("a"), "True".into()));
    scene.server.remove_pod("a");
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    // Not even where it is not asked for any more.
    let off = scene.source().set("enabled", "false");
    scene.server.put_service(off);
    scene.settle();
    assert_eq!(scene.routed(), None);
    let (state, reason, message) = scene.condition();
    assert_eq!((&*state, &*reason), ("False", "NotServed"));
    assert!(message.contains("leaves it behind"), "{message}");
    assert_eq!(scene.leader().metadata.owner_references, None);
}

#[test]
fn a_slice_that_no_family_needs_is_emptied_while_its_leader_service_leaves_it_behind() {
    let mut scene = dual(pair());
    let mut leader = scene.leader();
    leader.spec.as_mut().unwrap().ip_families = Some(vec!["IPv4".into()]);
    scene.server.put_service(leader);
    scene.server.orphan_service("web-leader");
    while scene.server.collect_garbage() {}
    assert!(scene.server.slices.now.values().all(|s| s.metadata.owner_references.is_none()));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
}

#[test]
fn every_refusal_is_reported_with_an_event_of_its_own() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    let create = scene.next();
    scene.perform(&create);
    let mut leader = scene.leader();
    leader.metadata.labels.get_or_insert_default().remove(kubernetes::MANAGED_BY);
    scene.server.put_service(leader);
    let quota = || Blocked::all(StepKind::CreateSlice, EventReason::QuotaExceeded, "over quota");
    let denied = || Blocked::all(StepKind::PatchLeader, EventReason::RefusedByWebhook, "denied");
    let conditions = |refused: &[Blocked], scene: &Scene| {
        let mut scene = Scene { server: scene.server.clone(), limits: scene.limits };
        let steps = scene.settle_without(refused);
        let events = steps.into_iter().find_map(|step| match step {
            Step::SourceConditions(_, _, notices) => Some(notices),
            _ => None,
        });
        let events: Vec<_> = events.unwrap().into_iter().map(|n| (n.reason, n.note)).collect();
        (condition(&scene.source()), events)
    };
    let both = ("False".into(), "QuotaExceeded".into(), "over quota; denied".into());
    let (found, events) = conditions(&[denied(), quota()], &scene);
    assert_eq!(found, both);
    let each =
        [(EventReason::QuotaExceeded, "over quota"), (EventReason::RefusedByWebhook, "denied")];
    assert_eq!(events, each.map(|(reason, note)| (reason, note.to_owned())));
}

#[test]
fn a_name_that_is_taken_is_told_on_the_source_unless_garbage_collection_frees_it() {
    const LOCK: &str = "web-leader-zen-lead-ipv4";
    for (managed, stamped, told) in
        [(false, false, true), (true, false, true), (false, true, true), (true, true, false)]
    {
        let mut squatter =
            foreign_slice(LOCK, "web-leader").owned_by("Service", "web-leader", "u0");
        if managed {
            squatter = squatter.label(kubernetes::SLICE_MANAGED_BY, keys::MANAGER);
        }
        if stamped {
            squatter = squatter.annotation(status::DECIDED_AT, "services=1,pods=1");
        }
        let mut scene = Scene::with(service("web").enabled(), pair());
        scene.server.put_slice(squatter);
        scene.server.put_slice(foreign_slice("another", "web-leader"));
        scene.settle();
        let problem = condition(&scene.source()).1;
        assert_eq!(problem == "OwnershipConflict", told, "{managed} {stamped}: {problem}");
    }
    // A lock of ours that has lost its label holds its own name.
    let mut scene = Scene::served(pair());
    let mut lock = scene.lock();
    lock.metadata.labels.as_mut().unwrap().remove(kubernetes::SLICE_MANAGED_BY);
    scene.server.put_slice(lock);
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice]);
}
