//! From a snapshot to a plan: which leader Service of a source is served, by which rules, and what has to be
//! made around it.
//!
//! Order of the steps: the leader Service that is asked for, others of the source, then the source's
//! condition. How one is served is `leader_service`; what goes away is `removal`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::hold::hold;
use super::leader_service::Case;
use super::mirror::{self, LeaderState};
use super::plan::Plan;
use super::removal;
use super::{Blocked, Context, Notice, ObjectRef, Step, StepKind, desired, follow};
use crate::index::service::Leader;
use crate::index::snapshot::{Holder, SourceState};
use crate::index::{Limit, Snapshot};
use crate::keys;
use crate::reason::Reason;
use crate::report::ServiceReport;
use crate::settings::{self, Intent, LeaderSpec, PortsMode, Violation};

/// Why a source cannot be served as it asks.
struct Problem {
    reason: Reason,
    message: String,
    /// The bound behind it, where it is one.
    limit: Option<Limit>,
    /// The Events that report it.
    events: Vec<Notice>,
}

impl Problem {
    fn new(reason: Reason, message: String) -> Self {
        let events = vec![Notice::of(reason, message.as_str())];
        Self { reason, message, limit: None, events }
    }

    /// Both in one message, this one first.
    fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        let message = format!("{}; {}", self.message, other.message);
        let mut events = self.events;
        events.extend(other.events);
        Self { message, limit: self.limit.or(other.limit), events, reason: self.reason }
    }
}

/// What is done with the leader Services of a source.
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Course<'a> {
    /// The source is gone: no pod is routed; garbage collection removes the rest.
    Abandon,
    /// The source does not ask for a leader (any more).
    TakeDown { source: Option<&'a Service>, uid: &'a str },
    /// What the source asks for cannot be read: what exists for it stays.
    Hold { uid: &'a str, error: &'a str },
    /// Serve this leader Service by these rules.
    Serve {
        source: &'a Service,
        uid: &'a str,
        leader: Option<Arc<Leader>>,
        spec: LeaderSpec,
        valid: bool,
        problem: Option<Problem>,
    },
}

pub(super) fn plan(snapshot: &Snapshot, ctx: &Context<'_>) -> Plan {
    let mut plan = match course(snapshot) {
        Course::Abandon => removal::abandon(snapshot, ctx),
        Course::TakeDown { source, uid } => take_down(snapshot, ctx, source, uid),
        Course::Hold { uid, error } => hold(snapshot, ctx, uid, error),
        Course::Serve { source, uid, leader, spec, valid, problem } => {
            let case = Case { snapshot, ctx, source, uid, spec: &spec, valid };
            serve(&case, leader.as_ref(), problem)
        }
    };
    // Its series stay for as long as a leader Service of ours exists, whatever it is waiting for.
    if snapshot.leaders.iter().any(|l| l.was_made_for(&snapshot.key.name)) {
        let there = ServiceReport { leader_service: true, ..ServiceReport::default() };
        plan.report.get_or_insert(there);
    }
    plan
}

