//! Writes that the API server refuses for long are reported on the source and on the leader Service,
//! whatever else is reported there (rule R-e of docs/contributing/reliability.md).

use super::protocol::{dual, pair};
use super::*;

const DENIED: &str = "admission webhook \"x\" denied the request";

fn refused() -> [Blocked; 2] {
    [StepKind::Slice, StepKind::CreateSlice]
        .map(|kind| Blocked::all(kind, EventReason::RefusedByWebhook, DENIED))
}

fn external(scene: &mut Scene) {
    let mut source = scene.source();
    source.spec().type_ = Some("ExternalName".into());
    source.spec().external_name = Some("example.com".into());
    scene.server.put_service(source);
}

#[test]
fn a_refusal_is_reported_beside_an_invalid_source() {
    let mut scene = Scene::served(pair());
    external(&mut scene);
    scene.server.remove_pod("a");
    scene.settle_without(&refused());
    let (state, reason, message) = condition(&scene.source());
    assert_eq!((&*state, &*reason), ("False", "InvalidService"));
    assert!(message.starts_with("spec.type: ") && message.ends_with(DENIED), "{message}");
    assert!(scene.condition().2.contains(DENIED), "{:?}", scene.condition());
    assert_eq!(scene.settle_without(&refused()), []);
    scene.settle();
    assert!(!condition(&scene.source()).2.contains(DENIED), "nothing is refused any longer");
}

#[test]
fn a_refusal_of_what_an_invalid_source_does_not_get_is_not_reported() {
    let refused = [Blocked::all(StepKind::CreateLeader, EventReason::RefusedByWebhook, DENIED)];
    let mut scene = Scene::with(service("web").enabled(), pair());
    scene.settle_without(&refused);
    assert_eq!(condition(&scene.source()).2, DENIED);
    external(&mut scene);
    scene.settle_without(&refused);
    let message = condition(&scene.source()).2;
    assert!(message.starts_with("spec.type: ") && !message.contains(DENIED), "{message}");
}

/// The reason that is reported, a scene, and what others do in it.
type Case<'a> = (&'static str, Scene, &'a dyn Fn(&mut Scene));

#[test]
fn a_refusal_is_reported_beside_slices_of_others() {
    // They add endpoints, hold the name of the follower, or hold it in their deletion.
    let tied = |scene: &mut Scene| {
        scene.server.put_slice(foreign_slice("by-hand", "web-leader"));
    };
    let holds = |scene: &mut Scene| {
        scene.server.put_slice(foreign_slice("web-leader-zen-lead-ipv6", "other"));
    };
    let hangs = |scene: &mut Scene| {
        let mut follower = scene.follower();
        follower.metadata.finalizers = Some(vec!["example.com/hold".into()]);
        follower.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-past".into();
        follower.endpoints = Some(Vec::new());
        scene.server.put_slice(follower);
        scene.server.remove_slice("web-leader-zen-lead-ipv6");
    };
    let cases: [Case<'_>; 3] = [
        ("ForeignEndpoints", Scene::served(pair()), &tied),
        ("OwnershipConflict", Scene::served(pair()), &holds),
        ("OwnershipConflict", dual(pair()), &hangs),
    ];
    for (reason, mut scene, beside) in cases {
        beside(&mut scene);
        scene.server.put_pod(pod("a").age(9).unready_for(0));
        scene.settle_without(&refused());
        let (state, found, message) = scene.condition();
        assert_eq!((&*state, &*found), ("False", reason), "{message}");
        assert!(message.ends_with(DENIED), "{message}");
        assert!(condition(&scene.source()).2.contains(DENIED));
    }
}

#[test]
fn a_refusal_to_empty_what_an_earlier_source_left_is_reported_on_the_source() {
    for enabled in [true, false] {
        let mut scene = Scene::served(pair());
        let mut leader = scene.leader();
        leader.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-past".into();
        scene.server.put_service(leader);
        let asks = scene.source().set("enabled", if enabled { "true" } else { "false" });
        scene.server.put_service(asks);
        scene.settle_without(&refused());
        assert_eq!(scene.routed().as_deref(), Some("a"));
        let message = condition(&scene.source()).2;
        assert!(message.contains(DENIED), "{message}");
        assert!(scene.condition().2.contains(DENIED));
        scene.settle();
        assert_eq!(scene.routed(), None);
        assert!(!condition(&scene.source()).2.contains(DENIED));
    }
}

#[test]
fn where_our_condition_was_removed_it_is_still_reported_that_no_pod_is_routed() {
    let remove_condition = |scene: &mut Scene| {
        let mut leader = scene.leader();
        leader.status = None;
        scene.server.put_service(leader);
    };
    let mut scene = Scene::served(pair());
    scene.server.remove_service("web");
    remove_condition(&mut scene);
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice, StepKind::Mirror]);
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::CURRENT_LEADER], "");
    assert_eq!(scene.condition().1, "NotServed");

    // It never said anything, and routes on, because the write is refused.
    let mut scene = Scene::served(pair());
    let mut leader = scene.leader();
    leader.metadata.annotations.as_mut().unwrap().remove(status::CURRENT_LEADER);
    scene.server.put_service(leader);
    scene.server.remove_service("web");
    remove_condition(&mut scene);
    assert_eq!(kinds(&scene.settle_without(&refused())), [StepKind::Mirror]);
    assert!(scene.condition().2.ends_with(DENIED), "{:?}", scene.condition());
}

#[test]
fn what_makes_or_destroys_rests_on_a_read() {
    let target = || ObjectRef::of(&service("web"));
    let slice = || Box::new(foreign_slice("s", "web-leader"));
    let written =
        |write| Step::Slice(Box::new(slices::SliceStep { write, switch: None, urgent: false }));
    let (name, uid, version) = ("s".to_owned(), "u".to_owned(), "1".to_owned());
    for (step, reads) in [
        (Step::CreateLeader(Box::new(service("web-leader"))), true),
        (Step::DeleteLeader(target()), true),
        (Step::PatchLeader(target(), json!({})), false),
        (Step::SourceConditions(target(), Vec::new(), Vec::new()), false),
        (written(SliceWrite::Create(slice())), true),
        (written(SliceWrite::Delete { name, uid, version }), true),
        (written(SliceWrite::Replace(slice())), false),
    ] {
        assert_eq!(step.needs_read(), reads, "{step:?}");
    }
}
