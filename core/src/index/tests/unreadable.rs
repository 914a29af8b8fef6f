//! Objects that cannot be read: they are not absent, and what was known of them stays.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::super::pod::{Known, NamespacedPod};
use super::super::slice::Slice;
use super::super::snapshot::Holder;
use super::*;
use crate::keys::kubernetes;

fn hidden<K: Resource>(object: &K) -> Decoded<K> {
    Decoded::unreadable(object.meta().clone(), "spec: wrong".into())
}

fn source(version: u64) -> Service {
    service("web").enabled().version(version)
}

fn unreadable(index: &Index) -> SourceState {
    let source = index.snapshot(&key("web")).source;
    assert!(matches!(source, SourceState::Unreadable { .. }), "{source:?}");
    source
}

#[test]
fn a_service_in_a_list_that_cannot_be_read_is_kept_as_it_was() {
    let mut index = with_pods(&[pod("a")]);
    let dirty = index.reset_decoded_services(vec![hidden(&source(12))], Rv(12));
    assert_eq!(dirty, keys(&["web"]));
    let want = SourceState::Unreadable {
        uid: "uid-web".into(),
        error: "spec: wrong".into(),
        selects: true,
    };
    assert_eq!(unreadable(&index), want);
    assert_eq!(members(&index, "web"), ["a"], "its selector is known");
    assert!(index.needs_pods(NAMESPACE));
    assert_eq!(index.snapshot(&key("web")).unreadable(), ["Service web: spec: wrong"]);
    // Again the same: nothing has changed.
    assert_eq!(index.apply_service(hidden(&source(12))), Dirty::new());
    assert_eq!(index.apply_service(source(13)), keys(&["web"]));
    assert!(matches!(index.snapshot(&key("web")).source, SourceState::Judged { .. }));
    index.apply_service(hidden(&source(14)));
    assert_eq!(index.delete_service(&hidden(&source(15))), keys(&["web"]));
    assert_eq!(index.snapshot(&key("web")).source, SourceState::Absent, "deleted is deleted");
}

#[test]
fn a_service_that_was_never_read_has_its_name_and_needs_the_pods_of_its_leader() {
    let mut index = empty();
    index.apply_service(service("web-leader").leading("web", "uid-web"));
    assert!(!index.needs_pods(NAMESPACE));
    assert_eq!(index.apply_service(hidden(&source(3))), keys(&["web"]));
    unreadable(&index);
    assert!(index.needs_pods(NAMESPACE));
    let other = service("api").enabled().set("leader-service-name", "web");
    index.apply_service(other);
    let holder = index.snapshot(&key("api")).holder;
    assert_eq!(holder, Holder::Unreadable { error: "spec: wrong".into() });
    // Another object of the name: nothing is known of it.
    index.apply_service(source(5));
    index.apply_service(hidden(&source(6).uid("another")));
    assert_eq!(members(&index, "web"), [""; 0]);
    let nameless = Decoded::unreadable(<_>::default(), "x".into());
    assert_eq!(index.apply_service(nameless), Dirty::new());
}

#[test]
fn a_leader_service_that_cannot_be_read_is_known_by_its_metadata() {
    for before in [true, false] {
        let mut index = with_pods(&[pod("a")]);
        let leader = service("web-leader").leading("web", "uid-web").version(11);
        if before {
            index.apply_service(leader.clone());
        }
        assert_eq!(index.apply_service(hidden(&leader.version(12))), keys(&["web"]));
        let snapshot = index.snapshot(&key("web"));
        let Holder::Leader(found) = &snapshot.holder else { panic!("{:?}", snapshot.holder) };
        assert!(found.is_ours("web", "uid-web"));
        assert_eq!(found.unreadable.as_deref(), Some("spec: wrong"));
        assert_eq!(found.object.spec.is_some(), before);
        assert_eq!(snapshot.unreadable(), ["leader Service web-leader: spec: wrong"]);
    }
}

