//! `zen-lead explain NAMESPACE/SERVICE`: which pod leads, why the others do not, what is routed and
//! reported now, and what would happen next.
//!
//! Runs the controller's own decision over a consistent read. It never writes.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::routed::{self, Endpoint};
use crate::control::reader::Reader;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::decide::{self, Action, Context, Decision, Step, Trust, Verified};
use zen_lead_core::index::service::{Leader, own_conditions};
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking::DECISION_VERSION;
use zen_lead_core::settings::Intent;

/// The result for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// It exists: the explanation, in lines of text.
    Found(String),
    /// It does not exist: one sentence.
    Missing(String),
}

/// Reads the namespace and explains the Service; for a leader Service, explains its source.
///
/// # Errors
/// If the argument is not NAMESPACE/SERVICE, or the API server cannot be read.
pub async fn run(service: &str, reader: &Reader, now: Timestamp) -> anyhow::Result<Explained> {
    let Some((namespace, name)) = service.split_once('/') else {
        bail!("{service:?} is not NAMESPACE/SERVICE; write for example default/web");
    };
    let asked = ServiceKey::new(namespace, name);
    let index = reader.read(&asked).await.with_context(|| {
        format!(
            "cannot read namespace {namespace} with the rights of your kubeconfig; explain needs \
             get and list on services, endpointslices and pods there"
        )
    })?;
    let source = index.source_of(&asked);
    let key = source.clone().unwrap_or_else(|| asked.clone());
    let snapshot = Snapshot { consistent: true, ..index.snapshot(&key) };
    if snapshot.source == SourceState::Absent {
        return Ok(Explained::Missing(missing(&snapshot, &asked)));
    }
    let mut heading = String::new();
    if source.is_some() {
        heading = format!("{asked} is the leader Service of {key}, which is explained here\n");
    }
    Ok(Explained::Found(heading + &text(&snapshot, &decide::decide(&snapshot, &context(now)), now)))
}

/// The context of a decision that is not carried out.
fn context(now: Timestamp) -> Context<'static> {
    Context {
        now,
        writer: "explain",
        trust: Trust::Live,
        blocked: &[],
        version: DECISION_VERSION,
        replicas: &[],
        verified: Verified::default(),
        takes_over: false,
    }
}

/// The sentence about a source that does not exist.
fn missing(snapshot: &Snapshot, asked: &ServiceKey) -> String {
    let key = &snapshot.key;
    if key != asked {
        return format!(
            "Service {asked} is the leader Service of {key}, which does not exist; delete {asked} if \
             garbage collection does not"
        );
    }
    let left: Vec<&str> = snapshot.leaders.iter().map(|l| l.name()).collect();
    if left.is_empty() {
        return format!("Service {key} does not exist");
    }
    format!("Service {key} does not exist; its leader Service {} is still there", left.join(", "))
}

/// The explanation, in lines.
pub fn text(snapshot: &Snapshot, decision: &Decision, now: Timestamp) -> String {
    let mut out = vec![format!("Service {}", snapshot.key)];
    match &snapshot.source {
        SourceState::Absent => out.push("  does not exist".into()),
        SourceState::Unreadable { .. } => {
            out.push("  cannot be read: the current leader stays, no new one is chosen".into());
        }
        SourceState::Plain { .. } => {
            out.push("  has no zen-lead.io/ annotation: not served".into());
        }
        SourceState::Judged { source, .. } => match &source.intent {
            Ok(Intent::On(spec)) => {
                out.push(format!("  leader Service: {}", spec.leader_service_name));
            }
            Ok(_) => out.push("  not enabled (zen-lead.io/enabled is not \"true\")".into()),
            Err(violations) => {
                out.push("  invalid: the current leader stays, no new leader is promoted".into());
                out.extend(violations.iter().map(|v| format!("    {v}")));
            }
        },
    }
    if let Some(choice) = &decision.choice {
        let pods = choice.standings.iter().map(|(pod, standing)| {
            let age = now.duration_since(pod.created).as_secs();
            format!("{:<40} {} (age {age}s)", pod.name, standing.as_str())
        });
        let mut pods: Vec<String> = pods.collect();
        if pods.is_empty() {
            pods.push("the selector matches no pod".into());
        }
        section(&mut out, "Pods", pods);
    }
    if !decision.missing_ports.is_empty() {
        let missing = decision.missing_ports.join(", ");
        out.push(format!("Ports the leader does not have: {missing}"));
    }
    for leader in &snapshot.leaders {
        let title = format!("Routed now by the EndpointSlices of {}", leader.name());
        section(&mut out, &title, slices(snapshot, leader));
    }
    section(&mut out, "Reported now", reported(snapshot).collect());
    let wrong = wrong(snapshot, decision);
    let right = wrong.is_empty();
    section(&mut out, "Wrong now", wrong);
    let unreadable = snapshot.unreadable();
    let next = match &decision.action {
        Action::Nothing if !unreadable.is_empty() => "nothing until this can be read".into(),
        _ => next(snapshot, decision, right),
    };
    let title = "Cannot be read, so what exists for it is left unchanged";
    section(&mut out, title, unreadable);
    out.push(format!("Next: {next}"));
    if let Some(at) = decision.again_at {
        out.push(format!("A timer expires at {at}"));
    }
    out.join("\n") + "\n"
}

/// Adds a title and the lines under it, if there are any.
fn section(out: &mut Vec<String>, title: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        out.push(title.to_owned());
        out.extend(lines.into_iter().map(|line| format!("  {line}")));
    }
}

