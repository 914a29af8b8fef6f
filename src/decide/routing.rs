//! From a snapshot to the ordered steps: which leader Service is served, by which rules, and what
//! has to be made, mended or removed around it.
//!
//! Order: taking out and switching first (the failover path), then the leader Service, then its
//! mirror, then what is left over, then the source's condition.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::elect::{self, Choice, Incumbent, Rules, Standing};
use super::mirror::{self, Readiness};
use super::ports::{self, Ports};
use super::slices::{self, Present, SliceWrite};
use super::{Blocked, Context, Notice, Step, StepKind, Target, desired};
use crate::events::Reason;
use crate::index::Snapshot;
use crate::index::service::{Leader, own_conditions};
use crate::index::slice::{Slice, Truth};
use crate::index::snapshot::{Holder, SourceState};
use crate::keys::{self, status};
use crate::metrics::ServiceReport;
use crate::replica::{self, DECISION_VERSION};
use crate::spec::{self, Intent, LeaderSpec, LeaderType, PortsMode, Strategy, Violation};
use crate::version::Marks;

/// The steps of a decision, in order, and what was found on the way.
#[derive(Default)]
pub(super) struct Routing {
    pub(super) steps: Vec<Step>,
    pub(super) marks: Marks,
    pub(super) outranked: bool,
    /// The Services seen here are ahead of the slices: read before writing.
    pub(super) doubtful: bool,
    pub(super) again_at: Option<Timestamp>,
    pub(super) report: Option<ServiceReport>,
    pub(super) choice: Option<Choice>,
    pub(super) missing_ports: Vec<String>,
}

/// Why a source cannot be served as it asks.
struct Problem {
    reason: Reason,
    message: String,
}

/// What is done with the leader Services of a source.
enum Course<'a> {
    /// The source is gone: nobody is routed; garbage collection takes the rest.
    Abandon,
    /// The source does not ask for a leader (any more).
    TakeDown { source: Option<&'a Service>, uid: &'a str },
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
    match course(snapshot, ctx) {
        Course::Abandon => {
            let mut routing = Routing::default();
            empty_slices(&mut routing, snapshot, ctx, &snapshot.leaders);
            routing
        }
        Course::TakeDown { source, uid } => {
            let mut routing = take_down(snapshot, source, uid);
            empty_slices(&mut routing, snapshot, ctx, disowned(snapshot, uid));
            routing
        }
        Course::Serve { source, uid, leader, spec, valid, problem } => {
            let mut routing = Routing::default();
            let case = Case { snapshot, ctx, source, spec: &spec, valid };
            if let Some(leader) = &leader {
                case.serve(&mut routing, leader);
            }
            let served = routing.steps.iter().all(|s| s.kind() != StepKind::Slice);
            match &leader {
                Some(leader) if valid && served => {
                    remove_others(&mut routing, snapshot, Some(leader), uid);
                }
                // A renamed leader Service serves on until its successor does.
                kept => {
                    let kept = kept.as_ref().map(|l| l.uid());
                    for other in own(snapshot, uid).filter(|l| Some(l.uid()) != kept) {
                        case.serve(&mut routing, other);
                    }
                }
            }
            let blocked = problem.is_some() || source.metadata.deletion_timestamp.is_some();
            if leader.is_none() && !blocked {
                let service = desired::leader_service(source, &spec);
                routing.steps.push(Step::CreateLeader(Box::new(service)));
                routing.report.get_or_insert_default();
            }
            empty_slices(&mut routing, snapshot, ctx, disowned(snapshot, uid));
            source_conditions(&mut routing, source, problem.as_ref(), ctx);
            routing
        }
    }
}

fn course<'a>(snapshot: &'a Snapshot, ctx: &Context<'_>) -> Course<'a> {
    let (uid, judged) = match &snapshot.source {
        SourceState::Absent => return Course::Abandon,
        SourceState::Plain { uid } => return Course::TakeDown { source: None, uid },
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
        // Opting out always works, whatever else is wrong with the annotations.
        Err(_) if opted_out(source) => return Course::TakeDown { source: Some(source), uid },
        Ok(Intent::None | Intent::Off) => {
            return Course::TakeDown { source: Some(source), uid };
        }
        Err(violations) => return refused(invalid(violations), present()),
        Ok(Intent::On(spec)) => spec,
    };
    match claim(snapshot, spec, uid) {
        Err(problem) => refused(problem, present()),
        Ok(leader) => {
            let problem = ctx
                .blocked
                .filter(|b| matches!(b.kind, StepKind::CreateLeader | StepKind::Slice))
                .map(|b| Problem { reason: b.reason, message: b.message.clone() });
            Course::Serve { source, uid, leader, spec: spec.clone(), valid: true, problem }
        }
    }
}

