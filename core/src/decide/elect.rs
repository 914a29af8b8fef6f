//! Which pod leads: the incumbent, a successor, or none; and why each other pod does not.
//!
//! Knows pods and settings only. What is written about it is `slices` and `mirror`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strum::{IntoStaticStr, VariantArray};

use crate::index::pod::{Family, Known, Pod};
use crate::settings::LeaderSpec;

/// Why a pod became leader; the label of `zen_lead_failover_count_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum SwitchReason {
    /// There was no leader before.
    FirstLeader,
    /// The last leader's pod is gone, or the source no longer selects it.
    PodGone,
    /// The last leader's pod is being deleted.
    PodTerminating,
    /// The last leader's pod has succeeded or failed.
    PodFinished,
    /// The last leader is not Ready.
    PodNotReady,
    /// The last leader has no address of the Service's family.
    PodWithoutAddress,
    /// Another pod comes first: not sticky, or the source that is followed is led by that one.
    Preferred,
}

crate::texts!(all SwitchReason);
crate::texts!(Standing);

/// Why a pod is not leading, in words for conditions and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Standing {
    /// It leads.
    Leads,
    /// It could lead; another one does.
    Standby,
    /// Not Ready.
    #[strum(serialize = "not Ready")]
    NotReady,
    /// Ready, but not for min-ready-duration yet.
    #[strum(serialize = "Ready for less than min-ready-duration")]
    ReadyTooShort,
    /// Being deleted.
    Terminating,
    /// Succeeded or failed.
    Finished,
    /// No address of the Service's first family.
    #[strum(serialize = "no address of the Service's first IP family")]
    NoAddress,
    /// It cannot be read, or not any longer.
    #[strum(serialize = "cannot be read")]
    Unreadable,
}

/// The last pod that became leader, as the lock slice (or the mirror) names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incumbent {
    /// Uid of the pod.
    pub uid: String,
    /// Name of the pod, unless a user removed it.
    pub name: Option<String>,
    /// When it was taken out for being NotReady, if it was.
    pub not_ready_since: Option<Timestamp>,
}

/// A switch that another replica began and that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedSwitch {
    /// Uid of the pod that is to become leader.
    pub uid: String,
    /// When it was begun, by the clock of who began it.
    pub at: Timestamp,
}

/// How the endpoint of the chosen pod is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes traffic.
    pub ready: bool,
    /// Would answer.
    pub serving: bool,
    /// Being deleted.
    pub terminating: bool,
}

/// The outcome of an election.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The pod to publish, and how; `None` publishes no pod.
    pub endpoint: Option<(Arc<Pod>, Conditions)>,
    /// Set when the pod becomes leader by this decision.
    pub switch: Option<SwitchReason>,
    /// The incumbent of before is healthy: a planned switch.
    pub incumbent_healthy: bool,
    /// The incumbent is kept although NotReady, since then.
    pub not_ready_since: Option<Timestamp>,
    /// When a timer of this decision runs out.
    pub again_at: Option<Timestamp>,
    /// Ready pods that could lead.
    pub available: usize,
    /// Every selected pod and why it does not lead, by name.
    pub standings: Vec<(Arc<Pod>, Standing)>,
    /// An incumbent could be judged: whether it stayed.
    pub incumbent_stayed: Option<bool>,
}

/// What an election needs beside the pods.
pub struct Rules<'a> {
    /// Settings of the source.
    pub spec: &'a LeaderSpec,
    /// First family of the leader Service.
    pub family: Family,
    /// A new leader may be chosen; otherwise only the incumbent may stay.
    pub may_promote: bool,
    /// The uid of the only pod that may be chosen: the leader of the source that this one follows.
    pub only: Option<&'a str>,
    /// The present time.
    pub now: Timestamp,
    /// A switch that was begun: its timers have run out, by a clock that may be ahead of ours.
    /// Taking it back would have it begun again, until both clocks allow it.
    pub unfinished: Option<&'a UnfinishedSwitch>,
}

impl Rules<'_> {
    /// The time of day by which a timer of the pod to come counts.
    fn now_for(&self, pod: &Pod) -> Timestamp {
        self.unfinished.filter(|b| *b.uid == *pod.uid).map_or(self.now, |b| b.at.max(self.now))
    }
}

