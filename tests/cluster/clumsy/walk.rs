//! Runs a walk in its own namespace, checks it, and shortens one that breaks a rule.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::act::Ground;
use super::calls::Calls;
use super::draw::Plan;
use super::moves::{Move, PodMove};
use super::protection;
use super::raw::SLICE;
use super::rules::{self, Finding};
use super::tape::Tape;
use crate::support::case::Case;
use crate::support::objects::hollow;
use crate::support::world::World;

/// The pause after the last move, before the standing situation is checked.
const SETTLE: Duration = Duration::from_secs(4);
/// How long the situation is watched.
const STANDING: Duration = Duration::from_secs(6);
/// The longest time until reports agree with what is routed.
const REPORTED: Duration = Duration::from_secs(10);
/// The longest time until a pod leads after all disturbances, including pauses that have grown meanwhile.
const LED: Duration = Duration::from_secs(40);

/// Rules, the worst first.
const WORST: [&str; 8] = ["R-b", "R-a/b", "R-d", "R-f", "R-e", "R-c", "asked", "check"];

/// The findings of a walk, and its moves.
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub log: String,
}

impl Outcome {
    /// The findings and the moves, as text.
    pub fn words(&self) -> String {
        if self.findings.is_empty() {
            return "no rule is broken".to_owned();
        }
        let mut words = self.log.clone();
        for finding in &self.findings {
            let _ = writeln!(words, "  {} is broken: {}", finding.rule, finding.what);
        }
        format!("breaks a rule:\n{words}")
    }

    /// The worst rule that is broken.
    pub fn worst(&self) -> Option<&'static str> {
        let broken = |rule: &&&str| self.findings.iter().any(|f| f.rule == **rule);
        WORST.iter().find(broken).copied()
    }

    pub fn breaks(&self, rule: &str) -> bool {
        self.findings.iter().any(|f| f.rule == rule)
    }
}

/// Runs the moves of a plan whose numbers are kept.
pub async fn run(world: &Arc<World>, plan: &Plan, kept: &[usize], name: &str) -> Outcome {
    let case = Case::open(world.clone(), name).await;
    if plan.protected {
        protection::protect(&case).await;
    }
    let mut ground = Ground::new(Arc::new(case)).await;
    let outcome = walk(&mut ground, plan, kept).await;
    let _ = ground.act(&Move::Unhook).await;
    let _ = ground.release().await;
    ground.t.close().await;
    outcome
}

async fn walk(ground: &mut Ground, plan: &Plan, kept: &[usize]) -> Outcome {
    let mut log = if plan.protected { "  (the protecting policies hold)\n" } else { "" }.to_owned();
    let mut findings = Vec::new();
    let tape = Tape::start(&ground.admin);
    let calls = Calls::from_now(&ground.t);
    let began_with = ground.t.world.product.starts();
    for pod in ["p1", "p2"] {
        ground.t.pod(hollow(pod, "web").dual()).await;
    }
    let mut created = false;
    for n in kept {
        if *n >= plan.early && !created {
            created = true;
            create(ground, plan, kept, &mut log, &mut findings).await;
        }
        let refused = ground.act(&plan.moves[*n]).await.err();
        findings.extend(refused.as_ref().and_then(rules::is_no_answer));
        let refused = refused.map(|(code, words)| format!(" -> {code} {words}"));
        let _ = writeln!(log, "  {n}. {}{}", plan.moves[*n], refused.unwrap_or_default());
    }
    if !created {
        create(ground, plan, kept, &mut log, &mut findings).await;
    }

    // The standing situation.
    sleep(SETTLE).await;
    let mut standing = Vec::new();
    // A replica that another walk restarts tries everything once more: that is no standing situation.
    for _ in 0..3 {
        let starts = ground.t.world.product.starts();
        standing = rules::standing(&calls, STANDING).await;
        if ground.t.world.product.starts() == starts {
            break;
        }
    }
    findings.extend(rules::no_storm(&standing, 1 + ground.crowd));
    findings.extend(rules::no_lies(ground, REPORTED).await);
    let killed = ground.t.world.product.starts() != began_with;
    match rules::is_reported(ground, &standing, killed).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::new("check", error)),
    }

    findings.extend(rules::neighbour(ground).await);

    // Nothing disturbs any more.
    if let Err(refused) = ground.tidy().await {
        findings.push(Finding::new("R-a/b", refused));
    }
    match rules::is_led(ground, "", LED).await {
        Err(what) => findings.push(Finding::new("R-a/b", format!("no pod leads: {what}"))),
        Ok(leader) => {
            let pod = if leader == "p1" { "p1" } else { "p2" };
            let _ = ground.act(&Move::Pod(pod, PodMove::Vanish)).await;
            if let Err(what) = rules::is_led(ground, &leader, LED).await {
                let what = format!("{leader} is lost and the other does not lead: {what}");
                findings.push(Finding::new("R-a/b", what));
            }
            findings.extend(rules::no_lies(ground, REPORTED).await);
            findings.extend(rules::as_asked(ground, LED).await);
        }
    }
    findings.extend(rules::blames_no_webhook_wrongly(ground).await);
    findings.extend(rules::never_emptied(&tape.all(), SLICE.1));
    findings.dedup();
    Outcome { findings, log }
}

async fn create(
    ground: &Ground,
    plan: &Plan,
    kept: &[usize],
    log: &mut String,
    findings: &mut Vec<Finding>,
) {
    let made = ground.source(&plan.source).await;
    let _ = writeln!(
        log,
        "  alice: create web {}{}",
        plan.source,
        made.err().map(|(c, w)| format!(" -> {c} {w}")).unwrap_or_default()
    );
    if kept.iter().all(|n| *n >= plan.early) {
        if let Err(what) = rules::is_led(ground, "", LED).await {
            findings.push(Finding::new("R-f", format!("no first leader: {what}")));
        }
        // Waits until it is not young any more for the checks.
        sleep(Duration::from_millis(2500)).await;
    }
}