fn opted_out(source: &Service) -> bool {
    annotation(source, keys::setting::ENABLED).is_none_or(|enabled| enabled == "false")
}

/// The leader Service of the asked name, if it is ours or may be made.
fn claim(
    snapshot: &Snapshot,
    spec: &LeaderSpec,
    uid: &str,
) -> Result<Option<Arc<Leader>>, Problem> {
    let name = &spec.leader_service_name;
    let key = &snapshot.key;
    let conflict = |message: String| Problem { reason: Reason::OwnershipConflict, message };
    let instead =
        format!("choose another name with the annotation {}", keys::setting::LEADER_SERVICE_NAME);
    match &snapshot.holder {
        Holder::Leader(leader) if leader.is_ours(&key.name, uid) => Ok(Some(leader.clone())),
        Holder::Leader(leader) if !leader.managed => Err(conflict(format!(
            "Service {name:?} does not carry the label {}: {} and is left alone; {instead}, or put \
             the label back if zen-lead made it",
            keys::kubernetes::MANAGED_BY,
            keys::MANAGER
        ))),
        Holder::Leader(leader) if *leader.source == *key.name => Err(conflict(format!(
            "Service {name:?} belonged to an earlier Service {:?} (uid {}) and is left alone; if \
             garbage collection does not remove it, delete it yourself or {instead}",
            &*key.name,
            leader.owner_uid.as_deref().unwrap_or("unknown"),
        ))),
        Holder::Leader(leader) => Err(conflict(format!(
            "Service {name:?} is the leader Service of {:?}; {instead}",
            &*leader.source
        ))),
        Holder::Stranger { .. } => Err(conflict(format!(
            "Service {name:?} exists and was not made by zen-lead; it is left alone; {instead} or \
             delete it"
        ))),
        Holder::Free => match (&snapshot.older_rival, snapshot.over_limit) {
            (Some(rival), _) => Err(conflict(format!(
                "the older Service {:?} asks for the leader Service {name:?} too; {instead}",
                &*rival.name
            ))),
            (None, Some(limit)) if own(snapshot, uid).next().is_none() => Err(Problem {
                reason: Reason::LimitReached,
                message: format!(
                    "the namespace has more than {limit} enabled Services; disable one or raise \
                     --max-services-per-namespace"
                ),
            }),
            _ => Ok(None),
        },
    }
}

fn invalid(violations: &[Violation]) -> Problem {
    let all: Vec<String> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.message)).collect();
    Problem { reason: Reason::InvalidService, message: all.join("; ") }
}

/// Leader Services that are ours by all three signs.
fn own<'a>(snapshot: &'a Snapshot, uid: &'a str) -> impl Iterator<Item = &'a Arc<Leader>> {
    snapshot.leaders.iter().filter(|l| l.is_ours(&snapshot.key.name, uid))
}

/// Rules for a leader whose source cannot be read: the incumbent stays, nobody new is promoted.
fn fallback(snapshot: &Snapshot) -> LeaderSpec {
    LeaderSpec {
        leader_service_name: spec::default_leader_name(&snapshot.key.name),
        strategy: Strategy::default(),
        sticky: true,
        min_ready_duration: Duration::ZERO,
        failover_min_delay: Duration::ZERO,
        ports_mode: PortsMode::Partial,
        leader_type: LeaderType::default(),
        copy_annotations: Vec::new(),
    }
}

/// Leader Services of this source's name that are not this source's: made for an earlier one that
/// was deleted (garbage collection takes them), left behind by an orphaning deletion, or changed so
/// that they are not ours any longer. Nobody keeps them up to date.
fn disowned<'a>(snapshot: &'a Snapshot, uid: &'a str) -> impl IntoIterator<Item = &'a Arc<Leader>> {
    snapshot.leaders.iter().filter(move |l| !l.is_ours(&snapshot.key.name, uid))
}

