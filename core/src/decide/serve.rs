//! One leader Service of a source: its election, its slices, its drift and its mirror.
//!
//! Order of the steps: taking out and switching first (the failover path), then the leader Service,
//! then its mirror.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::elect::{self, Choice, Incumbent, Rules};
use super::hold::followed;
use super::mirror::{self, Readiness};
use super::ports::{self, Ports};
use super::readiness::{Findings, Routed, Strangers, routed, unreadable};
use super::routing::Routing;
use super::slices::{self, Present, SliceWrite, Version};
use super::{Context, Step, Target, bookkeeping, desired, follow};
use crate::index::Snapshot;
use crate::index::evidence::{is_orphaning, slice_name};
use crate::index::pod::{Family, Pod};
use crate::index::service::Leader;
use crate::index::slice::{Slice, Truth};
use crate::keys::status;
use crate::ranking;
use crate::reason::Reason;
use crate::report::ServiceReport;
use crate::settings::{self, LeaderSpec};

/// What the leader Services of one source are served with.
pub(super) struct Case<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) ctx: &'a Context<'a>,
    pub(super) source: &'a Service,
    pub(super) uid: &'a str,
    pub(super) spec: &'a LeaderSpec,
    pub(super) valid: bool,
}

impl Case<'_> {
    /// Adds the steps for a leader Service, and the report about the first one.
    pub(super) fn serve(&self, routing: &mut Routing, leader: &Arc<Leader>) {
        let Self { snapshot, ctx, source, uid, spec, valid } = *self;
        let strangers = Strangers::beside(snapshot, leader);
        // One that was never read has the families of its source.
        let families_of = if leader.object.spec.is_some() { &leader.object } else { source };
        let mut families = slices::families(families_of);
        let taken = |f: Family| strangers.hold(&slice_name(leader.name(), f));
        // Where somebody else has the follower's name, the lock must not wait for it.
        families.retain({
            let first = families[0];
            move |f| *f == first || !taken(*f)
        });
        let present = Present::new(&snapshot.slices, leader, &families);
        let truth = present.lock_says().cloned();
        let mirrored = mirror::read(&leader.object);
        let incumbent = incumbent(snapshot, &present, &mirrored, leader, uid);
        let newer = newer(ctx, leader, &present);
        let takes_over = newer == Newer::Gone && ctx.takes_over;
        let outranked = newer != Newer::No && !takes_over;
        let asked = asked(source);
        let begun = present.begun(&asked);
        let follow = follow::follow(snapshot, spec);
        let unread = unreadable(snapshot, leader, incumbent.as_ref());
        let rules = Rules {
            spec,
            family: families[0],
            // Over what a newer version wrote, an older one only takes out.
            may_promote: valid
                && snapshot.pods_known
                && !outranked
                && !follow.waits()
                && unread.is_none(),
            only: follow.only(),
            now: ctx.now,
            begun: begun.as_ref(),
        };
        let mut choice = elect::elect(&snapshot.pods, incumbent.as_ref(), &rules);
        if follow.waits() {
            // They wait for no timer, and none of them can lead now.
            choice.available = 0;
        }
        let (slice_ports, missing, ports_failed) = slice_ports(source, spec, &choice);
        routing.marks = routing.marks.max(present.marks());
        routing.outranked |= outranked;
        routing.taken |= taken(families[0]);
        let lock_name = slice_name(leader.name(), families[0]);
        let squats = |s: &&Arc<Slice>| *s.name == *lock_name && !(s.managed && s.stamped);
        if taken(families[0]) && snapshot.slices.iter().any(|s| squats(&s)) {
            routing.squatted = Some(lock_name);
        }
        routing.may_take_over |= newer == Newer::Gone;
        routing.doubtful |= truth.as_ref().is_some_and(|t| t.epoch < mirrored.epoch);
        routing.again_at = elect::earliest(routing.again_at, choice.again_at);

        let wanted = slices::Wanted {
            source: &snapshot.key.name,
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
        let refused = next.as_ref().and_then(|step| ctx.blocked_by(step));
        let tried = next.as_ref().filter(|_| refused.is_some()).map(|s| s.object().to_owned());
        routing.steps.extend(next);
        if let Some(tried) = tried {
            // What comes after it waits for it, but no other pod than the leader takes traffic meanwhile.
            let taken_out = self.taken_out(leader, &present, truth.as_ref().unwrap_or(&mirrored));
            routing.steps.extend(taken_out.filter(|step| step.object() != tried));
        }
        // It routes all the same, but is not in everything as the source asks.
        let mut unpatched = None;
        if !leader.deleting() && known {
            let leaves = is_orphaning(&source.metadata);
            let signs = bookkeeping::repair(&leader.object, &snapshot.key.name, uid, leaves);
            let drift = desired::repair(&leader.object, source, spec, ctx.version);
            let drift = drift.filter(|_| valid);
            if let Some(patch) = bookkeeping::both(drift, signs) {
                let patch = Step::PatchLeader(Target::as_seen(&leader.object), patch);
                unpatched = ctx.blocked_by(&patch);
                routing.steps.push(patch);
            }
        }
        // What is reported is what is routed: by the lock as it is on the server.
        let routed = routed(snapshot, &present);
        let mut state = Findings {
            choice: &choice,
            routed: routed.as_ref(),
            strangers: &strangers,
            missing_ports: ports_failed.then_some(&missing),
            refused,
            valid,
        }
        .readiness();
        let stays = unread.is_some();
        if let Some((known, message)) = unread {
            // Replicas that knew the object before, and that did not, say the same of a slice.
            let message = if known { format!("{message}; {}", state.message) } else { message };
            let ready = known && routed.is_some();
            state = Readiness { ready, reason: Reason::Unreadable, message };
        }
        if let Some(blocked) = unpatched {
            state.message = format!("{}; {}", state.message, blocked.message);
        }
        // A slice behind the mirror was changed by hand, or read before the mirror: epochs only grow.
        let truth = truth.filter(|t| t.epoch >= mirrored.epoch).unwrap_or_else(|| mirrored.clone());
        let settings = valid.then(|| settings::settings_json(spec));
        let name = routed.as_ref().map(|r| r.name.as_str());
        let mirror = mirror::wanted(leader, &truth, name, &state, settings, ctx.now);
        if known && !mirror::says(&leader.object, &mirror) {
            let notices = mirror::notices(leader, &truth, &state);
            // With its version: a late writer must not take the epoch back.
            let target = Target::as_seen(&leader.object);
            routing.steps.push(Step::Mirror(target, Box::new(mirror), notices));
        }
        // The leader Service that is asked for is served first; the report is about that one.
        if routing.report.is_none() {
            let mut report = report(&choice, &truth, &present, routed.as_ref(), &state, &missing);
            if stays && state.ready {
                report.leader_since = truth.switched_at;
            }
            // Without its lock a follower still routes its pod.
            let follows = present.follower().filter(|follower| follower.tied);
            let fit = |uid: &str| snapshot.pod(uid).is_some_and(Pod::eligible);
            if strangers.route() || follows.is_some_and(|f| f.routed_pods().any(fit)) {
                report.endpoints = 1;
            }
            routing.report = Some(report);
            routing.missing_ports = missing;
            routing.choice = Some(choice);
        }
    }
}

