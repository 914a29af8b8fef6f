//! Scenarios over a double of the API server: every invariant of the design by name.

mod bookkeeping;
mod demand;
mod families;
mod follow;
mod hazards;
mod limits;
mod ownership;
mod protocol;
mod published;
mod refused;
mod removal;
mod told;
mod unreadable;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::fixtures::api::{Answer, Server, Stored};
use crate::fixtures::{
    NAMESPACE, Object, PodFixture, ServiceFixture, at, foreign_slice, pod, service,
};
use crate::index::{Index, Limits};
use crate::keys::status;
use crate::names::ServiceKey;
use crate::ranking::DECISION_VERSION;
use slices::SliceWrite;

/// A double of the API server and one replica that reads everything consistently.
struct Scene {
    server: Server,
    limits: Limits,
}

impl Scene {
    /// `web`, enabled and already served, over these pods.
    fn served(pods: Vec<Pod>) -> Self {
        let mut scene = Self::with(service("web").enabled(), pods);
        scene.settle();
        scene
    }

    /// A source and pods, nothing done yet.
    fn with(source: Service, pods: Vec<Pod>) -> Self {
        let mut scene = Self { server: Server::default(), limits: Limits::default() };
        scene.server.put_service(source);
        for pod in pods {
            scene.server.put_pod(pod);
        }
        scene
    }

    fn index(&self) -> Index {
        self.server.read(self.limits)
    }

    fn snapshot(&self) -> Snapshot {
        let key = ServiceKey::new(NAMESPACE, "web");
        Snapshot { consistent: true, ..self.index().snapshot(&key) }
    }

    fn context(&self) -> Context<'static> {
        Context {
            now: self.server.now,
            writer: "zen-lead-0",
            trust: Trust::Live,
            blocked: &[],
            version: DECISION_VERSION,
            replicas: &[],
            verified: Verified::default(),
            takes_over: false,
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.snapshot(), &self.context())
    }

    /// The next step, which must be there.
    fn next(&self) -> Step {
        match self.decide().action {
            Action::Do(step) => step,
            other => panic!("a step is expected, not {other:?}"),
        }
    }

    fn perform(&mut self, step: &Step) -> Answer {
        self.server.perform(step).expect("nobody else writes")
    }

    /// Carries out steps until none is left.
    fn settle(&mut self) -> Vec<Step> {
        self.settle_without(&[])
    }

    /// The same while these are refused.
    fn settle_without(&mut self, blocked: &[Blocked]) -> Vec<Step> {
        let mut done = Vec::new();
        loop {
            match decide(&self.snapshot(), &Context { blocked, ..self.context() }).action {
                Action::Nothing => return done,
                Action::Do(step) => {
                    self.perform(&step);
                    done.push(step);
                }
                other => panic!("a consistent snapshot is enough, not {other:?}"),
            }
            assert!(done.len() < 20, "does not come to rest: {:?}", kinds(&done));
        }
    }

    fn source(&self) -> Service {
        self.server.services.now["web"].clone()
    }

    fn leader(&self) -> Service {
        self.server.services.now["web-leader"].clone()
    }

    fn lock(&self) -> EndpointSlice {
        self.server.slices.now["web-leader-zen-lead-ipv4"].clone()
    }

    fn follower(&self) -> EndpointSlice {
        self.server.slices.now["web-leader-zen-lead-ipv6"].clone()
    }

    fn routed(&self) -> Option<String> {
        routed(&self.lock())
    }

    fn epoch(&self) -> u64 {
        mark(&self.lock(), status::LEADER_EPOCH).parse().unwrap()
    }

    fn condition(&self) -> (String, String, String) {
        condition(&self.leader())
    }
}

fn routed(slice: &EndpointSlice) -> Option<String> {
    let ready = |e: &&k8s_openapi::api::discovery::v1::Endpoint| {
        e.conditions.as_ref().and_then(|c| c.ready) != Some(false)
    };
    let all: Vec<_> = slice.endpoints.iter().flatten().filter(ready).collect();
    assert!(all.len() <= 1, "invariant 1: {all:?}");
    all.first().map(|e| e.target_ref.as_ref().unwrap().name.clone().unwrap())
}

fn mark(slice: &EndpointSlice, key: &str) -> String {
    slice.metadata.annotations.as_ref().unwrap().get(key).cloned().unwrap_or_default()
}

fn condition(service: &Service) -> (String, String, String) {
    let all = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone())).next().unwrap_or_default()
}

