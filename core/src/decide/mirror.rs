//! What the leader Service says about the truth in its slice, and what the source says of problems.
//!
//! Copies for people, `kubectl wait` and events: nothing here decides who leads.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_core::ResourceExt;

use super::elect::{Choice, Standing};
use super::slices::Switch;
use super::{Notice, ObjectRef, Step};
use crate::index::pod::Pod;
use crate::index::service::{Leader, own_conditions};
use crate::index::slice::Truth;
use crate::keys::{self, status};
use crate::reason::Reason as EventReason;

/// Pods named in a condition before the rest is summed up.
const PODS_NAMED: usize = 10;

/// How old a switch may be whose Event a new replica sends, in case it was not sent.
const MISSED: SignedDuration = SignedDuration::from_mins(10);

/// Annotations and conditions of the leader Service, in one apply of its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Annotations: a copy of the lock slice's truth and the effective settings.
    pub annotations: BTreeMap<String, String>,
    /// Conditions of our types.
    pub conditions: Vec<Condition>,
    /// Only the message of a condition differs from what is there.
    pub rewording: bool,
}

/// The state of a leader Service, for its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderState {
    /// A leader is routed, and only that one.
    pub ready: bool,
    /// Reason in CamelCase.
    pub reason: EventReason,
    /// One line.
    pub message: String,
}

/// What the leader Service's annotations say of the last switch.
pub fn read(leader: &Service) -> Truth {
    Truth::of_switch(leader.annotations())
}

/// Whether the leader Service's annotations say that a pod leads now.
pub(super) fn names_leader(leader: &Service) -> bool {
    leader.annotations().get(status::CURRENT_LEADER).is_some_and(|name| !name.is_empty())
}

/// The mirror the leader Service should carry. `routed` is the name of the pod that its slice routes to
/// on the server now.
fn wanted(
    leader: &Leader,
    truth: &Truth,
    routed: Option<&str>,
    state: &LeaderState,
    settings: Option<String>,
    now: Timestamp,
) -> Mirror {
    let namespace = leader.object.metadata.namespace.as_deref().unwrap_or_default();
    let leading = routed.filter(|_| state.ready);
    let routed = leading.map(|name| format!("{namespace}/{name}")).unwrap_or_default();
    let mut annotations = BTreeMap::from([(status::CURRENT_LEADER.to_owned(), routed)]);
    // An invalid source keeps the settings it was last served with.
    let settings = settings.or_else(|| leader.object.annotations().get(status::SETTINGS).cloned());
    for (key, value) in [
        (status::LEADER_POD_NAME, truth.pod_name.clone()),
        (status::LEADER_POD_UID, truth.pod_uid.clone()),
        (status::LAST_SWITCH_TIME, truth.switched_at.map(|t| t.to_string())),
        (status::SWITCH_REASON, truth.reason.clone()),
        (status::LEADER_EPOCH, (truth.epoch > 0).then(|| truth.epoch.to_string())),
        (status::SETTINGS, settings),
    ] {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value);
        }
    }
    let conditions = vec![condition(&leader.object, state, now)];
    Mirror { annotations, conditions, rewording: false }
}

/// The write that brings a leader Service's mirror to a state, with its Events; `None` where it is there.
pub(super) fn step(
    leader: &Leader,
    truth: &Truth,
    routed: Option<&str>,
    state: &LeaderState,
    settings: Option<String>,
    now: Timestamp,
) -> Option<Step> {
    let mut mirror = wanted(leader, truth, routed, state, settings, now);
    if matches(&leader.object, &mirror) {
        return None;
    }
    mirror.rewording = names(&leader.object, &mirror)
        && own_conditions(&leader.object)
            .map(without_message)
            .eq(mirror.conditions.iter().map(without_message));
    // With its version: a late writer must not take the epoch back.
    let target = ObjectRef::as_seen(&leader.object);
    Some(Step::Mirror(target, Box::new(mirror), notices(leader, truth, state)))
}

/// True when the leader Service carries the mirror already (times of conditions do not count).
fn matches(leader: &Service, mirror: &Mirror) -> bool {
    names(leader, mirror) && same_conditions(leader, &mirror.conditions)
}

/// True when the leader Service has the annotations of the mirror.
fn names(leader: &Service, mirror: &Mirror) -> bool {
    mirror.annotations.iter().all(|(k, v)| leader.annotations().get(k) == Some(v))
}

fn without_message(condition: &Condition) -> (&str, &str, &str) {
    (&condition.type_, &condition.status, &condition.reason)
}

