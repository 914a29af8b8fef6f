//! Tables over the rotation.

use super::*;

const YEAR: Duration = Duration::from_hours(365 * 24);
const DAY: Duration = Duration::from_hours(24);

fn t0() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn ca(now: Timestamp) -> Ca {
    Ca::generate(now, YEAR, None).unwrap()
}

fn go(
    state: &RotationState,
    now: Timestamp,
    published: Option<&[String]>,
    observed: u64,
) -> Option<RotationStep> {
    let facts = Facts {
        published: published.map(<[String]>::to_vec),
        observed: Duration::from_secs(observed),
        asked: None,
    };
    step(state, now, &facts, &Certificates::default())
}

#[test]
fn a_rotation_goes_through_its_phases_and_each_waits_for_what_it_must() {
    let steady = RotationState::first(ca(t0()), t0(), None);
    let old = steady.current.certificate.clone();
    assert_eq!(steady.bundle(), old.to_pem());

    // Two thirds of 365 days are 243 days and 8 hours.
    assert_eq!(go(&steady, t0() + DAY * 243, Some(&[]), 99_999), None);
    let now = t0() + DAY * 244;
    assert_eq!(go(&steady, now, Some(&[]), 0), Some(RotationStep::Introduce));
    assert!(RotationStep::Introduce.needs_ca(&steady));

    let introducing = steady.after(RotationStep::Introduce, now, &Facts::default(), Some(ca(now)));
    let new = introducing.next.as_ref().unwrap().certificate.clone();
    assert_eq!(introducing.phase, RotationPhase::Introducing);
    assert_eq!(introducing.current.certificate, old, "the old CA goes on signing");
    assert_eq!(introducing.bundle(), old.to_pem() + &new.to_pem());
    let (both, only_old) = (introducing.bundle(), steady.bundle());
    for (published, want) in [
        (None, None),
        (Some(vec![only_old.clone()]), None),
        (Some(vec![both.clone(), only_old]), None),
        (Some(vec![both.clone(), both.clone()]), Some(RotationStep::Carried)),
        (Some(vec![]), Some(RotationStep::Carried)),
    ] {
        assert_eq!(go(&introducing, now, published.as_deref(), 99_999), want, "{published:?}");
    }

    let introduced = introducing.after(RotationStep::Carried, now, &Facts::default(), None);
    assert_eq!((introduced.phase, introduced.bundle()), (RotationPhase::Introduced, both));
    assert_eq!(go(&introduced, now + DAY, None, 59), None, "the wall clock does not shorten it");
    assert_eq!(go(&introduced, now, None, 60), Some(RotationStep::Switch));

    let retiring = introduced.after(RotationStep::Switch, now, &Facts::default(), None);
    assert_eq!(retiring.phase, RotationPhase::Retiring);
    assert_eq!(retiring.current.certificate, new);
    assert_eq!((retiring.next.clone(), retiring.previous.clone()), (None, Some(old.clone())));
    assert_eq!(retiring.bundle(), new.to_pem() + &old.to_pem());
    assert_eq!(go(&retiring, now, None, 599), None);
    assert_eq!(go(&retiring, now, None, 600), Some(RotationStep::Retire));

    let done = retiring.after(RotationStep::Retire, now, &Facts::default(), None);
    assert_eq!((done.phase, done.bundle()), (RotationPhase::Steady, new.to_pem()));
    assert_eq!(go(&done, now, Some(&[]), 99_999), None);
}

#[test]
fn an_ended_ca_is_replaced_at_once_in_every_phase() {
    let steady = RotationState::first(ca(t0()), t0(), None);
    let late = t0() + DAY * 365;
    let introducing = steady.after(
        RotationStep::Introduce,
        t0() + DAY * 300,
        &Facts::default(),
        Some(ca(t0() + DAY * 300)),
    );
    for (state, needs) in [
        (steady.clone(), true),
        (introducing.clone(), false),
        (introducing.after(RotationStep::Carried, t0(), &Facts::default(), None), false),
    ] {
        assert_eq!(go(&state, late, None, 0), Some(RotationStep::Replace), "{:?}", state.phase);
        assert_eq!(RotationStep::Replace.needs_ca(&state), needs);
        let after = state.after(RotationStep::Replace, late, &Facts::default(), Some(ca(late)));
        assert_eq!(after.phase, RotationPhase::Retiring);
        assert!(after.current.certificate.ends > late);
        assert_eq!(after.previous, Some(state.current.certificate.clone()));
        assert_eq!(after.next, None);
    }
}

