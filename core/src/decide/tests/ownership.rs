//! What is ours, what goes with it, and what stays (design, invariant 3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::protocol::pair;
use super::*;

/// Slices beside ours for the leader Service: by hand, with our label but another owner, and with
/// our owner but another writer.
fn beside(scene: &Scene) -> [EndpointSlice; 3] {
    let uid = scene.leader().id();
    let managed = "endpointslice.kubernetes.io/managed-by";
    [
        foreign_slice("by-hand", "web-leader"),
        foreign_slice("labelled", "web-leader").label(managed, "zen-lead").owned_by(
            "Service",
            "web-leader",
            "uid-of-another",
        ),
        foreign_slice("owned", "web-leader").label(managed, "somebody").owned_by(
            "Service",
            "web-leader",
            &uid,
        ),
    ]
}

#[test]
fn slices_that_are_not_ours_by_label_and_owner_are_told_and_outlive_what_is() {
    let mut scene = Scene::served(pair());
    let beside = beside(&scene).map(|slice| scene.server.put_slice(slice));
    scene.settle();
    let (state, reason, message) = scene.condition();
    assert_eq!((state.as_str(), reason.as_str()), ("False", "ForeignEndpoints"));
    assert!(
        message.contains("to this Service: by-hand, labelled, owned; delete them"),
        "{message}"
    );
    let untouched = |scene: &Scene| {
        for slice in &beside {
            assert_eq!(scene.server.slices.now.get(&slice.name()), Some(slice));
        }
    };
    untouched(&scene);
    let served = scene.server.clone();
    scene.server.put_service(service("web"));
    scene.settle();
    assert!(!scene.server.services.now.contains_key("web-leader"), "opted out");
    assert_eq!(scene.routed(), None);
    untouched(&scene);
    scene.server = served;
    scene.server.remove_service("web");
    scene.settle();
    assert_eq!(scene.routed(), None, "the source is gone");
    untouched(&scene);
}

#[test]
fn a_leader_service_that_is_being_deleted_is_kept_right_and_not_made_longer_lived() {
    let mut scene = Scene::served(pair());
    let mut leader = scene.leader();
    leader.metadata.deletion_timestamp = Some(Time(at(0)));
    leader.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    leader.spec().ports.as_mut().unwrap()[0].port = 81;
    scene.server.put_service(leader);
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice, StepKind::Mirror], "it is not repaired");
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(scene.condition().2, "b leads; a: not Ready");
    let served = scene.server.clone();
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    assert_eq!(kinds(&scene.settle()), [StepKind::Mirror], "no slice is made for it");
    assert_eq!(scene.condition().0, "False");
    scene.server = served;
    scene.server.put_service(service("web"));
    let steps = scene.settle();
    assert_eq!(kinds(&steps), [StepKind::Slice, StepKind::Mirror], "nor is it deleted once more");
    let words = "its source does not ask for it any more; it is being deleted";
    assert_eq!(scene.condition(), ("False".into(), "NotServed".into(), words.into()));
    assert_eq!(scene.leader().spec.unwrap().ports.unwrap()[0].port, 81);
}

#[test]
fn who_empties_a_slice_writes_its_name_unless_a_newer_version_wrote_it() {
    let newer = (DECISION_VERSION + 1).to_string();
    for (version, writer) in [(DECISION_VERSION.to_string(), "zen-lead-0"), (newer, "before")] {
        let mut scene = Scene::served(pair());
        let lock = scene.lock().annotation(status::DECISION_VERSION, &version);
        scene.server.put_slice(lock.annotation(status::WRITER, "before"));
        scene.server.remove_service("web");
        assert_eq!(kinds(&scene.settle()), [StepKind::Slice, StepKind::Mirror]);
        assert_eq!((scene.routed(), mark(&scene.lock(), status::WRITER).as_str()), (None, writer));
    }
}

#[test]
fn who_has_the_asked_name_is_told_in_words_of_its_own() {
    let instead = "choose another name with the annotation zen-lead.io/leader-service-name";
    let leading = |source, uid| service("web-leader").leading(source, uid);
    let cases = [
        (
            look_alike(),
            format!(
                "carries the label zen-lead.io/source-service: web, but nothing else proves that \
                 zen-lead made it; it is left alone; {instead} or delete it"
            ),
        ),
        (
            leading("web", "before"),
            format!(
                "belonged to an earlier Service \"web\" (uid before) and is left alone; if garbage \
                 collection does not remove it, delete it yourself or {instead}"
            ),
        ),
        (leading("api", "uid-api"), format!("is the leader Service of \"api\"; {instead}")),
        (
            leading("web", "before").label("zen-lead.io/source-service", "api"),
            format!(
                "belonged to an earlier Service \"web\" (uid before) and is left alone; if garbage \
                 collection does not remove it, delete it yourself or {instead}"
            ),
        ),
        (
            service("web-leader"),
            format!(
                "exists and was not made by zen-lead; it is left alone; {instead} or delete it"
            ),
        ),
    ];
    for (holder, words) in cases {
        let mut scene = Scene::with(service("web").enabled(), pair());
        scene.server.put_service(holder);
        scene.settle();
        let expected = format!("Service \"web-leader\" {words}");
        assert_eq!(
            condition(&scene.source()),
            ("False".into(), "OwnershipConflict".into(), expected)
        );
    }
}

