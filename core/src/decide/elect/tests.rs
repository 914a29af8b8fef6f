//! Tables of elections: who leads, when, and why the others do not.

use super::*;
use crate::fixtures::{Object, PodFixture, at, pod};
use crate::settings::{LeaderType, PortsMode, Strategy};

fn spec() -> LeaderSpec {
    LeaderSpec {
        leader_service_name: "web-leader".into(),
        strategy: Strategy::OldestReady,
        sticky: true,
        min_ready_duration: Duration::ZERO,
        failover_min_delay: Duration::ZERO,
        ports_mode: PortsMode::Strict,
        leader_type: LeaderType::ClusterIp,
        ..LeaderSpec::default()
    }
}

fn trimmed(pods: impl IntoIterator<Item = k8s_openapi::api::core::v1::Pod>) -> Vec<Arc<Pod>> {
    pods.into_iter().map(|p| Arc::new(Pod::trim(&p).unwrap())).collect()
}

fn incumbent(name: &str) -> Incumbent {
    Incumbent { uid: format!("uid-{name}"), name: Some(name.into()), not_ready_since: None }
}

fn held(spec: &LeaderSpec, pods: &[Arc<Pod>], last: Option<&Incumbent>, now: i64) -> Choice {
    let rules = Rules {
        spec,
        family: Family::V4,
        may_promote: true,
        only: None,
        now: at(now),
        unfinished: None,
    };
    elect(pods, last, &rules)
}

fn led_by(choice: &Choice) -> Option<&str> {
    choice.endpoint.as_ref().filter(|(_, c)| c.ready).map(|(p, _)| &*p.name)
}

#[test]
fn newest_revision_then_oldest_pod_then_name_comes_first() {
    let young_old_revision = pod("a").revision("one").age(500).ready_for(1);
    let new_late = pod("b").revision("two").age(10).ready_for(1);
    let new_early = pod("c").revision("two").age(20).ready_for(1);
    let pods = trimmed(vec![young_old_revision, new_late, new_early]);
    assert_eq!(led_by(&held(&spec(), &pods, None, 0)), Some("c"));
    let same_age = trimmed(vec![pod("y").age(5).ready_for(1), pod("x").age(5).ready_for(1)]);
    assert_eq!(led_by(&held(&spec(), &same_age, None, 0)), Some("x"));
}

#[test]
fn revisions_of_different_workloads_are_not_compared() {
    let a = pod("a").revision("one").age(500).ready_for(1);
    let b = pod("b").revision("two").age(10).ready_for(1).owned_by("ReplicaSet", "api-two", "x");
    assert_eq!(led_by(&held(&spec(), &trimmed(vec![a, b]), None, 0)), Some("a"));
}

#[test]
fn a_rollout_costs_one_switch() {
    // Three pods are replaced one after the other, the new one Ready before the old one goes.
    let mut pods: Vec<_> = ["o1", "o2", "o3"]
        .iter()
        .map(|n| pod(n).revision("old").age(1000).ready_for(900))
        .collect();
    let mut leader = led_by(&held(&spec(), &trimmed(pods.clone()), None, 0)).unwrap().to_owned();
    assert_eq!(leader, "o1");
    let mut switches = 0;
    for (i, gone) in ["o1", "o2", "o3"].iter().enumerate() {
        let age = 100 - 10 * i64::try_from(i).unwrap();
        pods.push(pod(&format!("n{i}")).revision("new").age(age).ready_for(age));
        pods.retain(|p| p.metadata.name.as_deref() != Some(gone));
        let choice = held(&spec(), &trimmed(pods.clone()), Some(&incumbent(&leader)), 0);
        switches += i32::from(choice.switch.is_some());
        led_by(&choice).unwrap().clone_into(&mut leader);
    }
    assert_eq!((switches, leader.as_str()), (1, "n0"));
}

