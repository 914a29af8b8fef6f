//! One leader Service of a source: its election, its slices, its drift and its mirror.
//!
//! Order of the steps: taking out and switching first (the failover path), then the leader Service,
//! then its mirror.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::elect::{self, Choice, Incumbent, Rules, Standing};
use super::mirror::{self, Readiness};
use super::ports::{self, Ports};
use super::routing::Routing;
use super::slices::{self, Present, SliceWrite, Version};
use super::{Blocked, Context, Step, Target, desired};
use crate::events::Reason;
use crate::index::Snapshot;
use crate::index::pod::Family;
use crate::index::service::Leader;
use crate::index::slice::Truth;
use crate::keys::{self, status};
use crate::metrics::ServiceReport;
use crate::replica;
use crate::spec::{self, LeaderSpec};

/// What the leader Services of one source are served with.
pub(super) struct Case<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) ctx: &'a Context<'a>,
    pub(super) source: &'a Service,
    pub(super) spec: &'a LeaderSpec,
    pub(super) valid: bool,
}

impl Case<'_> {
    /// Adds the steps for a leader Service, and the report about the first one.
    pub(super) fn serve(&self, routing: &mut Routing, leader: &Arc<Leader>) {
        let Self { snapshot, ctx, source, spec, valid } = *self;
        let foreign = foreign(snapshot, leader);
        // One that was never read has the families of its source.
        let families_of = if leader.object.spec.is_some() { &leader.object } else { source };
        let mut families = slices::families(families_of);
        let taken = |f: Family| foreign.contains(&slices::slice_name(leader.name(), f));
        // Where somebody else has the follower's name, the lock must not wait for it.
        families.retain({
            let first = families[0];
            move |f| *f == first || !taken(*f)
        });
        let present = Present::new(&snapshot.slices, leader, &families);
        let truth = present.lock_says().cloned();
        let mirrored = mirror::read(&leader.object);
        let incumbent = incumbent(snapshot, &present, &mirrored, leader);
        let newer = newer(ctx, leader, &present);
        let takes_over = newer == Newer::Gone && ctx.takes_over;
        let outranked = newer != Newer::No && !takes_over;
        let asked = asked(source);
        let begun = present.begun(&asked);
        let unread = unreadable(snapshot, leader, incumbent.as_ref());
        let rules = Rules {
            spec,
            family: families[0],
            // Over what a newer version wrote, an older one only takes out.
            may_promote: valid && snapshot.pods_known && !outranked && unread.is_none(),
            now: ctx.now,
            begun: begun.as_ref(),
        };
        let choice = elect::elect(&snapshot.pods, incumbent.as_ref(), &rules);
        let (slice_ports, missing, ports_failed) = slice_ports(source, spec, &choice);
        routing.marks = routing.marks.max(present.marks());
        routing.outranked |= outranked;
        routing.taken |= taken(families[0]);
        routing.may_take_over |= newer == Newer::Gone;
        routing.doubtful |= truth.as_ref().is_some_and(|t| t.epoch < mirrored.epoch);
        routing.again_at = elect::earliest(routing.again_at, choice.again_at);

        let wanted = slices::Wanted {
            leader,
            families: &families,
            choice: &choice,
            ports: slice_ports,
            withheld: ports_failed,
            incumbent: incumbent.as_ref(),
            mirror: &mirrored,
            marks: snapshot.marks,
            asked,
            writer: ctx.writer,
            version: if takes_over {
                Version::Back(ctx.version)
            } else {
                Version::AtLeast(ctx.version)
            },
            now: ctx.now,
            pods: &snapshot.pods,
            deselected: &snapshot.deselected,
        };
        let known = leader.unreadable.is_none();
        let may_create =
            source.metadata.deletion_timestamp.is_none() && !leader.deleting() && known;
        let next = if unread.is_some() {
            // What is there may be right: it stays.
            None
        } else if taken(families[0]) {
            // Nothing can be created under the name of somebody else's slice, and without the lock
            // nobody leads.
            present.follower().and_then(|f| slices::emptied(f, snapshot.marks, ctx))
        } else {
            slices::next(&wanted, &present)
                .filter(|next| may_create || !matches!(next.write, SliceWrite::Create(_)))
                .filter(|next| known || !matches!(next.write, SliceWrite::Delete { .. }))
        };
        let next = next.map(|next| Step::Slice(Box::new(next)));
        let lagging = next.is_some();
        let refused = next.as_ref().and_then(|step| ctx.blocked_by(step));
        routing.steps.extend(next);
        if valid && !leader.deleting() && known {
            mend(routing, source, leader, spec, ctx.version);
        }
        let failed = ports_failed.then_some(&missing);
        let chosen = choice.endpoint.as_ref().map(|(p, _)| &*p.uid);
        let routed = present.lock().is_some_and(|s| s.routed_pods().any(|u| Some(u) == chosen));
        let refused = refused.filter(|_| !routed);
        // What is chosen is told as done only where it is, or is about to be.
        let done = routed || ports_failed || (lagging && refused.is_none());
        let mut state = readiness(&choice, done, &foreign, failed, refused, valid);
        let stays = unread.is_some();
        if let Some((known, message)) = unread {
            let named = present.lock().is_some_and(|s| s.routed_pods().next().is_some());
            let message = format!("{message}; {}", state.message);
            state = Readiness { ready: known && named, reason: Reason::Unreadable, message };
        }
        let truth = truth.unwrap_or_else(|| mirrored.clone());
        if !leader.deleting() && known {
            let settings = valid.then(|| spec::settings_json(spec));
            let mirror = mirror::wanted(leader, &truth, &state, settings, ctx.now);
            if !mirror::says(&leader.object, &mirror) {
                let notices = mirror::notices(leader, &truth, &state);
                // With its version: a late writer must not take the epoch back.
                let target = Target::as_seen(&leader.object);
                routing.steps.push(Step::Mirror(target, Box::new(mirror), notices));
            }
        }
        // The leader Service that is asked for is served first; the report is about that one.
        if routing.report.is_none() {
            let mut report = report(&choice, &truth, &present, &state, &missing);
            if stays && state.ready {
                (report.endpoints, report.leader_since) = (1, truth.switched_at);
            }
            routing.report = Some(report);
            routing.missing_ports = missing;
            routing.choice = Some(choice);
        }
    }
}

