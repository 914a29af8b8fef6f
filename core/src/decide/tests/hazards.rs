//! The hazards of this trade that belong to the pure core, by name (docs/contributing/hazards.md lists them).

use std::slice::from_ref;

use super::*;
use crate::reason::Reason as EventReason;

fn pair() -> Vec<Pod> {
    vec![pod("a").age(9).ready_for(5), pod("b").age(8).ready_for(5)]
}

pub(super) fn blocked(kind: StepKind) -> Blocked {
    Blocked::all(kind, EventReason::QuotaExceeded, "exceeded quota: small")
}

// Endpoint content.

#[test]
fn a_terminating_leader_without_successor_drains() {
    let a = pod("a").ready_for(5);
    let mut scene = Scene::served(vec![a.clone()]);
    scene.server.put_pod(a.terminating());
    scene.settle();
    assert_eq!(conditions(&scene.lock()), [false, true, true]);
    assert_eq!(scene.condition().0, "False");
    scene.server.remove_pod("a");
    scene.settle();
    assert_eq!(scene.lock().endpoints, Some(Vec::new()));
}

#[test]
fn nobody_is_an_empty_list_and_never_an_endpoint_without_addresses() {
    let scene = Scene::served(vec![pod("a").unready_for(5)]);
    assert_eq!(scene.lock().endpoints, Some(Vec::new()));
    let scene = Scene::served(vec![pod("a").ready_for(5).ips(&[])]);
    assert_eq!(scene.lock().endpoints, Some(Vec::new()));
    assert!(scene.condition().2.contains("no address"), "{:?}", scene.condition());
}

#[test]
fn addresses_that_validation_refuses_are_left_out() {
    for bad in ["127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "no address"] {
        let scene = Scene::served(vec![pod("a").ready_for(5).ips(&[bad])]);
        assert_eq!(scene.lock().endpoints, Some(Vec::new()), "{bad}");
    }
}

#[test]
fn addresses_go_by_family_and_are_written_canonically() {
    let source = service("web").enabled().dual_stack();
    let mut scene =
        Scene::with(source, vec![pod("a").ready_for(5).ips(&["FD00:0::00a1", "10.1.0.1"])]);
    scene.settle();
    let address = |s: EndpointSlice| (s.address_type, s.endpoints.unwrap()[0].addresses.clone());
    assert_eq!(address(scene.lock()), ("IPv4".to_owned(), vec!["10.1.0.1".to_owned()]));
    assert_eq!(address(scene.follower()), ("IPv6".to_owned(), vec!["fd00::a1".to_owned()]));
}

#[test]
fn a_pod_of_the_same_name_with_another_uid_is_another_pod() {
    let mut scene = Scene::served(vec![pod("web-0").ready_for(5)]);
    let before = (scene.epoch(), scene.lock().endpoints);
    scene.server.remove_pod("web-0");
    scene.server.put_pod(pod("web-0").ready_for(1));
    let step = scene.next();
    let Step::Slice(next) = &step else { panic!("{step:?}") };
    assert_eq!(next.switch.as_ref().unwrap().reason, elect::SwitchReason::PodGone);
    scene.perform(&step);
    assert!(scene.epoch() > before.0);
    assert_ne!(scene.lock().endpoints, before.1);
}

#[test]
fn an_address_that_changes_is_followed_without_a_switch() {
    let mut scene = Scene::served(vec![pod("a").ready_for(5)]);
    let before = scene.epoch();
    scene.server.put_pod(pod("a").ready_for(5).ips(&["10.1.9.9"]));
    scene.settle();
    assert_eq!(scene.lock().endpoints.unwrap()[0].addresses, ["10.1.9.9"]);
    assert_eq!(scene.epoch(), before);
}

