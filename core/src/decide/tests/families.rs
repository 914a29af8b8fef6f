//! Two families (design, 3a.5): when the follower has to be emptied before the lock is switched.

use std::slice::from_ref;

use super::hazards::blocked;
use super::protocol::{dual, ip, pair, written};
use super::*;

const IPV4: &str = "10.1.0.1";
const LOCK: &str = "web-leader-zen-lead-ipv4";

/// The first slice writes that lead to rest.
fn writes(scene: &mut Scene, number: usize) -> Vec<(String, Option<String>)> {
    let slices = scene.settle().into_iter().filter(|step| matches!(step, Step::Slice(_)));
    slices.take(number).map(|step| written(&step)).collect()
}

/// An epoch as a slice carries it.
fn carried(slice: &EndpointSlice) -> u64 {
    mark(slice, status::LEADER_EPOCH).parse().unwrap()
}

fn emptied_first(to: &str) -> [(String, Option<String>); 3] {
    [ip("IPv6", None), ip("IPv4", Some(to)), ip("IPv6", Some(to))]
}

#[test]
fn a_planned_switch_writes_the_follower_first_even_where_it_is_empty() {
    // Who leads has no IPv6 address; a paused replica may be about to write the follower all the same.
    let planned: [fn(&mut Scene); 2] = [
        |scene| {
            scene.server.put_service(scene.source().set("sticky", "false"));
            scene.server.put_pod(pod("0").age(99).ready_for(5));
        },
        |scene| {
            let left = pod("a").age(9).ready_for(5).ips(&[IPV4]).label("app", "other");
            scene.server.put_pod(left);
        },
    ];
    for (plan, to) in planned.into_iter().zip(["0", "b"]) {
        let mut scene =
            dual(vec![pod("a").age(9).ready_for(5).ips(&[IPV4]), pod("b").age(8).ready_for(5)]);
        assert_eq!((scene.routed().as_deref(), routed(&scene.follower())), (Some("a"), None));
        plan(&mut scene);
        let before = scene.epoch();
        let first = scene.next();
        assert_eq!(written(&first), ip("IPv6", None));
        scene.perform(&first);
        assert!(
            carried(&scene.follower()) > before,
            "with the epoch to come: the paused one conflicts"
        );
        assert_eq!(writes(&mut scene, 2), emptied_first(to)[1..]);
    }
}

#[test]
fn a_lost_leader_of_one_family_moves_without_emptying_the_other() {
    let mut scene =
        dual(vec![pod("a").age(9).ready_for(5).ips(&[IPV4]), pod("b").age(8).ready_for(5)]);
    scene.server.remove_pod("a");
    assert_eq!(writes(&mut scene, 2), emptied_first("b")[1..]);
}

#[test]
fn a_pod_that_lost_its_first_address_leaves_the_second_family_before_another_leads() {
    let mut scene = dual(vec![pod("a").age(9).ready_for(5)]);
    scene.server.put_pod(pod("a").age(9).ready_for(5).ips(&["fd00::a"]));
    let first = scene.next();
    assert_eq!(written(&first), ip("IPv4", None));
    scene.perform(&first);
    // The lock names no pod, the follower a healthy one: now a successor appears.
    scene.server.put_pod(pod("b").age(8).ready_for(5));
    assert_eq!(writes(&mut scene, 3), emptied_first("b"));
}

#[test]
fn a_follower_ahead_of_the_lock_that_names_a_pod_is_emptied_before_a_planned_switch() {
    let mut scene = dual(pair());
    // A user set the lock's epoch back.
    scene.server.put_slice(scene.lock().annotation(status::LEADER_EPOCH, "7"));
    scene.server.put_service(scene.source().set("sticky", "false"));
    scene.server.put_pod(pod("0").age(99).ready_for(5));
    assert_eq!(writes(&mut scene, 3), emptied_first("0"));
}

#[test]
fn beside_a_deleted_lock_a_follower_of_another_pod_is_emptied_first() {
    let mut scene = dual(pair());
    scene.server.remove_slice(LOCK);
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    assert_eq!(writes(&mut scene, 3), emptied_first("b"));
    // One that names no pod, or the pod that the new lock names, may stay.
    let mut scene = dual(pair());
    scene.server.remove_slice(LOCK);
    assert_eq!(writes(&mut scene, 1), [ip("IPv4", Some("a"))]);
}

#[test]
fn a_lock_deleted_while_nobody_leads_comes_back_with_a_higher_epoch() {
    for stack in [service("web").enabled(), service("web").enabled().dual_stack()] {
        let mut scene = Scene::with(stack, pair());
        scene.settle();
        for name in ["a", "b"] {
            scene.server.remove_pod(name);
        }
        scene.settle();
        let before = scene.epoch();
        scene.server.remove_slice(LOCK);
        scene.settle();
        assert_eq!(scene.routed(), None);
        assert!(scene.epoch() > before, "epochs never go back");
    }
}

