//! Leader Services that are not, or no longer, asked for: their slices are emptied, then they go.
//!
//! Which ones these are is `source`'s.

use super::mirror::{self, LeaderState};
use super::plan::Plan;
use super::source::own;
use super::{Context, ObjectRef, Step, bookkeeping, slices};
use crate::index::Snapshot;
use crate::index::evidence::{is_orphaning, slice_name};
use crate::index::pod::Pod;
use crate::index::service::{Leader, own_conditions};
use crate::index::slice::Slice;
use crate::reason::Reason;

/// Whether a leader Service has a pod that takes traffic.
fn routes(snapshot: &Snapshot, leader: &Leader) -> bool {
    snapshot.slices_of(leader).any(|s| s.routed_pods().next().is_some())
}

/// Leader Services of this source's name that are not this source's. One of an earlier source routes no
/// one any longer; garbage collection takes it. What merely cannot be proved to be ours keeps its
/// leader for as long as that one is fit: a label that was changed takes no traffic from a healthy pod.
pub(super) fn disown(snapshot: &Snapshot, ctx: &Context<'_>, uid: &str) -> Plan {
    let mut plan = Plan::default();
    let readable = snapshot.leaders.iter().filter(|l| l.unreadable.is_none());
    for leader in readable.filter(|l| !snapshot.owns(l, uid)) {
        let earlier = leader.was_made_for(&snapshot.key.name)
            && leader.owner.as_ref().is_some_and(|o| *o.uid != *uid);
        if earlier {
            plan.add(out_of_service(snapshot, ctx, leader, EARLIER_SOURCE, true));
        } else if leader.owner.is_none() && !leader.owned_by_others && unfit(snapshot, leader) {
            plan.add(empty_slices(snapshot, ctx, leader, true));
        } else {
            plan.add(relabelled(snapshot, ctx, leader));
        }
    }
    plan
}

/// A leader Service whose owner was an earlier source, while its label names another one: its slices are
/// left as they are. Where they route no pod, that is reported; of two, the lock slice counts.
fn relabelled(snapshot: &Snapshot, ctx: &Context<'_>, leader: &Leader) -> Plan {
    let here = |name: &str| *name == *snapshot.key.name;
    let owned = leader.owner.as_ref().is_some_and(|o| here(&o.name));
    let other = leader.label.as_deref().is_some_and(|label| !here(label))
        && snapshot.leads_another.iter().all(|name| name != leader.name());
    let lock = slice_name(leader.name(), slices::families(&leader.object)[0]);
    let lock = snapshot.slices_of(leader).find(|slice| *slice.name == *lock);
    let routes = lock.map_or_else(
        || routes(snapshot, leader),
        |lock| lock.unreadable.is_some() || lock.routed_pods().next().is_some(),
    );
    if !(owned && other && leader.stamped) || routes {
        return Plan::default();
    }
    out_of_service(snapshot, ctx, leader, RELABELLED, true)
}

/// Whether no pod that the slices of a leader Service name could take traffic.
fn unfit(snapshot: &Snapshot, leader: &Leader) -> bool {
    let routed = || snapshot.slices_of(leader).flat_map(Slice::routed_pods);
    let fit = |uid: &str| snapshot.pod(uid).is_some_and(Pod::may_be_eligible);
    snapshot.pods_known && routed().next().is_some() && !routed().any(fit)
}

/// Why a leader Service that is still there routes no pod.
const SOURCE_GONE: &str = "the Service it was made for does not exist any more; delete this one, or \
                           create that one again";
/// See [`SOURCE_GONE`].
const EARLIER_SOURCE: &str =
    "it was made for an earlier Service of this name; garbage collection removes it";
/// See [`SOURCE_GONE`].
const LEFT_BEHIND: &str =
    "the Service it was made for is being deleted and leaves it behind; delete this one";
/// See [`SOURCE_GONE`].
const RELABELLED: &str = "the Service that its owner reference names does not exist any more, and its label \
                          zen-lead.io/source-service names another one; delete this one";
/// See [`SOURCE_GONE`].
const NOT_ASKED_FOR: &str = "its source does not ask for it any more; it is being deleted";