#[test]
fn a_sticky_incumbent_moves_only_for_a_listed_reason() {
    let other = || pod("old").age(9000).ready_for(900);
    let cases = vec![
        (pod("a").ready_for(5), None),
        (pod("a").unready_for(5), Some(SwitchReason::PodNotReady)),
        (pod("a").ready_for(5).terminating(), Some(SwitchReason::PodTerminating)),
        (pod("a").ready_for(5).phase("Failed"), Some(SwitchReason::PodFinished)),
        (pod("a").ready_for(5).phase("Succeeded"), Some(SwitchReason::PodFinished)),
        (pod("a").ready_for(5).ips(&["fd00::1"]), Some(SwitchReason::PodWithoutAddress)),
        (pod("a").ready_for(5).uid("another"), Some(SwitchReason::PodGone)),
    ];
    for (a, expected) in cases {
        let choice = held(&spec(), &trimmed(vec![other(), a]), Some(&incumbent("a")), 0);
        assert_eq!(choice.switch, expected);
        assert_eq!(led_by(&choice), Some(if expected.is_some() { "old" } else { "a" }));
        assert_eq!(choice.incumbent_healthy, expected.is_none());
    }
}

#[test]
fn without_sticky_the_first_in_order_leads() {
    let pods = trimmed(vec![pod("a").age(9).ready_for(5), pod("b").age(10).ready_for(5)]);
    let loose = LeaderSpec { sticky: false, ..spec() };
    let choice = held(&loose, &pods, Some(&incumbent("a")), 0);
    assert_eq!((led_by(&choice), choice.switch), (Some("b"), Some(SwitchReason::Preferred)));
    let choice = held(&loose, &pods, Some(&incumbent("b")), 0);
    assert_eq!((led_by(&choice), choice.switch), (Some("b"), None));
}

#[test]
fn min_ready_is_asked_of_the_successor_and_never_of_the_incumbent() {
    let slow = LeaderSpec { min_ready_duration: Duration::from_mins(1), ..spec() };
    for sticky in [true, false] {
        let spec = LeaderSpec { sticky, ..slow.clone() };
        let pods = trimmed(vec![pod("a").age(5).ready_for(1), pod("b").age(9).ready_for(20)]);
        let choice = held(&spec, &pods, Some(&incumbent("a")), 0);
        assert_eq!((led_by(&choice), choice.switch), (Some("a"), None));
        let choice = held(&spec, &pods, None, 0);
        assert_eq!((led_by(&choice), choice.again_at), (None, Some(at(40))));
        assert_eq!(choice.standings[1].1, Standing::ReadyTooShort);
        assert_eq!(led_by(&held(&spec, &pods, None, 39)), None);
        assert_eq!(led_by(&held(&spec, &pods, None, 40)), Some("b"));
    }
}

#[test]
fn failover_min_delay_holds_back_only_for_notready() {
    let patient = LeaderSpec { failover_min_delay: Duration::from_secs(10), ..spec() };
    let b = || pod("b").ready_for(50);
    let unready = trimmed(vec![pod("a").unready_for(3), b()]);
    let choice = held(&patient, &unready, Some(&incumbent("a")), 0);
    let (pod_a, conditions) = choice.endpoint.clone().unwrap();
    assert_eq!((&*pod_a.name, conditions.ready, conditions.serving), ("a", false, false));
    assert_eq!((choice.not_ready_since, choice.again_at), (Some(at(0)), Some(at(10))));
    // The timer runs from what the slice says, not from when a replica saw it.
    let known = Incumbent { not_ready_since: Some(at(-9)), ..incumbent("a") };
    assert_eq!(held(&patient, &unready, Some(&known), 0).again_at, Some(at(1)));
    let choice = held(&patient, &unready, Some(&known), 1);
    assert_eq!((led_by(&choice), choice.switch), (Some("b"), Some(SwitchReason::PodNotReady)));
    for lost in [
        vec![pod("a").unready_for(3).terminating(), b()],
        vec![pod("a").unready_for(3).phase("Failed"), b()],
        vec![b()],
    ] {
        assert_eq!(led_by(&held(&patient, &trimmed(lost), Some(&incumbent("a")), 0)), Some("b"));
    }
}

