//! What exists for a source that cannot be read: it stays routed and follows its pod, and nothing
//! else. No election, nothing created, nothing deleted.
//!
//! Everything that is needed stands on the slices. A source that can be read is `leader_service`'s.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};

use super::mirror::{self, LeaderState};
use super::plan::Plan;
use super::slices::{SliceStep, SliceWrite};
use super::{Context, Step};
use crate::index::pod::{Family, Pod};
use crate::index::service::Leader;
use crate::index::slice::{Slice, Truth};
use crate::index::{Snapshot, SourceState};
use crate::keys::{kubernetes, status};
use crate::reason::Reason;
use crate::report::ServiceReport;

/// The steps for every leader Service of the source, and the report about the first that routes.
pub(super) fn hold(snapshot: &Snapshot, ctx: &Context<'_>, uid: &str, error: &str) -> Plan {
    let mut plan = Plan::default();
    // A uid that cannot be read contradicts no owner.
    let ours = |l: &&std::sync::Arc<Leader>| {
        snapshot.owns(l, uid) || (uid.is_empty() && l.was_made_for(&snapshot.key.name))
    };
    for leader in snapshot.leaders.iter().filter(ours) {
        let slices: Vec<&Slice> = snapshot.slices_of(leader).collect();
        let said = slices.iter().map(|s| s.truth());
        let mirrored = mirror::read(&leader.object);
        let truth = said.chain([mirrored.clone()]).max_by_key(|t| t.epoch).unwrap_or_default();
        for slice in &slices {
            plan.marks = plan.marks.max(slice.truth().marks);
            let next = followed(slice, &truth, None, snapshot, ctx);
            plan.steps.extend(next.map(|next| Step::Slice(Box::new(next))));
        }
        let names = slices.iter().flat_map(|s| {
            let named = s.named_pods().collect::<Vec<_>>();
            s.routed_pods().filter_map(move |u| named.iter().find(|(_, uid)| *uid == u).copied())
        });
        // One that is known to be unfit is about to be taken out, where that is not refused.
        let fit = |uid: &str| snapshot.pod(uid).is_none_or(Pod::may_be_eligible);
        let mut names = names.filter(|(_, uid)| fit(uid));
        let name = names.next().map(|(name, _)| name);
        let routed = name.is_some();
        // A replica that has just started knows nothing of what such a slice said before: all report alike.
        let unreadable = snapshot.unreadable_slice(leader);
        let known = unreadable.is_none();
        let who = match (unreadable, name) {
            (Some((slice, _)), _) => format!(
                "which pod leads is unknown, because EndpointSlice {} cannot be read either",
                slice.name
            ),
            (None, Some(pod)) => format!("{pod} leads"),
            (None, None) => "no pod leads".to_owned(),
        };
        let state = LeaderState {
            ready: routed && known,
            reason: Reason::Unreadable,
            message: format!(
                "the source Service {:?} cannot be read ({error}): what is routed stays and follows \
                 its readiness, and no new leader is chosen; correct that field; {who}",
                &*snapshot.key.name
            ),
        };
        if !leader.deleting() && leader.unreadable.is_none() {
            plan.steps.extend(mirror::step(leader, &truth, name, &state, None, ctx.now));
        }
        let report = report(snapshot, &truth, &state, slices.len());
        if plan.report.as_ref().is_none_or(|r| r.endpoints < report.endpoints) {
            plan.report = Some(report);
        }
    }
    plan
}

fn report(snapshot: &Snapshot, truth: &Truth, state: &LeaderState, slices: usize) -> ServiceReport {
    let leader = truth.pod_uid.as_deref().and_then(|uid| snapshot.pod(uid));
    ServiceReport {
        leader_since: truth.switched_at.filter(|_| state.ready),
        leader_pod_created: leader.filter(|_| state.ready).map(|p| p.created),
        pods_available: usize::from(leader.is_some_and(Pod::eligible)),
        endpoints: usize::from(state.ready),
        epoch: truth.epoch,
        stable: false,
        leader_service: true,
        slices,
    }
}

/// The write that brings the endpoint of a slice of ours in step with its pod; `None` where it is. No pod
/// but `only` takes traffic by it, where that is given (the uid of a pod).
pub(super) fn followed(
    slice: &Slice,
    truth: &Truth,
    only: Option<&str>,
    snapshot: &Snapshot,
    ctx: &Context<'_>,
) -> Option<SliceStep> {
    let (object, family) = (slice.object.as_deref()?, slice.family()?);
    // Which pods are gone is known only where all were listed.
    if slice.unreadable.is_some() || !snapshot.pods_known {
        return None;
    }
    let before = object.endpoints.as_deref().unwrap_or_default();
    let follow = |e: &Endpoint| endpoint(e, family, truth, only, snapshot);
    let after: Vec<Endpoint> = before.iter().filter_map(follow).collect();
    if after == *before {
        return None;
    }
    let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready) != Some(false);
    let urgent = after.iter().filter(ready).count() < before.iter().filter(ready).count();
    let newer = slice.truth().decision_version > ctx.version;
    let mut written = object.clone();
    written.endpoints = Some(after);
    let annotations = written.metadata.annotations.get_or_insert_default();
    annotations.insert(status::DECIDED_AT.to_owned(), snapshot.decided_at().to_string());
    annotations.insert(kubernetes::LAST_CHANGE_TRIGGER_TIME.to_owned(), ctx.now.to_string());
    if !newer {
        annotations.insert(status::WRITER.to_owned(), ctx.writer.to_owned());
    }
    let next = SliceStep { write: SliceWrite::Replace(Box::new(written)), switch: None, urgent };
    // Over what a newer version wrote, an older one only takes out.
    Some(next).filter(|next| next.urgent || !newer)
}

/// Whether the endpoint of a slice of ours is out of step with its pod.
pub(super) fn lags(slice: &Slice, truth: &Truth, snapshot: &Snapshot) -> bool {
    let (Some(object), Some(family)) = (slice.object.as_deref(), slice.family()) else {
        return false;
    };
    let moved = |e: &Endpoint| endpoint(e, family, truth, None, snapshot).as_ref() != Some(e);
    slice.unreadable.is_none()
        && snapshot.pods_known
        && object.endpoints.iter().flatten().any(moved)
}

/// The endpoint as its pod is now; `None` where it must go.
fn endpoint(
    present: &Endpoint,
    family: Family,
    truth: &Truth,
    only: Option<&str>,
    snapshot: &Snapshot,
) -> Option<Endpoint> {
    let Some(uid) = present.target_ref.as_ref().and_then(|t| t.uid.as_deref()) else {
        return Some(present.clone());
    };
    let pod = snapshot.pod(uid)?;
    if pod.unjudged() {
        return Some(present.clone());
    }
    let address = pod.address(family).filter(|_| !pod.finished)?;
    let was = present.conditions.as_ref().and_then(|c| c.ready) != Some(false);
    // Back comes only who leads (a slice that lags names another pod), unless the selector has left it.
    let left = matches!(snapshot.source, SourceState::Unreadable { selects: true, .. })
        && snapshot.pods.iter().all(|p| *p.uid != *uid);
    let leads = was || (!left && truth.pod_uid.as_deref() == Some(uid));
    let ready = pod.eligible() && leads && only.is_none_or(|only| only == uid);
    let (terminating, is) = (pod.terminating(), pod.readiness.ready);
    let conditions = EndpointConditions {
        ready: Some(ready),
        serving: Some(ready || (terminating && is)),
        terminating: Some(terminating),
    };
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(conditions),
        ..present.clone()
    })
}
