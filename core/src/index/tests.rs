//! The index under random histories, relists and late events.

mod bounds;
mod evidence;
mod own_writes;
mod pods;
mod sizes;
mod unreadable;
mod versions;

use k8s_openapi::api::core::v1::Pod as RawPod;
use k8s_openapi::api::core::v1::Service;
use proptest::prelude::*;

use super::pod::Pod;
use super::*;
use crate::fixtures::{
    NAMESPACE, Object, PodFixture, ServiceFixture, at, foreign_slice, pod, service,
};

fn key(name: &str) -> ServiceKey {
    ServiceKey::new(NAMESPACE, name)
}

fn keys(names: &[&str]) -> Dirty {
    names.iter().map(|n| key(n)).collect()
}

fn empty() -> Index {
    Index::new(NameRule::default(), Limits::default()).compact()
}

/// An index with the Service `web` enabled and its pods listed.
fn with_pods(pods: &[RawPod]) -> Index {
    let mut index = empty();
    index.reset_services(vec![service("web").enabled()], Rv(10));
    index.reset_pods(Some(NAMESPACE), pods, Rv(10));
    index
}

fn members(index: &Index, source: &str) -> Vec<String> {
    index.snapshot(&key(source)).pods.iter().map(|p| p.name.to_string()).collect()
}

#[test]
fn a_relabelled_pod_leaves_and_comes_back() {
    let mut index = with_pods(&[pod("a").version(2), pod("b").version(3)]);
    assert_eq!(members(&index, "web"), ["a", "b"]);
    let out = pod("a").label("app", "other").version(11);
    assert_eq!(index.apply_pod(&out), keys(&["web"]));
    assert_eq!(members(&index, "web"), ["b"]);
    assert_eq!(index.apply_pod(&pod("a").version(12)), keys(&["web"]));
    assert_eq!(members(&index, "web"), ["a", "b"]);
}

#[test]
fn who_takes_the_leader_of_another_source_is_woken_with_it() {
    let mut index = with_pods(&[]);
    let follower = |version| service("udp").enabled().set("same-leader-as", "web").version(version);
    assert_eq!(index.apply_service(follower(11)), keys(&["udp"]));
    let leader = service("web-leader").leading("web", "uid-web").version(12);
    assert_eq!(index.apply_service(leader), keys(&["udp", "web"]));
    let slice = |version| foreign_slice("e", "web-leader").version(version);
    assert_eq!(index.apply_slice(slice(13)), keys(&["udp", "web"]));
    assert_eq!(index.snapshot(&key("udp")).followed.unwrap().slices.len(), 1);
    let other = service("web").enabled().set("sticky", "false").version(14);
    assert_eq!(index.apply_service(other), keys(&["udp", "web"]));
    // What it does with that concerns no other source.
    let own = service("udp-leader").leading("udp", "uid-udp").version(15);
    assert_eq!(index.apply_service(own), keys(&["udp"]));
    // It follows no longer.
    assert_eq!(index.apply_service(service("udp").enabled().version(16)), keys(&["udp"]));
    assert_eq!(index.delete_slice(&slice(17)), keys(&["web"]));
    assert_eq!(index.snapshot(&key("udp")).followed, None);
}

#[test]
fn a_changed_selector_selects_afresh() {
    let mut index = with_pods(&[pod("a"), pod("b").label("tier", "x")]);
    let narrowed = service("web").enabled().selecting("tier", "x").version(11);
    assert_eq!(index.apply_service(narrowed), keys(&["web"]));
    assert_eq!(members(&index, "web"), ["b"]);
    assert_eq!(index.apply_pod(&pod("a").label("tier", "x").version(12)), keys(&["web"]));
    assert_eq!(members(&index, "web"), ["a", "b"]);
    let mut none = service("web").enabled().version(13);
    none.spec().selector = None;
    index.apply_service(none);
    assert_eq!(members(&index, "web"), [""; 0]);
}