#[test]
fn opting_out_empties_slices_first_and_leaves_nothing() {
    let mut scene = Scene::served(pair());
    scene.server.put_service(service("web"));
    assert_eq!(kinds(&scene.settle()), [StepKind::Slice, StepKind::DeleteLeader]);
    assert_eq!(scene.server.services.now.keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!(scene.routed(), None);
    // What is left goes with the leader Service.
    while scene.server.collect_garbage() {}
    assert!(scene.server.slices.now.is_empty());
}

#[test]
fn a_renamed_leader_service_serves_on_until_its_successor_does() {
    let mut scene = Scene::served(pair());
    // b leads, so that order alone would choose a.
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    scene.server.put_pod(pod("a").age(9).ready_for(0));
    scene.server.put_service(scene.source().set("leader-service-name", "front"));
    let mut seen = Vec::new();
    while let Action::Do(step) = scene.decide().action {
        scene.perform(&step);
        let names = ["web-leader", "front"].map(|l| {
            let slice = scene.server.slices.now.get(&format!("{l}-zen-lead-ipv4"));
            slice.and_then(routed)
        });
        assert!(names.iter().flatten().next().is_some(), "somebody routes at any time");
        assert!(names.iter().flatten().all(|n| n == "b"), "the leader moves along: {names:?}");
        seen.push(step.kind());
    }
    assert_eq!(scene.server.services.now.keys().collect::<Vec<_>>(), ["front", "web"]);
    let removed = seen.iter().position(|k| *k == StepKind::DeleteLeader).unwrap();
    let made = seen.iter().position(|k| *k == StepKind::CreateLeader).unwrap();
    assert!(made < removed);
}

#[test]
fn a_renamed_leader_service_serves_on_while_its_successors_slice_is_somebody_elses() {
    let mut scene = Scene::served(pair());
    // As of an earlier leader Service of that name, which garbage collection is about to take.
    scene.server.put_slice(foreign_slice("front-zen-lead-ipv4", "front"));
    scene.server.put_service(scene.source().set("leader-service-name", "front"));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    // Nor is it given up while there is no pod to route to.
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    scene.settle();
    scene.server.put_pod(pod("b").age(8).ready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    scene.server.remove_slice("front-zen-lead-ipv4");
    scene.settle();
    assert_eq!(routed(&scene.server.slices.now["front-zen-lead-ipv4"]).as_deref(), Some("b"));
    assert!(!scene.server.services.now.contains_key("web-leader"));
}

#[test]
fn a_renamed_leader_service_serves_on_while_its_successor_routes_nobody() {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    let source = scene.source().set("failover-min-delay", "10s");
    scene.server.put_service(source.set("leader-service-name", "front"));
    while !scene.server.slices.now.contains_key("front-zen-lead-ipv4") {
        let step = scene.next();
        scene.perform(&step);
    }
    // Made by who still took a for the leader: it is waited for.
    let mut late = scene.server.slices.now["front-zen-lead-ipv4"].clone();
    late = late.annotation(status::LEADER_POD_UID, &scene.server.pods.now["a"].id());
    late.endpoints = Some(Vec::new());
    scene.server.put_slice(late);
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    scene.server.now = at(30);
    scene.settle();
    assert_eq!(routed(&scene.server.slices.now["front-zen-lead-ipv4"]).as_deref(), Some("b"));
    assert!(!scene.server.services.now.contains_key("web-leader"));
}

#[test]
fn only_where_the_source_is_gone_are_slices_emptied_out_of_turn() {
    for gone in [false, true] {
        let mut scene = Scene::served(pair());
        if gone {
            scene.server.remove_service("web");
        } else {
            scene.server.put_service(scene.source().set("enabled", "false"));
        }
        let step = scene.next();
        assert_eq!(step.kind(), StepKind::Slice);
        assert_eq!(step.urgent(), gone, "{step:?}");
    }
}

/// What a timer waits for is written to a slice: where none may be written, it would come back without end.
#[test]
fn no_timer_runs_where_no_slice_may_be_written() {
    let source = service("web").enabled().dual_stack().set("failover-min-delay", "3s");
    let mut scene = Scene::with(source, vec![pod("a").ready_for(5), pod("b").ready_for(5)]);
    scene.settle();
    scene.server.put_slice(scene.lock().owned_by("ConfigMap", "theirs", "uid-theirs"));
    for name in ["a", "b"] {
        scene.server.put_pod(scene.server.pods.now[name].clone().unready_for(0));
    }
    scene.settle();
    assert_eq!(scene.decide().again_at, None);
    // Its name is free again.
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    scene.server.put_pod(scene.server.pods.now["b"].clone().ready_for(0));
    scene.settle();
    assert!(scene.decide().again_at.is_some(), "failover-min-delay runs");
}
