//! From a snapshot to the ordered steps: which leader Service is served, by which rules, and what
//! has to be made or removed around it.
//!
//! How one leader Service is served is `serve`'s. Order of the steps: that first, then what is left
//! over, then the source's condition.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::elect::Choice;
use super::hold::hold;
use super::mirror::{self, Readiness};
use super::serve::Case;
use super::slices;
use super::{Blocked, Context, Notice, Step, StepKind, Target, bookkeeping, desired, follow};
use crate::index::evidence::is_orphaning;
use crate::index::pod::Pod;
use crate::index::service::{Leader, own_conditions};
use crate::index::slice::Slice;
use crate::index::snapshot::{Holder, SourceState};
use crate::index::{Limit, Snapshot};
use crate::keys;
use crate::reason::Reason;
use crate::report::ServiceReport;
use crate::settings::{self, Intent, LeaderSpec, LeaderType, PortsMode, Strategy, Violation};
use crate::version::Marks;

/// The steps of a decision, in order, and what was found on the way.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub(super) struct Routing {
    pub(super) steps: Vec<Step>,
    pub(super) marks: Marks,
    pub(super) outranked: bool,
    /// A leader Service that cannot be served: an EndpointSlice that is not ours has the name of its lock.
    pub(super) taken: bool,
    /// That name, where zen-lead never wrote the EndpointSlice: garbage collection will not take it.
    pub(super) squatted: Option<String>,
    pub(super) may_take_over: bool,
    /// The Services seen here are ahead of the slices: read before writing.
    pub(super) doubtful: bool,
    pub(super) again_at: Option<Timestamp>,
    pub(super) report: Option<ServiceReport>,
    pub(super) choice: Option<Choice>,
    pub(super) missing_ports: Vec<String>,
    pub(super) refused_by: Option<Limit>,
}

/// Why a source cannot be served as it asks.
struct Problem {
    reason: Reason,
    message: String,
    /// The bound behind it, where it is one.
    limit: Option<Limit>,
}

/// What is done with the leader Services of a source.
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Course<'a> {
    /// The source is gone: nobody is routed; garbage collection takes the rest.
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

pub(super) fn route(snapshot: &Snapshot, ctx: &Context<'_>) -> Routing {
    let mut routing = Routing::default();
    match course(snapshot) {
        Course::Abandon => {
            let orphans = || snapshot.leaders.iter().filter(|l| l.was_made_for(&snapshot.key.name));
            empty_slices(&mut routing, snapshot, ctx, orphans(), true);
            orphans().for_each(|leader| out_of_service(&mut routing, leader, SOURCE_GONE, ctx));
        }
        Course::TakeDown { source, uid } => {
            take_down(&mut routing, snapshot, ctx, source, uid);
            disown(&mut routing, snapshot, ctx, uid);
        }
        Course::Hold { uid, error } => {
            hold(&mut routing, snapshot, ctx, uid, error);
        }
        Course::Serve { source, uid, leader, spec, valid, problem } => {
            let problem = problem.or_else(|| leader.as_deref().and_then(unreadable));
            let case = Case { snapshot, ctx, source, uid, spec: &spec, valid };
            if let Some(leader) = &leader {
                case.serve(&mut routing, leader);
            }
            let served =
                !routing.taken && routing.steps.iter().all(|s| !matches!(s, Step::Slice(_)));
            // They may know of different leaders, each made by who was behind: never from one who
            // routes to one who does not.
            let served = served
                && leader.as_ref().is_some_and(|leader| {
                    let mut others = own(snapshot, uid).filter(|l| l.uid() != leader.uid());
                    routes(snapshot, leader) || !others.any(|l| routes(snapshot, l))
                });
            match &leader {
                Some(leader) if valid && served => {
                    remove_others(&mut routing, snapshot, ctx, Some(leader), uid);
                }
                // A renamed leader Service serves on until its successor does.
                kept => {
                    let kept = kept.as_ref().map(|l| l.uid());
                    for other in own(snapshot, uid).filter(|l| Some(l.uid()) != kept) {
                        case.serve(&mut routing, other);
                    }
                }
            }
            let problem =
                if valid { refusal(ctx, &routing, leader.is_none()).or(problem) } else { problem };
            let blocked = problem.is_some() || source.metadata.deletion_timestamp.is_some();
            // These do not keep a leader Service from being made.
            let problem = problem.or_else(|| routing.squatted.as_deref().map(name_taken));
            let problem = problem.or_else(|| {
                valid.then(|| flaw(snapshot, source, &spec, leader.as_deref())).flatten()
            });
            if leader.is_none() && !blocked {
                let service = desired::leader_service(source, &spec, ctx.version);
                routing.steps.push(Step::CreateLeader(Box::new(service)));
                routing.report.get_or_insert_default();
            }
            disown(&mut routing, snapshot, ctx, uid);
            source_conditions(&mut routing, source, problem.as_ref(), ctx);
        }
    }
    // Its series stay for as long as a leader Service of ours exists, whatever it is waiting for.
    if snapshot.leaders.iter().any(|l| l.was_made_for(&snapshot.key.name)) {
        let there = ServiceReport { leader_service: true, ..ServiceReport::default() };
        routing.report.get_or_insert(there);
    }
    routing
}