#[test]
fn what_a_list_lacks_was_deleted_unseen_and_what_is_newer_than_it_stays() {
    let leader = || service("web-leader").leading("web", "uid-web");
    let slice = |name| foreign_slice(name, "web-leader");
    let mut index = with_pods(&[pod("a").version(2), pod("b").version(3)]);
    index.apply_service(leader().version(15));
    index.apply_service(service("other").enabled().version(9));
    index.apply_slice(slice("old").version(8));
    index.apply_slice(slice("own").version(16));

    let dirty = index.reset_services(vec![service("web").enabled()], Rv(12));
    assert_eq!(dirty, keys(&["other"]));
    assert_eq!(
        index.snapshot(&key("web")).leaders.len(),
        1,
        "our own write is newer than the list"
    );
    assert_eq!(index.reset_slices(Vec::new(), Rv(12)), keys(&["web"]));
    let left = index.snapshot(&key("web"));
    assert_eq!(left.slices.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["own"]);
    assert_eq!(index.reset_pods(Some(NAMESPACE), &[pod("b").version(3)], Rv(12)), keys(&["web"]));
    assert_eq!(members(&index, "web"), ["b"]);
}

#[test]
fn a_list_behind_what_was_seen_is_another_history() {
    let mut index = with_pods(&[pod("a").version(500), pod("b").version(400)]);
    index.reset_services(vec![service("web").enabled().version(450)], Rv(600));
    index.reset_slices(vec![foreign_slice("s", "web-leader").version(450)], Rv(600));
    index.reset_pods(Some(NAMESPACE), &[pod("a").version(500)], Rv(600));
    // Restored from a backup taken at 100.
    index.reset_services(vec![service("web").enabled().version(50)], Rv(110));
    index.reset_slices(Vec::new(), Rv(111));
    index.reset_pods(Some(NAMESPACE), &[pod("b").version(60)], Rv(112));
    let now = index.snapshot(&key("web"));
    assert_eq!(now.marks, crate::version::Marks { services: Rv(110), pods: Rv(112) });
    assert_eq!(members(&index, "web"), ["b"]);
    assert!(now.slices.is_empty());
}

#[test]
fn positions_come_from_lists_and_the_watch_and_not_from_our_own_writes() {
    let mut index = with_pods(&[]);
    index.apply_service(service("web-leader").leading("web", "uid-web").version(99));
    assert_eq!(index.snapshot(&key("web")).marks.services, Rv(10));
    index.services_heard(Rv(20));
    index.services_heard(Rv(19));
    index.pods_heard(Some(NAMESPACE), Rv(30));
    let marks = index.snapshot(&key("web")).marks;
    assert_eq!((marks.services, marks.pods), (Rv(20), Rv(30)));
}

#[test]
fn an_answer_that_the_watch_has_overtaken_brings_nothing_back() {
    let leader = || service("web-leader").leading("web", "uid-web").version(12);
    let slice = || foreign_slice("lock", "web-leader").version(13);
    let mut index = empty();
    index.reset_services(vec![service("web").enabled().version(3)], Rv(10));
    index.reset_slices(vec![], Rv(10));
    // Answers come before the watch, as a rule.
    assert_eq!(index.answer_service(leader()), keys(&["web"]));
    assert_eq!(index.answer_slice(slice()), keys(&["web"]));
    // Both are deleted, and the watch tells so before the answers to our writes are looked at.
    index.delete_slice(&slice().version(14));
    index.slices_heard(Rv(14));
    index.delete_service(&leader().version(15));
    index.services_heard(Rv(15));
    assert_eq!((index.answer_service(leader()), index.answer_slice(slice())), <_>::default());
    assert_eq!((index.sizes().services, index.sizes().slices), (1, 0));
    // A newer write is none of that.
    assert_eq!(index.answer_service(leader().version(16)), keys(&["web"]));
    assert_eq!(index.answer_slice(slice().version(17)), keys(&["web"]));
}

#[test]
fn pods_count_as_known_after_their_first_list() {
    let mut index = empty();
    index.apply_service(service("web").enabled());
    assert!(!index.snapshot(&key("web")).pods_known);
    // A source without any pod becomes decidable too.
    assert_eq!(index.reset_pods(Some(NAMESPACE), &[], Rv(5)), keys(&["web"]));
    assert!(index.snapshot(&key("web")).pods_known);
    index.drop_pods(Some(NAMESPACE));
    assert!(!index.snapshot(&key("web")).pods_known);
}