/// True when the Service carries exactly these conditions of our types.
pub fn same_conditions(service: &Service, wanted: &[Condition]) -> bool {
    let plain =
        |c: &Condition| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone());
    own_conditions(service).map(plain).eq(wanted.iter().map(plain))
}

/// The LeaderReady condition; its transition time stays while its status does.
pub fn condition(service: &Service, state: &LeaderState, now: Timestamp) -> Condition {
    let status = if state.ready { "True" } else { "False" };
    let known = own_conditions(service)
        .find(|c| c.type_ == keys::CONDITION_LEADER_READY && c.status == status);
    Condition {
        type_: keys::CONDITION_LEADER_READY.into(),
        status: status.into(),
        reason: state.reason.as_str().into(),
        message: state.message.clone(),
        // Conditions carry whole seconds.
        last_transition_time: known.map_or_else(
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |c| c.last_transition_time.clone(),
        ),
        observed_generation: None,
    }
}

/// The events a change of the mirror tells: one an epoch for switches, one a change of state.
fn notices(leader: &Leader, truth: &Truth, state: &LeaderState) -> Vec<Notice> {
    let before = read(&leader.object);
    let mut notices = Vec::new();
    if truth.switched_at != before.switched_at {
        notices.extend(recorded_switch(truth, &before));
    }
    let known = own_conditions(&leader.object).find(|c| c.type_ == keys::CONDITION_LEADER_READY);
    let changed = known.is_none_or(|c| c.reason != state.reason.as_str());
    // That it is out of service is no news to the user who asked for it.
    if changed && state.reason != EventReason::NotServed {
        notices.push(Notice::of(state.reason, state.message.as_str()));
    }
    notices
}

/// The event of a switch that was just written.
pub fn switch_event(switch: &Switch) -> Notice {
    let (from, to) = (switch.from.as_deref(), &*switch.name);
    switched(switch.at, from, to, switch.reason.as_str(), switch.epoch)
}

/// The Event of the recorded switch. The previous leader is known only from a mirror that lags behind the
/// truth.
fn recorded_switch(truth: &Truth, mirror: &Truth) -> Option<Notice> {
    let from = mirror.pod_name.as_deref().filter(|_| mirror.switched_at != truth.switched_at);
    let to = truth.pod_name.as_deref().unwrap_or_default();
    let why = truth.reason.as_deref().unwrap_or_default();
    Some(switched(truth.switched_at?, from, to, why, truth.epoch))
}

fn switched(at: Timestamp, from: Option<&str>, to: &str, why: &str, epoch: u64) -> Notice {
    let what = match from {
        Some(from) => format!("leader changed from {from} to {to}"),
        None => format!("{to} leads"),
    };
    Notice {
        reason: EventReason::LeaderChanged,
        note: format!("{what} ({why}), epoch {epoch}"),
        switched_at: Some(at),
    }
}

/// The Event of the last switch, sent again by a new process or with the next switch: the replica that made
/// the switch may have died before it sent the Event, and no other would send it. Only a switch within ten
/// minutes of `now` is reported again (the clock of the replica that made it may be ahead). The name of the
/// Event makes it one Event, whichever replica writes it.
pub fn missed_event(truth: &Truth, mirror: &Truth, now: Timestamp) -> Option<Notice> {
    let age = now.duration_since(truth.switched_at?).abs();
    recorded_switch(truth, mirror).filter(|_| age <= MISSED)
}

/// Names in one line why each pod is (not) leading. No counters of changing things, nothing that
/// depends on the time of day: a message that changes by itself would be written without end, and
/// replicas whose clocks differ would write against each other.
///
/// `routed` is the uid of the pod that takes the traffic on the server now: that one leads, whatever
/// was chosen.
pub fn explain(choice: &Choice, routed: Option<&str>) -> String {
    if choice.standings.is_empty() {
        return "the selector matches no pod".into();
    }
    let leads = |pod: &Pod| routed == Some(&*pod.uid);
    let mut parts: Vec<String> = choice
        .standings
        .iter()
        .filter(|(pod, _)| leads(pod))
        .chain(choice.standings.iter().filter(|(pod, _)| !leads(pod)))
        .take(PODS_NAMED)
        .map(|(pod, standing)| match standing {
            _ if leads(pod) => format!("{} leads", pod.name),
            // Which of the two depends on the clock that is asked, and clocks differ.
            Standing::Leads | Standing::Standby | Standing::ReadyTooShort => {
                format!("{}: standby", pod.name)
            }
            other => format!("{}: {}", pod.name, other.as_str()),
        })
        .collect();
    if choice.standings.len() > PODS_NAMED {
        parts.push("and others".into());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;