#[test]
fn the_first_slice_of_a_renamed_leader_service_counts_the_leader_it_takes_over() {
    for stack in [service("web").enabled(), service("web").enabled().dual_stack()] {
        let mut scene = Scene::with(stack, pair());
        scene.settle();
        scene.server.put_service(scene.source().set("leader-service-name", "front"));
        scene.settle();
        let lock = scene.server.slices.now["front-zen-lead-ipv4"].clone();
        assert_eq!(routed(&lock).as_deref(), Some("a"));
        assert!(carried(&lock) > 0, "a leader without an epoch would have no event");
    }
}

#[test]
fn a_renamed_leader_service_stays_until_both_slices_of_its_successor_are_made() {
    let mut scene = dual(pair());
    scene.server.put_service(scene.source().set("leader-service-name", "front"));
    while !scene.server.slices.now.contains_key("front-zen-lead-ipv4") {
        let step = scene.next();
        scene.perform(&step);
    }
    // A quota that leaves no room for the other one.
    let refusal = blocked(StepKind::CreateSlice);
    let ctx = Context { blocked: from_ref(&refusal), ..scene.context() };
    for _ in 0..9 {
        let Action::Do(step) = decide(&scene.snapshot(), &ctx).action else { break };
        scene.perform(&step);
    }
    assert!(scene.server.services.now.contains_key("web-leader"));
    assert_eq!(routed(&scene.server.slices.now["web-leader-zen-lead-ipv6"]).as_deref(), Some("a"));
}

#[test]
fn a_follower_keeps_no_other_pod_while_the_lock_cannot_be_written() {
    let a = || pod("a").age(9).ready_for(5);
    // Gone, not ready, and ready again before the follower was written.
    let courses =
        [vec![None], vec![Some(a().unready_for(0))], vec![Some(a().unready_for(0)), Some(a())]];
    for course in courses {
        let mut scene = dual(vec![a(), pod("b").age(8).ready_for(5)]);
        let mut switched = false;
        for state in course {
            match state {
                Some(pod) => _ = scene.server.put_pod(pod),
                None => _ = scene.server.remove_pod("a"),
            }
            if !switched {
                let step = scene.next();
                assert_eq!(written(&step), ip("IPv4", Some("b")));
                scene.perform(&step);
                switched = true;
            }
        }
        // A webhook takes an annotation off the lock each time.
        let lock = scene.lock().annotation(status::LEADER_EPOCH, "");
        scene.server.put_slice(lock);
        let (kind, only) = (StepKind::Slice, Some(scene.next().subject()));
        let (reason, message) = (EventReason::WriteUndone, String::from("undone"));
        let held = [Blocked { kind, only, reason, message }];
        scene.settle_without(&held);
        assert_eq!(scene.routed().as_deref(), Some("b"));
        assert_eq!(routed(&scene.follower()), None, "a takes no traffic beside b");
        assert_eq!(scene.condition().0, "True");
        // It is written as always once it can be.
        scene.settle();
        assert_eq!(routed(&scene.follower()).as_deref(), Some("b"));
    }
}

#[test]
fn a_follower_without_its_lock_is_counted_as_it_routes() {
    let refused = [Blocked::all(StepKind::CreateSlice, EventReason::RefusedByWebhook, "no")];
    let mut scene = dual(pair());
    scene.server.remove_slice(LOCK);
    scene.settle_without(&refused);
    assert_eq!(routed(&scene.follower()).as_deref(), Some("a"));
    assert_eq!(scene.decide().report.unwrap().endpoints, 1, "the gauge follows what is routed");
    scene.server.remove_pod("a");
    scene.settle_without(&refused);
    assert_eq!(routed(&scene.follower()), None);
    assert_eq!(scene.decide().report.unwrap().endpoints, 0);
}

#[test]
fn a_lost_leader_leaves_the_lock_while_the_follower_cannot_be_made() {
    let refused = [Blocked::all(StepKind::CreateSlice, EventReason::QuotaExceeded, "over quota")];
    let mut scene = dual(pair());
    scene.server.remove_slice("web-leader-zen-lead-ipv6");
    scene.server.remove_pod("a");
    assert_eq!(written(&scene.next()), ip("IPv6", None), "the follower comes first");
    scene.settle_without(&refused);
    assert_eq!(scene.routed(), None, "no dead pod is routed");
    assert_eq!(
        (scene.condition().0, scene.condition().1),
        ("False".into(), "QuotaExceeded".into())
    );
    scene.settle();
    assert_eq!((scene.routed(), routed(&scene.follower())), (Some("b".into()), Some("b".into())));
}
