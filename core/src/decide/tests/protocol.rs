//! The protocol between replicas (design, 3a): two families, marks, epochs, versions.

use super::*;
use crate::fixtures::api::Refusal;

pub(super) fn dual(pods: Vec<Pod>) -> Scene {
    let mut scene = Scene::with(service("web").enabled().dual_stack(), pods);
    scene.settle();
    scene
}

pub(super) fn pair() -> Vec<Pod> {
    vec![pod("a").age(9).ready_for(5), pod("b").age(8).ready_for(5)]
}

/// Which slice a step writes, and whom it routes to.
pub(super) fn written(step: &Step) -> (String, Option<String>) {
    let Step::Slice(next) = step else { panic!("a slice is expected: {step:?}") };
    match &next.write {
        SliceWrite::Create(s) | SliceWrite::Replace(s) => (s.address_type.clone(), routed(s)),
        SliceWrite::Delete { name, .. } => panic!("{name} is deleted"),
    }
}

pub(super) fn ip(family: &str, to: Option<&str>) -> (String, Option<String>) {
    (family.to_owned(), to.map(str::to_owned))
}

#[test]
fn both_families_carry_one_leader_and_one_epoch() {
    let scene = dual(pair());
    assert_eq!(
        (routed(&scene.lock()), routed(&scene.follower())),
        (Some("a".into()), Some("a".into()))
    );
    let epoch = |s| mark(&s, status::LEADER_EPOCH);
    assert_eq!(epoch(scene.lock()), epoch(scene.follower()));
}

#[test]
fn a_lost_leader_moves_in_the_lock_first_and_the_follower_next() {
    let mut scene = dual(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let steps: Vec<_> = scene.settle().iter().take(2).map(written).collect();
    assert_eq!(steps, [ip("IPv4", Some("b")), ip("IPv6", Some("b"))]);
}

#[test]
fn a_planned_switch_empties_the_follower_first() {
    let mut scene = dual(pair());
    let loose = scene.source().set("sticky", "false").age(0);
    scene.server.put_service(loose);
    scene.server.put_pod(pod("0").age(99).ready_for(5));
    let before = scene.epoch();
    let steps: Vec<_> = scene.settle().iter().take(3).map(written).collect();
    assert_eq!(steps, [ip("IPv6", None), ip("IPv4", Some("0")), ip("IPv6", Some("0"))]);
    assert!(scene.epoch() > before + 1, "the emptied follower took an epoch of its own");
}

#[test]
fn a_switch_is_begun_only_while_the_follower_is_empty_and_ahead() {
    let mut scene = dual(pair());
    let begun = |scene: &Scene| {
        let snapshot = scene.snapshot();
        let leader = &snapshot.leaders[0];
        let families = slices::families(&leader.object);
        let present = own_slices::OwnSlices::new(&snapshot.slices, leader, &families);
        let asked = present.follower_says().and_then(|t| t.source_hash.clone()).unwrap_or_default();
        [asked.as_str(), "something else"].map(|asked| present.unfinished_switch(asked).is_some())
    };
    let loose = scene.source().set("sticky", "false").age(0);
    scene.server.put_service(loose);
    scene.server.put_pod(pod("0").age(99).ready_for(5));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(begun(&scene));
        let step = scene.next();
        scene.perform(&step);
    }
    seen.push(begun(&scene));
    assert_eq!(seen, [[false, false], [true, false], [false, false], [false, false]]);
}

#[test]
fn a_lagging_follower_is_emptied_before_the_lock_moves_even_when_empty() {
    let mut scene = dual(pair());
    // A writer died after the lock: the follower is one epoch behind.
    let behind = scene.follower();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let first = scene.next();
    assert_eq!(written(&first), ip("IPv4", Some("b")));
    scene.perform(&first);
    assert_eq!(scene.follower(), behind);
    // Now b is lost, and a is back.
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    let steps: Vec<_> = scene.settle().iter().take(3).map(written).collect();
    assert_eq!(steps, [ip("IPv6", None), ip("IPv4", Some("a")), ip("IPv6", Some("a"))]);
}