/// Holds the election.
pub fn elect(pods: &[Arc<Pod>], incumbent: Option<&Incumbent>, rules: &Rules<'_>) -> Choice {
    let (candidates, next_ready) = candidates(pods, incumbent, rules);
    let last = incumbent.and_then(|i| pods.iter().find(|p| *p.uid == *i.uid));
    let eligible = |p: &Arc<Pod>| p.eligible() && p.address(rules.family).is_some();
    let incumbent_healthy = last.is_some_and(eligible);

    let routed = Conditions { ready: true, serving: true, terminating: false };
    let best = candidates.first().filter(|_| rules.may_promote);
    // The followed source has another leader, which can lead here too.
    let superseded = rules.only.is_some() && best.is_some();
    let stays = incumbent_healthy && !superseded && (rules.spec.sticky || best.is_none());
    let hold = last.and_then(|pod| hold(pod, incumbent, best, rules));
    let waits_until = hold.as_ref().and_then(|hold| hold.until);
    let (endpoint, switch) = match (last, best) {
        (Some(pod), _) if stays => (Some((pod.clone(), routed)), None),
        (Some(pod), Some(first)) if incumbent_healthy && first.uid == pod.uid => {
            (Some((pod.clone(), routed)), None)
        }
        (Some(pod), _) if waits_until.is_some() => (Some((pod.clone(), out_of_service(pod))), None),
        (_, Some(first)) => {
            let reason = reason(incumbent, last, incumbent_healthy, rules);
            (Some((first.clone(), routed)), Some(reason))
        }
        // Finished pods keep an address that is given to others: they are never published.
        (Some(pod), None) if !pod.finished && pod.address(rules.family).is_some() => {
            (Some((pod.clone(), out_of_service(pod))), None)
        }
        _ => (None, None),
    };
    Choice {
        standings: standings(pods, endpoint.as_ref(), rules),
        incumbent_stayed: last.map(|_| switch.is_none() && incumbent_healthy),
        endpoint,
        switch,
        incumbent_healthy,
        not_ready_since: hold.map(|hold| hold.since),
        again_at: earliest(next_ready, waits_until),
        available: pods.iter().filter(|p| eligible(p) && p.known == Known::Now).count(),
    }
}

/// An incumbent that is not Ready and has no other fault.
struct Hold {
    /// When it was taken out for that.
    since: Timestamp,
    /// Until when failover-min-delay keeps a successor waiting; `None` once it does not.
    until: Option<Timestamp>,
}

fn hold(
    pod: &Pod,
    incumbent: Option<&Incumbent>,
    best: Option<&Arc<Pod>>,
    rules: &Rules<'_>,
) -> Option<Hold> {
    let only_not_ready = !pod.readiness.ready && !pod.terminating() && !pod.finished;
    if !only_not_ready || pod.address(rules.family).is_none() {
        return None;
    }
    let since = incumbent.and_then(|i| i.not_ready_since).unwrap_or(rules.now);
    let until = plus(since, rules.spec.failover_min_delay);
    let waits = until > best.map_or(rules.now, |p| rules.now_for(p));
    Some(Hold { since, until: waits.then_some(until) })
}

/// A terminating pod may still serve while no other pod can (KEP-1672); a NotReady one may not.
fn out_of_service(pod: &Pod) -> Conditions {
    let terminating = pod.terminating();
    Conditions { ready: false, serving: terminating && pod.readiness.ready, terminating }
}

/// The pods that may lead, best first, and when the next one may.
fn candidates(
    pods: &[Arc<Pod>],
    incumbent: Option<&Incumbent>,
    rules: &Rules<'_>,
) -> (Vec<Arc<Pod>>, Option<Timestamp>) {
    let revisions = revision_order(pods);
    let mut next = None;
    let mut found: Vec<Arc<Pod>> = Vec::new();
    let may_lead = |p: &Arc<Pod>| rules.only.is_none_or(|only| *p.uid == *only);
    for pod in
        pods.iter().filter(|p| p.eligible() && p.address(rules.family).is_some() && may_lead(p))
    {
        let is_incumbent = incumbent.is_some_and(|i| *i.uid == *pod.uid);
        // What was known before keeps a leader and makes none.
        if pod.known != Known::Now && !is_incumbent {
            continue;
        }
        match ready_long_enough_at(pod, rules) {
            Some(at) if !is_incumbent && at > rules.now_for(pod) => next = earliest(next, Some(at)),
            _ => found.push(pod.clone()),
        }
    }
    found.sort_by_cached_key(|p| {
        let age = p.template.revision.as_ref().and_then(|r| revisions.get(&*r.hash).copied());
        (age.unwrap_or(0), p.created, p.name.clone())
    });
    (found, next)
}