fn kinds(steps: &[Step]) -> Vec<StepKind> {
    steps.iter().map(Step::kind).collect()
}

/// The conditions of the only endpoint: ready, serving, terminating.
fn conditions(slice: &EndpointSlice) -> [bool; 3] {
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    let c = endpoint.conditions.as_ref().unwrap();
    [c.ready, c.serving, c.terminating].map(|c| c.expect("all three are explicit"))
}

#[test]
fn a_leader_service_is_made_and_routes() {
    let mut scene = Scene::with(
        service("web").enabled(),
        vec![pod("a").age(9).ready_for(5), pod("b").age(20).ready_for(5)],
    );
    let steps = scene.settle();
    assert_eq!(kinds(&steps), [StepKind::CreateLeader, StepKind::CreateSlice, StepKind::Mirror]);
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(conditions(&scene.lock()), [true, true, false]);
    let endpoint = scene.lock().endpoints.unwrap()[0].clone();
    assert_eq!(endpoint.node_name.as_deref(), Some("node-1"));
    let target = endpoint.target_ref.unwrap();
    let uid = scene.server.pods.now["b"].id();
    assert_eq!((target.kind.as_deref(), target.uid), (Some("Pod"), Some(uid.clone())));
    let annotations = scene.leader().metadata.annotations.unwrap();
    assert_eq!(annotations[status::CURRENT_LEADER], "ns/b");
    assert_eq!(annotations[status::LEADER_POD_UID], uid);
    assert_eq!(annotations[status::LEADER_EPOCH], scene.epoch().to_string());
    let (state, _, message) = scene.condition();
    assert_eq!((state.as_str(), message.as_str()), ("True", "b leads; a: standby"));
    let Step::Mirror(_, _, notices) = &steps[2] else { panic!() };
    assert_eq!(notices[0].reason, EventReason::LeaderChanged);
    assert_eq!(notices[0].note, format!("b leads (first_leader), epoch {}", scene.epoch()));
    let Step::Slice(next) = &steps[1] else { panic!() };
    let switch = next.switch.as_ref().unwrap();
    assert_eq!(switch.leader, ObjectRef::of(&scene.leader()));
    assert_eq!(mirror::switch_event(switch), notices[0], "the same Event from every replica");
}

#[test]
fn invariant_1_at_most_one_pod_is_ready_and_none_that_is_not_eligible() {
    let states: [fn(&str) -> Pod; 5] = [
        |n| pod(n).ready_for(5),
        |n| pod(n).unready_for(5),
        |n| pod(n).ready_for(5).terminating(),
        |n| pod(n).ready_for(5).phase("Failed"),
        |n| pod(n).unready_for(5).terminating(),
    ];
    // Every pair of states, from every pair of states.
    for from in 0..25 {
        for to in 0..25 {
            let state = |i: usize| vec![states[i / 5]("a").age(9), states[i % 5]("b").age(8)];
            let mut scene = Scene::served(state(from));
            for pod in state(to) {
                scene.server.put_pod(pod);
            }
            scene.settle();
            let expected = match scene.routed().as_deref() {
                Some("a") => to / 5 == 0,
                Some("b") => to % 5 == 0,
                _ => to / 5 != 0 && to % 5 != 0,
            };
            assert!(expected, "{from} -> {to}: {:?}", scene.lock().endpoints);
        }
    }
}

#[test]
fn invariant_2_a_switch_is_one_write_and_never_passes_through_empty() {
    let lost: [fn(Pod) -> Pod; 3] = [
        |p| p.unready_for(0),
        |p| p.ready_for(5).terminating(),
        |p| p.ready_for(5).phase("Failed"),
    ];
    for lose in lost {
        let a = pod("a").age(9).ready_for(5);
        let mut scene = Scene::served(vec![a.clone(), pod("b").age(8).ready_for(5)]);
        let before = scene.epoch();
        scene.server.put_pod(lose(a));
        let step = scene.next();
        let Step::Slice(next) = &step else { panic!("the slice goes first: {step:?}") };
        let switch = next.switch.as_ref().unwrap();
        assert_eq!((switch.name.as_str(), switch.from.as_deref()), ("b", Some("a")));
        scene.perform(&step);
        assert_eq!(scene.routed().as_deref(), Some("b"));
        assert!(scene.epoch() > before);
        let rest = scene.settle();
        assert_eq!(kinds(&rest), [StepKind::Mirror], "everything else comes after");
    }
}

