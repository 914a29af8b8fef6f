//! A model of the whole without a cluster: a double of the API server, replicas that run the real
//! index and the real decision behind lagging watches, and a world that does its worst.
//!
//! Seeds are printed with a failure, with the shortened walk. `ZEN_LEAD_MODEL_SEED=n` runs one seed,
//! `ZEN_LEAD_MODEL_WALKS=n` so many walks of each profile from `ZEN_LEAD_MODEL_FIRST` on,
//! `ZEN_LEAD_MODEL_STATES=n` searches so many states of each small world. More: scripts/soak.sh.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test binary")]

mod at_rest;
mod checks;
mod clumsy;
mod describe;
mod digest;
mod facts;
mod fresh;
mod inputs;
mod kept;
mod repaired;
mod replica;
mod small;
mod standing;
mod traces;
mod walk;
mod world;

use clumsy::Clumsy;
use replica::{Kind, Without};
use small::Small;
use walk::{Done, Move, Profile, Walk};
use world::{PodMove, World};

const STEPS: usize = 300;

fn setting(name: &str) -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "the environment says what to replay")]
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

/// Runs this many walks; panics with the shortened one that fails.
fn walks(profile: Profile, walks: u64) {
    let first = setting("ZEN_LEAD_MODEL_FIRST").unwrap_or(0);
    let number = setting("ZEN_LEAD_MODEL_WALKS").unwrap_or(walks);
    let seeds: Vec<u64> = setting("ZEN_LEAD_MODEL_SEED")
        .map_or_else(|| (first..first + number).collect(), |s| vec![s]);
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
    walks(Profile::Protocol, 2000);
}

#[test]
fn everything_holds() {
    walks(Profile::Everything, 2000);
}

#[test]
fn two_versions_side_by_side_hold() {
    walks(Profile::Versions, 1000);
}

#[test]
fn a_restored_cluster_holds() {
    walks(Profile::Restored, 800);
}

#[test]
fn clocks_twenty_minutes_apart_hold() {
    walks(Profile::Skewed, 1000);
}

#[test]
fn clumsy_hands_hold() {
    walks(Profile::Clumsy, 1000);
}

/// What this many clumsy walks find, for a search for faults. `ZEN_LEAD_MODEL_SHORTER=n` shortens each
/// with so many runs, `ZEN_LEAD_MODEL_AT_ONCE=1` tries again at once what is refused, and
/// `ZEN_LEAD_MODEL_READABLE=1` leaves everything readable.
#[test]
#[ignore = "it searches for faults and checks nothing"]
fn survey_of_clumsy_hands() {
    let first = setting("ZEN_LEAD_MODEL_FIRST").unwrap_or(0);
    let at_once = setting("ZEN_LEAD_MODEL_AT_ONCE").is_some();
    let without = if at_once { Without::Holding } else { Without::Nothing };
    for seed in first..first + setting("ZEN_LEAD_MODEL_WALKS").unwrap_or(200) {
        let mut walk = Walk::new(seed, STEPS, Profile::Clumsy, without);
        if setting("ZEN_LEAD_MODEL_READABLE").is_some() {
            let unreadable =
                |m: &Move| matches!(m, Move::World(World::Clumsy(Clumsy::Unreadable(..))));
            walk.moves.retain(|m| !unreadable(m));
        }
        let Err(bad) = walk.run() else { continue };
        println!("\n== seed {seed}: {}: {:.300}", bad.property, bad.found);
        let Some(runs) = setting("ZEN_LEAD_MODEL_SHORTER") else { continue };
        let short = walk.shortened_within(&bad, usize::try_from(runs).unwrap());
        let bad = short.run().err().unwrap_or(bad);
        let Walk { dual, replicas, served, lonely, ranks, .. } = walk;
        println!("dual {dual} replicas {replicas} served {served} lonely {lonely} ranks {ranks}");
        println!("{}=> {:.300}", short.trace(), bad.found);
    }
}

const PODS_COME_AND_GO: &[World] = &[
    World::Pod("a", PodMove::Ready(false)),
    World::Pod("a", PodMove::Ready(true)),
    World::Pod("b", PodMove::Ready(false)),
    World::Pod("b", PodMove::Ready(true)),
    World::Pod("a", PodMove::ComeOrGo),
    World::Set("zen-lead.io/sticky", "false"),
];

/// A slice that is removed while the answer to its write is under way.
const A_SLICE_GOES: &[World] =
    &[World::Pod("a", PodMove::Ready(false)), World::DeleteSlice("ipv4")];

fn by_hand(without: Without) -> Small {
    Small { happenings: A_SLICE_GOES, replicas: 1, without, rest_of: 1, ..small(false, 2, 1) }
}

fn small(dual: bool, events: u8, faults: u8) -> Small {
    Small {
        dual,
        replicas: 2,
        pods: &["a", "b"],
        happenings: PODS_COME_AND_GO,
        events,
        faults,
        without: Without::Nothing,
        rest_of: setting("ZEN_LEAD_MODEL_REST_OF").unwrap_or(16),
        most: usize::try_from(setting("ZEN_LEAD_MODEL_STATES").unwrap_or(500_000)).unwrap(),
        partly: setting("ZEN_LEAD_MODEL_STATES").is_some(),
    }
}

#[test]
fn small_worlds_hold_exhaustively() {
    small(false, 1, 1).holds("one family, 1 event, 1 fault");
    by_hand(Without::Nothing).holds("one family, one replica, a slice goes, 2 events, 1 fault");
}

