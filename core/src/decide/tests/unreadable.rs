//! Objects that cannot be read: what exists for them stays and follows its pod; nothing is made,
//! emptied or deleted because of them.

use kube_core::Resource;

use super::protocol::pair;
use super::*;
use crate::decode::Decoded;

const ERROR: &str = "spec.ports: expected a list, found a text";

/// The object as it comes when it cannot be read.
fn spoilt<K: Resource>(object: &K) -> Decoded<K> {
    Decoded::unreadable(object.meta().clone(), ERROR.to_owned())
}

/// What cannot be read, and whether it was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoilt {
    Source,
    Leader,
    Lock,
    Pod(&'static str),
}

const BOTH: [bool; 2] = [true, false];

/// The scene as a replica sees it that cannot read one object.
fn seen(scene: &Scene, what: Spoilt, before: bool) -> Snapshot {
    seen_without(scene, &[what], before)
}

/// The scene as a replica sees it that cannot read these objects.
fn seen_without(scene: &Scene, all: &[Spoilt], before: bool) -> Snapshot {
    let mut index = scene.index();
    for what in all {
        spoil(&mut index, scene, *what, before);
    }
    let key = ServiceKey::new(NAMESPACE, "web");
    Snapshot { consistent: true, ..index.snapshot(&key) }
}

fn spoil(index: &mut Index, scene: &Scene, what: Spoilt, before: bool) {
    match what {
        Spoilt::Source | Spoilt::Leader => {
            let name = if what == Spoilt::Source { "web" } else { "web-leader" };
            let Some(object) = scene.server.services.now.get(name).cloned() else { return };
            if !before {
                index.delete_service(&object);
            }
            index.apply_service(spoilt(&object));
        }
        Spoilt::Lock => {
            if !before {
                index.delete_slice(&scene.lock());
            }
            index.apply_slice(spoilt(&scene.lock()));
        }
        Spoilt::Pod(name) => {
            // Gone is gone.
            if let Some(pod) = scene.server.pods.now.get(name) {
                if !before {
                    index.delete_pod(pod);
                }
                let Decoded::Unreadable(pod) = spoilt(pod) else { unreachable!() };
                index.apply_trimmed_pod(Decoded::Unreadable(pod));
            }
        }
    }
}

/// Carries out steps until none is left.
fn settle(scene: &mut Scene, what: Spoilt, before: bool) -> Vec<StepKind> {
    settle_without(scene, &[what], before)
}

fn settle_without(scene: &mut Scene, all: &[Spoilt], before: bool) -> Vec<StepKind> {
    let mut done = Vec::new();
    loop {
        match decide(&seen_without(scene, all, before), &scene.context()).action {
            Action::Nothing => return done,
            Action::Do(step) => {
                done.push(step.kind());
                scene.perform(&step);
            }
            other => panic!("a consistent snapshot is enough, not {other:?}"),
        }
        assert!(done.len() < 10, "does not come to rest: {done:?}");
    }
}

fn problem(scene: &Scene) -> (String, String, String) {
    condition(&scene.source())
}

#[test]
fn a_pod_that_the_selector_has_left_does_not_come_back_when_the_source_becomes_unreadable() {
    for (before, back) in [(true, false), (false, true)] {
        let mut scene = Scene::served(vec![pod("a").ready_for(5)]);
        let left = scene.source().selecting("app", "other");
        scene.server.put_pod(pod("a").unready_for(0));
        scene.settle();
        scene.server.put_service(left);
        scene.server.put_pod(pod("a").ready_for(0));
        settle(&mut scene, Spoilt::Source, before);
        // One that never read the source knows of no selector.
        assert_eq!(scene.routed().is_some(), back, "read before: {before}");
    }
}