#[test]
fn a_follower_ahead_of_the_lock_is_a_switch_that_did_not_finish() {
    let mut scene = dual(pair());
    let lock = scene.lock();
    scene.server.put_service(scene.source().set("sticky", "false"));
    scene.server.put_pod(pod("0").age(99).ready_for(5));
    let emptied = scene.next();
    assert_eq!(written(&emptied), ip("IPv6", None));
    scene.perform(&emptied);
    // The preferred pod goes: the same leader again, but with a new epoch, and only then the other.
    scene.server.remove_pod("0");
    let ahead: u64 = mark(&scene.follower(), status::LEADER_EPOCH).parse().unwrap();
    let steps: Vec<_> = scene.settle().iter().take(2).map(written).collect();
    assert_eq!(steps, [ip("IPv4", Some("a")), ip("IPv6", Some("a"))]);
    assert!(scene.epoch() > ahead);
    assert_eq!(
        mark(&scene.lock(), status::LAST_SWITCH_TIME),
        mark(&lock, status::LAST_SWITCH_TIME)
    );
}

#[test]
fn a_lock_deleted_by_hand_comes_back_with_the_same_leader_and_a_higher_epoch() {
    for dual_stack in [false, true] {
        let mut scene = if dual_stack { dual(pair()) } else { Scene::served(pair()) };
        // b leads, so that order alone would choose a.
        scene.server.put_pod(pod("a").age(9).unready_for(0));
        scene.settle();
        scene.server.put_pod(pod("a").age(9).ready_for(0));
        scene.settle();
        let before = scene.epoch();
        scene.server.remove_slice("web-leader-zen-lead-ipv4");
        scene.settle();
        assert_eq!(scene.routed().as_deref(), Some("b"));
        assert!(scene.epoch() > before);
    }
}