#[test]
fn not_ready_addresses_are_never_published_as_ready() {
    let mut source = service("web").enabled();
    source.spec().publish_not_ready_addresses = Some(true);
    let mut scene = Scene::with(source, vec![pod("a").unready_for(5)]);
    scene.settle();
    assert_eq!(scene.routed(), None);
    assert_eq!(scene.leader().spec.unwrap().publish_not_ready_addresses, None);
}

#[test]
fn only_the_ready_condition_counts() {
    use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
    let mut a = pod("a").unready_for(5);
    let status = a.status();
    status.conditions.as_mut().unwrap().push(PodCondition {
        type_: "ContainersReady".into(),
        status: "True".into(),
        ..PodCondition::default()
    });
    status.container_statuses =
        Some(vec![ContainerStatus { ready: true, ..ContainerStatus::default() }]);
    assert_eq!(Scene::served(vec![a]).routed(), None);
}

#[test]
fn a_missing_named_port_fails_closed_for_all_and_says_so() {
    let source = service("web").enabled().named_port("grpc");
    let mut scene = Scene::with(source, vec![pod("a").ready_for(5)]);
    scene.settle();
    assert_eq!(scene.lock().endpoints, Some(Vec::new()));
    let (state, _, message) = scene.condition();
    assert_eq!(state, "False");
    assert!(message.contains("no container port named grpc/TCP"), "{message}");
    assert_eq!(scene.decide().missing_ports, ["grpc/TCP"]);
    scene.server.put_pod(pod("a").ready_for(5).ports(&[("grpc", "TCP", 9000)]));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
    assert_eq!(scene.lock().ports.unwrap()[0].port, Some(9000));
    let service_port = scene.leader().spec.unwrap().ports.unwrap()[0].clone();
    assert_eq!(
        service_port.target_port,
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("grpc".into())),
        "names stay in the Service, numbers are in the slice only"
    );
}

#[test]
fn the_trigger_time_is_the_loss_and_not_the_successors_readiness() {
    use crate::keys::kubernetes::LAST_CHANGE_TRIGGER_TIME;
    let mut scene =
        Scene::served(vec![pod("a").age(9).ready_for(5), pod("b").age(8).ready_for(86_400)]);
    scene.server.now = at(100);
    scene.server.put_pod(pod("a").age(9).readiness(false, at(99)));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(mark(&scene.lock(), LAST_CHANGE_TRIGGER_TIME), at(99).to_string());
    scene.server.put_service(scene.source().set("failover-min-delay", "5s"));
    scene.settle();
    assert_eq!(mark(&scene.lock(), LAST_CHANGE_TRIGGER_TIME), at(100).to_string());
}

// Leader choice.

#[test]
fn a_leader_relabelled_out_of_the_selector_is_replaced() {
    let mut scene = Scene::served(pair());
    scene.server.put_pod(pod("a").age(9).ready_for(5).label("app", "other"));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
}

#[test]
fn a_changed_selector_judges_the_leader_at_once() {
    let mut scene = Scene::served(vec![
        pod("a").age(9).ready_for(5),
        pod("c").ready_for(5).label("app", "new"),
    ]);
    scene.server.put_service(scene.source().selecting("app", "new"));
    assert!(matches!(scene.next(), Step::Slice(_)));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("c"));
}

#[test]
fn a_source_without_selector_or_external_routes_nobody_and_reports() {
    let broken: [fn(&mut Service); 3] = [
        |s| s.spec().selector = None,
        |s| s.spec().type_ = Some("ExternalName".into()),
        |s| s.spec().ports = None,
    ];
    for (i, breaks) in broken.iter().enumerate() {
        let mut scene = Scene::served(pair());
        let mut source = scene.source();
        breaks(&mut source);
        scene.server.put_service(source);
        scene.settle();
        assert_eq!(condition(&scene.source()).0, "False");
        // A pod that is still selected and eligible stays; without a selector no pod is selected.
        assert_eq!(scene.routed().is_some(), i > 0, "case {i}");
    }
}

