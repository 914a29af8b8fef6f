//! `zen-lead explain NAMESPACE/SERVICE`: who leads, why the others do not, what would happen next.
//!
//! Runs the controller's own decision over a consistent read; it never writes.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::decide::slices::SliceWrite;
use crate::decide::{self, Action, Context, Decision, Step, Trust};
use crate::index::{Snapshot, SourceState};
use crate::names::ServiceKey;
use crate::reader::Reader;
use crate::replica::DECISION_VERSION;
use crate::spec::Intent;

/// Reads the namespace and explains the Service.
///
/// # Errors
/// When the argument is not NAMESPACE/SERVICE, or the API server cannot be read.
pub async fn run(service: &str, reader: &Reader, now: Timestamp) -> anyhow::Result<String> {
    let Some((namespace, name)) = service.split_once('/') else {
        bail!("{service:?} is not NAMESPACE/SERVICE; write for example default/web");
    };
    let key = ServiceKey::new(namespace, name);
    let index = reader.read(&key).await.with_context(|| {
        format!("cannot read namespace {namespace} with the rights of your kubeconfig")
    })?;
    let snapshot = Snapshot { consistent: true, ..index.snapshot(&key) };
    let context = Context {
        now,
        writer: "explain",
        trust: Trust::Live,
        blocked: &[],
        version: DECISION_VERSION,
        replicas: &[],
        takes_over: false,
    };
    Ok(text(&snapshot, &decide::decide(&snapshot, &context), now))
}

/// The explanation, in lines.
pub fn text(snapshot: &Snapshot, decision: &Decision, now: Timestamp) -> String {
    let mut out = String::new();
    let line = |out: &mut String, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(&mut out, &format!("Service {}", snapshot.key));
    match &snapshot.source {
        SourceState::Absent => line(&mut out, "  does not exist"),
        SourceState::Unreadable { .. } => {
            line(&mut out, "  cannot be read: the present leader stays, no new one is chosen");
        }
        SourceState::Plain { .. } => line(&mut out, "  has no zen-lead.io/ annotation: not served"),
        SourceState::Judged { source, .. } => match &source.intent {
            Ok(Intent::On(spec)) => {
                line(&mut out, &format!("  leader Service: {}", spec.leader_service_name));
            }
            Ok(_) => line(&mut out, "  not enabled (zen-lead.io/enabled is not \"true\")"),
            Err(violations) => {
                line(&mut out, "  invalid: the present leader stays, nobody new is promoted");
                for v in violations {
                    line(&mut out, &format!("    {}: {}", v.field, v.message));
                }
            }
        },
    }
    if let Some(choice) = &decision.choice {
        line(&mut out, "Pods");
        for (pod, standing) in &choice.standings {
            let age = now.duration_since(pod.created).as_secs();
            line(&mut out, &format!("  {:<40} {} (age {age}s)", pod.name, standing.as_str()));
        }
        if choice.standings.is_empty() {
            line(&mut out, "  the selector matches no pod");
        }
    }
    if !decision.missing_ports.is_empty() {
        let missing = decision.missing_ports.join(", ");
        line(&mut out, &format!("Ports the leader does not have: {missing}"));
    }
    let unreadable = snapshot.unreadable();
    if !unreadable.is_empty() {
        line(&mut out, "Cannot be read, so what exists for it stays as it is");
        for what in &unreadable {
            line(&mut out, &format!("  {what}"));
        }
    }
    let next = match &decision.action {
        Action::Nothing if !unreadable.is_empty() => "nothing, before that can be read".into(),
        action => next(action),
    };
    line(&mut out, &format!("Next: {next}"));
    if let Some(at) = decision.again_at {
        line(&mut out, &format!("A timer runs out at {at}"));
    }
    out
}

fn next(action: &Action) -> String {
    match action {
        Action::Nothing => "nothing, all is as it should be".into(),
        Action::Wait | Action::Read => "read the cluster again".into(),
        Action::Do(step) => match step {
            Step::CreateLeader(s) => {
                format!("create leader Service {}", s.metadata.name.as_deref().unwrap_or_default())
            }
            Step::PatchLeader(t, _) => format!("put leader Service {} right", t.name),
            Step::DeleteLeader(t) => format!("delete leader Service {}", t.name),
            Step::Slice(n) => match (&n.switch, &n.write) {
                (Some(s), _) => format!("make {} leader ({})", s.name, s.reason.as_str()),
                (None, SliceWrite::Delete { name, .. }) => format!("delete slice {name}"),
                (None, _) => "write the slice".into(),
            },
            Step::Mirror(t, ..) => format!("update annotations and conditions of {}", t.name),
            Step::SourceConditions(t, ..) => format!("update the condition of {}", t.name),
        },
    }
}