/// Without its source nobody asks for a leader any longer, and no selector says who may lead. The
/// slices are emptied (they are ours by label and owner); the leader Service goes with its owner.
fn empty_slices<'a>(
    routing: &mut Routing,
    snapshot: &Snapshot,
    ctx: &Context<'_>,
    leaders: impl IntoIterator<Item = &'a Arc<Leader>>,
) {
    for leader in leaders {
        let slices = snapshot.slices.iter();
        for slice in slices.filter(|s| *s.service == *leader.name() && s.is_ours(leader.uid())) {
            routing.marks = routing.marks.max(slice.truth().marks);
            if let Some(emptied) = slices::emptied(slice, snapshot.marks, ctx.writer) {
                routing.steps.push(Step::Slice(Box::new(emptied)));
            }
        }
    }
}

fn take_down(snapshot: &Snapshot, source: Option<&Service>, uid: &str) -> Routing {
    let mut routing = Routing::default();
    remove_others(&mut routing, snapshot, None, uid);
    if let Some(source) = source
        && own_conditions(source).next().is_some()
    {
        routing.steps.push(Step::SourceConditions(target(source, false), Vec::new(), Vec::new()));
    }
    routing
}

/// Removes the leader Services that are ours and not (any longer) asked for: their slices first, so
/// that none is left without its Service.
fn remove_others(routing: &mut Routing, snapshot: &Snapshot, keep: Option<&Leader>, uid: &str) {
    for leader in own(snapshot, uid).filter(|l| keep.is_none_or(|k| k.uid() != l.uid())) {
        let slices = snapshot.slices.iter();
        for slice in slices.filter(|s| *s.service == *leader.name() && s.is_ours(leader.uid())) {
            routing.marks = routing.marks.max(slice.truth().marks);
            if slice.deleting {
                continue;
            }
            routing.steps.push(Step::Slice(Box::new(slices::Next {
                write: SliceWrite::Delete {
                    name: slice.name.to_string(),
                    uid: slice.uid.to_string(),
                    version: slice.version.to_string(),
                },
                switch: None,
                urgent: false,
            })));
        }
        if !leader.deleting() {
            routing.steps.push(Step::DeleteLeader(target(&leader.object, true)));
        }
    }
}

/// What the leader Services of one source are served with.
struct Case<'a> {
    snapshot: &'a Snapshot,
    ctx: &'a Context<'a>,
    source: &'a Service,
    spec: &'a LeaderSpec,
    valid: bool,
}

impl Case<'_> {
    fn serve(&self, routing: &mut Routing, leader: &Arc<Leader>) {
        let Self { snapshot, ctx, source, spec, valid } = *self;
        let families = slices::families(&leader.object);
        let present = Present::new(&snapshot.slices, leader, &families);
        let truth = present.lock().map(Slice::truth);
        let mirrored = mirror::read(&leader.object);
        let incumbent = incumbent(snapshot, &present, &mirrored, leader);
        let outranked = decision_version(leader, &present) > DECISION_VERSION;
        let rules = Rules {
            spec,
            family: families[0],
            // Over what a newer version wrote, an older one only takes out.
            may_promote: valid && snapshot.pods_known && !outranked,
            now: ctx.now,
        };
        let choice = elect::elect(&snapshot.pods, incumbent.as_ref(), &rules);
        let (slice_ports, missing, ports_failed) = slice_ports(source, spec, &choice);
        routing.marks = routing.marks.max(present.marks());
        routing.outranked |= outranked;
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
            asked: asked(source),
            writer: ctx.writer,
            now: ctx.now,
            pods: &snapshot.pods,
        };
        let foreign = foreign(snapshot, leader);
        let may_create = source.metadata.deletion_timestamp.is_none() && !leader.deleting();
        let next = slices::next(&wanted, &present).filter(|next| match &next.write {
            // Nothing can be created under a name that somebody else's slice has.
            SliceWrite::Create(slice) => {
                let name = slice.metadata.name.as_ref();
                may_create && !name.is_some_and(|n| foreign.contains(n))
            }
            _ => true,
        });
        let lagging = next.is_some();
        if let Some(next) = next {
            routing.steps.push(Step::Slice(Box::new(next)));
        }
        let asked_for = leader.name() == spec.leader_service_name;
        if valid && asked_for && !leader.deleting() {
            mend(routing, source, leader, spec);
        }
        let failed = ports_failed.then_some(&missing);
        let refused = refused(ctx, &present, &choice, lagging);
        let state = readiness(&choice, &foreign, failed, refused, valid);
        let truth = truth.unwrap_or_else(|| mirrored.clone());
        if !leader.deleting() {
            let settings = valid.then(|| spec::settings_json(spec));
            let mirror = mirror::wanted(leader, &truth, &state, settings, ctx.now);
            if !mirror::says(&leader.object, &mirror) {
                let notices = mirror::notices(leader, &truth, &state);
                // With its version: a late writer must not take the epoch back.
                let target = target(&leader.object, true);
                routing.steps.push(Step::Mirror(target, Box::new(mirror), notices));
            }
        }
        // The leader Service that is asked for is served first; the report is about that one.
        if routing.report.is_none() {
            routing.report = Some(report(&choice, &truth, &present, &state, &missing));
            routing.missing_ports = missing;
            routing.choice = Some(choice);
        }
    }
}

