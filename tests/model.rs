//! A model of the whole without a cluster: a double of the API server, replicas that run the real
//! index and the real decision behind lagging watches, and a world that does its worst.
//!
//! Seeds are printed with a failure, with the shortened walk. `ZEN_LEAD_MODEL_SEED=n` runs one seed,
//! `ZEN_LEAD_MODEL_WALKS=n` so many walks of each profile (`cargo test --release --test model`).
#![allow(clippy::unwrap_used, missing_docs, reason = "a test binary")]

#[path = "../src/fixtures.rs"]
mod fixtures;

#[path = "model/checks.rs"]
mod checks;
#[path = "model/replica.rs"]
mod replica;
#[path = "model/walk.rs"]
mod walk;

use replica::Without;
use walk::{Done, Profile, Walk};

const STEPS: usize = 300;

fn setting(name: &str) -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "how a test is told what to replay")]
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

/// Runs so many walks; panics with the shortened one that fails.
fn walks(profile: Profile, walks: u64) {
    let seeds: Vec<u64> = match setting("ZEN_LEAD_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("ZEN_LEAD_MODEL_WALKS").unwrap_or(walks)).collect(),
    };
    let mut all = Done::default();
    for &seed in &seeds {
        let walk = Walk::new(seed, STEPS, profile, Without::Nothing);
        match walk.run() {
            Ok(done) => {
                all.moves += done.moves;
                all.writes += done.writes;
                all.switches += done.switches;
            }
            Err(bad) => {
                let short = walk.shortened(&bad);
                let bad = short.run().err().unwrap_or(bad);
                panic!(
                    "seed {seed} ({profile:?}): {} does not hold: {}\n{} moves are enough:\n{}",
                    bad.property,
                    bad.found,
                    short.moves.len(),
                    short.trace()
                );
            }
        }
    }
    println!(
        "{} walks: {} moves, {} writes, {} switches",
        seeds.len(),
        all.moves,
        all.writes,
        all.switches
    );
    assert!(
        seeds.len() < 100 || 2 * all.switches > seeds.len(),
        "walks that switch nothing show nothing: {all:?}"
    );
}

#[test]
fn the_protocol_holds() {
    walks(Profile::Protocol, 250);
}

#[test]
fn everything_holds() {
    walks(Profile::Everything, 250);
}

/// The property that fails first without a rule, within so many walks.
fn caught(without: Without, within: u64) -> (u64, &'static str) {
    for seed in 0..within {
        if let Err(bad) = Walk::new(seed, STEPS, Profile::Protocol, without).run() {
            println!("{without:?}: seed {seed}: {}: {}", bad.property, bad.found);
            return (seed, bad.property);
        }
    }
    panic!("{within} walks without {without:?} found nothing");
}

#[test]
fn writing_without_compare_and_swap_is_caught() {
    caught(Without::CompareAndSwap, 50);
}

#[test]
fn deciding_from_a_stale_cache_is_caught() {
    caught(Without::FreshOrRead, 50);
}

#[test]
fn marks_over_pods_only_are_caught() {
    caught(Without::MarksOverServices, 200);
}

#[test]
fn a_follower_without_the_epoch_to_come_is_caught() {
    caught(Without::FollowerEpoch, 200);
}

#[test]
fn reading_the_slices_last_is_caught() {
    caught(Without::SlicesReadFirst, 300);
}
