//! One leader Service of a source: its election, its slices, its drift and its mirror.
//!
//! Order of the steps: taking out and switching first (the failover path), then the leader Service,
//! then its mirror.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointPort;
use serde_json::json;

use super::elect::{self, Choice, Incumbent, Rules};
use super::hold::followed;
use super::mirror::{self, LeaderState};
use super::own_slices::OwnSlices;
use super::plan::Plan;
use super::ports::{self, Ports};
use super::readiness::{Findings, Routed, Strangers, Unreadable, routed};
use super::slices::{self, SliceWrite, Version};
use super::{Blocked, Context, ObjectRef, Step, bookkeeping, desired, follow};
use crate::index::Snapshot;
use crate::index::evidence::{is_orphaning, slice_name};
use crate::index::pod::{Family, Pod};
use crate::index::service::Leader;
use crate::index::slice::{Slice, Truth};
use crate::ranking;
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

/// What comes next for one leader Service.
pub(super) struct Served {
    pub(super) plan: Plan,
    /// An EndpointSlice that is not ours has the name of its lock: it cannot be served.
    pub(super) lock_taken: bool,
    /// That name, where zen-lead never wrote the EndpointSlice: garbage collection does not remove it.
    pub(super) squatted: Option<String>,
}

/// A leader Service as it is on the server.
struct Observed<'a> {
    leader: &'a Leader,
    strangers: Strangers,
    /// Its families, the lock's first.
    families: Vec<Family>,
    lock_taken: bool,
    own: OwnSlices<'a>,
    mirrored: Truth,
    incumbent: Option<Incumbent>,
    newer: Newer,
    /// Why the slices must stay as they are.
    unreadable: Option<Unreadable<'a>>,
    source_hash: String,
}

/// The outcome of the election, with the ports that are published.
struct Elected {
    choice: Choice,
    ports: Vec<EndpointPort>,
    missing_ports: Vec<String>,
    /// The pod leads but is not published: it lacks a port (ports-mode strict).
    withheld: bool,
}

/// The writes of slices, or the patch of the leader Service.
#[derive(Default)]
struct Writes<'a> {
    steps: Vec<Step>,
    /// Why the first of them is held back.
    held_back: Option<&'a Blocked>,
}

impl<'a> Case<'a> {
    /// The steps for a leader Service in their order (taking out and switching, its fields, its mirror),
    /// and what is reported about it.
    pub(super) fn serve(&self, leader: &'a Leader) -> Served {
        let seen = self.look(leader);
        let elected = self.elect(&seen);
        let slices = self.slices(&seen, &elected);
        let repair = self.repair(leader);
        let routed = routed(self.snapshot, &seen.own);
        let state = self.state(&seen, &elected, routed.as_ref(), &slices, &repair);
        let truth = seen.truth();
        let mirror = self.mirror(leader, &truth, routed.as_ref(), &state);
        let report = self.report(&seen, &elected, &truth, routed.as_ref(), &state);
        let mut steps = slices.steps;
        steps.extend(repair.steps);
        steps.extend(mirror);
        let lock = seen.own.lock_says();
        // Where no slice may be written, what is waited for never begins: the timer would come back without end.
        let may_switch = !seen.lock_taken && seen.unreadable.is_none();
        let plan = Plan {
            steps,
            marks: seen.own.marks(),
            outranked: self.is_outranked(&seen),
            may_take_over: seen.newer == Newer::Gone,
            // Without marks it is not known how far the last decision had seen.
            doubtful: lock.is_some_and(|lock| lock.epoch < seen.mirrored.epoch)
                || (lock.is_some() && seen.own.marks().lack(&self.snapshot.marks)),
            again_at: elected.choice.again_at.filter(|_| may_switch),
            report: Some(report),
            choice: Some(elected.choice),
            missing_ports: elected.missing_ports,
            ..Plan::default()
        };
        Served { plan, lock_taken: seen.lock_taken, squatted: self.squatted(&seen) }
    }