#[test]
fn a_switch_that_was_begun_by_a_clock_ahead_is_finished() {
    let begun = UnfinishedSwitch { uid: "uid-b".into(), at: at(600) };
    let mut spec = LeaderSpec { min_ready_duration: Duration::from_mins(1), ..spec() };
    let held = |spec: &LeaderSpec, last: &Incumbent, begun: Option<&UnfinishedSwitch>| {
        let pods = trimmed(vec![
            pod("a").age(9).unready_for(5),
            pod("b").age(8).ready_for(5),
            pod("c").age(10).ready_for(5),
        ]);
        let rules = Rules {
            spec,
            family: Family::V4,
            may_promote: true,
            only: None,
            now: at(0),
            unfinished: begun,
        };
        led_by(&elect(&pods, Some(last), &rules)).map(str::to_owned)
    };
    assert_eq!(held(&spec, &incumbent("a"), None), None, "nobody was Ready for long enough");
    assert_eq!(held(&spec, &incumbent("a"), Some(&begun)).as_deref(), Some("b"), "only b");
    // A clock behind ours takes nothing back, and one that is not far enough ahead ends no timer.
    for (at_begin, leads) in [(at(-600), None), (at(54), None), (at(55), Some("b"))] {
        let begun = UnfinishedSwitch { at: at_begin, ..begun.clone() };
        assert_eq!(held(&spec, &incumbent("a"), Some(&begun)).as_deref(), leads, "{at_begin}");
    }
    spec.min_ready_duration = Duration::ZERO;
    spec.failover_min_delay = Duration::from_mins(1);
    let lost = |since| Incumbent { not_ready_since: Some(at(since)), ..incumbent("a") };
    assert_eq!(held(&spec, &lost(0), None), None);
    // c comes before b: the delay is over only for the pod that was to come.
    assert_eq!(held(&spec, &lost(0), Some(&begun)), None);
    let to_c = UnfinishedSwitch { uid: "uid-c".into(), ..begun };
    assert_eq!(held(&spec, &lost(0), Some(&to_c)).as_deref(), Some("c"));
    assert_eq!(held(&spec, &lost(541), Some(&to_c)), None, "not over by that clock either");
}

#[test]
fn the_last_incumbent_stays_in_sight_while_its_pod_lives() {
    for (a, ready, serving, terminating) in [
        (pod("a").unready_for(3), false, false, false),
        (pod("a").ready_for(3).terminating(), false, true, true),
        (pod("a").unready_for(3).terminating(), false, false, true),
    ] {
        let choice = held(&spec(), &trimmed(vec![a]), Some(&incumbent("a")), 0);
        let (_, conditions) = choice.endpoint.clone().unwrap();
        assert_eq!(conditions, Conditions { ready, serving, terminating });
        assert_eq!(choice.switch, None);
    }
    // A finished pod's address is given to others.
    for phase in ["Failed", "Succeeded"] {
        let pods = trimmed(vec![pod("a").ready_for(3).phase(phase)]);
        assert_eq!(held(&spec(), &pods, Some(&incumbent("a")), 0).endpoint, None);
    }
}

#[test]
fn where_nobody_may_be_promoted_only_the_incumbent_stays() {
    fn rules(spec: &LeaderSpec) -> Rules<'_> {
        Rules {
            spec,
            family: Family::V4,
            may_promote: false,
            only: None,
            now: at(0),
            unfinished: None,
        }
    }
    for sticky in [true, false] {
        let spec = LeaderSpec { sticky, ..spec() };
        let pods = trimmed(vec![pod("a").age(9).ready_for(5), pod("b").age(10).ready_for(5)]);
        assert_eq!(led_by(&elect(&pods, Some(&incumbent("a")), &rules(&spec))), Some("a"));
        assert_eq!(elect(&pods, None, &rules(&spec)).endpoint, None);
        let pods = trimmed(vec![pod("a").unready_for(5), pod("b").age(10).ready_for(5)]);
        let choice = elect(&pods, Some(&incumbent("a")), &rules(&spec));
        assert_eq!((led_by(&choice), choice.switch), (None, None));
    }
}

#[test]
fn standings_name_every_reason() {
    let pods = trimmed(vec![
        pod("a").ready_for(1),
        pod("b").ready_for(1),
        pod("c").unready_for(1),
        pod("d").ready_for(1).terminating(),
        pod("e").ready_for(1).phase("Failed"),
        pod("f").ready_for(1).ips(&["fd00::1"]),
    ]);
    let choice = held(&spec(), &pods, None, 0);
    let all: Vec<_> = choice.standings.iter().map(|(p, s)| (&*p.name, s.as_str())).collect();
    assert_eq!(
        all,
        [
            ("a", "leads"),
            ("b", "standby"),
            ("c", "not Ready"),
            ("d", "terminating"),
            ("e", "finished"),
            ("f", "no address of the Service's first IP family"),
        ]
    );
    assert_eq!(choice.available, 2);
}