#[test]
fn a_slice_that_cannot_be_read_is_kept_and_ours_is_known_by_its_name() {
    let mut index = with_pods(&[pod("a")]);
    index.apply_service(service("web-leader").leading("web", "uid-web"));
    let managed = "endpointslice.kubernetes.io/managed-by";
    let ours = |version| {
        foreign_slice("web-leader-zen-lead-ipv4", "web-leader")
            .label(managed, "zen-lead")
            .version(version)
    };
    index.apply_slice(ours(20));
    let known = index.snapshot(&key("web")).slices[0].clone();
    assert_eq!(index.reset_decoded_slices(vec![hidden(&ours(21))], Rv(21)), keys(&["web"]));
    let slices = index.snapshot(&key("web")).slices;
    let endpoints = |slice: &Slice| slice.object.as_ref().unwrap().endpoints.clone();
    assert_eq!(endpoints(&slices[0]), endpoints(&known));
    assert_eq!(slices[0].unreadable.as_deref(), Some("spec: wrong"));
    assert_eq!(index.delete_slice(&hidden(&ours(22))), keys(&["web"]));
    assert!(index.snapshot(&key("web")).slices.is_empty());

    let mut nameless = ours(23);
    nameless.metadata.labels = None;
    assert_eq!(index.apply_slice(hidden(&nameless)), keys(&["web"]));
    let slices = index.snapshot(&key("web")).slices;
    assert_eq!(slices[0].unreadable.as_deref(), Some("spec: wrong"));
    // Of a slice by others no more is read than its metadata.
    index.apply_slice(hidden(&foreign_slice("s", "web-leader").label(managed, "me").version(24)));
    let slices = index.snapshot(&key("web")).slices;
    let other = slices.iter().find(|s| &*s.name == "s").unwrap();
    assert_eq!(other.unreadable, None);
}

#[test]
fn a_pod_that_cannot_be_read_keeps_what_was_known() {
    let one = |index: &Index| (*index.snapshot(&key("web")).pods[0]).clone();
    let mut index = with_pods(&[pod("a").ready_for(9).version(5)]);
    let before = one(&index);
    let hidden = |pod: &RawPod| {
        Decoded::<pod::NamespacedPod>::unreadable(pod.metadata.clone(), "spec: wrong".into())
    };
    let list = vec![hidden(&pod("a").version(11))];
    assert_eq!(index.reset_trimmed_pods(Some(NAMESPACE), list, Rv(11)), keys(&["web"]));
    assert_eq!(one(&index), Pod { known: Known::Before, version: Rv(11), ..before.clone() });
    assert!(one(&index).unjudged(), "that was before");
    index.apply_trimmed_pod(hidden(&pod("a").terminating().version(12)));
    assert!(one(&index).terminating(), "that its metadata say");
    assert_eq!(index.snapshot(&key("web")).unreadable(), ["pod a"]);
    index.apply_trimmed_pod(hidden(&pod("a").uid("another").version(13)));
    assert_eq!(one(&index).known, Known::Nothing);
    assert!(one(&index).unjudged() && !one(&index).eligible());
    assert_eq!(index.delete_trimmed_pod(&hidden(&pod("a").version(14))), keys(&["web"]));
    assert!(members(&index, "web").is_empty());
}

/// A replica that was there before an object became unreadable, and one that has just started, find the
/// same owner and the same labels.
#[test]
fn labels_and_owner_of_what_cannot_be_read_are_those_that_it_has_now() {
    let leader = service("web-leader").leading("web", "uid-web").version(12);
    let changed = leader
        .clone()
        .label(kubernetes::SERVICE_PROXY_NAME, "other")
        .owned_by("Service", "web", "uid-past")
        .version(14);
    let (mut known, mut started) = (with_pods(&[pod("a")]), with_pods(&[]));
    known.apply_service(leader.clone());
    let seen = |index: &Index| index.snapshot(&key("web")).leaders[0].clone();
    for index in [&mut known, &mut started] {
        index.apply_service(hidden(&changed));
        let found = seen(index);
        assert_eq!(found.owner_uid(), Some("uid-past"));
        let labels = found.object.metadata.labels.clone().unwrap();
        assert_eq!(labels[kubernetes::SERVICE_PROXY_NAME], "other");
        assert!(found.unreadable.is_some());
    }
    assert_eq!(seen(&known).object.spec, leader.spec, "the rest is as it was known");
    let mut stranger = changed.clone().version(15);
    (stranger.metadata.labels, stranger.metadata.annotations) = (None, None);
    known.apply_service(hidden(&stranger));
    assert!(known.snapshot(&key("web")).leaders.is_empty());

    let other = pod("a").label("app", "other");
    known.apply_trimmed_pod(NamespacedPod::trim_decoded(hidden(&other)).unwrap());
    assert_eq!(members(&known, "web"), [""; 0], "the selector has left it");
}

/// What is not known of the metadata is no change.
#[test]
fn metadata_that_cannot_be_read_or_are_too_large_change_nothing() {
    let leader = service("web-leader").leading("web", "uid-web").version(12);
    let mut index = with_pods(&[pod("a")]);
    index.apply_service(leader.clone());
    let mut found = leader.clone().version(13);
    found.metadata.labels = None;
    let wrong = "metadata.labels: expected an object, found a text";
    let seen = |index: &Index| index.snapshot(&key("web")).leaders[0].clone();
    index.apply_service(Decoded::<Service>::unreadable(found.metadata, wrong.into()));
    assert_eq!(seen(&index).label.as_deref(), Some("web"));
    let mut other = pod("a");
    other.metadata.labels = None;
    let other = Decoded::<RawPod>::unreadable(other.metadata, wrong.into());
    index.apply_trimmed_pod(NamespacedPod::trim_decoded(other).unwrap());
    assert_eq!(members(&index, "web"), ["a"]);
    assert_eq!(index.snapshot(&key("web")).pods[0].known, Known::Name);
    // Labels that are left out are not gone.
    let large = leader.version(14).label("team", &"x".repeat(70_000));
    index.apply_service(hidden(&large).trimmed());
    assert_eq!(seen(&index).object.metadata.resource_version.as_deref(), Some("12"));
}

