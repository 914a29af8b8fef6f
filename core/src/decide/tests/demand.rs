//! Which steps pods demand, so that they wait for no settings that are changed again and again.

use super::protocol::{dual, pair};
use super::*;

/// Whether pods demand the next step, where the settings before had this selector.
fn demanded(scene: &Scene, selector: &[(&str, &str)]) -> bool {
    let selector: Vec<_> = selector.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    is_demanded_by_pods(&scene.next(), &scene.snapshot(), &selector)
}

const WEB: &[(&str, &str)] = &[("app", "web")];

fn scene() -> Scene {
    Scene::served(pair())
}

#[test]
fn what_only_settings_change_may_wait() {
    let changes: [fn(Service) -> Service; 5] = [
        |web| web.set("sticky", "false"),
        |web| web.set("strategy", "odd"),
        |web| web.set("enabled", "false"),
        |web| web.set("leader-service-name", "other"),
        |mut web| {
            web.spec.as_mut().unwrap().selector = Some([("app".into(), "none".into())].into());
            web
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut scene = scene();
        scene.server.put_service(change(scene.source()));
        assert!(!demanded(&scene, WEB), "{n}");
        // The leader is lost meanwhile.
        scene.server.put_pod(pod("a").age(9));
        assert!(demanded(&scene, WEB), "{n}");
    }
}

#[test]
fn a_leader_that_its_labels_took_away_is_lost_and_one_that_the_selector_left_is_not() {
    let mut scene = scene();
    scene.server.put_pod(pod("a").age(9).ready_for(5).label("app", "debug"));
    assert!(demanded(&scene, WEB), "the settings that were acted on match it no longer either");
    assert!(!demanded(&scene, &[("app", "debug")]), "it was matched by those, and is by none now");
}

#[test]
fn a_first_leader_and_one_that_is_back_wait_for_nothing() {
    let mut scene = Scene::served(vec![pod("a").age(9)]);
    assert_eq!(scene.routed(), None);
    scene.server.put_pod(pod("a").age(9).ready_for(5));
    assert!(demanded(&scene, WEB));
    scene.settle();
    scene.server.put_service(scene.source().set("ports-mode", "partial"));
    assert!(!demanded(&scene, WEB), "the slice has its leader");
}

#[test]
fn a_switch_of_two_families_that_was_begun_is_finished() {
    let mut scene = dual(pair());
    scene.server.put_service(scene.source().set("sticky", "false"));
    scene.server.put_pod(pod("0").age(99).ready_for(5));
    assert!(!demanded(&scene, WEB), "a planned switch that a setting asks for");
    let emptied = scene.next();
    scene.perform(&emptied);
    // Taken back, or not.
    for sticky in ["true", "false"] {
        scene.server.put_service(scene.source().set("sticky", sticky));
        let mut rest = Scene { server: scene.server.clone(), limits: Limits::default() };
        for _ in 0..2 {
            assert!(demanded(&rest, WEB), "{sticky}: one family has no endpoint");
            let step = rest.next();
            rest.perform(&step);
        }
        assert!(routed(&rest.lock()).is_some() && routed(&rest.follower()).is_some());
    }
}

#[test]
fn a_pod_without_an_address_of_the_second_family_does_not_count_as_an_unfinished_switch() {
    let mut scene = dual(vec![pod("a").age(9).ready_for(5).ips(&["10.1.0.1"])]);
    scene.server.put_service(scene.source().set("ports-mode", "partial"));
    for _ in 0..2 {
        assert!(!demanded(&scene, WEB));
        let step = scene.next();
        scene.perform(&step);
    }
}