impl Case<'_> {
    /// The writes that take pods out of the slices of a leader Service: those that cannot take traffic,
    /// and beside a lock that routes one pod all others.
    fn taken_out(
        &self,
        leader: &Leader,
        present: &Present<'_>,
        truth: &Truth,
    ) -> impl Iterator<Item = Step> {
        let lock = present.lock().map(|lock| &lock.name);
        let routed = present.routed().map(|(uid, _)| uid);
        let follow = move |slice: &Slice| {
            let only = routed.filter(|_| lock != Some(&slice.name));
            followed(slice, truth, only, self.snapshot, self.ctx)
        };
        let steps = self.snapshot.slices_of(leader).filter_map(follow);
        steps.filter(|next| next.urgent).map(|next| Step::Slice(Box::new(next)))
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
    uid: &str,
) -> Option<Incumbent> {
    let named = |t: &Truth| t.pod_uid.is_some();
    let second = || {
        let follower = present.follower_says().cloned().unwrap_or_default();
        let newer = if follower.epoch >= mirrored.epoch { follower } else { mirrored.clone() };
        Some(newer).filter(named)
    };
    let old_name = || {
        let others = snapshot.leaders.iter().filter(|l| l.uid() != leader.uid());
        let ours = others.filter(|l| snapshot.owns(l, uid));
        let ours = ours.map(|l| &**l);
        let slices = ours.flat_map(|leader| snapshot.slices_of(leader));
        slices.map(Slice::truth).filter(named).max_by_key(|t| t.epoch)
    };
    let truth = match present.lock_says() {
        // Whatever its annotations were made to say, the endpoint still says it.
        Some(lock) => Truth {
            pod_uid: present.routed().map(|(uid, _)| uid.to_owned()).or(lock.pod_uid.clone()),
            ..lock.clone()
        },
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

fn report(
    choice: &Choice,
    truth: &Truth,
    present: &Present<'_>,
    routed: Option<&Routed>,
    state: &Readiness,
    missing: &[String],
) -> ServiceReport {
    let leads = |uid: &str| choice.standings.iter().find(|(pod, _)| *pod.uid == *uid);
    let leader = routed.and_then(|r| leads(&r.uid)).map(|(pod, _)| pod);
    ServiceReport {
        leader_since: leader.and(truth.switched_at),
        leader_pod_created: leader.map(|p| p.created),
        pods_available: choice.available,
        endpoints: usize::from(state.ready),
        epoch: truth.epoch,
        stable: state.ready && choice.not_ready_since.is_none() && missing.is_empty(),
        leader_service: true,
        slices: present.count(),
    }
}

/// Hash of everything a source asks for that a decision depends on.
fn asked(source: &Service) -> String {
    let spec = source.spec.clone().unwrap_or_default();
    let settings: Vec<_> = source.metadata.annotations.iter().flat_map(settings::ours).collect();
    let text = json!([
        source.metadata.uid,
        spec.selector,
        spec.ports,
        spec.ip_families,
        spec.ip_family_policy,
        spec.type_,
        settings
    ]);
    format!("{:016x}", ranking::hash(&[&text.to_string()]))
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a String> {
    service.metadata.annotations.as_ref()?.get(key)
}
