//! Small worlds, exhaustively: every order of what one or two replicas, their watches and a few events can
//! do, with the real index and the real decision. Every state is visited once.
//!
//! States are compared by their content (`digest`): versions and epochs by their order, uids by
//! their first appearance. To keep a world small, these are left out: time and timers, ranks,
//! bookmarks, and the mirror, which is only written for the check at rest.

use std::collections::HashSet;
use std::time::Instant;

use zen_lead_core::names::ServiceKey;

use crate::at_rest;
use crate::checks::{Bad, Ledger};
use crate::digest::digest;
use crate::replica::{KINDS, Kind, Outcome, Replica, Without};
use crate::walk::settle;
use crate::world::{World, fresh, happen, put_source};
use zen_lead_core::fixtures::api::Server;
use zen_lead_core::fixtures::{NAMESPACE, PodFixture};

/// A world to be searched.
pub struct Small {
    pub dual: bool,
    pub replicas: usize,
    pub pods: &'static [&'static str],
    /// What may happen, and how many of it.
    pub happenings: &'static [World],
    pub events: u8,
    /// How many calls may fail or lose their answer, and how many processes may die.
    pub faults: u8,
    pub without: Without,
    /// The check at rest is done for one state in this many.
    pub rest_of: u64,
    /// The search ends above this many states,
    pub most: usize,
    /// unfinished, if that is meant.
    pub partly: bool,
}

/// One move.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    World(World),
    /// Every event of a kind arrives. A watch lags if it has not moved since.
    Hear(usize, Kind),
    Act(usize, Outcome),
    Crash(usize),
}

#[derive(Clone)]
struct State {
    server: Server,
    replicas: Vec<Replica>,
    ledger: Ledger,
    events: u8,
    faults: u8,
}

/// What a search saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub states: usize,
    pub moves: usize,
    pub depth: usize,
    pub rested: usize,
    pub complete: bool,
}

impl Small {
    fn begin(&self) -> Result<State, Bad> {
        let mut server = Server::default();
        server.compare_and_swap = self.without != Without::CompareAndSwap;
        put_source(&mut server, self.dual);
        for name in self.pods {
            let pod = fresh(name, &server).readiness(true, server.now);
            server.put_pod(pod);
        }
        let mut replicas: Vec<Replica> = (0..self.replicas)
            .map(|i| Replica::new(format!("zen-lead-{i}"), 0, self.without))
            .collect();
        let mut ledger = Ledger::default();
        settle(&mut server, &mut replicas, &mut ledger, &mut None)?;
        for replica in &mut replicas {
            replica.bare = Some(ServiceKey::new(NAMESPACE, "web"));
        }
        Ok(State { server, replicas, ledger, events: self.events, faults: self.faults })
    }

    fn turns(&self, state: &State) -> Vec<Turn> {
        let mut turns = Vec::new();
        if state.events > 0 {
            turns.extend(self.happenings.iter().copied().map(Turn::World));
        }
        for (r, replica) in state.replicas.iter().enumerate() {
            turns.push(Turn::Act(r, Outcome::Answered));
            if state.faults > 0 {
                turns.push(Turn::Crash(r));
                if replica.pending.is_some() {
                    let faults = [Outcome::Failed, Outcome::AnswerLost, Outcome::Slow];
                    turns.extend(faults.map(|o| Turn::Act(r, o)));
                }
            }
            // An event that arrives during a call is handled after it; only a slow answer is
            // overtaken.
            if replica.between() {
                turns.extend(
                    KINDS
                        .into_iter()
                        .filter(|k| replica.lags(&state.server, *k))
                        .map(|k| Turn::Hear(r, k)),
                );
            }
        }
        turns
    }