/// A Service with the labels of a leader Service, and nothing else that zen-lead writes.
fn look_alike() -> Service {
    let mut look_alike = service("web-leader").leading("web", "u1");
    (look_alike.metadata.owner_references, look_alike.metadata.annotations) = (None, None);
    look_alike
}

#[test]
fn invariant_3_what_is_not_ours_is_left_alone() {
    let strangers = [
        service("web-leader").selecting("app", "theirs"),
        service("web-leader").leading("api", "uid-api"),
        service("web-leader").leading("web", "uid-of-an-earlier-web"),
        look_alike(),
    ];
    for stranger in strangers {
        let mut scene = Scene::with(service("web").enabled(), vec![pod("a").ready_for(5)]);
        assert_eq!(scene.source().id(), "u1");
        let theirs = scene.server.put_service(stranger);
        assert_eq!(kinds(&scene.settle()), [StepKind::SourceConditions]);
        let (state, _, message) = condition(&scene.source());
        assert_eq!(state, "False");
        assert!(
            message.contains("\"web-leader\"") && message.contains("left alone")
                || message.contains("is the leader Service of \"api\""),
            "{message}"
        );
        // Opting out and going away do not touch it either.
        scene.server.put_service(Service { status: scene.source().status, ..service("web") });
        assert_eq!(kinds(&scene.settle()), [StepKind::SourceConditions]);
        scene.server.remove_service("web");
        assert_eq!(kinds(&scene.settle()), []);
        assert_eq!(scene.leader(), theirs);
        assert!(scene.server.slices.now.is_empty());
    }
}

#[test]
fn invariant_4_nobody_is_promoted_and_nobody_taken_out_unseen() {
    let mut scene = Scene::served(vec![pod("a").age(9).ready_for(5), pod("b").age(8).ready_for(5)]);
    scene.server.remove_pod("a");
    let cached = Snapshot { consistent: false, ..scene.snapshot() };
    let judged =
        |snapshot: &Snapshot, trust| decide(snapshot, &Context { trust, ..scene.context() }).action;
    assert!(matches!(judged(&cached, Trust::Live), Action::Do(Step::Slice(_))));
    assert_eq!(judged(&cached, Trust::Starting), Action::Wait);
    assert_eq!(judged(&cached, Trust::Lost), Action::Read);
    // The pods of the namespace were never listed.
    let blind = Snapshot { pods: Vec::new(), pods_known: false, ..cached.clone() };
    assert_eq!(judged(&blind, Trust::Live), Action::Wait);
    assert_eq!(judged(&blind, Trust::Lost), Action::Read);
    assert!(matches!(judged(&scene.snapshot(), Trust::Lost), Action::Do(Step::Slice(_))));
}

#[test]
fn invariant_4_a_cache_behind_the_slice_is_not_decided_from() {
    let mut scene = Scene::served(vec![pod("a").age(9).ready_for(5), pod("b").age(8).ready_for(5)]);
    let old = scene.index();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    // Only the slice's news arrived: b leads, but the old pods are all it knows.
    let mut stale = old;
    stale.apply_slice(scene.lock());
    let key = ServiceKey::new(NAMESPACE, "web");
    let decision = decide(&stale.snapshot(&key), &scene.context());
    assert_eq!(decision.action, Action::Read);
    assert!(!decision.history_void);
}

#[test]
fn invariant_5_in_the_right_state_nothing_is_written() {
    let sources = [
        service("web").enabled(),
        service("web").enabled().dual_stack(),
        service("web").enabled().set("sticky", "false").set("failover-min-delay", "5s"),
        service("web").enabled().named_port("grpc"),
        service("web").enabled().named_port("grpc").set("ports-mode", "partial"),
        service("web").enabled().set("sticky", "perhaps"),
        service("web").set("enabled", "false"),
        service("web"),
    ];
    for source in sources {
        let pods = vec![pod("a").ready_for(5), pod("b").unready_for(5), pod("c").terminating()];
        let mut scene = Scene::with(source, pods);
        scene.settle();
        let before = scene.server.version;
        for seconds in [0, 60, 86_400] {
            scene.server.now = at(seconds);
            assert_eq!(scene.decide().action, Action::Nothing, "{seconds} s later");
        }
        assert_eq!(scene.settle(), []);
        assert_eq!(scene.server.version, before);
    }
}
