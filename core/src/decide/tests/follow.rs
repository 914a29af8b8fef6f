//! Two sources over the same pods: one takes the leader of the other.

use proptest::prelude::*;

use super::*;

/// A source that takes the leader of `web`.
fn udp() -> Service {
    service("udp").enabled().set("same-leader-as", "web")
}

/// One replica that serves `web` and `udp`.
struct Pair(Server);

impl Pair {
    fn new(web: Service, udp: Service, pods: Vec<Pod>) -> Self {
        let mut server = Server::default();
        server.put_service(web);
        server.put_service(udp);
        for pod in pods {
            server.put_pod(pod);
        }
        Self(server)
    }

    fn decide(&self, name: &str) -> Decision {
        let snapshot = self.0.read(Limits::default()).snapshot(&ServiceKey::new(NAMESPACE, name));
        let context = Context {
            now: self.0.now,
            writer: "zen-lead-0",
            trust: Trust::Live,
            blocked: &[],
            version: DECISION_VERSION,
            replicas: &[],
            verified: Verified::default(),
            takes_over: false,
        };
        decide(&Snapshot { consistent: true, ..snapshot }, &context)
    }

    /// Carries out the next step of a source; false when there is none.
    fn turn(&mut self, name: &str) -> bool {
        match self.decide(name).action {
            Action::Nothing => false,
            Action::Do(step) => {
                if let Step::Slice(next) = &step
                    && let Some(switch) = &next.switch
                    && name == "udp"
                {
                    let lead = self.routed("web");
                    assert_eq!(lead.as_deref(), Some(&*switch.name), "only the leader of web");
                }
                self.0.perform(&step).expect("there is no other writer");
                true
            }
            other => panic!("a consistent snapshot is enough, not {other:?}"),
        }
    }

    /// Lets both come to rest, the named one as far as it can before the other.
    fn settle(&mut self, order: [&str; 2]) {
        for _ in 0..60 {
            if !order.iter().any(|name| self.turn(name)) {
                return;
            }
        }
        panic!("they do not come to rest");
    }

    fn routed(&self, name: &str) -> Option<String> {
        routed(self.0.slices.now.get(&format!("{name}-leader-zen-lead-ipv4"))?)
    }

    fn both(&self) -> [Option<String>; 2] {
        ["web", "udp"].map(|name| self.routed(name))
    }

    fn condition(&self, name: &str) -> (String, String, String) {
        condition(&self.0.services.now[name])
    }
}

const UDP_FIRST: [&str; 2] = ["udp", "web"];

fn both_on(name: &str) -> [Option<String>; 2] {
    [Some(name.to_owned()), Some(name.to_owned())]
}

#[test]
fn the_leader_of_the_other_source_is_taken_and_followed() {
    let (a, b) = (pod("a").age(9).ready_for(9), pod("b").age(8).ready_for(8));
    // By itself, udp would take a pod of its own revision order: the one that was there first.
    let mut pair = Pair::new(service("web").enabled(), udp(), vec![a.clone(), b.clone()]);
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), both_on("a"));
    pair.0.put_pod(a.clone().unready_for(0));
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), both_on("b"));
    // Back again: both are sticky.
    pair.0.put_pod(a);
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), both_on("b"));
    assert_eq!(pair.condition("udp"), Default::default());
    let state = pair.condition("udp-leader");
    assert_eq!((&*state.0, &*state.2), ("True", "b leads; a: standby"));
}

#[test]
fn a_source_that_begins_to_follow_gives_up_a_healthy_leader_of_its_own() {
    let pods = vec![pod("a").age(9).ready_for(9), pod("b").age(8).ready_for(8)];
    let mut pair = Pair::new(service("web").enabled(), service("udp").enabled(), pods);
    pair.0.put_pod(pod("a").age(9).unready_for(0));
    pair.settle(["web", "udp"]);
    pair.0.put_pod(pod("a").age(9).ready_for(0));
    pair.0.put_service(service("web").enabled().set("sticky", "false"));
    pair.settle(["web", "udp"]);
    assert_eq!(pair.both(), [Some("a".into()), Some("b".into())], "each for itself");
    pair.0.put_service(udp());
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), both_on("a"));
}