#[test]
fn small_worlds_hold_with_two_families() {
    small(true, 1, 1).holds("two families, 1 event, 1 fault");
    if setting("ZEN_LEAD_MODEL_SOAK").is_some() {
        for (dual, events, faults) in [(false, 2, 0), (true, 2, 0), (false, 2, 1), (true, 2, 1)] {
            small(dual, events, faults)
                .holds(&format!("two families {dual}, {events} events, {faults} faults"));
        }
    }
}

/// Walks without a rule until one fails; the shortened walk is the one in docs/contributing/testing.md.
fn caught(without: Without, profile: Profile, within: u64) {
    caught_by(without, within, |seed| Walk::new(seed, STEPS, profile, without));
}

/// As [`caught`], where only the effect on users is a failure, not the broken rule itself.
fn caught_by_harm(without: Without, profile: Profile, within: u64) {
    caught_by(without, within, |seed| Walk {
        harm_only: true,
        ..Walk::new(seed, STEPS, profile, without)
    });
}

fn caught_by(without: Without, within: u64, walk: impl Fn(u64) -> Walk) {
    for seed in 0..within {
        let walk = walk(seed);
        let Err(bad) = walk.run() else { continue };
        let short = walk.shortened(&bad);
        let bad = short.run().err().unwrap_or(bad);
        let text = format!(
            "Walk {} (seed {seed}) fails, {} of its {STEPS} moves are enough. *{}*:\n\n```\n{}=> {}\n```\n",
            seed + 1,
            short.moves.len(),
            bad.property,
            short.trace(),
            bad.found
        );
        traces::documented(&format!("{without:?}"), &text);
        return;
    }
    panic!("{within} walks without {without:?} found nothing");
}

#[test]
fn writing_without_compare_and_swap_is_caught() {
    caught_by_harm(Without::CompareAndSwap, Profile::Protocol, 2000);
}

#[test]
fn deciding_from_a_stale_cache_is_caught() {
    caught_by_harm(Without::FreshOrRead, Profile::Protocol, 2000);
}

#[test]
fn marks_over_pods_only_are_caught() {
    caught_by_harm(Without::MarksOverServices, Profile::Protocol, 2000);
}

#[test]
fn a_follower_without_the_epoch_to_come_is_caught() {
    caught(Without::FollowerEpoch, Profile::Protocol, 200);
}

#[test]
fn reading_the_slices_last_is_caught() {
    caught_by_harm(Without::SlicesReadFirst, Profile::Protocol, 2000);
}

/// It takes many walks to find this one and a long time to shorten it: each attempt has 600 rounds.
#[test]
fn taking_a_switch_back_by_a_clock_behind_is_caught() {
    let run = |without| Walk::new(371, STEPS, Profile::Skewed, without).run();
    assert!(run(Without::Nothing).is_ok());
    let bad =
        run(Without::BegunSwitches).expect_err("where walks have changed, look for a new seed");
    assert_eq!(bad.property, "it comes to rest");
}

#[test]
fn believing_a_lost_watch_is_caught() {
    caught(Without::Trust, Profile::Protocol, 50);
}

#[test]
fn versions_that_overwrite_each_other_are_caught() {
    caught(Without::VersionsInOrder, Profile::Versions, 50);
}

#[test]
fn a_downgrade_without_takeover_is_caught() {
    caught(Without::Takeover, Profile::Versions, 50);
}

#[test]
fn clumsy_hands_find_what_a_missing_rule_does() {
    for (without, within) in
        [(Without::Holding, 100), (Without::Evidence, 100), (Without::Unknown, 200)]
    {
        let failed = (0..within).find_map(|seed| {
            let walk = Walk::new(seed, STEPS, Profile::Clumsy, without);
            Some((seed, walk.run().err()?))
        });
        let (seed, bad) = failed.unwrap_or_else(|| panic!("{within} walks without {without:?}"));
        println!("{without:?}: seed {seed}: {}: {:.300}", bad.property, bad.found);
    }
}

/// What is made or deleted rests on a read of each object that it depends on.
#[test]
fn a_step_without_one_of_its_reads_is_caught() {
    // That a slice is routed again between two writes of a removal is rare: one of 4,503 walks.
    for (kind, first) in [(Kind::Services, 0), (Kind::Slices, 4500), (Kind::Pods, 0)] {
        let walk = |seed| Walk::new(seed, STEPS, Profile::Everything, Without::ByName(kind));
        let failed = (first..first + 400).find_map(|seed| Some((seed, walk(seed).run().err()?)));
        let (seed, bad) = failed.unwrap_or_else(|| panic!("400 walks without reads of {kind:?}"));
        println!("{kind:?}: seed {seed}: {}: {:.300}", bad.property, bad.found);
        assert_eq!(bad.property, fresh::FRESH);
    }
}

/// Every order of moves finds what the walks find, in a world with two pods and two families.
#[test]
fn small_worlds_without_a_rule_fail() {
    for world in [
        Small { without: Without::CompareAndSwap, ..small(true, 2, 0) },
        Small { without: Without::FreshOrRead, ..small(true, 2, 0) },
        by_hand(Without::AnswersInOrder),
    ] {
        let without = world.without;
        let (bad, path) = world.search().expect_err("it must fail without the rule");
        println!("{without:?}: {} after {} moves: {}", bad.property, path.len(), bad.found);
    }
}