#[test]
fn an_invalid_source_keeps_its_leader_and_promotes_nobody() {
    let mut scene = Scene::served(pair());
    scene.server.put_service(scene.source().set("sticky", "perhaps"));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
    let (state, _, message) = condition(&scene.source());
    assert_eq!(state, "False");
    assert!(message.contains("zen-lead.io/sticky"), "{message}");
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed(), None);
    assert!(scene.condition().2.starts_with("no new leader while the source is invalid"));
    scene.server.put_service(scene.source().set("sticky", "true"));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(condition(&scene.source()), Default::default());
}

#[test]
fn stickiness_outlives_a_moment_without_any_leader() {
    let mut scene = Scene::served(vec![pod("b").age(8).ready_for(5)]);
    scene.server.put_pod(pod("b").age(8).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed(), None);
    let before = scene.epoch();
    // Both become Ready at once; the other one is older.
    scene.server.put_pod(pod("a").age(999).ready_for(5));
    scene.server.put_pod(pod("b").age(8).ready_for(0));
    scene.settle();
    assert_eq!((scene.routed().as_deref(), scene.epoch()), (Some("b"), before));
}

#[test]
fn timers_live_on_objects_and_survive_a_restart() {
    let source = service("web").enabled().set("failover-min-delay", "10s");
    let mut scene = Scene::with(source, pair());
    scene.settle();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    let first = scene.next();
    assert!(first.urgent(), "taking out waits for nobody");
    scene.perform(&first);
    assert_eq!(conditions(&scene.lock()), [false, false, false]);
    assert_eq!(mark(&scene.lock(), status::NOT_READY_SINCE), at(0).to_string());
    // Another replica, that knows nothing but the objects, six seconds later.
    scene.server.now = at(6);
    scene.settle();
    assert_eq!(scene.decide().again_at, Some(at(10)));
    assert_eq!(scene.routed(), None);
    scene.server.now = at(10);
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(mark(&scene.lock(), status::NOT_READY_SINCE), "");
}

#[test]
fn an_incumbent_that_recovers_within_the_delay_leads_on_without_a_switch() {
    let source = service("web").enabled().set("failover-min-delay", "10s");
    let mut scene = Scene::with(source, pair());
    scene.settle();
    let before = scene.epoch();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    scene.server.now = at(5);
    scene.server.put_pod(pod("a").age(9).readiness(true, at(5)));
    scene.settle();
    assert_eq!((scene.routed().as_deref(), scene.epoch()), (Some("a"), before));
    assert_eq!(mark(&scene.lock(), status::NOT_READY_SINCE), "");
}

// Lifecycle.

#[test]
fn a_deleted_source_routes_nobody_and_its_leader_service_is_left_to_garbage_collection() {
    let mut scene = Scene::served(pair());
    scene.server.remove_service("web");
    let steps = scene.settle();
    assert_eq!(kinds(&steps), [StepKind::Slice, StepKind::Mirror]);
    assert!(steps[0].urgent());
    assert_eq!(scene.routed(), None);
    let words = "the Service it was made for does not exist any more; delete this one, or create that \
                 one again";
    assert_eq!(scene.condition(), ("False".into(), "NotServed".into(), words.into()));
    while scene.server.collect_garbage() {}
    assert_eq!(scene.settle(), []);
    assert!(scene.server.services.now.is_empty() && scene.server.slices.now.is_empty());
}

#[test]
fn a_recreated_source_waits_for_the_earlier_leader_service_to_go() {
    let mut scene = Scene::served(pair());
    let old = scene.leader().id();
    scene.server.remove_service("web");
    scene.server.put_service(service("web").enabled());
    scene.settle();
    assert_eq!(scene.leader().id(), old, "not adopted, not deleted");
    assert_eq!(scene.routed(), None, "nobody keeps it right, so it routes nobody");
    assert!(condition(&scene.source()).2.contains("belonged to an earlier Service \"web\""));
    while scene.server.collect_garbage() {}
    scene.settle();
    assert_ne!(scene.leader().id(), old);
    assert_eq!(scene.routed().as_deref(), Some("a"));
    assert_eq!(condition(&scene.source()), Default::default());
}