/// Serves the leader Service that is asked for, and beside it the others of the source until that one
/// routes.
fn serve(case: &Case<'_>, leader: Option<&Arc<Leader>>, problem: Option<Problem>) -> Plan {
    let Case { snapshot, ctx, source, uid, spec, valid } = *case;
    let served = leader.map(|leader| case.serve(leader));
    let takes_over = served.as_ref().is_some_and(|served| {
        !served.lock_taken && served.plan.steps.iter().all(|s| !matches!(s, Step::Slice(_)))
    });
    let mut squatted = None;
    let mut plan = Plan::default();
    if let Some(served) = served {
        squatted = served.squatted;
        plan.add(served.plan);
    }
    match leader {
        Some(leader) if valid && takes_over && removal::may_take_over(snapshot, leader, uid) => {
            plan.add(removal::others(snapshot, ctx, Some(leader), uid));
        }
        // A renamed leader Service serves on until its successor does.
        asked_for => {
            let asked_for = asked_for.map(|l| l.uid());
            for other in own(snapshot, uid).filter(|l| Some(l.uid()) != asked_for) {
                let served = case.serve(other);
                squatted = served.squatted.or(squatted);
                plan.add(served.plan);
            }
        }
    }
    let problem = problem.or_else(|| leader.and_then(|leader| unreadable(leader)));
    let disowned = removal::disown(snapshot, ctx, uid);
    // An invalid source gets no leader Service, so that nothing that refuses one is reported.
    let leaderless = leader.is_none() && valid;
    let refused = refusal(ctx, &[&plan.steps, &disowned.steps], leaderless);
    let problem = match problem {
        Some(problem) if !valid => Some(problem.and(refused)),
        problem => refused.or(problem),
    };
    let may_create = problem.is_none() && source.metadata.deletion_timestamp.is_none();
    // These do not keep a leader Service from being made.
    let problem = problem.or_else(|| squatted.as_deref().map(name_taken));
    let problem = problem.or_else(|| {
        valid.then(|| flaw(snapshot, source, spec, leader.map(|leader| &**leader))).flatten()
    });
    if leader.is_none() && may_create {
        let service = desired::leader_service(source, spec, ctx.version);
        plan.steps.push(Step::CreateLeader(Box::new(service)));
        plan.report.get_or_insert_default();
    }
    plan.add(disowned);
    plan.add(source_conditions(source, problem.as_ref(), ctx));
    plan
}

fn take_down(snapshot: &Snapshot, ctx: &Context<'_>, source: Option<&Service>, uid: &str) -> Plan {
    let mut plan = removal::others(snapshot, ctx, None, uid);
    let disowned = removal::disown(snapshot, ctx, uid);
    if let Some(source) = source {
        // What keeps its leader Service from going away is reported where it was disabled.
        let refused = refusal(ctx, &[&plan.steps, &disowned.steps], false);
        plan.add(source_conditions(source, refused.as_ref(), ctx));
    }
    plan.add(disowned);
    plan
}

/// What was refused lately and is still wanted, all of it in one message. Once another replica has done it,
/// it is no problem any more: to go on reporting it would undo what that one writes, and it would write
/// again.
fn refusal(ctx: &Context<'_>, steps: &[&[Step]], leaderless: bool) -> Option<Problem> {
    // A namespace that is being deleted is no problem to report. The weightiest first, and always in the same
    // order: replicas that report different ones would undo each other's condition.
    let kinds = [
        StepKind::CreateLeader,
        StepKind::Slice,
        StepKind::CreateSlice,
        StepKind::PatchLeader,
        StepKind::DeleteLeader,
        StepKind::Mirror,
    ];
    let wanted = |blocked: &&Blocked| {
        (leaderless && blocked.kind == StepKind::CreateLeader)
            || steps.iter().copied().flatten().any(|step| blocked.refuses(step))
    };
    let weight = |blocked: &&Blocked| kinds.iter().position(|kind| *kind == blocked.kind);
    let mut all: Vec<&Blocked> =
        ctx.blocked.iter().filter(|b| weight(b).is_some()).filter(wanted).collect();
    all.sort_by_key(|b| (weight(b), b.message.clone()));
    // One of a kind: that a Service is undone is said of its creation and of its fields.
    let mut parts: Vec<&Blocked> = Vec::new();
    for blocked in &all {
        if !parts.iter().any(|b| b.message == blocked.message) {
            parts.push(blocked);
        }
    }
    let reason = all.first()?.reason;
    let message = parts.iter().map(|b| &*b.message).collect::<Vec<_>>().join("; ");
    let events = parts.iter().map(|b| Notice::of(b.reason, &*b.message)).collect();
    Some(Problem { reason, message, limit: None, events })
}

