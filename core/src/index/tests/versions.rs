//! Which of two versions of an object is kept.

use super::*;

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
