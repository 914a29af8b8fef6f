//! Shortens a walk that breaks a rule: moves are dropped as long as the same rule is still broken.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::TOGETHER;
use super::draw::Plan;
use super::walk::{self, Outcome};
use crate::support::world::World;

/// The numbers of the remaining moves, and their outcome.
pub struct Shortest {
    pub kept: Vec<usize>,
    pub outcome: Option<Outcome>,
}

/// Drops halves first, then smaller and smaller parts, several at the same time, until nothing can be
/// dropped or the time is over.
pub async fn shorten(
    world: &Arc<World>,
    plan: &Plan,
    rule: &'static str,
    limit: Duration,
) -> Shortest {
    let began = Instant::now();
    let kept: Vec<usize> = (0..plan.moves.len()).collect();
    let mut part = kept.len().div_ceil(2);
    let mut now = Shortest { kept, outcome: None };
    let mut tries = 0;
    while part > 0 && began.elapsed() < limit {
        let without = |from: usize| -> Vec<usize> {
            [&now.kept[..from], &now.kept[(from + part).min(now.kept.len())..]].concat()
        };
        let starts = (0..now.kept.len()).step_by(part);
        let candidates: Vec<Vec<usize>> = starts.map(without).collect();
        let mut broken = try_all(world, plan, rule, candidates, &mut tries).await;
        if broken.len() > 1 {
            // Moves that can be dropped one by one can often be dropped together.
            let all = |n: &usize| broken.iter().all(|b| b.kept.contains(n));
            let together: Vec<usize> = now.kept.iter().filter(|n| all(n)).copied().collect();
            broken.extend(try_all(world, plan, rule, vec![together], &mut tries).await);
        }
        match broken.into_iter().min_by_key(|b| b.kept.len()) {
            Some(shorter) => {
                now = shorter;
                part = part.min(now.kept.len().div_ceil(2));
            }
            None if part == 1 => break,
            None => part = part.div_ceil(2),
        }
    }
    now
}

/// Those of the candidates that still break the rule.
async fn try_all(
    world: &Arc<World>,
    plan: &Plan,
    rule: &str,
    candidates: Vec<Vec<usize>>,
    tries: &mut usize,
) -> Vec<Shortest> {
    let first = *tries;
    *tries += candidates.len();
    let run = |(n, kept): (usize, Vec<usize>)| async move {
        let name = format!("short-{}-{}", plan.seed % 1_000_000, first + n);
        let outcome = walk::run(world, plan, &kept, &name).await;
        outcome.breaks(rule).then_some(Shortest { kept, outcome: Some(outcome) })
    };
    let all: Vec<_> = stream::iter(candidates.into_iter().enumerate())
        .map(run)
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    all.into_iter().flatten().collect()
}