/// Whether a newer version of zen-lead wrote the leader Service or its slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newer {
    /// No.
    No,
    /// Yes, and one of the replicas that wrote them may be alive.
    Alive,
    /// Yes, and none of them is ready any longer.
    Gone,
}

/// Looks for a newer version's work. A live replica of it puts its version and its name on a slice
/// at once, so that one on the leader Service alone is a remainder. Only who sees itself among the
/// ready replicas can say of others that they are gone.
fn newer(ctx: &Context<'_>, leader: &Leader, present: &Present<'_>) -> Newer {
    let service: u32 = annotation(&leader.object, status::DECISION_VERSION)
        .and_then(|v| v.parse().ok())
        .unwrap_or_default();
    let writers = present.newer_writers(ctx.version);
    if writers.is_empty() && service <= ctx.version {
        return Newer::No;
    }
    let ready = |name: &str| ctx.replicas.iter().any(|r| r == name);
    if ready(ctx.writer) && !writers.iter().any(|w| ready(w)) { Newer::Gone } else { Newer::Alive }
}

/// The last leader: as the lock slice says; where that is gone, as follower or mirror say, whichever
/// is newer; for a renamed leader Service, as the slices of the old name say.
fn incumbent(
    snapshot: &Snapshot,
    present: &Present<'_>,
    mirrored: &Truth,
    leader: &Leader,
) -> Option<Incumbent> {
    let named = |t: &Truth| t.pod_uid.is_some();
    let second = || {
        let follower = present.follower_says().cloned().unwrap_or_default();
        let newer = if follower.epoch >= mirrored.epoch { follower } else { mirrored.clone() };
        Some(newer).filter(named)
    };
    let old_name = || {
        let others = snapshot.leaders.iter().filter(|l| l.uid() != leader.uid());
        let ours = others.filter(|l| l.managed && l.owner_uid == leader.owner_uid);
        let slices = ours.flat_map(|l| {
            snapshot.slices.iter().filter(|s| *s.service == *l.name() && s.is_ours(l.uid()))
        });
        slices.map(|s| s.truth()).filter(named).max_by_key(|t| t.epoch)
    };
    let truth = match present.lock_says() {
        Some(lock) => lock.clone(),
        None => second().or_else(old_name)?,
    };
    Some(Incumbent {
        uid: truth.pod_uid?,
        name: truth.pod_name,
        not_ready_since: truth.not_ready_since,
    })
}

/// Resolves the ports for the chosen pod; strict mode publishes nobody when one is missing.
fn slice_ports(
    source: &Service,
    spec: &LeaderSpec,
    choice: &Choice,
) -> (Vec<k8s_openapi::api::discovery::v1::EndpointPort>, Vec<String>, bool) {
    let Some((pod, _)) = &choice.endpoint else {
        return (ports::without_pod(source), Vec::new(), false);
    };
    match ports::resolve(source, pod, spec.ports_mode) {
        Ports::Resolved { ports, missing } => (ports, missing, false),
        Ports::Failed { missing } => {
            // It is leader all the same (its epoch is counted): the next pod would not have the
            // port either, or would hide the mistake.
            (ports::without_pod(source), missing, true)
        }
    }
}