#[test]
fn an_unreadable_source_keeps_its_leader_which_follows_its_readiness() {
    use StepKind::{Mirror, Slice};
    for before in BOTH {
        let mut scene = Scene::served(pair());
        assert_eq!(settle(&mut scene, Spoilt::Source, before), [Mirror], "read before: {before}");
        assert_eq!(scene.routed().as_deref(), Some("a"));
        let (state, reason, message) = scene.condition();
        assert_eq!((&*state, &*reason), ("True", "Unreadable"));
        assert_eq!(
            message,
            "the source Service \"web\" cannot be read (spec.ports: expected a list, found a text): \
             what is routed stays and follows its readiness, and no new leader is chosen; correct \
             that field; a leads"
        );
        let report =
            decide(&seen(&scene, Spoilt::Source, before), &scene.context()).report.unwrap();
        assert_eq!((report.endpoints, report.leader_service, report.slices), (1, true, 1));

        let ready = scene.server.pods.now["a"].clone();
        scene.server.put_pod(ready.clone().unready_for(0));
        assert_eq!(settle(&mut scene, Spoilt::Source, before), [Slice, Mirror]);
        assert_eq!(conditions(&scene.lock()), [false, false, false], "b is ready, and not chosen");
        assert_eq!((&*scene.condition().0, &*scene.condition().1), ("False", "Unreadable"));
        scene.server.put_pod(ready.clone());
        assert_eq!(settle(&mut scene, Spoilt::Source, before), [Slice, Mirror]);
        assert_eq!(conditions(&scene.lock()), [true, true, false]);
        scene.server.put_pod(ready.clone().terminating());
        assert_eq!(settle(&mut scene, Spoilt::Source, before), [Slice, Mirror]);
        assert_eq!(conditions(&scene.lock()), [false, true, true]);
        scene.server.remove_pod("a");
        assert_eq!(settle(&mut scene, Spoilt::Source, before), [Slice]);
        assert_eq!(scene.lock().endpoints, Some(Vec::new()), "never a dead one");
        assert!(scene.condition().2.ends_with("no pod leads"), "{:?}", scene.condition());

        scene.settle();
        assert_eq!(scene.routed().as_deref(), Some("b"), "it can be read again");
        assert_eq!(&*scene.condition().1, "LeaderRoutingAvailable");
    }
}

#[test]
fn an_unreadable_source_without_a_leader_service_gets_none() {
    for before in BOTH {
        let mut scene = Scene::with(service("web").enabled(), pair());
        assert_eq!(settle(&mut scene, Spoilt::Source, before), []);
        assert_eq!(scene.server.services.now.len(), 1);
    }
}

#[test]
fn pods_that_were_never_listed_are_not_gone() {
    let mut scene = Scene::served(pair());
    settle(&mut scene, Spoilt::Source, false);
    scene.server.remove_pod("a");
    let snapshot = Snapshot { pods_known: false, ..seen(&scene, Spoilt::Source, false) };
    assert_eq!(decide(&snapshot, &scene.context()).action, Action::Nothing);
}

#[test]
fn an_older_zen_lead_only_takes_out_what_a_newer_one_wrote() {
    let mut scene = Scene::served(pair());
    settle(&mut scene, Spoilt::Source, true);
    let next = |scene: &Scene| {
        let context = Context { version: 0, ..scene.context() };
        decide(&seen(scene, Spoilt::Source, true), &context).action
    };
    let ready = scene.server.pods.now["a"].clone();
    scene.server.put_pod(ready.clone().unready_for(0));
    let Action::Do(step) = next(&scene) else { panic!("a lost leader is taken out") };
    assert!(step.urgent());
    scene.perform(&step);
    settle(&mut scene, Spoilt::Source, true);
    scene.server.put_pod(ready);
    assert_eq!(next(&scene), Action::Nothing, "to put it back is the newer one's");
}

#[test]
fn a_lagging_follower_gets_no_pod_back_that_the_lock_does_not_name() {
    let mut scene = Scene::with(service("web").enabled().dual_stack(), pair());
    scene.settle();
    let old = scene.follower();
    let lost = scene.server.pods.now["a"].clone();
    scene.server.put_pod(lost.clone().unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    // As it was before the switch, but taken out.
    let mut lagging = scene.follower();
    lagging.endpoints = old.endpoints;
    lagging.endpoints.as_mut().unwrap()[0].conditions.as_mut().unwrap().ready = Some(false);
    scene.server.put_slice(lagging);
    scene.server.put_pod(lost);
    settle(&mut scene, Spoilt::Source, true);
    assert!(!conditions(&scene.follower())[0], "a is well, and b leads");
}

#[test]
fn an_unreadable_leader_service_keeps_its_slices_up_to_date() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        let kinds = settle(&mut scene, Spoilt::Leader, before);
        assert_eq!(kinds, [StepKind::SourceConditions], "read before: {before}");
        let (state, reason, message) = problem(&scene);
        assert_eq!((&*state, &*reason), ("False", "Unreadable"));
        assert_eq!(
            message,
            "the leader Service \"web-leader\" cannot be read (spec.ports: expected a list, found a \
             text): its EndpointSlices are kept up to date, its own fields and conditions are not; \
             correct that field, or delete it to have it made anew"
        );
        let leader = scene.leader();
        scene.server.remove_pod("a");
        assert_eq!(settle(&mut scene, Spoilt::Leader, before), [StepKind::Slice]);
        assert_eq!(scene.routed().as_deref(), Some("b"));
        assert_eq!(scene.leader(), leader, "no write to what cannot be read");
        scene.settle();
        assert_eq!(problem(&scene), <_>::default(), "it can be read again");
        assert_eq!(&*scene.condition().1, "LeaderRoutingAvailable");
    }
}