    /// False when the move changes nothing.
    fn apply(&self, state: &mut State, turn: Turn) -> Result<bool, Bad> {
        let State { server, replicas, ledger, events, faults } = state;
        match turn {
            Turn::World(what) => {
                let version = server.version;
                happen(server, what, self.dual, ledger);
                *events = events.saturating_sub(1);
                return Ok(server.version != version);
            }
            Turn::Hear(r, kind) => while replicas[r].deliver(server, kind) {},
            Turn::Act(r, outcome) => {
                *faults = faults.saturating_sub(u8::from(outcome != Outcome::Answered));
                replicas[r].act(server, outcome, ledger)?;
            }
            Turn::Crash(r) => {
                *faults = faults.saturating_sub(1);
                replicas[r].restart();
            }
        }
        Ok(true)
    }

    /// Nothing happens any more and both replicas work: they reach the right state, then write nothing.
    fn rest(state: &State) -> Result<(), Bad> {
        let State { mut server, mut replicas, mut ledger, .. } = state.clone();
        for settled in [false, true] {
            for replica in &mut replicas {
                replica.bare = None;
                replica.resync();
            }
            let version = server.version;
            settle(&mut server, &mut replicas, &mut ledger, &mut None)?;
            at_rest::at_rest(&server, &["web"], 1)?;
            if settled && server.version != version {
                let found = format!("{} writes in the right state", server.version - version);
                return Err(Bad { property: "invariant 5", found });
            }
        }
        Ok(())
    }

    /// Visits everything, depth first; a failure comes with the moves that lead to it.
    pub fn search(&self) -> Result<Seen, (Bad, Vec<Turn>)> {
        let mut seen = Seen { complete: true, ..Seen::default() };
        let mut known = HashSet::new();
        let begin = self.begin().map_err(|bad| (bad, Vec::new()))?;
        known.insert((
            digest(&begin.server, &begin.replicas, &begin.ledger),
            self.events,
            self.faults,
        ));
        let first = self.turns(&begin).into_iter();
        let mut path: Vec<Turn> = Vec::new();
        let mut stack = vec![(begin, first)];
        while let Some((state, turns)) = stack.last_mut() {
            let Some(turn) = turns.next() else {
                stack.pop();
                path.pop();
                continue;
            };
            let mut next = state.clone();
            seen.moves += 1;
            path.push(turn);
            let moved = self.apply(&mut next, turn).map_err(|bad| (bad, path.clone()))?;
            let name = digest(&next.server, &next.replicas, &next.ledger);
            if !moved || !known.insert((name, next.events, next.faults)) {
                path.pop();
                continue;
            }
            if name.is_multiple_of(self.rest_of) {
                seen.rested += 1;
                Self::rest(&next).map_err(|bad| (bad, path.clone()))?;
            }
            seen.depth = seen.depth.max(path.len());
            if known.len() >= self.most {
                seen.complete = false;
                break;
            }
            let turns = self.turns(&next).into_iter();
            stack.push((next, turns));
        }
        seen.states = known.len();
        Ok(seen)
    }

    fn fails(&self, path: &[Turn], property: &str) -> bool {
        let Ok(mut state) = self.begin() else { return false };
        let found = path.iter().find_map(|turn| self.apply(&mut state, *turn).err());
        found.or_else(|| Self::rest(&state).err()).is_some_and(|bad| bad.property == property)
    }

    /// Drops moves while the same property still fails.
    pub fn shortened(&self, bad: &Bad, path: Vec<Turn>) -> Vec<Turn> {
        let mut best = path;
        let mut chunk = best.len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at < best.len() {
                let mut shorter = best.clone();
                shorter.drain(at..(at + chunk).min(best.len()));
                if self.fails(&shorter, bad.property) {
                    best = shorter;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        best
    }

    /// Searches and prints the result; panics with the shortened moves of a failure.
    pub fn holds(&self, name: &str) {
        #[allow(
            clippy::disallowed_methods,
            reason = "the duration of a search is printed, not checked"
        )]
        let began = Instant::now();
        match self.search() {
            Ok(seen) => {
                println!("{name}: {seen:?} in {:.0?}", began.elapsed());
                assert!(seen.complete || self.partly, "{name}: not all of it was searched");
            }
            Err((bad, path)) => {
                let short = self.shortened(&bad, path);
                panic!("{name}: {} does not hold: {}\n{short:#?}", bad.property, bad.found);
            }
        }
    }
}