#[test]
fn while_the_other_has_no_leader_nothing_that_is_not_ready_is_kept() {
    let a = pod("a").age(9).ready_for(9);
    let narrow = service("web").enabled().selecting("tier", "x");
    let mut pair = Pair::new(narrow, udp(), vec![a.clone(), pod("b").age(8).ready_for(8)]);
    pair.settle(UDP_FIRST);
    // Ready pods that web does not route to are never promoted.
    assert_eq!(pair.both(), [None, None]);
    let state = pair.condition("udp-leader");
    assert_eq!((&*state.0, &*state.1), ("False", "NoReadyPods"));
    assert_eq!(state.2, "a: standby; b: standby");
    // An incumbent stays while it is ready, and is not replaced when it is not.
    pair.0.put_service(service("web").enabled());
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), both_on("a"));
    pair.0.put_service(service("web").enabled().selecting("tier", "x"));
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), [None, Some("a".into())]);
    pair.0.put_pod(a.unready_for(0));
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), [None, None]);
}

#[test]
fn a_source_that_cannot_be_followed_is_reported() {
    let pods = || vec![pod("a").ready_for(9), pod("b").label("tier", "x").ready_for(8)];
    for (web, expected) in [
        (
            service("web"),
            "zen-lead.io/same-leader-as names Service \"web\", which is not enabled; no pod becomes \
             leader here before it is",
        ),
        (
            service("web").enabled().set("same-leader-as", "db"),
            "zen-lead.io/same-leader-as names Service \"web\", which takes the leader of \"db\" \
             itself; write \"db\" here, or take the annotation off one of the two",
        ),
    ] {
        let mut pair = Pair::new(web, udp(), pods());
        pair.settle(UDP_FIRST);
        assert_eq!(pair.routed("udp"), None);
        let reported = ("False".to_owned(), "InvalidService".to_owned(), expected.to_owned());
        assert_eq!(pair.condition("udp"), reported);
        // Put right: the report goes.
        pair.0.put_service(service("web").enabled());
        pair.settle(UDP_FIRST);
        assert_eq!((pair.both(), pair.condition("udp")), (both_on("a"), Default::default()));
    }
    let mut pair = Pair::new(service("web").enabled(), udp().selecting("tier", "x"), pods());
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), [Some("a".into()), None]);
    assert_eq!(
        pair.condition("udp").2,
        "the pod that leads for Service \"web\" is not selected here, so it cannot lead here: give \
         the two Services one selector, or take off zen-lead.io/same-leader-as"
    );
}

#[test]
fn a_circle_promotes_no_pod() {
    let web = service("web").enabled().set("same-leader-as", "udp");
    let mut pair = Pair::new(web, udp(), vec![pod("a").ready_for(9)]);
    pair.settle(UDP_FIRST);
    assert_eq!(pair.both(), [None, None]);
    assert_eq!(
        pair.condition("udp").2,
        "zen-lead.io/same-leader-as names Service \"web\", which takes the leader of \"udp\" itself; \
         write \"udp\" here, or take the annotation off one of the two"
    );
}

/// A pod in one of the states that matter, `None` where it is gone.
fn state(name: &str, kind: u8) -> Option<Pod> {
    let pod = pod(name).age(10 + i64::from(name.as_bytes()[0] % 3));
    Some(match kind {
        0 => return None,
        1 => pod.unready_for(1),
        2 => pod.ready_for(5).terminating(),
        3 => pod.ready_for(5).phase("Failed"),
        _ => pod.ready_for(5),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_sources_that_share_a_leader_come_to_the_same_pod(
        changes in proptest::collection::vec((0..3usize, 0..8u8, any::<bool>()), 1..12),
        sticky in any::<[bool; 2]>(),
        dual in any::<bool>(),
    ) {
        let of = |source: Service, sticky: bool| {
            let source = source.set("sticky", if sticky { "true" } else { "false" });
            if dual { source.dual_stack() } else { source }
        };
        let (web, udp) = (of(service("web").enabled(), sticky[0]), of(udp(), sticky[1]));
        let mut pair = Pair::new(web, udp, vec![pod("a").ready_for(9)]);
        for (which, kind, udp_first) in changes {
            let name = ["a", "b", "c"][which];
            match state(name, kind) {
                Some(pod) => _ = pair.0.put_pod(pod),
                None => _ = pair.0.remove_pod(name),
            }
            pair.settle(if udp_first { UDP_FIRST } else { ["web", "udp"] });
            let [web, udp] = pair.both();
            let alive = pair.0.pods.now.values().any(|p| {
                crate::index::pod::Pod::trim(p).unwrap().eligible()
            });
            prop_assert_eq!(web.is_some(), alive);
            prop_assert_eq!(web, udp);
        }
    }
}