#[test]
fn beside_a_deleted_lock_the_follower_knows_better_than_the_mirror() {
    let mut scene = dual(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    for _ in 0..2 {
        let step = scene.next();
        scene.perform(&step);
    }
    // Lock and follower say b, the mirror still a; a is healthy again and the lock is deleted.
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    assert_eq!(written(&scene.next()), ip("IPv4", Some("b")));
}

#[test]
fn a_mirror_ahead_of_the_lock_is_read_again_and_then_overtaken() {
    let mut scene = Scene::served(pair());
    let old = scene.lock();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    // The Services' watch is ahead of the slices'.
    let mut index = scene.index();
    index.delete_slice(&scene.lock());
    index.apply_slice(old);
    let snapshot = index.snapshot(&ServiceKey::new(NAMESPACE, "web"));
    assert_eq!(decide(&snapshot, &scene.context()).action, Action::Read);
    // A user set the lock's epoch back.
    let mut lock = scene.lock();
    let epoch = scene.epoch();
    lock = lock.annotation(status::LEADER_EPOCH, "7");
    scene.server.put_slice(lock);
    scene.settle();
    assert!(scene.epoch() > epoch);
}

#[test]
fn an_epoch_that_somebody_set_to_its_end_stays_there_and_comes_to_rest() {
    let end = u64::MAX.to_string();
    let set: [fn(&mut Scene, &str); 2] = [
        |scene, end| {
            let leader = scene.leader().annotation(status::LEADER_EPOCH, end);
            scene.server.put_service(leader);
        },
        |scene, end| {
            let lock = scene.lock().annotation(status::LEADER_EPOCH, end);
            scene.server.put_slice(lock);
        },
    ];
    for set in set {
        for stack in [service("web").enabled(), service("web").enabled().dual_stack()] {
            let mut scene = Scene::with(stack, pair());
            scene.settle();
            set(&mut scene, &end);
            scene.server.put_pod(pod("a").age(9).unready_for(0));
            scene.settle();
            assert_eq!(scene.routed().as_deref(), Some("b"));
            assert_eq!(scene.epoch(), u64::MAX);
        }
    }
}

#[test]
fn a_late_mirror_meets_a_conflict() {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let switch = scene.next();
    scene.perform(&switch);
    let late = scene.next();
    assert_eq!(late.kind(), StepKind::Mirror);
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.settle();
    assert_eq!(scene.server.perform(&late).unwrap_err(), Refusal::Conflict);
}

#[test]
fn a_change_of_what_is_asked_rewrites_the_mark_where_the_endpoint_stays() {
    let mut scene = Scene::served(pair());
    let before = scene.lock();
    scene.server.put_service(scene.source().set("failover-min-delay", "5s"));
    let position = scene.server.version;
    let step = scene.next();
    assert_eq!(written(&step), ip("IPv4", Some("a")));
    scene.perform(&step);
    assert_eq!(
        mark(&scene.lock(), status::DECIDED_AT),
        format!("services={position},pods={position}")
    );
    assert_eq!(mark(&scene.lock(), status::LEADER_EPOCH), mark(&before, status::LEADER_EPOCH));
    let rest = scene.settle();
    assert!(rest.iter().all(|s| s.kind() == StepKind::Mirror), "{:?}", kinds(&rest));
}

#[test]
fn marks_of_another_history_are_void() {
    let mut scene = Scene::served(pair());
    let lock = scene.lock().annotation(status::DECIDED_AT, "services=99999,pods=99999");
    scene.server.put_slice(lock);
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let cached = Snapshot { consistent: false, ..scene.snapshot() };
    assert_eq!(decide(&cached, &scene.context()).action, Action::Read);
    let decision = scene.decide();
    assert!(decision.history_void);
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert!(!scene.decide().history_void);
}

#[test]
fn a_lower_version_takes_out_and_does_nothing_else() {
    let newer = (DECISION_VERSION + 1).to_string();
    let mut scene = Scene::served(pair());
    scene.server.put_slice(scene.lock().annotation(status::DECISION_VERSION, &newer));
    scene.server.put_service(scene.source().set("failover-min-delay", "5s"));
    assert_eq!(scene.decide().action, Action::Nothing, "it would write the slice otherwise");
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let steps = scene.settle();
    assert_eq!(steps.iter().map(written).collect::<Vec<_>>(), [ip("IPv4", None)]);
    assert!(steps[0].urgent());
    assert_eq!(conditions(&scene.lock()), [false, false, false]);
    assert_eq!(mark(&scene.lock(), status::DECISION_VERSION), newer);
}

/// Served by a newer version, whose writer is `newer`; then its leader is lost.
fn written_by_a_newer_version() -> Scene {
    let version = (DECISION_VERSION + 1).to_string();
    let mut scene = Scene::served(pair());
    let lock = scene.lock().annotation(status::DECISION_VERSION, &version);
    scene.server.put_slice(lock.annotation(status::WRITER, "newer"));
    scene.server.put_service(scene.leader().annotation(status::DECISION_VERSION, &version));
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene
}

#[test]
fn a_lower_version_takes_over_only_from_writers_that_are_gone() {
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let scene = written_by_a_newer_version();
    for (replicas, may) in [
        (names(&[]), false),
        (names(&["other"]), false),
        (names(&["newer", "zen-lead-0"]), false),
        (names(&["zen-lead-0"]), true),
        (names(&["other", "zen-lead-0"]), true),
    ] {
        for takes_over in [false, true] {
            let ctx = Context { replicas: &replicas, takes_over, ..scene.context() };
            let decision = decide(&scene.snapshot(), &ctx);
            assert_eq!(decision.may_take_over, may, "{replicas:?}");
            let Action::Do(Step::Slice(next)) = &decision.action else {
                panic!("{replicas:?}: {:?}", decision.action)
            };
            assert_eq!(next.switch.is_some(), may && takes_over, "{replicas:?}");
            assert_eq!(next.urgent, !(may && takes_over), "{replicas:?}");
        }
    }
}

#[test]
fn who_took_an_endpoint_out_does_not_hold_itself_back() {
    let mut scene = written_by_a_newer_version();
    scene.settle();
    assert_eq!(scene.routed(), None);
    assert_eq!(mark(&scene.lock(), status::WRITER), "newer");
}

#[test]
fn an_older_version_leaves_a_planned_switch_to_the_newer_one() {
    let mut scene = Scene::served(vec![
        pod("a").age(9).ready_for(5),
        pod("c").ready_for(5).label("app", "new"),
    ]);
    let newer = (DECISION_VERSION + 1).to_string();
    scene.server.put_slice(scene.lock().annotation(status::DECISION_VERSION, &newer));
    scene.server.put_service(scene.source().selecting("app", "new"));
    assert_eq!(scene.decide().action, Action::Nothing, "a is healthy");
    // A leader that is not is taken out all the same.
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed(), None);
}