#[test]
fn an_orphaned_leader_service_routes_nobody_and_stays() {
    let mut scene = Scene::served(pair());
    let mut leader = scene.leader();
    leader.metadata.owner_references = None;
    scene.server.put_service(leader);
    scene.server.remove_service("web");
    scene.settle();
    assert_eq!(scene.routed(), None);
    assert!(scene.server.services.now.contains_key("web-leader"));
}

#[test]
fn the_old_name_is_kept_up_to_date_while_the_new_one_is_refused() {
    for kind in [StepKind::CreateLeader, StepKind::CreateSlice] {
        let mut scene = Scene::served(pair());
        scene.server.put_service(scene.source().set("leader-service-name", "front"));
        let refusal = blocked(kind);
        if kind == StepKind::CreateSlice {
            scene.server.slice_quota = true;
            while let Action::Do(step) = scene.decide().action {
                if scene.server.perform(&step).is_err() {
                    break;
                }
            }
        }
        scene.server.put_pod(pod("a").age(9).unready_for(0));
        for _ in 0..9 {
            let refused = kind == StepKind::CreateLeader || scene.server.slices.now.len() == 1;
            let ctx = Context {
                blocked: if refused { from_ref(&refusal) } else { &[] },
                ..scene.context()
            };
            match decide(&scene.snapshot(), &ctx).action {
                Action::Do(step) => _ = scene.server.perform(&step),
                _ => break,
            }
        }
        assert!(scene.server.services.now.contains_key("web-leader"), "{kind:?}");
        assert_eq!(scene.routed().as_deref(), Some("b"), "{kind:?}");
        if kind == StepKind::CreateLeader {
            let (state, _, message) = condition(&scene.source());
            assert_eq!((state.as_str(), message.as_str()), ("False", "exceeded quota: small"));
        }
    }
}

#[test]
fn a_refused_slice_is_reported_and_not_as_a_routed_leader() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    scene.server.slice_quota = true;
    let create = scene.next();
    scene.perform(&create);
    assert!(scene.server.perform(&scene.next()).is_err());
    let refusal = blocked(StepKind::CreateSlice);
    let ctx = Context { blocked: from_ref(&refusal), ..scene.context() };
    for _ in 0..9 {
        let Action::Do(step) = decide(&scene.snapshot(), &ctx).action else { break };
        scene.perform(&step);
    }
    let (state, _, message) = scene.condition();
    assert_eq!(state, "False");
    assert!(message.starts_with("exceeded quota: small; "), "{message}");
    assert_eq!(scene.leader().metadata.annotations.unwrap()[status::CURRENT_LEADER], "");
}

#[test]
fn a_refusal_of_what_another_replica_has_done_is_not_told() {
    let scene = Scene::served(pair());
    for kind in [StepKind::CreateLeader, StepKind::CreateSlice, StepKind::Slice] {
        let refusal = blocked(kind);
        let ctx = Context { blocked: from_ref(&refusal), ..scene.context() };
        assert_eq!(decide(&scene.snapshot(), &ctx).action, Action::Nothing, "{kind:?}");
    }
}