#[test]
fn a_slice_that_cannot_be_read_is_ours_whatever_its_labels_were_made_to_say() {
    let (managed, name) = ("endpointslice.kubernetes.io/managed-by", "kubernetes.io/service-name");
    for (key, value) in [(managed, "Helm"), (name, "Helm")] {
        let mut index = with_pods(&[pod("a")]);
        index.apply_service(service("web-leader").leading("web", "uid-web"));
        let slice = foreign_slice("web-leader-zen-lead-ipv4", "web-leader")
            .label(managed, "zen-lead")
            .annotation("zen-lead.io/leader-epoch", "7")
            .label(key, value);
        assert_eq!(index.apply_slice(hidden(&slice)), keys(&["web"]), "{key}");
        let found = index.snapshot(&self::key("web")).slices[0].clone();
        assert_eq!(found.unreadable.as_deref(), Some("spec: wrong"), "{key}");
        assert_eq!((&*found.service, found.tied), ("web-leader", key != name));
    }
}

#[test]
fn a_pod_that_a_slice_names_concerns_its_source_whatever_it_selects() {
    let slice = |pod: &str, version| {
        let mut slice = foreign_slice("web-leader-zen-lead-ipv4", "web-leader")
            .label("endpointslice.kubernetes.io/managed-by", "zen-lead")
            .version(version);
        let endpoint = &mut slice.endpoints.as_mut().unwrap()[0];
        endpoint.target_ref = Some(k8s_openapi::api::core::v1::ObjectReference {
            name: Some(pod.into()),
            uid: Some(format!("uid-{pod}")),
            ..<_>::default()
        });
        slice
    };
    let other = |name: &str, version| pod(name).label("app", "other").version(version);
    // Its source was never read, so that no selector is known; or the selector has left the pod.
    for source in [hidden(&source(10)), source(10).into()] {
        let mut index = empty();
        index.apply_service(source);
        index.apply_service(service("web-leader").leading("web", "uid-web").version(11));
        index.apply_slice(slice("a", 12));
        assert_eq!(index.apply_pod(&other("a", 13)), keys(&["web"]));
        assert_eq!(index.apply_pod(&other("a", 14).unready_for(3)), keys(&["web"]));
        assert_eq!(index.apply_pod(&other("b", 15)), Dirty::new());
        assert_eq!(index.delete_pod(&other("a", 16)), keys(&["web"]));
        index.apply_slice(slice("b", 17));
        assert_eq!(index.apply_pod(&other("a", 18)), Dirty::new(), "it is named no longer");
        assert_eq!(index.apply_pod(&other("b", 19).unready_for(3)), keys(&["web"]));
        index.delete_slice(&slice("b", 20));
        assert_eq!(index.apply_pod(&other("b", 21)), Dirty::new());
    }
}

/// One that was known before is judged by what its metadata say now, as one that was never read.
#[test]
fn labels_and_owner_of_a_slice_that_cannot_be_read_are_those_that_it_has_now() {
    let managed = "endpointslice.kubernetes.io/managed-by";
    let made = |version| {
        foreign_slice("web-leader-zen-lead-ipv4", "web-leader")
            .label(managed, "zen-lead")
            .owned_by("Service", "web-leader", "uid-web-leader")
            .version(version)
    };
    let edits: [fn(EndpointSlice) -> EndpointSlice; 4] = [
        |slice| slice.label("endpointslice.kubernetes.io/managed-by", "Helm"),
        |slice| slice.label("kubernetes.io/service-name", "other"),
        |slice| slice.owned_by("Service", "web-leader", "another"),
        |slice| slice.label("zen-lead.io/source-service", "other"),
    ];
    for edit in edits {
        let seen = [true, false].map(|before| {
            let mut index = with_pods(&[pod("a")]);
            index.apply_service(service("web-leader").leading("web", "uid-web"));
            if before {
                index.apply_slice(made(20));
            }
            index.apply_slice(hidden(&edit(made(21))));
            let slices = index.snapshot(&key("web")).slices;
            slices.iter().map(|s| Slice { object: None, ..(**s).clone() }).collect::<Vec<_>>()
        });
        assert_eq!(seen[0], seen[1]);
    }
}