#[test]
fn an_unreadable_leader_service_is_neither_emptied_nor_deleted() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        scene.server.put_service(service("web"));
        let (leader, lock) = (scene.leader(), scene.lock());
        assert_eq!(settle(&mut scene, Spoilt::Leader, before), [], "opted out; {before}");
        // Its owner cannot be read either: it is not another's because of that.
        let mut scene = Scene::served(pair());
        let mut index = scene.index();
        let mut metadata = scene.leader().metadata;
        metadata.owner_references = None;
        if !before {
            index.delete_service(&scene.leader());
        }
        index.apply_service(Decoded::unreadable(metadata, ERROR.into()));
        let key = ServiceKey::new(NAMESPACE, "web");
        let snapshot = Snapshot { consistent: true, ..index.snapshot(&key) };
        if let Action::Do(step) = decide(&snapshot, &scene.context()).action {
            assert_eq!(step.kind(), StepKind::SourceConditions);
            scene.perform(&step);
        }
        assert_eq!(scene.leader().spec, leader.spec);
        assert_eq!(scene.lock().endpoints, lock.endpoints);
    }
}

#[test]
fn an_unreadable_service_under_the_name_of_the_leader_service_is_left_alone() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    scene.server.put_service(service("web-leader"));
    let mut index = scene.index();
    let other = scene.leader();
    index.delete_service(&other);
    index.apply_service(spoilt(&other));
    let key = ServiceKey::new(NAMESPACE, "web");
    let snapshot = Snapshot { consistent: true, ..index.snapshot(&key) };
    let Action::Do(step) = decide(&snapshot, &scene.context()).action else { panic!() };
    assert_eq!(step.kind(), StepKind::SourceConditions);
    scene.perform(&step);
    let (_, reason, message) = problem(&scene);
    assert_eq!(reason, "Unreadable");
    assert_eq!(
        message,
        "Service \"web-leader\" cannot be read (spec.ports: expected a list, found a text), so it is \
         left alone and no leader Service is made; correct that field, delete the Service or choose \
         another name with the annotation zen-lead.io/leader-service-name"
    );
    assert_eq!(
        snapshot.unreadable(),
        [
            "the Service that has the name of the leader Service: spec.ports: expected a list, found a \
          text"
        ]
    );
}

#[test]
fn an_unreadable_slice_is_neither_written_nor_made_anew() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        let lock = scene.lock();
        scene.server.remove_pod("a");
        let kinds = settle(&mut scene, Spoilt::Lock, before);
        assert_eq!(kinds, [StepKind::Mirror], "read before: {before}");
        assert_eq!(scene.lock(), lock);
        let (state, reason, message) = scene.condition();
        assert_eq!((&*state, &*reason), ("False", "Unreadable"));
        let want = "EndpointSlice web-leader-zen-lead-ipv4 cannot be read (spec.ports: expected a \
                    list, found a text) and is left as it is; correct that field, or delete the \
                    EndpointSlice to have it made anew";
        assert_eq!(message, want, "the same whether the replica knew it before or not");
        // Nor is it emptied when the source goes.
        scene.server.put_service(service("web"));
        let kinds = settle(&mut scene, Spoilt::Lock, before);
        assert!(!kinds.contains(&StepKind::Slice), "{kinds:?}");
    }
}

#[test]
fn a_leading_pod_that_cannot_be_read_stays() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        let lock = scene.lock();
        settle(&mut scene, Spoilt::Pod("a"), before);
        assert_eq!(scene.lock(), lock, "read before: {before}");
        let (state, reason, message) = scene.condition();
        let report = decide(&seen(&scene, Spoilt::Pod("a"), before), &scene.context()).report;
        assert_eq!(report.unwrap().endpoints, 1, "it is routed");
        assert_eq!((&*state, &*reason), ("True", "Unreadable"));
        assert_eq!(
            message,
            "the leading pod a cannot be read, so it stays the leader; correct it, or delete it to have \
             another one lead; a leads; b: standby"
        );
        // That it is being deleted its metadata say.
        let mut going = Scene { server: scene.server.clone(), limits: scene.limits };
        going.server.put_pod(going.server.pods.now["a"].clone().terminating());
        settle(&mut going, Spoilt::Pod("a"), before);
        assert_eq!(going.routed().as_deref(), Some("b"), "read before: {before}");
        scene.server.remove_pod("a");
        settle(&mut scene, Spoilt::Pod("a"), before);
        assert_eq!(scene.routed().as_deref(), Some("b"), "gone is gone");
    }
}

#[test]
fn a_pod_that_cannot_be_read_is_not_promoted() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        scene.server.remove_pod("a");
        settle(&mut scene, Spoilt::Pod("b"), before);
        assert_eq!(scene.routed(), None, "read before: {before}");
        let (state, reason, message) = scene.condition();
        assert_eq!((&*state, &*reason), ("False", "NoReadyPods"));
        assert_eq!(message, "b: cannot be read");
        scene.settle();
        assert_eq!(scene.routed().as_deref(), Some("b"));
    }
}