/// What a source does not get although it is served: the leader of another source, to be published,
/// or its IP family.
fn flaw(
    snapshot: &Snapshot,
    source: &Service,
    spec: &LeaderSpec,
    leader: Option<&Leader>,
) -> Option<Problem> {
    let leader = leader.map(|leader| &leader.object);
    let message = if let Some(why) = follow::flaw(snapshot, spec) {
        why
    } else if spec.unnamed_provider_annotations.is_empty() {
        desired::stuck_family(leader?, source)?
    } else {
        let type_ = leader.and_then(|l| l.spec.as_ref()?.type_.as_deref()).unwrap_or("ClusterIP");
        format!(
            "{} stays of type {type_}, and no provider annotation is copied: {}",
            spec.leader_service_name,
            settings::provider::unnamed_reason(&spec.unnamed_provider_annotations)
        )
    };
    Some(Problem::new(Reason::InvalidService, message))
}

fn course(snapshot: &Snapshot) -> Course<'_> {
    let (uid, judged) = match &snapshot.source {
        SourceState::Absent => return Course::Abandon,
        SourceState::Plain { uid } => return Course::TakeDown { source: None, uid },
        SourceState::Unreadable { uid, error, .. } => return Course::Hold { uid, error },
        SourceState::Judged { uid, source } => (uid, source),
    };
    let source = &judged.object;
    let present = || own(snapshot, uid).next().cloned();
    let refused = |problem, leader| Course::Serve {
        source,
        uid,
        leader,
        spec: fallback(snapshot),
        valid: false,
        problem: Some(problem),
    };
    let spec = match &judged.intent {
        Ok(Intent::None | Intent::Off) => {
            return Course::TakeDown { source: Some(source), uid };
        }
        Err(violations) => return refused(invalid(violations), present()),
        Ok(Intent::On(spec)) => spec,
    };
    match claim(snapshot, spec, uid) {
        Err(problem) => refused(problem, present()),
        Ok(leader) => {
            let Some(bound) = snapshot.over_pods else {
                return Course::Serve {
                    source,
                    uid,
                    leader,
                    spec: spec.clone(),
                    valid: true,
                    problem: None,
                };
            };
            if present().is_none() {
                return refused(too_many_pods(bound, false), None);
            }
            // What is served goes on being served. Which pods are looked at may change with every
            // pod, so no pod is preferred to a healthy leader.
            let spec = LeaderSpec { sticky: true, ..spec.clone() };
            let problem = Some(too_many_pods(bound, true));
            Course::Serve { source, uid, leader, spec, valid: true, problem }
        }
    }
}

/// An EndpointSlice of others holds the name of the lock: no pod can be routed.
fn name_taken(slice: &str) -> Problem {
    let message = format!(
        "EndpointSlice {slice} has the name that zen-lead needs and was not made by zen-lead; delete it"
    );
    Problem::new(Reason::OwnershipConflict, message)
}

/// No number of pods is told: a message that changes with each pod would be written for each pod.
fn too_many_pods(bound: usize, served: bool) -> Problem {
    let what = if served {
        format!("only the first {bound} by name and the present leader are looked at")
    } else {
        "no leader Service is made".to_owned()
    };
    let flag = Limit::PodsPerService.flag();
    Problem {
        limit: Some(Limit::PodsPerService),
        ..Problem::new(
            Reason::LimitReached,
            format!(
                "the selector matches more than {bound} pods: {what}; narrow it, run fewer pods, or \
             raise {flag}"
            ),
        )
    }
}