#[test]
fn going_from_one_kind_of_pod_watch_to_the_other_loses_nobody() {
    let pods = [pod("a").version(2)];
    let mut index = with_pods(&pods);
    index.reset_pods(None, &pods, Rv(20));
    index.drop_pods(Some(NAMESPACE));
    assert_eq!(
        (members(&index, "web"), index.snapshot(&key("web")).pods_known),
        (vec!["a".to_owned()], true)
    );
    index.reset_pods(Some(NAMESPACE), &pods, Rv(30));
    index.drop_pods(None);
    let now = index.snapshot(&key("web"));
    assert_eq!((now.pods.len(), now.pods_known, now.marks.pods), (1, true, Rv(30)));
}

#[test]
fn a_list_keeps_pods_that_another_watch_told_of_after_it() {
    let mut index = with_pods(&[]);
    index.reset_pods(None, &[pod("a").version(9)], Rv(10));
    index.apply_pod(&pod("b").version(12));
    index.pods_heard(Some(NAMESPACE), Rv(12));
    index.drop_pods(Some(NAMESPACE));
    index.reset_pods(None, &[pod("a").version(9)], Rv(10));
    assert_eq!(members(&index, "web"), ["a", "b"]);
}

#[test]
fn only_changes_that_a_decision_looks_at_wake_a_source() {
    let mut index = with_pods(&[pod("a").version(2).ready_for(9)]);
    assert_eq!(index.apply_pod(&pod("a").version(3).ready_for(9)), Dirty::new());
    // The new version counts all the same: the old state must not come back.
    assert_eq!(index.apply_pod(&pod("a").version(2).unready_for(1)), Dirty::new());
    assert_eq!(index.apply_pod(&pod("a").version(4).unready_for(1)), keys(&["web"]));
    assert_eq!(index.apply_pod(&pod("z").label("app", "other")), Dirty::new());
    assert_eq!(index.apply_service(service("plain").version(7)), Dirty::new());
}

#[test]
fn everybody_concerned_by_a_name_is_woken() {
    let mut index = with_pods(&[]);
    let rival = service("api").enabled().set("leader-service-name", "web-leader");
    assert_eq!(index.apply_service(rival), keys(&["api", "web"]));
    // A stranger takes the name.
    assert_eq!(index.apply_service(service("web-leader").version(11)), keys(&["api", "web"]));
    let ours = service("web-leader").leading("web", "uid-web").version(12);
    assert_eq!(index.apply_service(ours), keys(&["api", "web"]));
    assert_eq!(index.apply_slice(foreign_slice("s", "web-leader")), keys(&["api", "web"]));
    // The last annotation goes: there is a leader Service to take down.
    assert_eq!(index.apply_service(service("web").version(13)), keys(&["api", "web"]));
    assert_eq!(index.snapshot(&key("web")).source, SourceState::Plain { uid: "uid-web".into() });
}

#[test]
fn the_oldest_claimant_of_a_name_comes_first() {
    let mut index = empty();
    let wants = |name: &str, age| service(name).enabled().set("leader-service-name", "l").age(age);
    for source in [wants("b", 10), wants("a", 10), wants("c", 90)] {
        index.apply_service(source);
    }
    assert_eq!(index.snapshot(&key("c")).older_rival, None);
    assert_eq!(index.snapshot(&key("a")).older_rival, Some(key("c")));
    assert_eq!(index.snapshot(&key("b")).rivals, [key("c"), key("a")]);
}

fn bounded(services_per_namespace: usize, pods_per_service: usize) -> Index {
    Index::new(NameRule::default(), Limits { services_per_namespace, pods_per_service })
}