/// A replica that was there before an object became unreadable knows more of it than one that has just
/// started, or than a read. They must not correct each other.
#[test]
fn what_is_reported_does_not_depend_on_what_was_read_before() {
    use Spoilt::{Leader, Lock, Pod, Source};
    let all = [Source, Leader, Lock, Pod("a"), Pod("b")];
    let pairs = all.iter().flat_map(|a| all.map(|b| [*a, b]));
    let change: [fn(&mut Scene); 5] = [
        |_| {},
        |scene| {
            for name in ["a", "b"] {
                scene.server.put_pod(scene.server.pods.now[name].clone().unready_for(0));
            }
        },
        |scene| _ = scene.server.put_pod(scene.server.pods.now["b"].clone().phase("Succeeded")),
        |scene| _ = scene.server.put_pod(scene.server.pods.now["a"].clone().terminating()),
        |scene| _ = scene.server.remove_service("web"),
    ];
    for (spoilt, change) in pairs.flat_map(|pair| change.map(|change| (pair, change))) {
        let mut scene = Scene::served(pair());
        change(&mut scene);
        settle_without(&mut scene, &spoilt, true);
        for before in [false, true] {
            let steps = settle_without(&mut scene, &spoilt, before);
            let found = scene.condition();
            assert_eq!(steps, [], "{spoilt:?}, read before {before}: {found:?}");
        }
    }
}

/// What happens in a scene before its leading pod becomes unreadable.
type Case = (&'static str, fn(&mut Scene));

#[test]
fn what_was_known_of_a_leading_pod_before_changes_no_slice() {
    let cases: [Case; 3] = [
        ("another one is preferred", |scene| {
            scene.server.put_service(scene.source().set("sticky", "false"));
            scene.settle();
            scene.server.put_pod(pod("c").age(99).ready_for(5));
        }),
        ("it is asked for something else", |scene| {
            scene.server.put_service(scene.source().set("min-ready-duration", "1s"));
        }),
        ("it was not ready, and is not known to be by now", |scene| {
            scene.server.put_pod(pod("a").age(9).unready_for(0));
        }),
    ];
    for (what, happens) in cases {
        for before in BOTH {
            let mut scene = Scene::served(pair());
            happens(&mut scene);
            let steps = settle(&mut scene, Spoilt::Pod("a"), before);
            assert!(!steps.contains(&StepKind::Slice), "{what}, read before {before}: {steps:?}");
            assert_eq!(scene.routed().as_deref(), Some("a"), "{what}");
        }
    }
}

#[test]
fn a_leading_pod_that_cannot_be_read_is_replaced_once_its_labels_leave_the_selector() {
    for before in BOTH {
        let mut scene = Scene::with(service("web").enabled().dual_stack(), pair());
        scene.settle();
        let left = scene.server.pods.now["a"].clone().label("app", "other");
        scene.server.put_pod(left);
        // It may be healthy: no family routes it beside the other one.
        let Action::Do(step) =
            decide(&seen(&scene, Spoilt::Pod("a"), before), &scene.context()).action
        else {
            panic!("it is replaced, read before: {before}")
        };
        assert_eq!(step.object(), "web-leader-zen-lead-ipv6", "read before: {before}");
        settle(&mut scene, Spoilt::Pod("a"), before);
        assert_eq!(scene.routed().as_deref(), Some("b"), "read before: {before}");
        assert_eq!(routed(&scene.follower()).as_deref(), Some("b"));
    }
}

#[test]
fn the_condition_of_an_unreadable_leader_service_stays_when_its_source_goes() {
    for before in BOTH {
        let mut scene = Scene::served(pair());
        scene.server.remove_service("web");
        let steps = settle(&mut scene, Spoilt::Leader, before);
        assert_eq!(steps, [StepKind::Slice], "the slice is emptied; read before: {before}");
        assert_eq!(scene.routed(), None);
    }
}

#[test]
fn a_last_leader_that_cannot_be_read_is_blamed_only_where_another_pod_could_lead() {
    for other_is_ready in BOTH {
        let mut scene = Scene::served(vec![pod("a").age(9).ready_for(5)]);
        scene.server.put_pod(pod("a").age(9).unready_for(0));
        scene.settle();
        let other = if other_is_ready { pod("b").ready_for(5) } else { pod("b").unready_for(5) };
        scene.server.put_pod(other);
        settle(&mut scene, Spoilt::Pod("a"), true);
        let (_, reason, message) = scene.condition();
        let wanted = if other_is_ready { "Unreadable" } else { "NoReadyPods" };
        assert_eq!((&*reason, scene.routed()), (wanted, None), "{message}");
        assert_eq!(message.starts_with("the last leader a cannot be read"), other_is_ready);
    }
}
