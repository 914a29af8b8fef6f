//! Bounds: what is new is refused and told, what is served goes on being served.

use proptest::prelude::*;

use super::*;
use crate::index::Limit;

/// Pods of these names, the first the oldest, all Ready.
fn pods(names: &[&str]) -> Vec<Pod> {
    let aged = names.iter().zip((0..99).rev());
    aged.map(|(name, age)| pod(name).age(10 + age).ready_for(5)).collect()
}

const SERVED: &str = "the selector matches more than 2 pods: only the first 2 by name and the present \
                      leader are looked at; narrow it, run fewer pods, or raise --max-pods-per-service";

fn told(scene: &Scene) -> (String, String) {
    let (_, reason, message) = condition(&scene.source());
    (reason, message)
}

#[test]
fn a_new_source_of_too_many_pods_gets_nothing_and_is_told_why() {
    let mut scene = Scene::with(service("web").enabled(), pods(&["a", "b", "c"]));
    scene.limits.pods_per_service = 2;
    assert_eq!(scene.decide().refused_by, Some(Limit::PodsPerService));
    let steps = scene.settle();
    assert_eq!(kinds(&steps), [StepKind::SourceConditions]);
    let Step::SourceConditions(_, _, notices) = &steps[0] else { panic!() };
    assert_eq!(notices[0].reason, EventReason::LimitReached);
    let message = "the selector matches more than 2 pods: no leader Service is made; narrow it, run \
                   fewer pods, or raise --max-pods-per-service";
    assert_eq!(condition(&scene.source()), ("False".into(), "LimitReached".into(), message.into()));
    // It heals by itself.
    scene.server.remove_pod("b");
    scene.settle();
    assert_eq!((scene.routed().as_deref(), told(&scene).0), (Some("a"), String::new()));
    assert_eq!(scene.decide().refused_by, None);
}

#[test]
fn more_pods_than_the_bound_do_not_move_the_leader() {
    let mut scene = Scene::served(pods(&["z", "y"]));
    scene.limits.pods_per_service = 2;
    let epoch = scene.epoch();
    for name in ["a", "b", "c"] {
        scene.server.put_pod(pod(name).age(99).ready_for(50));
        for step in scene.settle() {
            assert_ne!(step.kind(), StepKind::Slice, "{step:?}");
        }
    }
    assert_eq!((scene.routed().as_deref(), scene.epoch()), (Some("z"), epoch));
    assert_eq!(told(&scene), ("LimitReached".into(), SERVED.into()));
    assert_eq!(scene.condition().2, "z leads; a: standby; b: standby");
    // With the next pod nothing has to be written again.
    scene.server.put_pod(pod("d").ready_for(50));
    assert_eq!(scene.settle(), []);
}

#[test]
fn above_the_bound_a_lost_leader_is_replaced_and_the_new_one_stays_too() {
    let mut scene = Scene::served(pods(&["z", "a", "b", "c"]));
    scene.limits.pods_per_service = 2;
    assert_eq!(scene.routed().as_deref(), Some("z"));
    scene.server.remove_pod("z");
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"), "the oldest of the first two by name");
    // It comes back into service after a moment without anybody.
    for (name, unready) in [("b", 9), ("a", 0)] {
        scene.server.put_pod(pod(name).unready_for(unready));
    }
    scene.settle();
    assert_eq!(scene.routed(), None, "c is not looked at, and that is told");
    assert_eq!(told(&scene).1, SERVED);
    scene.limits.pods_per_service = 3;
    scene.settle();
    assert_eq!((scene.routed().as_deref(), told(&scene).0.as_str()), (Some("c"), ""));
}

#[test]
fn above_the_bound_nobody_is_preferred_to_a_leader_that_is_well() {
    let source = service("web").enabled().set("sticky", "false");
    let mut scene = Scene::with(source, pods(&["b", "c"]));
    scene.settle();
    scene.limits.pods_per_service = 2;
    scene.server.put_pod(pod("a").age(999).ready_for(50));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    scene.server.remove_pod("c");
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"), "within the bound the settings hold again");
}