/// The highest decision version that wrote the leader Service or its slices.
fn decision_version(leader: &Leader, present: &Present<'_>) -> u32 {
    let own = annotation(&leader.object, status::DECISION_VERSION).and_then(|v| v.parse().ok());
    present.decision_version().max(own.unwrap_or(0))
}

/// The refusal that keeps the chosen pod out of the slice, if there is one.
fn refused<'a>(
    ctx: &Context<'a>,
    present: &Present<'_>,
    choice: &Choice,
    lagging: bool,
) -> Option<&'a Blocked> {
    let chosen = choice.endpoint.as_ref().map(|(p, _)| &*p.uid);
    let routed = present.lock().is_some_and(|s| s.routed_pods().any(|uid| Some(uid) == chosen));
    ctx.blocked.filter(|b| b.kind == StepKind::Slice && lagging && !routed)
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
        let follower = present.follower().map(Slice::truth).unwrap_or_default();
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
    let truth = match present.lock() {
        Some(lock) => lock.truth(),
        None => second().or_else(old_name)?,
    };
    Some(Incumbent {
        uid: truth.pod_uid?,
        name: truth.pod_name.unwrap_or_default(),
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

/// Drift of the leader Service, and the leftovers of a selector somebody had put on it.
fn mend(routing: &mut Routing, source: &Service, leader: &Leader, spec: &LeaderSpec) {
    let service = desired::leader_service(source, spec);
    if let Some(patch) = desired::drift(&leader.object, &service) {
        routing.steps.push(Step::PatchLeader(target(&leader.object, true), patch));
    } else if annotation(&leader.object, status::CLEANUP).is_some() {
        routing.steps.push(Step::ClearBuiltIn(target(&leader.object, true)));
    }
}

/// Slices of the leader Service that others wrote: endpoints are the union of all slices.
fn foreign(snapshot: &Snapshot, leader: &Leader) -> Vec<String> {
    let mut names: Vec<String> = snapshot
        .slices
        .iter()
        .filter(|s| *s.service == *leader.name() && !s.is_ours(leader.uid()) && !s.deleting)
        .map(|s| s.name.to_string())
        .collect();
    names.sort();
    names
}

fn readiness(
    choice: &Choice,
    foreign: &[String],
    missing_ports: Option<&Vec<String>>,
    refused: Option<&Blocked>,
    valid: bool,
) -> Readiness {
    let pods = mirror::explain(choice);
    let not = |reason, message| Readiness { ready: false, reason, message };
    let routed = choice.endpoint.as_ref().is_some_and(|(_, c)| c.ready);
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
    let message = match (&choice.endpoint, choice.not_ready_since) {
        _ if !valid => format!("no new leader while the source is invalid; {pods}"),
        (Some(_), Some(_)) if choice.available > 0 && choice.again_at.is_some() => {
            format!("waiting for failover-min-delay or min-ready-duration; {pods}")
        }
        _ => pods,
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
            let notice =
                Notice { reason: problem.reason, note: problem.message.clone(), once: None };
            (vec![mirror::condition(source, &state, ctx.now)], vec![notice])
        }
    };
    if !mirror::same_conditions(source, &wanted) {
        routing.steps.push(Step::SourceConditions(target(source, false), wanted, notices));
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

fn target(service: &Service, with_version: bool) -> Target {
    let meta = &service.metadata;
    Target {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        version: meta.resource_version.clone().filter(|_| with_version),
    }
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a String> {
    service.metadata.annotations.as_ref()?.get(key)
}
