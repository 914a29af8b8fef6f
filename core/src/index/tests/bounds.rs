//! Which objects the bounds leave out, and what each bound is called.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::keys::status;

#[test]
fn a_bound_of_zero_refuses_nobody() {
    let mut index = bounded(0, 0);
    for name in ["a", "b"] {
        assert_eq!(index.apply_service(service(name).enabled()), keys(&[name]));
    }
    let pods: Vec<RawPod> = ["x", "y"].map(pod).into();
    index.reset_pods(Some(NAMESPACE), &pods, Rv(10));
    for name in ["a", "b"] {
        let known = index.snapshot(&key(name));
        assert_eq!(
            (known.over_limit, known.over_pods, known.pods.len()),
            (None, None, 2),
            "{name}"
        );
    }
}

#[test]
fn a_bound_is_called_as_in_the_documentation() {
    let metrics = include_str!("../../../../docs/metrics.md");
    for (limit, label, flag) in [
        (Limit::ServicesPerNamespace, "services_per_namespace", "--max-services-per-namespace"),
        (Limit::PodsPerService, "pods_per_service", "--max-pods-per-service"),
    ] {
        assert_eq!((limit.as_str(), limit.flag()), (label, flag));
        assert!(metrics.contains(&format!("`{label}`")), "{label}");
    }
}

#[test]
fn beyond_the_limit_the_oldest_have_the_places_and_the_next_is_woken() {
    let mut index = bounded(2, 0);
    for (name, age) in [("c", 10), ("a", 30), ("b", 20)] {
        index.apply_service(service(name).enabled().age(age));
    }
    let over = |index: &Index| ["a", "b", "c"].map(|n| index.snapshot(&key(n)).over_limit);
    assert_eq!(over(&index), [None, None, Some(2)]);
    assert_eq!(index.delete_service(&service("a").version(9)), keys(&["a", "c"]));
    assert_eq!(over(&index), [None, None, None]);
}

/// A Service whose controller owner is `web`, with nothing else that says so.
fn claiming(name: &str) -> Service {
    let owned = service(name).leading("web", "uid-web");
    Service { metadata: ObjectMeta { annotations: None, ..owned.metadata }, ..owned }
        .label(status::SOURCE_SERVICE, "other")
}

#[test]
fn a_decision_looks_at_few_leader_services_and_at_the_proven_ones() {
    let mut real = service("z").leading("web", "uid-web");
    real.metadata.owner_references = None;
    let real = real.label(status::SOURCE_SERVICE, "web").annotation(status::LEADER_EPOCH, "1");
    let mut index = empty();
    index.apply_service(service("web").enabled());
    for n in 0..20 {
        index.apply_service(service(&format!("a{n}")).leading("web", "uid-other"));
        index.apply_service(claiming(&format!("b{n}")));
    }
    index.apply_service(real);
    let leaders = index.snapshot(&key("web")).leaders;
    assert_eq!(leaders.len(), 16);
    assert!(leaders.iter().any(|l| l.name() == "z" && l.is_ours("web", "uid-web")));
}

#[test]
fn of_many_proven_leader_services_the_one_that_is_asked_for_is_looked_at() {
    let mut index = empty();
    index.apply_service(service("web").enabled());
    for name in (0..20).map(|n| format!("a{n}")).chain(["web-leader".into()]) {
        index.apply_service(service(&name).leading("web", "uid-web"));
    }
    let leaders = index.snapshot(&key("web")).leaders;
    assert!(leaders.iter().any(|leader| leader.name() == "web-leader"));
}

#[test]
fn an_empty_label_makes_no_leader_service_and_takes_no_source_away() {
    let mut index = empty();
    index.apply_service(service("web").enabled().label(status::SOURCE_SERVICE, ""));
    assert!(matches!(index.snapshot(&key("web")).source, SourceState::Judged { .. }));
    assert!(index.snapshot(&key("")).leaders.is_empty());
}

#[test]
fn only_a_proven_leader_service_keeps_a_place() {
    let mut index = bounded(1, 0);
    index.apply_service(service("web").enabled().age(1));
    index.apply_service(service("old").enabled().age(9));
    for n in 0..50 {
        index.apply_service(service(&format!("a{n}")).leading("web", "uid-other"));
    }
    let over = |index: &Index| ["web", "old"].map(|n| index.snapshot(&key(n)).over_limit);
    assert_eq!(over(&index), [Some(1), None]);
    let proven = service("z").leading("web", "uid-web");
    assert_eq!(index.apply_service(proven.clone()), keys(&["old", "web"]));
    assert_eq!(over(&index), [None, Some(1)]);
    assert_eq!(index.delete_service(&proven.version(9)), keys(&["old", "web"]));
    assert_eq!(over(&index), [Some(1), None]);
}

#[test]
fn who_has_a_leader_service_keeps_its_place() {
    let mut index = bounded(1, 0);
    index.apply_service(service("young").enabled().age(1));
    index.apply_service(service("young-leader").leading("young", "uid-young"));
    assert_eq!(index.apply_service(service("old").enabled().age(99)), keys(&["old"]));
    let over = |index: &Index| ["young", "old"].map(|n| index.snapshot(&key(n)).over_limit);
    assert_eq!(over(&index), [None, Some(1)], "it came later, however old it is");
    let gone = service("young-leader").leading("young", "uid-young").version(9);
    assert_eq!(index.delete_service(&gone), keys(&["old", "young"]));
    assert_eq!(over(&index), [Some(1), None]);
}

#[test]
fn above_the_bound_the_first_pods_by_name_and_the_leader_are_looked_at() {
    let mut index = bounded(0, 2);
    index.reset_services(vec![service("web").enabled()], Rv(10));
    let pods: Vec<RawPod> = ["d", "c", "b", "a"].map(pod).into();
    index.reset_pods(Some(NAMESPACE), &pods, Rv(10));
    let found = |index: &Index| (members(index, "web"), index.snapshot(&key("web")).over_pods);
    assert_eq!(found(&index), (vec!["a".to_owned(), "b".to_owned()], Some(2)));
    let led = service("web-leader").leading("web", "uid-web");
    index.apply_service(led.annotation(crate::keys::status::LEADER_POD_NAME, "d"));
    assert_eq!(found(&index), (["a", "b", "d"].map(str::to_owned).into(), Some(2)));
    index.delete_pod(&pod("a").version(11));
    assert_eq!(index.delete_pod(&pod("b").version(12)), keys(&["web"]));
    assert_eq!(found(&index), (["c", "d"].map(str::to_owned).into(), None));
}