#[test]
fn a_lower_bound_on_services_takes_no_leader_and_no_place() {
    let mut scene = Scene::served(pods(&["a", "b"]));
    scene.limits.services_per_namespace = 1;
    // Older, and enabled later.
    scene.server.put_service(service("api").enabled().age(9999));
    assert_eq!(scene.settle(), []);
    let older = ServiceKey::new(NAMESPACE, "api");
    let snapshot = Snapshot { consistent: true, ..scene.index().snapshot(&older) };
    let decision = decide(&snapshot, &scene.context());
    assert_eq!(decision.refused_by, Some(Limit::ServicesPerNamespace));
    let Action::Do(Step::SourceConditions(_, conditions, _)) = decision.action else { panic!() };
    assert_eq!(
        (conditions[0].reason.as_str(), conditions[0].message.as_str()),
        (
            "LimitReached",
            "the namespace has more than 1 enabled Services: no leader Service is made; disable \
             one or raise --max-services-per-namespace"
        )
    );
    scene.server.put_pod(pod("a").unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"), "it fails over as ever");
}

#[test]
fn a_lower_bound_on_services_does_not_stop_a_leader_service_from_being_renamed() {
    let mut scene = Scene::served(pods(&["a", "b"]));
    // Older, and served as well: it keeps the only place.
    let older = scene.server.put_service(service("api").enabled().age(9999));
    scene.server.put_service(service("api-leader").leading("api", &older.id()));
    scene.limits.services_per_namespace = 1;
    scene.server.put_service(scene.source().set("leader-service-name", "front"));
    assert_eq!(scene.snapshot().over_limit, Some(1));
    scene.settle();
    assert_eq!(routed(&scene.server.slices.now["front-zen-lead-ipv4"]).as_deref(), Some("a"));
    assert!(!scene.server.services.now.contains_key("web-leader"), "it has gone over");
}

proptest! {
    /// Whatever the bounds become and whichever pods come: a healthy leader stays where it is, and
    /// no write takes it out on the way.
    #[test]
    fn no_bound_takes_a_leader(
        names in prop::sample::subsequence(vec!["a", "b", "c", "d", "e", "f"], 1..=6),
        later in prop::sample::subsequence(vec!["0", "b2", "g", "z"], 0..=4),
        sources in 0..4usize,
        sticky in any::<bool>(),
        bounds in (0..5usize, 0..5usize),
        lost in any::<bool>(),
    ) {
        let source = service("web").enabled().set("sticky", &sticky.to_string()).age(1);
        let mut scene = Scene::with(source, pods(&names));
        scene.settle();
        let (leader, epoch) = (scene.routed().unwrap(), scene.epoch());
        let limits = Limits { services_per_namespace: bounds.0, pods_per_service: bounds.1 };
        scene.limits = limits;
        for name in &later {
            scene.server.put_pod(pod(name).age(1).ready_for(1));
        }
        for n in 0..sources {
            scene.server.put_service(service(&format!("s{n}")).enabled().age(99));
        }
        for step in scene.settle() {
            prop_assert!(!matches!(step, Step::Slice(_) | Step::DeleteLeader(_)), "{:?}", step);
        }
        prop_assert_eq!((scene.routed(), scene.epoch()), (Some(leader.clone()), epoch));
        let bound = limits.pods_per_service;
        let seen = scene.snapshot().pods.len();
        prop_assert!(bound == 0 || seen <= bound + 1, "{} pods are looked at", seen);
        if lost {
            scene.server.remove_pod(&leader);
            scene.settle();
            let left = names.len() + later.len() - 1;
            prop_assert_eq!(scene.routed().is_some(), left > 0, "failover goes on");
        }
    }
}