/// What was refused lately and is still wanted. Once another replica has done it, it is nobody's
/// problem any more: to go on telling it would undo what that one writes, and it would write again.
fn refusal(ctx: &Context<'_>, routing: &Routing, leaderless: bool) -> Option<Problem> {
    // A namespace that is being deleted is no problem to report. The weightiest first, and always the same
    // one: replicas that report different ones would undo each other's condition.
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
            || routing.steps.iter().any(|step| blocked.refuses(step))
    };
    let weight = |blocked: &&Blocked| kinds.iter().position(|kind| *kind == blocked.kind);
    let all = ctx.blocked.iter().filter(|b| weight(b).is_some()).filter(wanted);
    all.min_by_key(|b| (weight(b), b.message.clone())).map(|blocked| Problem {
        reason: blocked.reason,
        message: blocked.message.clone(),
        limit: None,
    })
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
    Some(Problem { reason: Reason::InvalidService, message, limit: None })
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
            // pod, so nobody is to be preferred to a leader that is well.
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
    Problem { reason: Reason::OwnershipConflict, message, limit: None }
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
        reason: Reason::LimitReached,
        message: format!(
            "the selector matches more than {bound} pods: {what}; narrow it, run fewer pods, or \
             raise {flag}"
        ),
        limit: Some(Limit::PodsPerService),
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
    let conflict =
        |message: String| Problem { reason: Reason::OwnershipConflict, message, limit: None };
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
        Holder::Unreadable { error } => Err(Problem {
            reason: Reason::Unreadable,
            message: format!(
                "Service {name:?} cannot be read ({error}), so it is left alone and no leader Service \
                 is made; correct that field, delete the Service or {instead}"
            ),
            limit: None,
        }),
        Holder::Free => match (&snapshot.older_rival, snapshot.over_limit) {
            (Some(rival), _) => Err(conflict(format!(
                "the older Service {:?} asks for the leader Service {name:?} too; {instead}",
                &*rival.name
            ))),
            (None, Some(limit)) if own(snapshot, uid).next().is_none() => Err(Problem {
                reason: Reason::LimitReached,
                message: format!(
                    "the namespace has more than {limit} enabled Services: no leader Service is \
                     made; disable one or raise {}",
                    Limit::ServicesPerNamespace.flag()
                ),
                limit: Some(Limit::ServicesPerNamespace),
            }),
            _ => Ok(None),
        },
    }
}

/// A leader Service that cannot be read goes on, as far as its slices are concerned.
fn unreadable(leader: &Leader) -> Option<Problem> {
    let error = leader.unreadable.as_ref()?;
    Some(Problem {
        reason: Reason::Unreadable,
        message: format!(
            "the leader Service {:?} cannot be read ({error}): its EndpointSlices are kept up to date, \
             its own fields and conditions are not; correct that field, or delete it to have it made \
             anew",
            leader.name()
        ),
        limit: None,
    })
}

fn invalid(violations: &[Violation]) -> Problem {
    let all: Vec<String> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.message)).collect();
    Problem { reason: Reason::InvalidService, message: all.join("; "), limit: None }
}

/// Leader Services that are provably this source's.
fn own<'a>(snapshot: &'a Snapshot, uid: &'a str) -> impl Iterator<Item = &'a Arc<Leader>> {
    snapshot.leaders.iter().filter(|l| snapshot.owns(l, uid))
}

/// Rules for a leader whose source cannot be read: the incumbent stays, nobody new is promoted.
fn fallback(snapshot: &Snapshot) -> LeaderSpec {
    LeaderSpec {
        leader_service_name: settings::default_leader_name(&snapshot.key.name),
        strategy: Strategy::default(),
        sticky: true,
        min_ready_duration: Duration::ZERO,
        failover_min_delay: Duration::ZERO,
        ports_mode: PortsMode::Partial,
        leader_type: LeaderType::default(),
        ..LeaderSpec::default()
    }
}

/// Whether a leader Service has a pod that takes traffic.
fn routes(snapshot: &Snapshot, leader: &Leader) -> bool {
    snapshot.slices_of(leader).any(|s| s.routed_pods().next().is_some())
}

/// Leader Services of this source's name that are not this source's. One of an earlier source routes no
/// one any longer; garbage collection takes it. What merely cannot be proved to be ours keeps its
/// leader for as long as that one is fit: a label that was changed takes no traffic from a healthy pod.
fn disown(routing: &mut Routing, snapshot: &Snapshot, ctx: &Context<'_>, uid: &str) {
    let readable = snapshot.leaders.iter().filter(|l| l.unreadable.is_none());
    for leader in readable.filter(|l| !snapshot.owns(l, uid)) {
        let earlier = leader.was_made_for(&snapshot.key.name)
            && leader.owner.as_ref().is_some_and(|o| *o.uid != *uid);
        if earlier {
            empty_slices(routing, snapshot, ctx, [leader], true);
            out_of_service(routing, leader, EARLIER_SOURCE, ctx);
        } else if leader.owner.is_none() && !leader.owned_by_others && unfit(snapshot, leader) {
            empty_slices(routing, snapshot, ctx, [leader], true);
        }
    }
}

