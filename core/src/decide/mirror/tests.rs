//! Tables of what is told: annotations, conditions and events.

use std::sync::Arc;

use super::*;
use crate::fixtures::{NAMESPACE, ServiceFixture, at, pod, service};
use crate::index::pod::Pod;
use crate::index::{Index, Limits};
use crate::names::{NameRule, ServiceKey};

fn truth(name: &str, epoch: u64, second: i64) -> Truth {
    Truth {
        pod_uid: Some(format!("uid-{name}")),
        pod_name: Some(name.to_owned()),
        epoch,
        switched_at: Some(at(second)),
        reason: Some("first_leader".into()),
        ..Truth::default()
    }
}

fn state(ready: bool, reason: EventReason) -> LeaderState {
    LeaderState { ready, reason, message: "words".into() }
}

fn trimmed(service: Service) -> Leader {
    let mut index = Index::new(NameRule::default(), Limits::default());
    index.apply_service(service);
    index.snapshot(&ServiceKey::new(NAMESPACE, "web")).leaders[0].as_ref().clone()
}

/// The leader Service of `web` as it stands after a mirror was written.
fn carrying(mirror: Option<&Mirror>) -> Leader {
    let mut service = service("web-leader").leading("web", "uid-web");
    if let Some(mirror) = mirror {
        service.metadata.annotations.get_or_insert_default().extend(mirror.annotations.clone());
        service.status.get_or_insert_default().conditions = Some(mirror.conditions.clone());
    }
    trimmed(service)
}

fn mirrored(truth: &Truth, state: &LeaderState, second: i64) -> Leader {
    let routed = truth.pod_name.as_deref();
    carrying(Some(&wanted(&carrying(None), truth, routed, state, None, at(second))))
}

#[test]
fn what_is_written_is_read_back() {
    let written =
        mirrored(&truth("a", 7, 100), &state(true, EventReason::LeaderRoutingAvailable), 100);
    assert_eq!(read(&written.object), truth("a", 7, 100));
    assert_eq!(read(&carrying(None).object), Truth::default());
    // No switch yet: no epoch is named.
    let none = wanted(
        &carrying(None),
        &Truth::default(),
        None,
        &state(false, EventReason::NoReadyPods),
        None,
        at(1),
    );
    assert_eq!(none.annotations, BTreeMap::from([(status::CURRENT_LEADER.into(), String::new())]));
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let ready = state(true, EventReason::LeaderRoutingAvailable);
    let other = state(true, EventReason::ForeignEndpoints);
    let down = state(false, EventReason::NoReadyPods);
    let service = mirrored(&truth("a", 1, 5), &ready, 5);
    let time = |state| condition(&service.object, state, at(90)).last_transition_time.0;
    assert_eq!((time(&ready), time(&other), time(&down)), (at(5), at(5), at(90)));
    // A condition of another controller with the same status says nothing about ours.
    let mut theirs = Service::clone(&service.object);
    let conditions = theirs.status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions[0].type_ = "example.com/Other".into();
    assert_eq!(condition(&theirs, &ready, at(90)).last_transition_time.0, at(90));
}

#[test]
fn a_switch_is_told_once_and_a_state_when_it_changes() {
    let ready = state(true, EventReason::LeaderRoutingAvailable);
    let down = state(false, EventReason::NoReadyPods);
    let before = mirrored(&truth("a", 1, 5), &ready, 5);
    let sent = |leader: &Leader, truth: &Truth, state: &LeaderState| -> Vec<_> {
        notices(leader, truth, state).into_iter().map(|n| (n.reason, n.note)).collect()
    };
    let changed = |note: &str| (EventReason::LeaderChanged, note.to_owned());
    let same = |reason| (reason, "words".to_owned());
    assert_eq!(sent(&before, &truth("a", 1, 5), &ready), []);
    assert_eq!(
        sent(&before, &truth("b", 2, 9), &ready),
        [changed("leader changed from a to b (first_leader), epoch 2")]
    );
    assert_eq!(sent(&before, &truth("a", 1, 5), &down), [same(EventReason::NoReadyPods)]);
    let never = Truth { switched_at: None, ..Truth::default() };
    assert_eq!(sent(&before, &never, &ready), []);
    assert_eq!(
        sent(&carrying(None), &truth("a", 1, 5), &ready),
        [changed("a leads (first_leader), epoch 1"), same(EventReason::LeaderRoutingAvailable)]
    );
}

#[test]
fn the_event_of_the_last_switch_is_sent_again_within_ten_minutes() {
    let leader =
        mirrored(&truth("a", 1, 1000), &state(true, EventReason::LeaderRoutingAvailable), 1000);
    let missed = |leader: &Leader, began: i64| {
        let truth = read(&leader.object);
        missed_event(&truth, &truth, at(began))
    };
    let note = |began: i64| missed(&leader, began).map(|notice| notice.note);
    let sent = Some("a leads (first_leader), epoch 1".to_owned());
    // Before it: by a clock that is behind.
    let expected = [None, sent.clone(), sent.clone(), sent, None];
    assert_eq!([399, 400, 1000, 1600, 1601].map(note), expected);
    assert_eq!(missed(&carrying(None), 0), None);
}

#[test]
fn an_explanation_names_the_leader_first_and_ten_pods_at_most() {
    let choice = |pods: &[(&str, Standing)]| Choice {
        endpoint: None,
        switch: None,
        incumbent_healthy: false,
        not_ready_since: None,
        again_at: None,
        available: 0,
        standings: pods
            .iter()
            .map(|(name, s)| (Arc::new(Pod::trim(&pod(name)).unwrap()), *s))
            .collect(),
        incumbent_stayed: None,
    };
    assert_eq!(explain(&choice(&[]), None), "the selector matches no pod");
    let three = choice(&[
        ("a", Standing::NotReady),
        ("b", Standing::ReadyTooShort),
        ("c", Standing::Leads),
    ]);
    assert_eq!(explain(&three, Some("uid-c")), "c leads; a: not Ready; b: standby");
    assert_eq!(explain(&three, Some("uid-b")), "b leads; a: not Ready; c: standby", "c is not yet");
    assert_eq!(explain(&three, None), "a: not Ready; b: standby; c: standby", "it is not written");
    let many = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let standby = many.map(|name| (name, Standing::Standby));
    let (ten, eleven) = (explain(&choice(&standby[..10]), None), explain(&choice(&standby), None));
    assert!(ten.ends_with("; j: standby") && ten.split("; ").count() == 10, "{ten}");
    assert_eq!(eleven, format!("{ten}; and others"));
}