#[test]
fn nothing_is_left_of_services_that_went() {
    let mut index = empty();
    let room = |index: &Index| index.namespaces.capacity();
    for round in 0..2 {
        let versions = |n: u64| round * 100_000 + n;
        for n in 0..2_000u64 {
            let (ns, name, leader) =
                (format!("ns-{}", n / 10), format!("s{n}"), format!("s{n}-leader"));
            let led = service(&leader).leading(&name, &format!("uid-{name}"));
            index.apply_service(service(&name).enabled().within(&ns).version(versions(1)));
            index.apply_service(led.within(&ns).version(versions(2)));
            index.apply_slice(foreign_slice(&name, &leader).within(&ns).version(versions(3)));
            index.apply_pod(&pod(&name).within(&ns).version(versions(4)));
            index.pods_heard(Some(&ns), Rv(versions(5)));
        }
        let full =
            Sizes { services: 4_000, sources: 2_000, pods: 2_000, slices: 2_000, namespaces: 200 };
        assert_eq!(index.sizes(), full);
        let everything = Rv(versions(50_000));
        index.reset_services(Vec::new(), everything);
        index.reset_slices(Vec::new(), everything);
        assert_eq!(index.sizes().namespaces, 200, "their pods are still watched");
        for n in 0..200 {
            index.drop_pods(Some(&format!("ns-{n}")));
        }
        assert_eq!(index.sizes(), Sizes::default());
        assert!(room(&index) <= 64, "{}", room(&index));
    }
}

/// One change of the world, by small numbers.
#[derive(Clone, Debug)]
enum Change {
    Pod { name: u8, labels: u8, ready: bool },
    NoPod(u8),
    Service { name: u8, kind: u8 },
    NoService(u8),
    Slice { name: u8, service: u8 },
    NoSlice(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..4u8, 0..4u8, any::<bool>()).prop_map(|(name, labels, ready)| Change::Pod { name, labels, ready }),
        1 => (0..4u8).prop_map(Change::NoPod),
        4 => (0..4u8, 0..10u8).prop_map(|(name, kind)| Change::Service { name, kind }),
        1 => (0..4u8).prop_map(Change::NoService),
        2 => (0..3u8, 0..4u8).prop_map(|(name, service)| Change::Slice { name, service }),
        1 => (0..3u8).prop_map(Change::NoSlice),
    ]
}

fn made_pod(name: u8, labels: u8, ready: bool) -> RawPod {
    let mut pod = pod(&format!("p{name}")).readiness(ready, at(0));
    pod.metadata.labels = None;
    let mut pod = pod.label("x", if labels & 1 == 0 { "0" } else { "1" });
    if labels & 2 != 0 {
        pod = pod.label("app", "web");
    }
    pod
}

fn made_service(name: u8, kind: u8) -> Service {
    let s = service(&format!("s{name}"));
    match kind {
        0 => s,
        1 => s.enabled(),
        2 => s.enabled().selecting("x", "0"),
        3 => s.enabled().selecting("x", "1").set("leader-service-name", "s0"),
        4 => s.enabled().set("sticky", "perhaps"),
        5 => s.set("enabled", "false"),
        6 => s.leading("s0", "uid-s0"),
        7 => s.leading("s1", "someone"),
        8 => s.enabled().set("same-leader-as", "s0"),
        _ => s.enabled().set("leader-service-name", "s3"),
    }
}

/// The world as one list, and the events that led there.
#[derive(Default)]
struct World {
    version: u64,
    pods: std::collections::BTreeMap<String, RawPod>,
    services: std::collections::BTreeMap<String, Service>,
    slices: std::collections::BTreeMap<String, EndpointSlice>,
}

impl World {
    /// Carries out a change and tells the index of it, unless `told` says that it missed it.
    fn change(&mut self, change: &Change, told: Option<&mut Index>) {
        self.version += 1;
        let v = self.version;
        let mut ignored = empty();
        let index = told.unwrap_or(&mut ignored);
        match change {
            Change::Pod { name, labels, ready } => {
                let pod = made_pod(*name, *labels, *ready).version(v);
                index.apply_pod(&pod);
                self.pods.insert(format!("p{name}"), pod);
            }
            Change::NoPod(name) => {
                if let Some(pod) = self.pods.remove(&format!("p{name}")) {
                    index.delete_pod(&pod.version(v));
                }
            }
            Change::Service { name, kind } => {
                let service = made_service(*name, *kind).version(v);
                index.apply_service(service.clone());
                self.services.insert(format!("s{name}"), service);
            }
            Change::NoService(name) => {
                if let Some(service) = self.services.remove(&format!("s{name}")) {
                    index.delete_service(&service.version(v));
                }
            }
            Change::Slice { name, service } => {
                let slice = foreign_slice(&format!("e{name}"), &format!("s{service}")).version(v);
                index.apply_slice(slice.clone());
                self.slices.insert(format!("e{name}"), slice);
            }
            Change::NoSlice(name) => {
                if let Some(slice) = self.slices.remove(&format!("e{name}")) {
                    index.delete_slice(&slice.version(v));
                }
            }
        }
    }