#[test]
fn taking_over_leaves_nothing_of_the_newer_version() {
    let mut scene = written_by_a_newer_version();
    let replicas = vec!["zen-lead-0".to_owned()];
    for _ in 0..9 {
        let ctx = Context { replicas: &replicas, takes_over: true, ..scene.context() };
        match decide(&scene.snapshot(), &ctx).action {
            Action::Do(step) => _ = scene.perform(&step),
            Action::Nothing => break,
            other => panic!("a consistent snapshot is enough, not {other:?}"),
        }
    }
    assert_eq!(scene.routed().as_deref(), Some("b"));
    let own = DECISION_VERSION.to_string();
    assert_eq!(mark(&scene.lock(), status::DECISION_VERSION), own);
    assert_eq!(mark(&scene.lock(), status::WRITER), "zen-lead-0");
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::DECISION_VERSION], own);
    assert!(!scene.decide().may_take_over);
}

#[test]
fn the_leader_service_of_a_newer_version_is_not_patched_back() {
    let newer = (DECISION_VERSION + 1).to_string();
    let mut scene = Scene::served(pair());
    scene.server.put_service(scene.leader().annotation(status::DECISION_VERSION, &newer));
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    assert_eq!(scene.settle(), []);
}

#[test]
fn from_one_family_to_two_and_back() {
    let mut scene = Scene::served(pair());
    let mut source = scene.source().dual_stack();
    source = scene.server.put_service(source);
    scene.settle();
    assert_eq!(routed(&scene.follower()).as_deref(), Some("a"));
    source.spec().ip_families = Some(vec!["IPv4".into()]);
    source.spec().ip_family_policy = Some("SingleStack".into());
    scene.server.put_service(source);
    scene.settle();
    let names: Vec<_> = scene.server.slices.now.keys().collect();
    assert_eq!(names, ["web-leader-zen-lead-ipv4"]);
}

/// What a decision on the cache does, if these inputs were read.
fn cached(scene: &Scene, verified: Verified) -> Decision {
    let context = Context { verified, ..scene.context() };
    decide(&Snapshot { consistent: false, ..scene.snapshot() }, &context)
}

/// The names that a decision on the cache has read: Services, slices, pods. With them it does its step.
fn read_by_name(scene: &Scene) -> [Vec<String>; 3] {
    let decision = cached(scene, Verified::default());
    let Action::ReadInputs(inputs) = &decision.action else { panic!("{:?}", decision.action) };
    let mut verified = Verified::default();
    verified.add(inputs, &decision.read_for.unwrap());
    let does = cached(scene, verified).action;
    assert_eq!(does, Action::Do(scene.next()), "after it was read");
    let names = [&inputs.services, &inputs.slices, &inputs.pods];
    names.map(|names| names.iter().cloned().collect())
}

#[test]
fn steps_that_cannot_be_compared_and_swapped_rest_on_what_is_read_by_name() {
    const NONE: [&str; 0] = [];
    let slices = ["web-leader-zen-lead-ipv4", "web-leader-zen-lead-ipv6"];
    let mut scene = Scene::with(service("web").enabled(), pair());
    assert_eq!(read_by_name(&scene), [vec!["web"], NONE.into(), NONE.into()]);
    let create = scene.next();
    assert_eq!(create.kind(), StepKind::CreateLeader);
    scene.perform(&create);
    assert_eq!(read_by_name(&scene), [vec!["web-leader"], NONE.into(), vec!["a"]]);
    scene.settle();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let action = cached(&scene, Verified::default()).action;
    assert!(matches!(action, Action::Do(Step::Slice(_))), "a switch reads nothing: {action:?}");
    scene.server.put_service(scene.source().set("enabled", "false"));
    assert_eq!(read_by_name(&scene), [vec!["web", "web-leader"], slices.into(), NONE.into()]);
}

#[test]
fn what_was_read_for_one_step_or_source_does_not_count_for_another() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    let first = cached(&scene, Verified::default());
    let Action::ReadInputs(inputs) = first.action else { panic!("{:?}", first.action) };
    let mut verified = Verified::default();
    verified.add(&inputs, &first.read_for.unwrap());
    let create = scene.next();
    scene.perform(&create);
    assert!(matches!(cached(&scene, verified).action, Action::ReadInputs(_)), "another step");
    scene.settle();
    scene.server.put_service(scene.source().set("enabled", "false"));
    let removal = cached(&scene, Verified::default());
    let Action::ReadInputs(inputs) = removal.action else { panic!("{:?}", removal.action) };
    verified.add(&inputs, &removal.read_for.unwrap());
    assert!(matches!(cached(&scene, verified).action, Action::Do(_)));
    scene.server.put_service(scene.source().set("enabled", "no"));
    let action = cached(&scene, verified).action;
    assert!(!matches!(action, Action::Do(Step::DeleteLeader(_))), "another source: {action:?}");
}