    fn look(&self, leader: &'a Leader) -> Observed<'a> {
        let snapshot = self.snapshot;
        let strangers = Strangers::beside(snapshot, leader);
        // One that was never read has the families of its source.
        let families_of = if leader.object.spec.is_some() { &leader.object } else { self.source };
        let mut families = slices::families(families_of);
        let first = families[0];
        let taken = |f: Family| strangers.hold(&slice_name(leader.name(), f));
        let lock_taken = taken(first);
        // Where another owner has the follower's name, the lock must not wait for it.
        families.retain(|f| *f == first || !taken(*f));
        let own = OwnSlices::new(&snapshot.slices, leader, &families);
        let mirrored = mirror::read(&leader.object);
        let incumbent = incumbent(snapshot, &own, &mirrored, leader, self.uid);
        let newer = newer(self.ctx, leader, &own);
        let unreadable = Unreadable::of(snapshot, leader, incumbent.as_ref());
        let source_hash = source_hash(self.source);
        Observed {
            leader,
            strangers,
            families,
            lock_taken,
            own,
            mirrored,
            incumbent,
            newer,
            unreadable,
            source_hash,
        }
    }

    /// A newer version's work is taken over: its replicas are gone.
    fn takes_over(&self, seen: &Observed<'_>) -> bool {
        seen.newer == Newer::Gone && self.ctx.takes_over
    }

    /// Over what a newer version wrote, an older one only takes pods out.
    fn is_outranked(&self, seen: &Observed<'_>) -> bool {
        seen.newer != Newer::No && !self.takes_over(seen)
    }

    fn elect(&self, seen: &Observed<'_>) -> Elected {
        let follow = follow::follow(self.snapshot, self.spec);
        let unfinished = seen.own.unfinished_switch(&seen.source_hash);
        let rules = Rules {
            spec: self.spec,
            family: seen.families[0],
            may_promote: self.valid
                && self.snapshot.pods_known
                && !self.is_outranked(seen)
                && !follow.waits()
                && seen.unreadable.is_none(),
            only: follow.only(),
            now: self.ctx.now,
            unfinished: unfinished.as_ref(),
        };
        let mut choice = elect::elect(&self.snapshot.pods, seen.incumbent.as_ref(), &rules);
        if follow.waits() {
            // They wait for no timer, and none of them can lead now.
            choice.available = 0;
        }
        let (ports, missing_ports, withheld) = slice_ports(self.source, self.spec, &choice);
        Elected { choice, ports, missing_ports, withheld }
    }

    fn slices(&self, seen: &Observed<'_>, elected: &Elected) -> Writes<'a> {
        let next = self.next_slice(seen, elected).map(|next| Step::Slice(Box::new(next)));
        let Some(step) = next else { return Writes::default() };
        let held_back = self.ctx.blocked_by(&step);
        let mut steps = vec![step];
        if held_back.is_some() {
            // What comes after it waits for it, but no other pod than the leader takes traffic meanwhile.
            let tried = steps[0].object().to_owned();
            steps.extend(self.taken_out(seen).filter(|step| step.object() != tried));
        }
        Writes { steps, held_back }
    }

    fn next_slice(&self, seen: &Observed<'_>, elected: &Elected) -> Option<slices::SliceStep> {
        let Self { snapshot, ctx, .. } = *self;
        if seen.unreadable.is_some() {
            // What is there may be right: it stays.
            return None;
        }
        if seen.lock_taken {
            // Nothing can be created under the name of another owner's slice, and without the lock no pod
            // leads.
            return seen.own.follower.and_then(|f| slices::emptied(f, snapshot.decided_at(), ctx));
        }
        let wanted = slices::Wanted {
            source: &snapshot.key.name,
            leader: seen.leader,
            families: &seen.families,
            choice: &elected.choice,
            ports: elected.ports.clone(),
            withheld: elected.withheld,
            incumbent: seen.incumbent.as_ref(),
            mirror: &seen.mirrored,
            marks: snapshot.decided_at(),
            source_hash: seen.source_hash.clone(),
            writer: ctx.writer,
            version: if self.takes_over(seen) {
                Version::Back(ctx.version)
            } else {
                Version::AtLeast(ctx.version)
            },
            now: ctx.now,
            pods: &snapshot.pods,
            deselected: &snapshot.deselected,
        };
        let readable = seen.leader.unreadable.is_none();
        let may_create = self.source.metadata.deletion_timestamp.is_none()
            && !seen.leader.deleting()
            && readable;
        slices::next(&wanted, &seen.own)
            .filter(|next| may_create || !matches!(next.write, SliceWrite::Create(_)))
            .filter(|next| readable || !matches!(next.write, SliceWrite::Delete { .. }))
    }

    /// The writes that take pods out of the slices of a leader Service: those that cannot take traffic,
    /// and beside a lock that routes one pod all others.
    fn taken_out(&self, seen: &Observed<'_>) -> impl Iterator<Item = Step> {
        let lock = seen.own.lock.map(|lock| &lock.name);
        let routed = seen.own.routed().map(|(uid, _)| uid);
        let truth = seen.own.lock_says().unwrap_or(&seen.mirrored);
        let follow = move |slice: &Slice| {
            let only = routed.filter(|_| lock != Some(&slice.name));
            followed(slice, truth, only, self.snapshot, self.ctx)
        };
        let steps = self.snapshot.slices_of(seen.leader).filter_map(follow);
        steps.filter(|next| next.urgent).map(|next| Step::Slice(Box::new(next)))
    }

    /// It routes without this, but is not in everything as the source asks.
    fn repair(&self, leader: &Leader) -> Writes<'a> {
        if leader.deleting() || leader.unreadable.is_some() {
            return Writes::default();
        }
        let leaves = is_orphaning(&self.source.metadata);
        let name = &self.snapshot.key.name;
        let signs = bookkeeping::repair(&leader.object, name, self.uid, leaves);
        let drift = desired::repair(&leader.object, self.source, self.spec, self.ctx.version);
        let patch = bookkeeping::both(drift.filter(|_| self.valid), signs);
        let step = patch.map(|patch| Step::PatchLeader(ObjectRef::as_seen(&leader.object), patch));
        let held_back = step.as_ref().and_then(|step| self.ctx.blocked_by(step));
        Writes { steps: step.into_iter().collect(), held_back }
    }

    /// What the condition says: what is routed, by the lock as it is on the server.
    fn state(
        &self,
        seen: &Observed<'_>,
        elected: &Elected,
        routed: Option<&Routed>,
        slices: &Writes<'_>,
        repair: &Writes<'_>,
    ) -> LeaderState {
        let mut state = Findings {
            choice: &elected.choice,
            routed,
            strangers: &seen.strangers,
            missing_ports: elected.withheld.then_some(&elected.missing_ports),
            held_back: slices.held_back,
            valid: self.valid,
            unreadable: seen.unreadable.as_ref(),
        }
        .state();
        if let Some(blocked) = repair.held_back {
            state.message = format!("{}; {}", state.message, blocked.message);
        }
        state
    }

    fn mirror(
        &self,
        leader: &Leader,
        truth: &Truth,
        routed: Option<&Routed>,
        state: &LeaderState,
    ) -> Option<Step> {
        if leader.unreadable.is_some() {
            return None;
        }
        let settings = self.valid.then(|| settings::settings_json(self.spec));
        let name = routed.map(|r| r.name.as_str());
        mirror::step(leader, truth, name, state, settings, self.ctx.now)
    }

    fn report(
        &self,
        seen: &Observed<'_>,
        elected: &Elected,
        truth: &Truth,
        routed: Option<&Routed>,
        state: &LeaderState,
    ) -> ServiceReport {
        let choice = &elected.choice;
        let pod = |uid: &str| choice.standings.iter().find(|(pod, _)| *pod.uid == *uid);
        let leader = routed.and_then(|r| pod(&r.uid)).map(|(pod, _)| pod);
        let stays = seen.unreadable.is_some() && state.ready;
        // Without its lock a follower still routes its pod.
        let fit = |uid: &str| self.snapshot.pod(uid).is_some_and(Pod::eligible);
        let follower = seen.own.follower.filter(|follower| follower.tied);
        let others = seen.strangers.route() || follower.is_some_and(|f| f.routed_pods().any(fit));
        ServiceReport {
            leader_since: truth.switched_at.filter(|_| leader.is_some() || stays),
            leader_pod_created: leader.map(|p| p.created),
            pods_available: choice.available,
            endpoints: usize::from(state.ready || others),
            epoch: truth.epoch,
            stable: state.ready
                && choice.not_ready_since.is_none()
                && elected.missing_ports.is_empty(),
            leader_service: true,
            slices: seen.own.count(),
        }
    }

    fn squatted(&self, seen: &Observed<'_>) -> Option<String> {
        let name = slice_name(seen.leader.name(), seen.families[0]);
        let squats = |s: &Arc<Slice>| *s.name == *name && !(s.managed && s.stamped);
        (seen.lock_taken && self.snapshot.slices.iter().any(squats)).then_some(name)
    }
}

impl Observed<'_> {
    /// The truth about the leader. A lock behind the mirror was changed by hand, or read before the mirror:
    /// epochs only grow.
    fn truth(&self) -> Truth {
        let lock = self.own.lock_says().filter(|lock| lock.epoch >= self.mirrored.epoch);
        lock.unwrap_or(&self.mirrored).clone()
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
fn newer(ctx: &Context<'_>, leader: &Leader, own: &OwnSlices<'_>) -> Newer {
    let writers = own.newer_writers(ctx.version);
    if writers.is_empty() && leader.decision_version() <= ctx.version {
        return Newer::No;
    }
    let ready = |name: &str| ctx.replicas.iter().any(|r| r == name);
    if ready(ctx.writer) && !writers.iter().any(|w| ready(w)) { Newer::Gone } else { Newer::Alive }
}

/// The last leader: as the lock slice says; where that is gone, as follower or mirror say, whichever
/// is newer; for a renamed leader Service, as the slices of the old name say.
fn incumbent(
    snapshot: &Snapshot,
    own: &OwnSlices<'_>,
    mirrored: &Truth,
    leader: &Leader,
    uid: &str,
) -> Option<Incumbent> {
    let named = |t: &Truth| t.pod_uid.is_some();
    let second = || {
        let follower = own.follower_says().cloned().unwrap_or_default();
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
    let truth = match own.lock_says() {
        // Whatever its annotations and labels were made to say, the endpoint still says it.
        Some(lock) => match own.leads() {
            Some((uid, name)) => Truth {
                pod_uid: Some(uid.to_owned()),
                pod_name: Some(name.to_owned()),
                ..lock.clone()
            },
            None => lock.clone(),
        },
        None => second().or_else(old_name)?,
    };
    let uid = truth.pod_uid?;
    // Its annotation may be lost or changed. The pod knows its name, and so does the mirror.
    let pod = snapshot.pod(&uid).map(|pod| pod.name.to_string());
    let last = || mirrored.pod_name.clone().filter(|_| mirrored.pod_uid.as_ref() == Some(&uid));
    Some(Incumbent {
        name: pod.or(truth.pod_name).or_else(last),
        uid,
        not_ready_since: truth.not_ready_since,
    })
}

/// Resolves the ports for the chosen pod; strict mode publishes no pod when one is missing.
fn slice_ports(
    source: &Service,
    spec: &LeaderSpec,
    choice: &Choice,
) -> (Vec<EndpointPort>, Vec<String>, bool) {
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

/// Hash of everything a source asks for that a decision depends on.
pub fn source_hash(source: &Service) -> String {
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