    fn list(&self, index: &mut Index) {
        let version = Rv(self.version);
        index.reset_services(self.services.values().cloned().collect(), version);
        let pods: Vec<_> = self.pods.values().cloned().collect();
        index.reset_pods(Some(NAMESPACE), &pods, version);
        index.reset_slices(self.slices.values().cloned().collect(), version);
    }
}

fn everything(index: &Index) -> Vec<Snapshot> {
    (0..4).map(|n| index.snapshot(&key(&format!("s{n}")))).collect()
}

proptest! {
    /// Whatever order events come in, whatever was missed before a list: the reverse maps say what
    /// a fresh list says.
    #[test]
    fn events_and_lists_end_in_the_same_index(
        changes in prop::collection::vec((change(), 0..8u8), 0..60),
        services in 0..3usize,
        pods in 0..3usize,
    ) {
        let mut world = World::default();
        let mut told = bounded(services, pods).compact();
        world.list(&mut told);
        let mut missing = false;
        for (change, luck) in &changes {
            if *luck == 0 {
                // The watch broke: this was missed, the list makes up for it later.
                world.change(change, None);
                missing = true;
            } else {
                world.change(change, Some(&mut told));
            }
            if *luck == 1 {
                world.list(&mut told);
                missing = false;
            }
        }
        if missing {
            world.list(&mut told);
        }
        let version = Rv(world.version);
        told.services_heard(version);
        told.pods_heard(Some(NAMESPACE), version);
        // One that keeps the objects says the same as one that keeps their text.
        let limits = told.limits();
        let mut fresh = Index::new(NameRule::default(), limits);
        world.list(&mut fresh);
        prop_assert_eq!(everything(&told), everything(&fresh));
        prop_assert_eq!(told.sizes(), fresh.sizes());
        prop_assert_eq!(told.all_keys(), fresh.all_keys());
        prop_assert_eq!(told.pod_namespaces(), fresh.pod_namespaces());
    }
}

proptest! {
    /// A source whose snapshot changes is woken.
    #[test]
    fn no_change_of_a_snapshot_goes_unnoticed(
        changes in prop::collection::vec(change(), 0..40),
        services in 0..3usize,
        pods in 0..3usize,
    ) {
        let mut index = bounded(services, pods);
        index.reset_pods(Some(NAMESPACE), &[], Rv(0));
        let mut world = World::default();
        for change in &changes {
            let before = everything(&index);
            let dirty = told(&mut world, change, &mut index);
            for (n, (old, new)) in before.iter().zip(everything(&index)).enumerate() {
                let name = format!("s{n}");
                let same = relevant(old) == relevant(&new);
                let managed = !matches!(new.source, SourceState::Absent | SourceState::Plain { .. })
                    || !new.leaders.is_empty()
                    || !old.leaders.is_empty();
                prop_assert!(same || !managed || dirty.contains(&key(&name)), "{name}: {change:?}");
            }
        }
    }
}

/// A snapshot without what no decision looks at: versions and labels of pods, and positions.
fn relevant(snapshot: &Snapshot) -> Snapshot {
    let pods = snapshot.pods.iter().map(|p| {
        let template = Arc::new(pod::Template { labels: Box::default(), ..(*p.template).clone() });
        Arc::new(Pod { version: Rv(0), template, ..(**p).clone() })
    });
    Snapshot { pods: pods.collect(), marks: crate::version::Marks::default(), ..snapshot.clone() }
}

