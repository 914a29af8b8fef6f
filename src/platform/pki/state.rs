//! The phases of the CA as a pure state machine, so that any replica can finish any rotation.
//!
//! ```text
//! Steady -> Introduce -> Introducing -> Carried -> Introduced -> Switch -> Retiring -> Retire -> Steady
//!           next in the bundle          all configurations        next signs            old leaves
//!                                       were seen with it         the leaves            the bundle
//! ```
//!
//! No API, no clock, no randomness: a new CA is passed in if a step needs one.

use std::time::Duration;

use jiff::Timestamp;
use strum::{EnumString, IntoStaticStr};

use super::material::{Ca, CaCertificate};
use crate::config::certificates::Certificates;

/// The phase of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RotationPhase {
    /// No rotation is in progress.
    Steady,
    /// The next CA is being added to the bundles.
    Introducing,
    /// It was seen in all bundles; the API servers get time to load it.
    Introduced,
    /// The new CA signs; the old one stays in the bundles for a while.
    Retiring,
}

zen_lead_core::texts!(RotationPhase);

/// The state of the CA that the replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationState {
    /// Signs the leaves.
    pub current: Ca,
    /// Will sign the leaves next.
    pub next: Option<Ca>,
    /// Signed the leaves before; still trusted.
    pub previous: Option<CaCertificate>,
    /// The phase of the rotation.
    pub phase: RotationPhase,
    /// When this phase was entered, by the clock of the replica that entered it: for readers of the Secret.
    /// Waits do not start from it, see [`Facts::observed`].
    pub since: Timestamp,
    /// The last request for a new CA that was answered.
    pub answered: Option<String>,
}

/// The facts for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// The bundles of all our webhook items as last read, `None` if they could not be read.
    pub published: Option<Vec<String>>,
    /// How long this replica has seen the present phase, by its monotonic clock. If a wait started from a
    /// written time, one replica with a wrong clock could cut it short or make it endless. The price: a
    /// replica that starts in the middle of a wait begins it again.
    pub observed: Duration,
    /// The request for a new CA on the Secret, if any.
    pub asked: Option<String>,
}

/// One step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Make a next CA.
    Introduce,
    /// Record that all configurations have it.
    Carried,
    /// Let it sign.
    Switch,
    /// Drop the old one.
    Retire,
    /// The CA has expired: a new one signs immediately, because there is no valid one to keep.
    Replace,
}

impl RotationStep {
    /// Whether [`RotationState::after`] needs a fresh CA for this step.
    pub fn needs_ca(self, state: &RotationState) -> bool {
        match self {
            Self::Introduce => true,
            Self::Replace => state.next.is_none(),
            Self::Carried | Self::Switch | Self::Retire => false,
        }
    }
}

/// The next step, or `None` if there is nothing to do now.
///
/// A CA is due when less than a third of the configured lifetime is left.
pub fn step(
    state: &RotationState,
    now: Timestamp,
    facts: &Facts,
    times: &Certificates,
) -> Option<RotationStep> {
    if now >= state.current.certificate.ends {
        return Some(RotationStep::Replace);
    }
    match state.phase {
        RotationPhase::Steady => {
            // A request during a rotation is answered by the next rotation: it may have been made for a key
            // that is already being replaced, or for the new one.
            let asked = facts.asked.is_some() && facts.asked != state.answered;
            (asked || now >= renew_at(&state.current.certificate, times.ca_lifetime))
                .then_some(RotationStep::Introduce)
        }
        RotationPhase::Introducing => {
            let next = state.next.as_ref()?.certificate.to_pem();
            let published = facts.published.as_ref()?;
            published.iter().all(|bundle| bundle.contains(&next)).then_some(RotationStep::Carried)
        }
        RotationPhase::Introduced => {
            (facts.observed >= times.ca_introduce_wait).then_some(RotationStep::Switch)
        }
        RotationPhase::Retiring => {
            (facts.observed >= times.ca_retire_wait).then_some(RotationStep::Retire)
        }
    }
}

/// The time until the next step is due by time alone; `None` if something must be observed first.
pub fn wait(
    state: &RotationState,
    now: Timestamp,
    facts: &Facts,
    times: &Certificates,
) -> Option<Duration> {
    let rest = |margin: Duration| Some(margin.saturating_sub(facts.observed));
    match state.phase {
        RotationPhase::Steady => {
            let at = renew_at(&state.current.certificate, times.ca_lifetime);
            Some(at.duration_since(now).try_into().unwrap_or_default())
        }
        RotationPhase::Introducing => None,
        RotationPhase::Introduced => rest(times.ca_introduce_wait),
        RotationPhase::Retiring => rest(times.ca_retire_wait),
    }
}

fn renew_at(ca: &CaCertificate, lifetime: Duration) -> Timestamp {
    // Relative to the end, not the begin: the begin is backdated to that of the first CA.
    ca.ends.checked_sub(lifetime / 3).unwrap_or(Timestamp::MIN)
}

impl RotationState {
    /// The state for a cluster without a CA. `asked` is the request on the Secret: the first CA answers it.
    pub fn first(ca: Ca, now: Timestamp, asked: Option<String>) -> Self {
        let (phase, answered) = (RotationPhase::Steady, asked);
        Self { current: ca, next: None, previous: None, phase, since: now, answered }
    }

    /// What to write if the Secret was lost but this replica still knows its content: the old CA continues to
    /// sign while a new one is introduced, so that no call fails. A Secret that was deleted because its
    /// key leaked gets a new key as well.
    #[must_use]
    pub fn succeed(&self, fresh: Ca, now: Timestamp, asked: Option<String>) -> Self {
        Self {
            current: self.current.clone(),
            next: Some(fresh),
            previous: self.previous.clone(),
            phase: RotationPhase::Introducing,
            since: now,
            answered: asked,
        }
    }

    /// The state after a step that was chosen from `facts`. `fresh` is used if [`RotationStep::needs_ca`]; without it
    /// such a step changes nothing.
    #[must_use]
    pub fn after(
        &self,
        step: RotationStep,
        now: Timestamp,
        facts: &Facts,
        fresh: Option<Ca>,
    ) -> Self {
        let mut after = Self { since: now, ..self.clone() };
        match step {
            RotationStep::Introduce => {
                let Some(ca) = fresh else { return self.clone() };
                after.next = Some(ca);
                after.phase = RotationPhase::Introducing;
                after.answered.clone_from(&facts.asked);
            }
            RotationStep::Carried => after.phase = RotationPhase::Introduced,
            RotationStep::Switch | RotationStep::Replace => {
                let Some(ca) = after.next.take().or(fresh) else { return self.clone() };
                after.previous = Some(self.current.certificate.clone());
                after.current = ca;
                after.phase = RotationPhase::Retiring;
            }
            RotationStep::Retire => {
                after.previous = None;
                after.phase = RotationPhase::Steady;
            }
        }
        after
    }

    /// The PEM bundle for the configurations: current, next, previous.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|ca| &ca.certificate);
        [Some(&self.current.certificate), next, self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(CaCertificate::to_pem)
            .collect()
    }
}

#[cfg(test)]
mod tests;