/// Drift of the leader Service; what a selector left behind is removed by `leftovers`.
fn mend(routing: &mut Routing, source: &Service, leader: &Leader, spec: &LeaderSpec, version: u32) {
    let service = desired::leader_service(source, spec, version);
    if let Some(patch) = desired::drift(&leader.object, &service) {
        routing.steps.push(Step::PatchLeader(Target::as_seen(&leader.object), patch));
    }
}

/// Slices of the leader Service that others wrote: endpoints are the union of all slices.
fn foreign(snapshot: &Snapshot, leader: &Leader) -> Vec<String> {
    let mut names: Vec<String> = snapshot
        .slices
        .iter()
        .filter(|s| *s.service == *leader.name() && !s.is_ours(leader.uid()) && !s.deleting)
        .filter(|s| s.unreadable.is_none())
        .map(|s| s.name.to_string())
        .collect();
    names.sort();
    names
}

/// Why the slices must stay as they are: one of them cannot be read, or nothing is known of the pod
/// that leads. With it, whether they can still be taken to route.
fn unreadable(
    snapshot: &Snapshot,
    leader: &Leader,
    incumbent: Option<&Incumbent>,
) -> Option<(bool, String)> {
    let mut slices = snapshot.slices.iter().filter(|s| *s.service == *leader.name());
    if let Some((slice, error)) = slices.find_map(|s| Some((s, s.unreadable.as_ref()?))) {
        return Some((
            false,
            format!(
                "EndpointSlice {} cannot be read ({error}) and is left as it is; correct that field, \
                 or delete the EndpointSlice to have it made anew",
                slice.name
            ),
        ));
    }
    let mut pods = snapshot.pods.iter().chain(&snapshot.deselected);
    let pod = pods.find(|p| incumbent.is_some_and(|i| *i.uid == *p.uid) && p.unjudged())?;
    Some((
        true,
        format!(
            "the leading pod {} cannot be read, so it stays the leader; correct it, or delete it to \
             have another one lead",
            pod.name
        ),
    ))
}

fn readiness(
    choice: &Choice,
    done: bool,
    foreign: &[String],
    missing_ports: Option<&Vec<String>>,
    refused: Option<&Blocked>,
    valid: bool,
) -> Readiness {
    let pods = mirror::explain(choice, done);
    let not = |reason, message| Readiness { ready: false, reason, message };
    let routed = done && choice.endpoint.as_ref().is_some_and(|(_, c)| c.ready);
    if !foreign.is_empty() {
        let names = foreign.join(", ");
        return not(
            Reason::ForeignEndpoints,
            format!(
                "EndpointSlices not written by zen-lead add endpoints to this Service: {names}; \
                 delete them; {pods}"
            ),
        );
    }
    if let Some(blocked) = refused {
        return not(blocked.reason, format!("{}; {pods}", blocked.message));
    }
    if let Some(missing) = missing_ports {
        let names = missing.join(", ");
        return not(
            Reason::PortResolutionFailed,
            format!(
                "the leader has no container port named {names}; add it to the pod or set {}: \
                 partial; {pods}",
                keys::setting::PORTS_MODE
            ),
        );
    }
    if routed {
        return Readiness { ready: true, reason: Reason::LeaderRoutingAvailable, message: pods };
    }
    if choice.standings.is_empty() {
        return not(Reason::NoPodsFound, pods);
    }
    let message = if !valid {
        format!("no new leader while the source is invalid; {pods}")
    } else if choice.available > 0 {
        format!("waiting for failover-min-delay or min-ready-duration; {pods}")
    } else {
        pods
    };
    not(Reason::NoReadyPods, message)
}

fn report(
    choice: &Choice,
    truth: &Truth,
    present: &Present<'_>,
    state: &Readiness,
    missing: &[String],
) -> ServiceReport {
    let leader = choice.standings.iter().find(|(_, s)| *s == Standing::Leads).map(|(p, _)| p);
    ServiceReport {
        leader_since: leader.and(truth.switched_at),
        leader_pod_created: leader.map(|p| p.created),
        pods_available: choice.available,
        endpoints: usize::from(leader.is_some() && state.ready),
        epoch: truth.epoch,
        stable: state.ready && choice.not_ready_since.is_none() && missing.is_empty(),
        leader_service: true,
        slices: present.count(),
    }
}

/// Hash of everything a source asks for that a decision depends on.
fn asked(source: &Service) -> String {
    let spec = source.spec.clone().unwrap_or_default();
    let settings: Vec<(&String, &String)> = source
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(k, _)| k.starts_with(keys::PREFIX))
        .collect();
    let text = json!([
        source.metadata.uid,
        spec.selector,
        spec.ports,
        spec.ip_families,
        spec.ip_family_policy,
        spec.type_,
        settings
    ]);
    format!("{:016x}", replica::hash(&[&text.to_string()]))
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a String> {
    service.metadata.annotations.as_ref()?.get(key)
}
