//! What the index holds, and that nothing of it stays when the objects go.

use super::*;

/// A namespace with a source, its leader Service, a plain Service, two pods and three slices.
fn filled(index: &mut Index, namespace: &str) {
    for service in [
        service("web").enabled(),
        service("web-leader").leading("web", "uid-web"),
        service("plain"),
    ] {
        index.apply_service(service.within(namespace));
    }
    for name in ["a", "b"] {
        index.apply_pod(&pod(name).within(namespace));
    }
    for name in ["x", "y", "z"] {
        index.apply_slice(foreign_slice(name, "web-leader").within(namespace));
    }
}

#[test]
fn sizes_are_sums_over_namespaces() {
    let mut index = empty();
    filled(&mut index, "one");
    let one = Sizes { services: 3, sources: 1, pods: 2, slices: 3, namespaces: 1 };
    assert_eq!(index.sizes(), one);
    filled(&mut index, "two");
    let two = Sizes { services: 6, sources: 2, pods: 4, slices: 6, namespaces: 2 };
    assert_eq!(index.sizes(), two);
}

#[test]
fn a_namespace_is_held_until_its_last_object_and_its_pod_watch_are_gone() {
    let fill: [fn(&mut Index); 4] = [
        |index| _ = index.apply_service(service("plain")),
        |index| _ = index.apply_pod(&pod("a")),
        |index| _ = index.apply_slice(foreign_slice("s", "web-leader")),
        |index| index.pods_heard(Some(NAMESPACE), Rv(1)),
    ];
    let clear = |index: &mut Index, what: usize| match what {
        0 => _ = index.delete_service(&service("plain").version(2)),
        1 => _ = index.delete_pod(&pod("a").version(2)),
        2 => _ = index.delete_slice(&foreign_slice("s", "web-leader").version(2)),
        _ => index.drop_pods(Some(NAMESPACE)),
    };
    for alone in 0..4 {
        let mut index = empty();
        fill[alone](&mut index);
        // Something else comes and goes.
        let other = if alone == 0 { 2 } else { 0 };
        fill[other](&mut index);
        clear(&mut index, other);
        assert_eq!(index.sizes().namespaces, 1, "{alone} keeps it");
        clear(&mut index, alone);
        assert_eq!(index.sizes(), Sizes::default(), "{alone} was the last");
    }
}

#[test]
fn a_source_that_went_claims_no_name_and_no_place() {
    let mut index = bounded(1, 0);
    index.apply_service(service("old").enabled().set("leader-service-name", "l").age(99));
    index.apply_service(service("new").enabled().set("leader-service-name", "l").age(9));
    let known = |index: &Index| {
        let of_new = index.snapshot(&key("new"));
        (of_new.older_rival, of_new.over_limit)
    };
    assert_eq!(known(&index), (Some(key("old")), Some(1)));
    index.delete_service(&service("old").version(2));
    assert_eq!(known(&index), (None, None));
    // Nor does a leader Service that went lead, or a selector that went select.
    index.apply_service(service("new-leader").leading("new", "uid-new"));
    index.delete_service(&service("new-leader").leading("new", "uid-new").version(2));
    assert!(index.snapshot(&key("new")).leaders.is_empty());
    index.delete_service(&service("new").version(3));
    assert_eq!(index.all_keys(), Dirty::new());
    assert_eq!(index.apply_pod(&pod("a")), Dirty::new());
}