#[test]
fn in_a_namespace_that_ends_nothing_is_created_but_an_endpoint_is_taken_out() {
    let ends = Blocked {
        kind: StepKind::Creation,
        only: None,
        reason: EventReason::Forbidden,
        message: "the namespace is being deleted".into(),
    };
    let mut scene = Scene::with(service("web").enabled(), pair());
    let ctx = Context { blocked: from_ref(&ends), ..scene.context() };
    let action = decide(&scene.snapshot(), &ctx).action;
    assert_eq!(action, Action::Nothing, "nor is a condition written");

    scene.settle();
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    for _ in 0..9 {
        let ctx = Context { blocked: from_ref(&ends), ..scene.context() };
        match decide(&scene.snapshot(), &ctx).action {
            Action::Do(step) => _ = scene.perform(&step),
            _ => break,
        }
    }
    assert_eq!(scene.routed().as_deref(), Some("b"), "what exists is kept right");
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    for _ in 0..9 {
        let ctx = Context { blocked: from_ref(&ends), ..scene.context() };
        match decide(&scene.snapshot(), &ctx).action {
            Action::Do(step) => _ = scene.perform(&step),
            _ => break,
        }
    }
    assert!(scene.server.slices.now.is_empty());
    let (state, reason, message) = scene.condition();
    assert_eq!((state.as_str(), reason.as_str()), ("False", "Forbidden"));
    assert!(message.starts_with("the namespace is being deleted; "), "{message}");
}

#[test]
fn nothing_is_created_for_a_source_that_is_being_deleted() {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let mut source = service("web").enabled();
    source.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    let mut scene = Scene::with(source, pair());
    scene.server.remove_service("web");
    assert_eq!(scene.settle(), []);
    let mut scene = Scene::served(pair());
    let mut source = scene.source();
    source.metadata.deletion_timestamp = Some(Time(at(0)));
    source.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    scene.server.put_service(source);
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    scene.settle();
    assert!(scene.server.slices.now.is_empty());
    let truth = mirror::read(&scene.leader());
    assert!(truth.epoch > 0 && truth.pod_uid.is_some(), "what the mirror knows is not lost");
}

#[test]
fn a_slice_that_is_being_deleted_is_kept_right_until_it_is_gone() {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let mut scene = Scene::served(pair());
    let mut lock = scene.lock();
    lock.metadata.deletion_timestamp = Some(Time(at(0)));
    lock.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    scene.server.put_slice(lock);
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert_eq!(scene.lock().metadata.finalizers.unwrap(), ["example.com/hold"]);
}

#[test]
fn a_deleted_leader_service_is_made_again() {
    let mut scene = Scene::served(pair());
    let old = scene.leader().id();
    scene.server.remove_service("web-leader");
    while scene.server.collect_garbage() {}
    scene.settle();
    assert_ne!(scene.leader().id(), old);
    assert_eq!(scene.routed().as_deref(), Some("a"));
}

// Ownership.

#[test]
fn foreign_slices_are_reported_and_never_touched() {
    let mut scene = Scene::served(pair());
    let theirs = scene.server.put_slice(foreign_slice("by-hand", "web-leader"));
    scene.settle();
    assert_eq!(scene.server.slices.now["by-hand"], theirs);
    let (state, _, message) = scene.condition();
    assert_eq!(state, "False");
    assert!(
        message.contains("not written by zen-lead") && message.contains("by-hand"),
        "{message}"
    );
    assert_eq!(scene.routed().as_deref(), Some("a"), "our own slice stays right");
    scene.server.remove_slice("by-hand");
    scene.settle();
    assert_eq!(scene.condition().0, "True");
}

#[test]
fn a_foreign_slice_under_our_name_is_reported_and_not_fought() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    scene.server.put_slice(foreign_slice("web-leader-zen-lead-ipv4", "web-leader"));
    let steps = scene.settle();
    assert!(!steps.iter().any(|step| matches!(step, Step::Slice(_))));
    assert!(scene.condition().2.contains("web-leader-zen-lead-ipv4"));
}

#[test]
fn a_foreign_slice_under_the_followers_name_does_not_hold_up_the_lock() {
    let mut scene = Scene::with(service("web").enabled().dual_stack(), pair());
    scene.server.put_slice(foreign_slice("web-leader-zen-lead-ipv6", "web-leader"));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("a"));
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"));
    assert!(scene.condition().2.contains("web-leader-zen-lead-ipv6"));
}

