//! Clumsy hands: changes of people and controllers to Services, slices and pods, drawn at random from a
//! seed, and checked by the rules of docs/contributing/reliability.md.
//!
//! `ZEN_LEAD_CLUMSY_SEED=n` replays one walk, `ZEN_LEAD_CLUMSY_KEEP=0,3` only these moves of it;
//! `ZEN_LEAD_CLUMSY_MINUTES=n` runs new seeds for n minutes (`ZEN_LEAD_CLUMSY_FIRST`: from that seed).

pub mod act;
pub mod calls;

pub mod draw;
pub mod hooks;
pub mod moves;
pub mod protection;
pub mod raw;
pub mod rules;
pub mod seen;
pub mod shorten;
pub mod tape;
pub mod tidy;
pub mod walk;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::support::case::Case;
use crate::support::harness::Test;
use walk::Outcome;

/// Walks of `make test`.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=15;
/// Walks at the same time: each of them mostly waits.
const TOGETHER: usize = 6;
/// How long a walk that broke a rule may be shortened.
const SHORTEN: Duration = Duration::from_mins(8);

pub fn tests() -> Vec<Test> {
    let hours = Duration::from_hours(24);
    vec![Test::new(module_path!(), "walks_of_clumsy_hands_break_no_rule", walks).within(hours)]
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

async fn walks(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    if let Some(seed) = number("ZEN_LEAD_CLUMSY_SEED") {
        return replay(&t, seed).await;
    }
    let minutes = number("ZEN_LEAD_CLUMSY_MINUTES");
    let first = number("ZEN_LEAD_CLUMSY_FIRST")
        .unwrap_or_else(|| Timestamp::now().as_second().unsigned_abs() * 100);
    let until = minutes.map(|m| Instant::now() + Duration::from_secs(60 * m));
    let seeds: Box<dyn Iterator<Item = u64> + Send> = match until {
        None => Box::new(SEEDS),
        Some(until) => Box::new((first..).take_while(move |_| Instant::now() < until)),
    };
    let broken: Vec<(u64, Outcome)> = stream::iter(seeds)
        .map(|seed| {
            let t = t.clone();
            async move { (seed, walk_of(&t, seed).await) }
        })
        .buffer_unordered(TOGETHER)
        .filter(|(_, outcome)| std::future::ready(!outcome.findings.is_empty()))
        .collect()
        .await;
    let Some((seed, outcome)) = broken.first() else { return };
    if number("ZEN_LEAD_CLUMSY_SHORTEN") != Some(0) {
        shortest(&t, *seed, outcome.worst().unwrap_or("check")).await;
    }
    panic!("{} walks broke a rule, the first is ZEN_LEAD_CLUMSY_SEED={seed}", broken.len());
}

async fn walk_of(t: &Case, seed: u64) -> Outcome {
    let plan = draw::plan(seed);
    let all: Vec<usize> = (0..plan.moves.len()).collect();
    let began = Instant::now();
    let outcome = walk::run(&t.world, &plan, &all, &format!("walk-{seed}")).await;
    println!("seed {seed}: {} moves, {:?}, {}", all.len(), began.elapsed(), outcome.words());
    outcome
}

async fn replay(t: &Case, seed: u64) {
    let plan = draw::plan(seed);
    let kept: Option<Vec<usize>> = std::env::var("ZEN_LEAD_CLUMSY_KEEP")
        .ok()
        .map(|text| text.split(',').filter_map(|n| n.trim().parse().ok()).collect());
    let all: Vec<usize> = (0..plan.moves.len()).collect();
    let outcome =
        walk::run(&t.world, &plan, kept.as_ref().unwrap_or(&all), &format!("walk-{seed}")).await;
    println!("{}", outcome.words());
    let Some(rule) = outcome.worst() else { return };
    if kept.is_none() {
        shortest(t, seed, rule).await;
    }
    panic!("seed {seed} breaks {rule}");
}

async fn shortest(t: &Case, seed: u64, rule: &'static str) {
    let plan = draw::plan(seed);
    let shortest = shorten::shorten(&t.world, &plan, rule, SHORTEN).await;
    let kept: Vec<String> = shortest.kept.iter().map(ToString::to_string).collect();
    println!("shortest: ZEN_LEAD_CLUMSY_SEED={seed} ZEN_LEAD_CLUMSY_KEEP={}", kept.join(","));
    if let Some(outcome) = shortest.outcome {
        println!("{}", outcome.words());
    }
}
