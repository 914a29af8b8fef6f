//! Leader Services that are taken out of service, and what is reported about those that hang.

use super::protocol::{dual, pair};
use super::*;

#[test]
fn a_service_that_an_owner_reference_names_wrongly_empties_nothing() {
    for (pods, other) in [
        (pair(), None),
        (pair(), Some(service("else"))),
        (pair(), Some(service("else").enabled())),
        (Vec::new(), None),
        (Vec::new(), Some(service("else").enabled())),
    ] {
        let mut scene = Scene::served(pods);
        let mut leader = scene.leader();
        leader.metadata.owner_references.as_mut().unwrap()[0].name = "else".into();
        scene.server.put_service(leader);
        if let Some(other) = other {
            scene.server.put_service(other);
        }
        let key = ServiceKey::new(NAMESPACE, "else");
        let snapshot = Snapshot { consistent: true, ..scene.index().snapshot(&key) };
        let decision = decide(&snapshot, &scene.context());
        let writes_ours = match &decision.action {
            Action::Do(step) => step.kind() == StepKind::Slice || step.kind() == StepKind::Mirror,
            _ => false,
        };
        assert!(!writes_ours, "{decision:?}");
    }
}

#[test]
fn an_emptied_leader_service_says_so_also_where_its_label_names_another_source() {
    for (two, again, other) in
        [(false, false, false), (false, true, false), (true, false, true), (true, true, true)]
    {
        let mut scene = if two { dual(pair()) } else { Scene::served(pair()) };
        scene.server.remove_service("web");
        // Of two slices the follower names its pod still.
        let emptied = scene.next();
        scene.perform(&emptied);
        assert_eq!((emptied.kind(), scene.routed()), (StepKind::Slice, None));
        let leader = scene.leader().label(status::SOURCE_SERVICE, "else");
        scene.server.put_service(leader);
        if again {
            scene.server.put_service(service("web").enabled());
        }
        if other {
            scene.server.put_service(service("else").enabled());
        }
        scene.settle();
        let (state, reason, message) = scene.condition();
        assert_eq!((state.as_str(), reason.as_str()), ("False", "NotServed"), "{message}");
        let slices = scene.server.slices.now.values();
        let named = slices.flat_map(|s| s.endpoints.iter().flatten()).count();
        assert_eq!(named, 0, "both are emptied");
        assert!(message.ends_with("names another one; delete this one"), "{message}");
        let named = scene.leader().metadata.annotations.unwrap();
        assert_eq!(named.get(status::CURRENT_LEADER).map_or("", |n| n), "", "{named:?}");
    }
    // One that routes a pod stays as it is.
    let mut scene = Scene::served(pair());
    scene.server.remove_service("web");
    scene.server.put_service(scene.leader().label(status::SOURCE_SERVICE, "else"));
    assert_eq!(scene.settle(), []);
    assert_eq!(scene.routed().as_deref(), Some("a"));
}

#[test]
fn a_slice_that_cannot_be_emptied_when_the_source_goes_is_reported() {
    let refused = [Blocked::all(StepKind::Slice, EventReason::RefusedByWebhook, "denied")];
    let mut scene = Scene::served(pair());
    scene.server.remove_service("web");
    assert_eq!(kinds(&scene.settle_without(&refused)), [StepKind::Mirror]);
    let words = "the Service it was made for does not exist any more; delete this one, or create that \
                 one again; its EndpointSlice is not emptied: denied";
    assert_eq!(scene.condition(), ("False".into(), "RefusedByWebhook".into(), words.into()));
}

#[test]
fn a_refusal_that_keeps_a_disabled_leader_service_is_reported_on_its_source() {
    let refused = [Blocked::all(StepKind::Slice, EventReason::RefusedByWebhook, "denied")];
    let mut scene = Scene::served(pair());
    // A finalizer keeps the leader Service.
    let mut leader = scene.leader();
    leader.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    scene.server.put_service(leader);
    scene.server.remove_service("web-leader");
    let off = scene.source().set("enabled", "false");
    scene.server.put_service(off);
    scene.settle_without(&refused);
    let expected = ("False".into(), "RefusedByWebhook".into(), "denied".into());
    assert_eq!(condition(&scene.source()), expected);
    scene.settle();
    assert_eq!(scene.routed(), None);
    let conditions = scene.source().status.and_then(|s| s.conditions).unwrap_or_default();
    assert_eq!(conditions, [], "nothing is left to report");
}

#[test]
fn a_leader_service_that_waits_for_garbage_collection_is_still_counted() {
    let mut scene = Scene::served(pair());
    scene.server.remove_service("web");
    scene.settle();
    let there = ServiceReport { leader_service: true, ..ServiceReport::default() };
    assert_eq!(scene.decide().report, Some(there));
    scene.server.remove_service("web-leader");
    assert_eq!(scene.decide().report, None);
}
