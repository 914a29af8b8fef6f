//! What the answers to zen-lead's own writes do to the index, before the watch reports them.

use super::*;

/// `web` with its leader Service and a slice of it, both with this uid.
fn led(uid: &str) -> Index {
    let mut index = with_pods(&[pod("a")]);
    index.apply_service(service("web-leader").leading("web", "uid-web").uid(uid).version(20));
    index.apply_slice(foreign_slice("s", "web-leader").uid(uid).version(21));
    index
}

#[test]
fn what_was_deleted_by_us_is_forgotten_at_once() {
    let mut index = led("u1");
    assert_eq!(index.forget_slice(&key("web"), "s", "u1"), keys(&["web"]));
    assert_eq!(index.snapshot(&key("web")).slices.len(), 0);
    assert_eq!(index.forget_service(&key("web"), "web-leader", "u1"), keys(&["web"]));
    assert_eq!(index.snapshot(&key("web")).leaders.len(), 0);
    // Again: there is nothing to forget.
    assert_eq!(index.forget_slice(&key("web"), "s", "u1"), Dirty::new());
    assert_eq!(index.forget_service(&key("web"), "web-leader", "u1"), Dirty::new());
}

#[test]
fn what_came_after_what_we_deleted_stays() {
    let mut index = led("made anew");
    assert_eq!(index.forget_slice(&key("web"), "s", "u1"), Dirty::new());
    assert_eq!(index.forget_service(&key("web"), "web-leader", "u1"), Dirty::new());
    let known = index.snapshot(&key("web"));
    assert_eq!((known.slices.len(), known.leaders.len()), (1, 1));
}

#[test]
fn a_list_of_the_version_that_was_seen_keeps_what_we_wrote_after_it() {
    let mut index = led("ours");
    index.reset_slices(Vec::new(), Rv(10));
    for _ in 0..2 {
        index.reset_services(vec![service("web").enabled()], Rv(10));
        index.reset_slices(Vec::new(), Rv(10));
        let known = index.snapshot(&key("web"));
        assert_eq!((known.slices.len(), known.leaders.len()), (1, 1));
    }
}