#[test]
fn an_incumbent_has_stayed_only_while_it_is_healthy_and_nobody_is_preferred() {
    let patient = LeaderSpec { failover_min_delay: Duration::from_secs(10), ..spec() };
    let loose = LeaderSpec { sticky: false, ..spec() };
    let b = || pod("b").age(99).ready_for(50);
    let well = || pod("a").age(9).ready_for(5);
    let lost = || pod("a").unready_for(0);
    let cases = [
        (spec(), vec![well(), b()], Some(true)),
        (loose.clone(), vec![well()], Some(true)),
        (loose, vec![well(), b()], Some(false)),
        (spec(), vec![lost(), b()], Some(false)),
        (spec(), vec![lost()], Some(false)),
        (patient, vec![lost(), b()], Some(false)),
        (spec(), vec![b()], None),
    ];
    for (i, (spec, pods, stayed)) in cases.into_iter().enumerate() {
        let choice = held(&spec, &trimmed(pods), Some(&incumbent("a")), 0);
        assert_eq!(choice.incumbent_stayed, stayed, "case {i}");
    }
    assert_eq!(held(&spec(), &trimmed(vec![well()]), None, 0).incumbent_stayed, None);
}

#[test]
fn ready_for_exactly_the_asked_time_is_long_enough_and_told_so() {
    let slow = LeaderSpec { min_ready_duration: Duration::from_mins(1), ..spec() };
    let pods = trimmed(vec![pod("a").age(99).ready_for(90), pod("b").age(9).ready_for(20)]);
    let of_b = |now| held(&slow, &pods, Some(&incumbent("a")), now).standings[1].1;
    assert_eq!(
        [39, 40, 41].map(of_b),
        [Standing::ReadyTooShort, Standing::Standby, Standing::Standby]
    );
}

#[test]
fn only_the_leader_of_the_followed_source_may_lead() {
    let ready = |name: &str, age: i64| pod(name).age(age).ready_for(1);
    let pods = trimmed(vec![ready("a", 9), ready("b", 8), pod("c").age(7).unready_for(1)]);
    let held = |only: Option<&str>, last: Option<&str>, sticky: bool, may_promote: bool| {
        let spec = LeaderSpec { sticky, ..spec() };
        let rules = Rules {
            spec: &spec,
            family: Family::V4,
            may_promote,
            only,
            now: at(0),
            unfinished: None,
        };
        let last = last.map(incumbent);
        let choice = elect(&pods, last.as_ref(), &rules);
        (led_by(&choice).map(str::to_owned), choice.switch)
    };
    let led = |name: &str| Some(name.to_owned());
    for sticky in [true, false] {
        assert_eq!(
            held(Some("uid-b"), None, sticky, true),
            (led("b"), Some(SwitchReason::FirstLeader))
        );
        // The healthy incumbent gives way, sticky or not, once the followed one can lead here.
        let switched = (led("b"), Some(SwitchReason::Preferred));
        assert_eq!(held(Some("uid-b"), Some("a"), sticky, true), switched);
        assert_eq!(held(Some("uid-b"), Some("b"), sticky, true), (led("b"), None));
        // Not Ready here, or not selected: the incumbent stays, and no third pod is taken.
        assert_eq!(held(Some("uid-c"), Some("a"), sticky, true), (led("a"), None));
        assert_eq!(held(Some("uid-x"), Some("a"), sticky, true), (led("a"), None));
        assert_eq!(held(Some("uid-c"), None, sticky, true), (None, None));
        assert_eq!(
            held(Some("uid-b"), Some("c"), sticky, true),
            (led("b"), Some(SwitchReason::PodNotReady))
        );
        assert_eq!(held(Some("uid-x"), Some("c"), sticky, true), (None, None));
        // The followed source has no leader: who is ready stays, and that is all.
        assert_eq!(held(None, Some("a"), sticky, false), (led("a"), None));
        assert_eq!(held(None, Some("c"), sticky, false), (None, None));
        assert_eq!(held(None, None, sticky, false), (None, None));
    }
}