/// The source, if it has zen-lead annotations.
fn source(snapshot: &Snapshot) -> Option<&Service> {
    snapshot.judged().map(|source| &*source.object)
}

/// Whether the source asks for a leader, with valid settings or not.
fn asks(snapshot: &Snapshot) -> bool {
    let judged = snapshot.judged();
    judged.is_some_and(|source| !matches!(source.intent, Ok(Intent::None | Intent::Off)))
}

/// The endpoints in the slices of a leader Service that zen-lead wrote.
fn endpoints(snapshot: &Snapshot, leader: &Leader) -> Vec<Endpoint> {
    let slices = snapshot.slices.iter().filter(|s| *s.service == *leader.name());
    slices.filter_map(|s| s.object.as_deref()).flat_map(routed::endpoints).collect()
}

/// One line for each endpoint, and one for each slice without endpoints.
fn slices(snapshot: &Snapshot, leader: &Leader) -> Vec<String> {
    let mut lines = Vec::new();
    for slice in snapshot.slices.iter().filter(|s| *s.service == *leader.name()) {
        let name = &slice.name;
        let Some(object) = slice.object.as_deref() else {
            lines.push(format!("{name}: not written by zen-lead, but routed"));
            continue;
        };
        let found = routed::endpoints(object);
        if found.is_empty() {
            lines.push(format!("{} no pod ({name})", object.address_type));
        }
        lines.extend(
            found.iter().map(|e| format!("{} {}, {} ({name})", e.family, e.pod, e.state())),
        );
    }
    if lines.is_empty() {
        lines.push("there is no EndpointSlice".to_owned());
    }
    lines
}

/// The present conditions of the source and its leader Services.
fn reported(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let leaders = snapshot.leaders.iter().map(|l| &*l.object);
    source(snapshot).into_iter().chain(leaders).flat_map(|service| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        own_conditions(service).map(move |c| {
            let kind = c.type_.rsplit('/').next().unwrap_or_default();
            format!("{name}: {kind} is {}, {}: {}", c.status, c.reason, c.message)
        })
    })
}

/// One sentence for each thing that is routed or reported but should not be.
fn wrong(snapshot: &Snapshot, decision: &Decision) -> Vec<String> {
    let mut wrong = Vec::new();
    if !asks(snapshot) {
        return wrong;
    }
    let wanted = decision.choice.as_ref().and_then(|c| c.endpoint.as_ref());
    let wanted = wanted.filter(|(_, c)| c.ready && decision.missing_ports.is_empty());
    let should = match wanted {
        Some((pod, _)) => format!("{} should lead", pod.name),
        None => "no pod should be routed".to_owned(),
    };
    if snapshot.leaders.is_empty() {
        wrong.push("there is no leader Service, so no pod is routed".to_owned());
    }
    for leader in &snapshot.leaders {
        let endpoints = endpoints(snapshot, leader);
        let names = routed::routed(&endpoints);
        for endpoint in endpoints.iter().filter(|e| e.ready) {
            let (slice, pod) = (&endpoint.slice, &endpoint.pod);
            let is = |uid: &str| endpoint.uid.as_deref() == Some(uid);
            let known = snapshot.known_pods().any(|p| is(&p.uid));
            if !known {
                wrong.push(format!("{slice} routes {pod}, a pod that no longer exists"));
            } else if !wanted.is_some_and(|(p, _)| is(&p.uid)) {
                wrong.push(format!("{slice} routes {pod}, but {should}"));
            }
        }
        if names.len() > 1 {
            wrong.push(format!("more than one pod is routed: {}", names.join(", ")));
        }
        if names.is_empty() {
            let why = if wanted.is_some() { format!(", but {should}") } else { String::new() };
            wrong.push(format!("no pod is routed by {}{why}", leader.name()));
        }
        wrong.extend(routed::contradiction(&leader.object, &names));
    }
    wrong
}

/// What zen-lead would do now; if nothing, whether everything is in order.
fn next(snapshot: &Snapshot, decision: &Decision, right: bool) -> String {
    let refused = source(snapshot).is_some_and(|s| own_conditions(s).next().is_some())
        || snapshot
            .leaders
            .iter()
            .any(|l| routed::leader_ready(&l.object).is_some_and(|c| c.status != "True"));
    match &decision.action {
        Action::Nothing if !asks(snapshot) => "nothing".into(),
        Action::Nothing if right && !refused => "nothing, all is as it should be".into(),
        Action::Nothing => "nothing that zen-lead may do by itself; see the lines above".into(),
        Action::Wait | Action::Read | Action::ReadInputs(_) => "read the cluster again".into(),
        Action::Do(step) if refused => {
            format!(
                "{} (if this does not change, the conditions above say what prevents it)",
                words(step)
            )
        }
        Action::Do(step) => words(step),
    }
}

/// A step in words.
fn words(step: &Step) -> String {
    match step {
        Step::CreateLeader(s) => {
            format!("create leader Service {}", s.metadata.name.as_deref().unwrap_or_default())
        }
        Step::PatchLeader(t, _) => format!("repair leader Service {}", t.name),
        Step::DeleteLeader(t) => format!("delete leader Service {}", t.name),
        Step::Slice(n) => match (&n.switch, &n.write) {
            (Some(s), _) => format!("make {} leader ({})", s.name, s.reason.as_str()),
            (None, SliceWrite::Delete { name, .. }) => format!("delete slice {name}"),
            (None, _) => "write the slice".into(),
        },
        Step::Mirror(t, ..) => format!("update annotations and conditions of {}", t.name),
        Step::SourceConditions(t, ..) => format!("update the condition of {}", t.name),
    }
}

#[cfg(test)]
mod tests;