#[test]
fn a_clock_set_back_starts_nothing() {
    let steady = RotationState::first(ca(t0()), t0(), None);
    let y2000 = "2000-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(go(&steady, y2000, Some(&[]), 99_999), None);
}

#[test]
fn a_lost_secret_is_followed_by_a_rotation_not_by_a_break() {
    let known = RotationState::first(ca(t0()), t0(), None);
    let after = known.succeed(ca(t0()), t0(), None);
    assert_eq!(after.phase, RotationPhase::Introducing);
    assert_eq!(after.current, known.current);
    assert!(after.bundle().starts_with(&known.bundle()));
    assert_ne!(after.next.as_ref().unwrap(), &known.current);
}

#[test]
fn a_step_that_needs_a_ca_changes_nothing_without_one() {
    let steady = RotationState::first(ca(t0()), t0(), None);
    for step in [RotationStep::Introduce, RotationStep::Replace] {
        assert_eq!(steady.after(step, t0() + DAY, &Facts::default(), None), steady);
    }
}

#[test]
fn phases_are_read_as_they_are_written() {
    for phase in [
        RotationPhase::Steady,
        RotationPhase::Introducing,
        RotationPhase::Introduced,
        RotationPhase::Retiring,
    ] {
        assert_eq!(phase.as_str().parse(), Ok(phase));
    }
    assert!("Steady".parse::<RotationPhase>().is_err());
}

#[test]
fn a_request_that_was_not_answered_starts_a_rotation_and_its_text_is_kept() {
    let asked = |text: &str| Facts { asked: Some(text.into()), ..Facts::default() };
    let none = Facts::default();
    let step =
        |state: &RotationState, facts: &Facts| step(state, t0(), facts, &Certificates::default());
    let steady = RotationState::first(ca(t0()), t0(), Some("a".into()));
    assert_eq!(step(&steady, &none), None);
    assert_eq!(step(&steady, &asked("a")), None);
    assert_eq!(step(&steady, &asked("b")), Some(RotationStep::Introduce));
    let introducing = steady.after(RotationStep::Introduce, t0(), &asked("b"), Some(ca(t0())));
    assert_eq!(introducing.answered.as_deref(), Some("b"));
    let introduced = introducing.after(RotationStep::Carried, t0(), &asked("c"), None);
    let retiring = introduced.after(RotationStep::Switch, t0(), &asked("c"), None);
    let done = retiring.after(RotationStep::Retire, t0(), &asked("c"), None);
    assert_eq!(done.answered.as_deref(), Some("b"), "only a new CA is an answer");
    assert_eq!(step(&done, &asked("c")), Some(RotationStep::Introduce));
}

#[test]
fn a_wait_ends_when_the_step_is_due() {
    let times = Certificates::default();
    let left = |state: &RotationState, now, observed| {
        let facts = Facts { observed: Duration::from_secs(observed), ..Facts::default() };
        wait(state, now, &facts, &times)
    };
    let seconds = |n| Some(Duration::from_secs(n));
    let none = Facts::default();
    let steady = RotationState::first(ca(t0()), t0(), None);
    assert_eq!(left(&steady, t0(), 0), Some(2 * (YEAR / 3)));
    assert_eq!(left(&steady, t0() + YEAR, 0), seconds(0));
    let introducing = steady.after(RotationStep::Introduce, t0(), &none, Some(ca(t0())));
    assert_eq!(left(&introducing, t0(), 5), None);
    let introduced = introducing.after(RotationStep::Carried, t0(), &none, None);
    assert_eq!(
        (left(&introduced, t0(), 5), left(&introduced, t0(), 61)),
        (seconds(55), seconds(0))
    );
    let retiring = introduced.after(RotationStep::Switch, t0(), &none, None);
    assert_eq!((left(&retiring, t0(), 5), left(&retiring, t0(), 601)), (seconds(595), seconds(0)));
}
