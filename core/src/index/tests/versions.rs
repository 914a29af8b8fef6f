//! Which of two versions of an object is kept.

use super::*;
use crate::keys::status;

/// Versions that are no numbers cannot be compared, and all count as the same.
#[test]
fn a_pod_of_the_same_version_is_taken_as_it_comes() {
    let mut index = with_pods(&[pod("a").version(2)]);
    let out = pod("a").label("app", "other").version(2);
    assert_eq!(index.apply_pod(&out), keys(&["web"]));
    assert_eq!(members(&index, "web"), [""; 0]);
}

#[test]
fn older_versions_are_ignored_whatever_their_uid() {
    let mut index = with_pods(&[pod("a").uid("new").version(20).ready_for(5)]);
    assert_eq!(index.apply_pod(&pod("a").uid("old").version(19)), Dirty::new());
    assert_eq!(index.delete_pod(&pod("a").uid("old").version(19)), Dirty::new());
    assert_eq!(&*index.snapshot(&key("web")).pods[0].uid, "new");

    // The answer to our own write came before the watch reported the previous version.
    let leader = |uid: &str, v| service("web-leader").leading("web", "uid-web").uid(uid).version(v);
    index.apply_service(leader("second", 30));
    index.apply_service(leader("first", 28));
    index.delete_service(&leader("first", 29));
    assert_eq!(index.snapshot(&key("web")).leaders[0].uid(), "second");
    assert_eq!(index.delete_service(&leader("second", 31)), keys(&["web"]));

    let slice = |uid: &str, v| foreign_slice("s", "web-leader").uid(uid).version(v);
    index.apply_slice(slice("second", 30));
    index.apply_slice(slice("first", 28));
    index.delete_slice(&slice("first", 29));
    assert_eq!(&*index.snapshot(&key("web")).slices[0].uid, "second");
}

#[test]
fn what_newer_rules_wrote_is_found_by_service_and_by_slice() {
    let version = |object: Service, v: &str| object.annotation(status::DECISION_VERSION, v);
    for (service_says, slice_says, newer) in
        [("2", "", true), ("", "2", true), ("1", "1", false), ("odd", "", false), ("", "", false)]
    {
        let mut index = empty();
        index.apply_service(service("web").enabled());
        let leader = service("web-leader").leading("web", "uid-web");
        index.apply_service(version(leader, service_says));
        let slice = foreign_slice("web-leader-zen-lead-ipv4", "web-leader");
        let slice = slice.label(status::SOURCE_SERVICE, "web");
        index.apply_slice(slice.annotation(status::DECISION_VERSION, slice_says));
        let found = index.keys_of_newer(1);
        let wanted = if newer { keys(&["web"]) } else { Dirty::new() };
        assert_eq!(found, wanted, "{service_says:?} {slice_says:?}");
    }
}

#[test]
fn versions_and_uids_are_told_of_what_is_known() {
    let mut index = with_pods(&[pod("a").version(20)]);
    index.apply_service(service("plain"));
    let version = |namespace: &str, name: &str| index.pod_version(namespace, name);
    assert_eq!(version(NAMESPACE, "a"), Some(Rv(20)));
    assert_eq!((version(NAMESPACE, "b"), version("other", "a")), (None, None));
    let uids = ["uid-plain", "uid-web"].map(Into::into);
    assert_eq!(index.service_uids(NAMESPACE), BTreeSet::from(uids));
    assert_eq!(index.service_uids("other"), BTreeSet::new());
}