fn told(world: &mut World, change: &Change, index: &mut Index) -> Dirty {
    // The changes of `World::change`, with what the index answers.
    let mut copy = index.clone();
    world.change(change, Some(&mut copy));
    let v = world.version;
    let dirty = match change {
        Change::Pod { name, labels, ready } => {
            index.apply_pod(&made_pod(*name, *labels, *ready).version(v))
        }
        Change::NoPod(name) => index.delete_pod(&made_pod(*name, 0, false).version(v)),
        Change::Service { name, kind } => {
            index.apply_service(made_service(*name, *kind).version(v))
        }
        Change::NoService(name) => index.delete_service(&made_service(*name, 0).version(v)),
        Change::Slice { name, service } => {
            index.apply_slice(foreign_slice(&format!("e{name}"), &format!("s{service}")).version(v))
        }
        Change::NoSlice(name) => {
            index.delete_slice(&foreign_slice(&format!("e{name}"), "").version(v))
        }
    };
    *index = copy;
    dirty
}

#[test]
fn a_list_overrules_what_a_restored_cluster_has_lost() {
    let mut index = Index::default();
    let sticky = |v: u64, sticky| service("web").enabled().set("sticky", sticky).version(v);
    index.reset_services(vec![sticky(5, "true")], Rv(5));
    index.apply_service(sticky(8, "false"));
    let seen = |index: &Index| match index.snapshot(&key("web")).source {
        SourceState::Judged { source, .. } => Rv::of(&source.object.metadata),
        other => panic!("it is enabled: {other:?}"),
    };
    // The answer to a write of our own may be ahead of a list.
    index.reset_services(vec![sticky(5, "true")], Rv(7));
    assert_eq!(seen(&index), Rv(8));
    // A list that covers version 8 and does not show it is of another history.
    index.reset_services(vec![sticky(5, "true")], Rv(9));
    assert_eq!(seen(&index), Rv(5));

    let web = |v: u64, ready: bool| pod("a").readiness(ready, at(0)).version(v);
    index.reset_pods(Some(NAMESPACE), &[web(8, true)], Rv(8));
    index.reset_pods(Some(NAMESPACE), &[web(6, false)], Rv(8));
    assert_eq!(index.snapshot(&key("web")).pods[0].version, Rv(6));

    let slice = |v: u64| foreign_slice("s", "web-leader").version(v);
    index.reset_slices(vec![slice(8)], Rv(8));
    index.reset_slices(vec![slice(6)], Rv(8));
    assert_eq!(index.snapshot(&key("web")).slices[0].version, Rv(6));
}

#[test]
fn who_watches_is_told_where_pods_matter_and_who_reconciles_what_to_look_at() {
    let limits = Limits { services_per_namespace: 7, pods_per_service: 8 };
    let mut index = Index::new(NameRule::Dns1123, limits);
    assert_eq!((index.limits(), index.names()), (limits, NameRule::Dns1123));
    index.apply_service(service("web").enabled());
    index.apply_service(service("plain").within("b"));
    // Its source is gone: it has to be looked at, and no pods are wanted for it.
    index.apply_service(service("old-leader").leading("old", "uid-old").within("c"));
    let (web, old) = (key("web"), ServiceKey::new("c", "old"));
    assert_eq!(index.all_keys(), Dirty::from([web.clone(), old.clone()]));
    assert_eq!(index.keys_in(None), index.all_keys());
    assert_eq!(index.keys_in(Some(NAMESPACE)), Dirty::from([web]));
    assert_eq!(index.keys_in(Some("c")), Dirty::from([old]));
    assert_eq!(index.keys_in(Some("b")), Dirty::new());
    assert_eq!(index.pod_namespaces(), BTreeSet::from([NAMESPACE.into()]));
    assert!(index.needs_pods(NAMESPACE) && !index.needs_pods("b") && !index.needs_pods("c"));
}

#[test]
fn pods_are_needed_by_enabled_sources_and_by_invalid_ones_with_a_leader() {
    let invalid = || service("web").enabled().set("sticky", "perhaps");
    let off = || service("web").set("sticky", "false");
    for (source, led, needed) in [
        (service("web").enabled(), false, true),
        (invalid(), false, false),
        (invalid(), true, true),
        (off(), false, false),
        (service("web"), true, false),
    ] {
        let mut index = empty();
        index.apply_service(source.clone());
        if led {
            index.apply_service(service("web-leader").leading("web", "uid-web"));
        }
        assert_eq!(index.needs_pods(NAMESPACE), needed, "led: {led}, {source:?}");
    }
}