#[test]
fn without_a_lock_of_ours_the_follower_routes_nobody() {
    let mut scene = Scene::with(service("web").enabled().dual_stack(), pair());
    scene.settle();
    scene.server.remove_slice("web-leader-zen-lead-ipv4");
    scene.server.put_slice(foreign_slice("web-leader-zen-lead-ipv4", "web-leader"));
    scene.settle();
    assert_eq!(routed(&scene.follower()), None);
}

#[test]
fn replicas_with_different_clocks_agree_on_the_message() {
    let source = service("web").enabled().set("min-ready-duration", "60s");
    let mut scene =
        Scene::with(source, vec![pod("a").age(9).ready_for(100), pod("b").ready_for(10)]);
    scene.settle();
    for seconds in [0, 49, 51, 90] {
        scene.server.now = at(seconds);
        assert_eq!(scene.settle(), [], "{seconds} s later");
    }
    assert_eq!(scene.condition().2, "a leads; b: standby");
    let source = service("web").enabled().set("min-ready-duration", "60s");
    let mut scene = Scene::with(source, vec![pod("b").ready_for(10)]);
    scene.settle();
    let waiting = "waiting for failover-min-delay or min-ready-duration; b: standby";
    assert_eq!(scene.condition().2, waiting);
}

#[test]
fn what_others_put_on_our_slice_stays() {
    let mut scene = Scene::served(pair());
    scene.server.put_slice(scene.lock().label("team", "a").annotation("note", "hello"));
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    let meta = scene.lock().metadata;
    assert_eq!(
        (&*meta.labels.unwrap()["team"], &*meta.annotations.unwrap()["note"]),
        ("a", "hello")
    );
}

#[test]
fn drift_of_slice_and_leader_service_is_put_right() {
    let mut scene = Scene::served(pair());
    let (lock, spec) = (scene.lock(), scene.leader().spec);
    let mut edited = scene.lock();
    edited.endpoints.as_mut().unwrap()[0].addresses = vec!["10.6.6.6".into()];
    scene.server.put_slice(edited);
    let mut edited = scene.leader();
    edited.spec().ports.as_mut().unwrap()[0].port = 81;
    scene.server.put_service(edited);
    scene.settle();
    assert_eq!((scene.lock().endpoints, scene.leader().spec), (lock.endpoints, spec));
}

#[test]
fn two_sources_that_want_one_name_get_one_leader_service() {
    let mut scene = Scene::with(service("web").enabled(), pair());
    let api = service("api").enabled().set("leader-service-name", "web-leader").age(9);
    scene.server.put_service(api);
    let key = ServiceKey::new(NAMESPACE, "api");
    let api = |scene: &Scene| {
        decide(&Snapshot { consistent: true, ..scene.index().snapshot(&key) }, &scene.context())
            .action
    };
    let Action::Do(Step::SourceConditions(_, conditions, _)) = api(&scene) else { panic!() };
    assert!(conditions[0].message.contains("the older Service \"web\" asks for"), "{conditions:?}");
    scene.settle();
    let Action::Do(Step::SourceConditions(_, conditions, _)) = api(&scene) else { panic!() };
    assert!(conditions[0].message.contains("is the leader Service of \"web\""), "{conditions:?}");
}

#[test]
fn beyond_the_limit_nothing_is_made_and_existing_leaders_stay() {
    let mut scene = Scene::served(pair());
    scene.limits.services_per_namespace = 1;
    scene.server.put_service(service("api").enabled().age(9999));
    scene.server.put_pod(pod("a").age(9).unready_for(0));
    scene.settle();
    assert_eq!(scene.routed().as_deref(), Some("b"), "it has a leader: it keeps it");
    let mut late = Scene::with(service("web").enabled(), pair());
    late.limits.services_per_namespace = 1;
    late.server.put_service(service("api").enabled().age(9999));
    assert_eq!(kinds(&late.settle()), [StepKind::SourceConditions]);
    assert!(condition(&late.source()).2.contains("more than 1 enabled Services"));
}