/// Whether no pod that the slices of a leader Service name could take traffic.
fn unfit(snapshot: &Snapshot, leader: &Leader) -> bool {
    let routed = || snapshot.slices_of(leader).flat_map(Slice::routed_pods);
    let fit = |uid: &str| snapshot.pod(uid).is_some_and(Pod::eligible);
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
const NOT_ASKED_FOR: &str = "its source does not ask for it any more; it is being deleted";

/// Corrects what a leader Service that is not served says of itself: its slices are empty, or the write
/// that empties them is refused.
fn out_of_service(routing: &mut Routing, leader: &Leader, why: &str, ctx: &Context<'_>) {
    let mut slices = routing.steps.iter().filter(|s| matches!(s, Step::Slice(_)));
    let (reason, message) = match slices.find_map(|step| ctx.blocked_by(step)) {
        Some(refused) => {
            let message = format!("{why}; its EndpointSlice is not emptied: {}", refused.message);
            (refused.reason, message)
        }
        None => (Reason::NotServed, why.to_owned()),
    };
    let state = Readiness { ready: false, reason, message };
    let truth = mirror::read(&leader.object);
    let mirror = mirror::wanted(leader, &truth, None, &state, None, ctx.now);
    if own_conditions(&leader.object).next().is_some() && !mirror::says(&leader.object, &mirror) {
        let notices = match reason {
            Reason::NotServed => Vec::new(),
            _ => mirror::notices(leader, &truth, &state),
        };
        let target = Target::as_seen(&leader.object);
        routing.steps.push(Step::Mirror(target, Box::new(mirror), notices));
    }
}

/// Without its source nobody asks for a leader any longer, and no selector says who may lead. The
/// slices are emptied (they are ours by label and owner); the leader Service goes with its owner.
fn empty_slices<'a>(
    routing: &mut Routing,
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    leaders: impl IntoIterator<Item = &'a Arc<Leader>>,
    urgent: bool,
) {
    for leader in leaders {
        for slice in snapshot.slices_of(leader) {
            routing.marks = routing.marks.max(slice.truth().marks);
            if let Some(emptied) = slices::emptied(slice, snapshot.marks, ctx) {
                routing.steps.push(Step::Slice(Box::new(slices::Next { urgent, ..emptied })));
            }
        }
    }
}

fn take_down(
    routing: &mut Routing,
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    source: Option<&Service>,
    uid: &str,
) {
    remove_others(routing, snapshot, ctx, None, uid);
    if let Some(source) = source
        && own_conditions(source).next().is_some()
    {
        routing.steps.push(Step::SourceConditions(Target::of(source), Vec::new(), Vec::new()));
    }
}

/// Removes the leader Services that are ours and not (any longer) asked for. Their slices are emptied
/// first and go with them (garbage collection): were they deleted before, a replica that is late
/// could make one anew of what it knew, where nothing is left to compare it with. What is destroyed
/// carries every sign that it is ours: a sign that was lost is put back first.
fn remove_others(
    routing: &mut Routing,
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    keep: Option<&Leader>,
    uid: &str,
) {
    let others = own(snapshot, uid).filter(|l| keep.is_none_or(|k| k.uid() != l.uid()));
    // One that cannot be read may not be what it was.
    for leader in others.filter(|l| l.unreadable.is_none()) {
        // What may be asked for again by now is destroyed: that rests on a read.
        routing.doubtful = true;
        empty_slices(routing, snapshot, ctx, [leader], false);
        let target = Target::as_seen(&leader.object);
        let leaves = snapshot.judged().is_some_and(|s| is_orphaning(&s.object.metadata));
        let signs = || bookkeeping::repair(&leader.object, &snapshot.key.name, uid, false);
        if leader.deleting() {
            out_of_service(routing, leader, NOT_ASKED_FOR, ctx);
        } else if leaves {
            out_of_service(routing, leader, LEFT_BEHIND, ctx);
        } else if let Some(patch) = signs() {
            routing.steps.push(Step::PatchLeader(target, patch));
        } else {
            routing.steps.push(Step::DeleteLeader(target));
        }
    }
}

/// Sets our condition on a source that cannot be served, and takes it off one that can.
fn source_conditions(
    routing: &mut Routing,
    source: &Service,
    problem: Option<&Problem>,
    ctx: &Context<'_>,
) {
    let (wanted, notices) = match problem {
        None => (Vec::new(), Vec::new()),
        Some(problem) => {
            let state = Readiness {
                ready: false,
                reason: problem.reason,
                message: problem.message.clone(),
            };
            let notice = Notice::of(problem.reason, problem.message.as_str());
            (vec![mirror::condition(source, &state, ctx.now)], vec![notice])
        }
    };
    routing.refused_by = problem.and_then(|p| p.limit);
    if !mirror::same_conditions(source, &wanted) {
        routing.steps.push(Step::SourceConditions(Target::of(source), wanted, notices));
    }
}