/// The leader Service of the asked name, if it is ours or may be made.
fn claim(
    snapshot: &Snapshot,
    spec: &LeaderSpec,
    uid: &str,
) -> Result<Option<Arc<Leader>>, Problem> {
    let name = &spec.leader_service_name;
    let key = &snapshot.key;
    let conflict = |message: String| Problem::new(Reason::OwnershipConflict, message);
    let instead =
        format!("choose another name with the annotation {}", keys::setting::LEADER_SERVICE_NAME);
    match &snapshot.holder {
        Holder::Leader(leader) if snapshot.owns(leader, uid) => Ok(Some(leader.clone())),
        Holder::Leader(leader) if leader.owner.as_ref().is_some_and(|o| o.name == key.name) => {
            Err(conflict(format!(
                "Service {name:?} belonged to an earlier Service {:?} (uid {}) and is left alone; if \
                 garbage collection does not remove it, delete it yourself or {instead}",
                &*key.name,
                leader.owner_uid().unwrap_or("unknown"),
            )))
        }
        Holder::Leader(leader) if leader.label.as_ref().is_some_and(|l| *l != key.name) => {
            Err(conflict(format!(
                "Service {name:?} is the leader Service of {:?}; {instead}",
                leader.label.as_deref().unwrap_or_default()
            )))
        }
        Holder::Leader(_) => Err(conflict(format!(
            "Service {name:?} carries the label {}: {}, but nothing else proves that zen-lead made it; it \
             is left alone; {instead} or delete it",
            keys::status::SOURCE_SERVICE,
            &*key.name,
        ))),
        Holder::Stranger { .. } => Err(conflict(format!(
            "Service {name:?} exists and was not made by zen-lead; it is left alone; {instead} or \
             delete it"
        ))),
        Holder::Unreadable { error } => Err(Problem::new(
            Reason::Unreadable,
            format!(
                "Service {name:?} cannot be read ({error}), so it is left alone and no leader Service \
                 is made; correct that field, delete the Service or {instead}"
            ),
        )),
        Holder::Free => match (&snapshot.older_rival, snapshot.over_limit) {
            (Some(rival), _) => Err(conflict(format!(
                "the older Service {:?} asks for the leader Service {name:?} too; {instead}",
                &*rival.name
            ))),
            (None, Some(limit)) if own(snapshot, uid).next().is_none() => Err(Problem {
                limit: Some(Limit::ServicesPerNamespace),
                ..Problem::new(
                    Reason::LimitReached,
                    format!(
                        "the namespace has more than {limit} enabled Services: no leader Service is \
                     made; disable one or raise {}",
                        Limit::ServicesPerNamespace.flag()
                    ),
                )
            }),
            _ => Ok(None),
        },
    }
}

/// A leader Service that cannot be read goes on, as far as its slices are concerned.
fn unreadable(leader: &Leader) -> Option<Problem> {
    let error = leader.unreadable.as_ref()?;
    Some(Problem::new(
        Reason::Unreadable,
        format!(
            "the leader Service {:?} cannot be read ({error}): its EndpointSlices are kept up to date, \
             its own fields and conditions are not; correct that field, or delete it to have it made \
             anew",
            leader.name()
        ),
    ))
}

fn invalid(violations: &[Violation]) -> Problem {
    let all: Vec<String> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.message)).collect();
    Problem::new(Reason::InvalidService, all.join("; "))
}

/// Leader Services that are provably this source's.
pub(super) fn own<'a>(
    snapshot: &'a Snapshot,
    uid: &'a str,
) -> impl Iterator<Item = &'a Arc<Leader>> {
    snapshot.leaders.iter().filter(|l| snapshot.owns(l, uid))
}

/// Rules for a leader whose source cannot be read: the incumbent stays, no pod is promoted.
fn fallback(snapshot: &Snapshot) -> LeaderSpec {
    LeaderSpec {
        leader_service_name: settings::default_leader_name(&snapshot.key.name),
        ports_mode: PortsMode::Partial,
        ..LeaderSpec::default()
    }
}

/// Sets our condition on a source that cannot be served, and takes it off one that can.
fn source_conditions(source: &Service, problem: Option<&Problem>, ctx: &Context<'_>) -> Plan {
    let (wanted, notices) = match problem {
        None => (Vec::new(), Vec::new()),
        Some(problem) => {
            let state = LeaderState {
                ready: false,
                reason: problem.reason,
                message: problem.message.clone(),
            };
            (vec![mirror::condition(source, &state, ctx.now)], problem.events.clone())
        }
    };
    let mut plan = Plan { refused_by: problem.and_then(|p| p.limit), ..Plan::default() };
    if !mirror::same_conditions(source, &wanted) {
        plan.steps.push(Step::SourceConditions(ObjectRef::of(source), wanted, notices));
    }
    plan
}