#[test]
fn a_late_first_slice_meets_the_one_of_a_leader_service_that_is_taken_down() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    let step = scene.next();
    scene.perform(&step);
    let late = scene.next();
    assert!(late.creates() && late.kind() == StepKind::CreateSlice);
    // Another replica makes the slice, the user opts out, and the leader is gone.
    scene.settle();
    scene.server.put_service(service("web"));
    let step = scene.next();
    scene.perform(&step);
    assert_eq!(scene.routed(), None);
    assert_eq!(scene.server.perform(&late).unwrap_err(), Refusal::Exists);
    assert_eq!(kinds(&scene.settle()), [StepKind::DeleteLeader]);
}

#[test]
fn a_changed_selector_is_a_planned_switch() {
    let mut scene =
        dual(vec![pod("a").age(9).ready_for(5), pod("c").ready_for(5).label("app", "new")]);
    scene.server.put_service(scene.source().selecting("app", "new"));
    let steps: Vec<_> = scene.settle().iter().take(3).map(written).collect();
    assert_eq!(steps, [ip("IPv6", None), ip("IPv4", Some("c")), ip("IPv6", Some("c"))]);
}

#[test]
fn a_replica_behind_in_time_finishes_what_a_timer_allowed_the_other() {
    let source = service("web").enabled().dual_stack().set("sticky", "false");
    let source = source.set("min-ready-duration", "60s");
    let pods = vec![pod("a").age(20).readiness(true, at(-10)), pod("b").age(9).ready_for(100)];
    let mut scene = Scene::with(source, pods);
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    // The clock of one replica allows `a` already; the others are far behind.
    scene.server.now = at(651);
    let emptied = scene.next();
    assert_eq!(written(&emptied), ip("IPv6", None));
    scene.perform(&emptied);
    assert_eq!(mark(&scene.follower(), status::LEADER_POD_UID), id(&scene, "a"));
    scene.server.now = at(-600);
    let before = scene.server.clone();
    let steps: Vec<_> = scene.settle().iter().take(2).map(written).collect();
    assert_eq!(steps, [ip("IPv4", Some("a")), ip("IPv6", Some("a"))]);
    assert_eq!(scene.decide().action, Action::Nothing);
    // UnfinishedSwitch for what the source asked then: now it asks for something else.
    scene.server = before;
    scene.server.put_service(scene.source().set("min-ready-duration", "61s"));
    let steps: Vec<_> = scene.settle().iter().take(2).map(written).collect();
    assert_eq!(steps, [ip("IPv4", Some("b")), ip("IPv6", Some("b"))]);
}

fn id(scene: &Scene, pod: &str) -> String {
    scene.server.pods.now[pod].metadata.uid.clone().unwrap()
}

#[test]
fn a_step_is_known_again_while_it_waits_for_its_turn() {
    let mut scene = dual(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let wish = scene.next().wish();
    scene.server.now += jiff::SignedDuration::from_millis(100);
    assert_eq!(scene.next().wish(), wish);
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    scene.server.put_pod(pod("c").age(7).ready_for(5));
    let wishes: Vec<_> = scene.settle().iter().map(Step::wish).collect();
    assert!(!wishes.contains(&wish), "another pod is wanted: {wishes:?}");
    let distinct: std::collections::BTreeSet<_> = wishes.iter().collect();
    assert_eq!(distinct.len(), wishes.len(), "{wishes:?}");
}

#[test]
fn copies_wait_longer_for_a_lower_rank_than_what_routes() {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let steps = scene.settle();
    assert_eq!(kinds(&steps), [StepKind::Slice, StepKind::Mirror]);
    let waits: Vec<_> = steps.iter().map(|step| step.stagger(1)).collect();
    assert_eq!(waits, [crate::ranking::STAGGER, crate::ranking::STAGGER_OF_COPIES]);
    assert!(steps.iter().all(|step| step.stagger(0).is_zero()));
    assert_eq!(steps.iter().map(|s| s.kind().is_routing()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn only_a_changed_message_is_other_words() {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("c").age(1).ready_for(5));
    assert!(scene.next().is_rewording(), "another pod stands by");
    scene.settle();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    assert!(scene.settle().iter().all(|step| !step.is_rewording()), "another pod leads");
}