/// When the pod has been Ready for min-ready-duration; `None` when there is nothing to wait for.
fn ready_long_enough_at(pod: &Pod, rules: &Rules<'_>) -> Option<Timestamp> {
    if rules.spec.min_ready_duration.is_zero() {
        return None;
    }
    // Without a transition time the pod's creation is the latest moment that is certain.
    Some(plus(pod.readiness.since.unwrap_or(pod.created), rules.spec.min_ready_duration))
}

/// Rank of each revision, 0 is the newest: the one whose oldest pod is youngest. All revisions are
/// equal when the pods belong to several workloads, because nothing can be said across them.
fn revision_order(pods: &[Arc<Pod>]) -> HashMap<&str, usize> {
    let mut oldest: HashMap<&str, Timestamp> = HashMap::new();
    let mut workload = None;
    for pod in pods {
        let Some(revision) = &pod.template.revision else { return HashMap::new() };
        if *workload.get_or_insert(&revision.workload) != &revision.workload {
            return HashMap::new();
        }
        let first = oldest.entry(&revision.hash).or_insert(pod.created);
        *first = (*first).min(pod.created);
    }
    let mut order: Vec<(Timestamp, &str)> = oldest.into_iter().map(|(h, t)| (t, h)).collect();
    order.sort_by(|a, b| b.cmp(a));
    order.into_iter().enumerate().map(|(rank, (_, hash))| (hash, rank)).collect()
}

fn reason(
    incumbent: Option<&Incumbent>,
    last: Option<&Arc<Pod>>,
    healthy: bool,
    rules: &Rules<'_>,
) -> SwitchReason {
    match (incumbent, last) {
        (None, _) => SwitchReason::FirstLeader,
        (Some(_), None) => SwitchReason::PodGone,
        (Some(_), Some(_)) if healthy => SwitchReason::Preferred,
        (Some(_), Some(p)) if p.finished => SwitchReason::PodFinished,
        (Some(_), Some(p)) if p.terminating() => SwitchReason::PodTerminating,
        (Some(_), Some(p)) if p.address(rules.family).is_none() => SwitchReason::PodWithoutAddress,
        (Some(_), Some(_)) => SwitchReason::PodNotReady,
    }
}

fn standings(
    pods: &[Arc<Pod>],
    endpoint: Option<&(Arc<Pod>, Conditions)>,
    rules: &Rules<'_>,
) -> Vec<(Arc<Pod>, Standing)> {
    let leader = endpoint.filter(|(_, c)| c.ready).map(|(p, _)| p.uid.clone());
    let mut all: Vec<_> = pods
        .iter()
        .map(|p| {
            let too_short = ready_long_enough_at(p, rules).is_some_and(|at| at > rules.now);
            // What is known from before is not known to every replica, so it does not count here.
            let standing = if p.unjudged() {
                Standing::Unreadable
            } else if leader.as_ref() == Some(&p.uid) {
                Standing::Leads
            } else if p.finished && p.known == Known::Now {
                Standing::Finished
            } else if p.terminating() {
                Standing::Terminating
            } else if !p.readiness.ready {
                Standing::NotReady
            } else if p.address(rules.family).is_none() {
                Standing::NoAddress
            } else if too_short {
                Standing::ReadyTooShort
            } else {
                Standing::Standby
            };
            (p.clone(), standing)
        })
        .collect();
    all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    all
}

/// The earlier of two optional times.
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn plus(t: Timestamp, d: Duration) -> Timestamp {
    let d = SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
    t.checked_add(d).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