/// Takes a leader Service out of service: its slices are emptied, and its condition says so, or that the
/// write which empties them is refused.
fn out_of_service(
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    leader: &Leader,
    why: &str,
    urgent: bool,
) -> Plan {
    let mut plan = empty_slices(snapshot, ctx, leader, urgent);
    let (reason, message) = match plan.steps.iter().find_map(|step| ctx.blocked_by(step)) {
        Some(refused) => {
            let message = format!("{why}; its EndpointSlice is not emptied: {}", refused.message);
            (refused.reason, message)
        }
        None => (Reason::NotServed, why.to_owned()),
    };
    let state = LeaderState { ready: false, reason, message };
    let truth = mirror::read(&leader.object);
    // One that is new and routes to no pod has nothing to take back.
    let says =
        own_conditions(&leader.object).next().is_some() || mirror::names_leader(&leader.object);
    // What the condition of one that cannot be read says is not known to every replica.
    if leader.unreadable.is_none() && (says || routes(snapshot, leader)) {
        plan.steps.extend(mirror::step(leader, &truth, None, &state, None, ctx.now));
    }
    plan
}

/// Empties the slices of a leader Service that is not asked for any longer: no selector says which pods
/// may lead. They go with their owner.
fn empty_slices(snapshot: &Snapshot, ctx: &Context<'_>, leader: &Leader, urgent: bool) -> Plan {
    let mut plan = Plan::default();
    for slice in snapshot.slices_of(leader) {
        plan.marks = plan.marks.max(slice.truth().marks);
        if let Some(emptied) = slices::emptied(slice, snapshot.decided_at(), ctx) {
            plan.steps.push(Step::Slice(Box::new(slices::SliceStep { urgent, ..emptied })));
        }
    }
    plan
}

/// The source is gone: no pod is routed, and garbage collection removes the rest.
pub(super) fn abandon(snapshot: &Snapshot, ctx: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    for leader in &snapshot.leaders {
        if leader.was_made_for(&snapshot.key.name) {
            plan.add(out_of_service(snapshot, ctx, leader, SOURCE_GONE, true));
        } else {
            plan.add(relabelled(snapshot, ctx, leader));
        }
    }
    plan
}

/// Whether this leader Service may replace the others of its source. Replicas that are behind may each
/// have made one: traffic is never handed from one that routes a pod to one that routes none.
pub(super) fn may_take_over(snapshot: &Snapshot, leader: &Leader, uid: &str) -> bool {
    let mut others = own(snapshot, uid).filter(|l| l.uid() != leader.uid());
    routes(snapshot, leader) || !others.any(|l| routes(snapshot, l))
}

/// Removes the leader Services that are ours and not (any longer) asked for. Their slices are emptied
/// first and go with them (garbage collection): were they deleted before, a replica that is late
/// could make one anew of what it knew, where nothing is left to compare it with. What is destroyed
/// carries every sign that it is ours: a sign that was lost is put back first.
pub(super) fn others(
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    keep: Option<&Leader>,
    uid: &str,
) -> Plan {
    let mut plan = Plan::default();
    let leaves = snapshot.judged().is_some_and(|s| is_orphaning(&s.object.metadata));
    let others = own(snapshot, uid).filter(|l| keep.is_none_or(|k| k.uid() != l.uid()));
    // One that cannot be read may not be what it was.
    for leader in others.filter(|l| l.unreadable.is_none()) {
        // What may be asked for again by now is destroyed: that rests on a read.
        plan.removes = true;
        if leader.deleting() || leaves {
            let why = if leader.deleting() { NOT_ASKED_FOR } else { LEFT_BEHIND };
            plan.add(out_of_service(snapshot, ctx, leader, why, false));
            continue;
        }
        plan.add(empty_slices(snapshot, ctx, leader, false));
        let target = ObjectRef::as_seen(&leader.object);
        plan.steps.push(
            match bookkeeping::repair(&leader.object, &snapshot.key.name, uid, false) {
                Some(patch) => Step::PatchLeader(target, patch),
                None => Step::DeleteLeader(target),
            },
        );
    }
    plan
}
