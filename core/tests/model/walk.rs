//! Random walks: moves of the world and of the replicas from a seed, a run, and a shortened trace.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::SignedDuration;

use crate::at_rest;
use crate::checks::{Bad, Ledger};
use crate::clumsy;
use crate::replica::{KINDS, Kind, Outcome, Replica, Without};
use crate::standing;
use crate::world::{PODS, World, fresh, happen, happening, put_source};
use zen_lead_core::fixtures::PodFixture;
use zen_lead_core::fixtures::api::Server;
use zen_lead_core::fixtures::dice::Dice;

/// The dice of the model ([`Dice::new`]).
const STREAM: u64 = 0x5851_f42d_4c95_7f2d;

/// The sources of a world: `web`, and `api` that may ask for the same leader Service.
/// The source and three pods are there at least.
const FIRST_VERSION: u64 = 104;
pub const SOURCES: [&str; 2] = ["web", "api"];

/// One move of a walk.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    World(World),
    Deliver(usize, Kind),
    Bookmark(usize, Kind),
    List(usize, Kind),
    Freeze(usize, Kind, bool),
    Lost(usize, bool),
    Crash(usize),
    Act(usize, Outcome),
    /// A write that was given up arrives.
    Arrive(usize),
    /// A replica takes the replicas of this bit mask for the ready ones.
    Members(usize, u8),
    /// A replica is stopped; it starts with [`Move::Crash`].
    Stop(usize),
    /// A replica stands still in the middle of its work, or goes on.
    Pause(usize, bool),
    /// An event is repeated: the last one, or one before it.
    Repeat(usize, Kind, u8),
    /// The server drops its history: watches that are behind get 410.
    Compact,
    /// The last versions, this many, are lost: the cluster is restored from a backup.
    Restore(u8),
    /// Everything arrives and this many calls succeed.
    Run(usize, u8),
}

/// Which moves a walk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Pods, the source's settings, replicas: the protocol.
    Protocol,
    /// All of that, and everything that people can do to zen-lead's objects.
    Everything,
    /// The protocol with two decision versions that disagree, and the newer one gone in the end.
    Versions,
    /// The protocol in a cluster that is restored from a backup.
    Restored,
    /// The protocol with clocks that are up to twenty minutes apart, and timers.
    Skewed,
    /// The protocol under clumsy hands: what people and controllers do to objects that are not theirs.
    Clumsy,
}

impl Profile {
    /// How far the clocks of the replicas are ahead, in milliseconds.
    fn clocks(self) -> [i64; 5] {
        match self {
            Self::Skewed => [0, 600_000, -600_000, 30_000, -5_000],
            _ => [0, 1_500, -700, 400, -300],
        }
    }
}

/// A walk to be run.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "independent choices of the dice")]
pub struct Walk {
    pub seed: u64,
    pub profile: Profile,
    pub without: Without,
    pub dual: bool,
    pub replicas: usize,
    pub moves: Vec<Move>,
    /// It begins where everything was served already.
    pub served: bool,
    /// In the end only the first replica is alive; the others wake up late.
    pub lonely: bool,
    /// Replicas know of each other and wait for their rank.
    pub ranks: bool,
    /// In the end no replica of the newer version is left.
    pub downgrade: bool,
    /// Only an effect on users is a failure.
    pub harm_only: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub moves: usize,
    pub writes: usize,
    pub switches: usize,
}

impl Walk {
    pub fn new(seed: u64, steps: usize, profile: Profile, without: Without) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let dual = !dice.one_in(3);
        let replicas = 2 + dice.below(4);
        let lonely = dice.one_in(3);
        let served = !dice.one_in(4);
        let ranks = profile == Profile::Versions || dice.one_in(3);
        let downgrade = dice.one_in(2);
        let profiled = Self {
            seed,
            profile,
            without,
            dual,
            replicas: if profile == Profile::Versions { replicas.max(3) } else { replicas },
            moves: Vec::new(),
            served,
            lonely,
            ranks,
            downgrade,
            harm_only: false,
        };
        let moves = (0..steps).map(|_| profiled.a_move(&mut dice)).collect();
        Self { moves, ..profiled }
    }

    /// Runs it.
    pub fn run(&self) -> Result<Done, Bad> {
        let mut ledger = Ledger::default();
        let run = catch_unwind(AssertUnwindSafe(|| self.run_moves(&mut ledger, &mut None)));
        match run {
            Ok(result) => result.map(|()| Done {
                moves: self.moves.len(),
                writes: ledger.writes,
                switches: ledger.switches,
            }),
            Err(panic) => {
                let found = panic.downcast_ref::<String>().cloned();
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                Err(Bad { property: "no panic", found: found.or(text).unwrap_or_default() })
            }
        }
    }

    fn run_moves(&self, ledger: &mut Ledger, trace: &mut Option<String>) -> Result<(), Bad> {
        let mut server = Server::default();
        server.compare_and_swap = self.without != Without::CompareAndSwap;
        ledger.harm_only = self.harm_only;
        let clocks = self.profile.clocks();
        let clocks = &clocks[..self.replicas];
        ledger.most_ahead = clocks.iter().copied().max().unwrap_or(0);
        ledger.clocks_apart = ledger.most_ahead - clocks.iter().copied().min().unwrap_or(0);
        let mut dice = Dice::new(self.seed ^ 0xabcd, STREAM);
        put_source(&mut server, self.dual);
        for name in PODS.iter().take(3) {
            let ready = dice.below(10) < 7;
            let now = server.now;
            server.put_pod(fresh(name, &server).readiness(ready, now));
        }
        let mut replicas: Vec<Replica> = (0..self.replicas)
            .map(|i| {
                let name = format!("zen-lead-{i}");
                let version = if self.profile == Profile::Versions && i >= 2 { 2 } else { 1 };
                let patient = self.profile == Profile::Clumsy;
                let mut replica = Replica::new(name, clocks[i], self.without).following(version);
                replica.patient = patient;
                replica
            })
            .collect();
        self.meet(&mut replicas, |_| true);
        if self.served {
            settle(&mut server, &mut replicas, ledger, &mut None)?;
        }
        for (n, step) in self.moves.iter().enumerate() {
            if let Some(trace) = trace {
                let doing = match step {
                    Move::Act(r, _) | Move::Run(r, _) => replicas[*r].describe(),
                    _ => String::new(),
                };
                let _ = writeln!(trace, "{n:4} v{} {step:?} {doing}", server.version);
            }
            self.apply(&mut server, &mut replicas, *step, ledger)?;
        }
        if self.profile == Profile::Clumsy {
            self.meet(&mut replicas, |_| true);
            standing::stand(&mut server, &mut replicas, ledger, trace)?;
            clumsy::over(&mut server);
        }
        server.slice_quota = false;
        server.service_quota = false;
        let alive = match () {
            () if self.lonely => 1,
            () if self.downgrade && self.profile == Profile::Versions => 2,
            () => replicas.len(),
        };
        let version = |alive: &[Replica]| alive.iter().map(|r| r.version).max().unwrap_or(1);
        self.meet(&mut replicas, |r| r < alive);
        settle(&mut server, &mut replicas[..alive], ledger, trace)?;
        at_rest::at_rest(&server, &SOURCES, version(&replicas[..alive]))?;
        // A replica that was paused goes on and finishes what it had begun.
        self.meet(&mut replicas, |_| true);
        settle(&mut server, &mut replicas, ledger, trace)?;
        at_rest::at_rest(&server, &SOURCES, version(&replicas))?;
        let version = server.version;
        for replica in &mut replicas {
            replica.resync();
        }
        settle(&mut server, &mut replicas, ledger, trace)?;
        if server.version != version {
            let found = format!("{} writes in the right state", server.version - version);
            return Err(Bad { property: "invariant 5", found });
        }
        Ok(())
    }

    /// All replicas take these for the ready ones, if they see each other at all.
    fn meet(&self, replicas: &mut [Replica], ready: impl Fn(usize) -> bool) {
        let names: Vec<String> = (0..replicas.len())
            .filter(|r| self.ranks && ready(*r))
            .map(|r| replicas[r].name.clone())
            .collect();
        for replica in replicas {
            replica.stopped = false;
            replica.set_members(names.clone());
        }
    }

    fn apply(
        &self,
        server: &mut Server,
        replicas: &mut [Replica],
        step: Move,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        match step {
            Move::World(what) => happen(server, what, self.dual, ledger),
            Move::Deliver(r, _) | Move::Repeat(r, ..) if replicas[r].stopped => {}
            Move::Deliver(r, kind) => _ = replicas[r].deliver(server, kind),
            Move::Repeat(r, kind, back) => replicas[r].repeat(server, kind, back.into()),
            Move::Compact => replicas.iter_mut().for_each(|r| r.compacted(server)),
            Move::Bookmark(r, kind) => replicas[r].bookmark(server, kind),
            Move::List(r, kind) => replicas[r].list(server, kind),
            Move::Freeze(r, kind, frozen) => replicas[r].freeze(kind, frozen),
            Move::Lost(r, lost) => replicas[r].lost = lost,
            Move::Crash(r) => replicas[r].restart(),
            Move::Arrive(r) => _ = replicas[r].arrive(server, ledger)?,
            Move::Members(r, mask) => {
                let names = replicas.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                let names = names.map(|(_, r)| r.name.clone()).collect();
                replicas[r].set_members(names);
            }
            Move::Stop(r) => replicas[r].stopped = true,
            Move::Pause(r, paused) => replicas[r].stopped = paused,
            Move::Restore(back) => {
                // A restore takes long: until then every watch has delivered its events.
                for replica in replicas.iter_mut() {
                    replica.catch_up(server);
                }
                server.restore(server.version.saturating_sub(back.into()).max(FIRST_VERSION));
                replicas.iter_mut().for_each(Replica::history_lost);
                ledger.restored();
            }
            Move::Act(r, _) | Move::Run(r, _) if replicas[r].stopped => {}
            Move::Act(r, outcome) => replicas[r].act(server, outcome, ledger)?,
            Move::Run(r, calls) => {
                for kind in KINDS {
                    while replicas[r].deliver(server, kind) {}
                }
                for _ in 0..calls {
                    replicas[r].act(server, Outcome::Answered, ledger)?;
                }
            }
        }
        Ok(())
    }

    fn a_move(&self, dice: &mut Dice) -> Move {
        let replica = dice.below(self.replicas);
        let kind = dice.of(&KINDS);
        match dice.below(1000) {
            0..130 => Move::World(happening(dice, self.profile)),
            130..460 => Move::Deliver(replica, kind),
            460..472 => Move::Repeat(replica, kind, u8::try_from(dice.below(3)).unwrap_or(0)),
            472..474 => Move::Compact,
            474..480 => {
                let paused = dice.one_in(3);
                Move::Pause(replica, paused)
            }
            480..500 => Move::Bookmark(replica, kind),
            500..520 => Move::List(replica, kind),
            520..532 => {
                let frozen = dice.one_in(2);
                Move::Freeze(replica, kind, frozen)
            }
            532..540 => {
                let lost = dice.one_in(2);
                Move::Lost(replica, lost)
            }
            540..548 => Move::Crash(replica),
            548..556 if self.ranks => {
                let all = 1 << self.replicas;
                Move::Members(replica, u8::try_from(dice.below(all)).unwrap_or(0))
            }
            556..562 if self.profile == Profile::Versions => Move::Stop(replica),
            556..562 if self.profile == Profile::Restored => {
                Move::Restore(u8::try_from(1 + dice.below(30)).unwrap_or(1))
            }
            562..568 => Move::Arrive(replica),
            548..610 => Move::Run(replica, u8::try_from(1 + dice.below(6)).unwrap_or(1)),
            _ => {
                let outcome = match dice.below(40) {
                    0 => Outcome::Failed,
                    1 | 2 => Outcome::AnswerLost,
                    3 => Outcome::Late,
                    4 | 5 => Outcome::Slow,
                    _ => Outcome::Answered,
                };
                Move::Act(replica, outcome)
            }
        }
    }

    /// The walk as it was run, move by move.
    pub fn trace(&self) -> String {
        let mut ledger = Ledger::default();
        let mut trace = Some(String::new());
        let _ = catch_unwind(AssertUnwindSafe(|| self.run_moves(&mut ledger, &mut trace)));
        trace.unwrap_or_default()
    }

    /// Drops moves while the same property still fails.
    pub fn shortened(&self, failed: &Bad) -> Self {
        self.shortened_within(failed, usize::MAX)
    }

    /// As [`Walk::shortened`], with so many runs at most.
    pub fn shortened_within(&self, failed: &Bad, mut runs: usize) -> Self {
        let mut best = self.clone();
        let mut fails = |walk: &Self| {
            runs = runs.saturating_sub(1);
            runs > 0 && walk.run().err().is_some_and(|b| b.property == failed.property)
        };
        let mut chunk = best.moves.len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at < best.moves.len() {
                let mut shorter = best.clone();
                shorter.moves.drain(at..(at + chunk).min(best.moves.len()));
                if fails(&shorter) {
                    best = shorter;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        best
    }
}

/// What may pass until all is right: the wait before a takeover, both timers that the world sets
/// (2 and 3 s) one after the other, and as much again as they take.
const LONGEST: SignedDuration = SignedDuration::from_secs(20);

/// Lets every event arrive and every replica act until nothing moves, past all timers.
pub fn settle(
    server: &mut Server,
    replicas: &mut [Replica],
    ledger: &mut Ledger,
    trace: &mut Option<String>,
) -> Result<(), Bad> {
    let (mut quiet, began) = (0, server.now);
    for replica in replicas.iter_mut() {
        replica.unblock();
        while replica.arrive(server, ledger)? {}
    }
    for round in 0..600 {
        let before = server.version;
        while server.collect_garbage() {}
        for replica in replicas.iter_mut() {
            replica.catch_up(server);
            if let Some(trace) = trace
                && round < 12
                && !replica.idle()
            {
                let doing = replica.describe();
                let _ =
                    writeln!(trace, "rest {round} v{} {} {doing}", server.version, replica.name);
            }
            replica.act(server, Outcome::Answered, ledger)?;
        }
        if server.version != before || replicas.iter().any(|r| !r.idle()) {
            quiet = 0;
            continue;
        }
        quiet += 1;
        if quiet < 2 {
            continue;
        }
        let Some(timer) = replicas.iter().filter_map(Replica::timer).min() else {
            let took = server.now.duration_since(began);
            let allowed = LONGEST + SignedDuration::from_millis(2 * ledger.clocks_apart);
            if took > allowed {
                return Err(Bad { property: "it is right in time", found: format!("{took:#}") });
            }
            return Ok(());
        };
        server.now = server.now.max(timer) + SignedDuration::from_millis(1);
        quiet = 0;
    }
    Err(Bad { property: "it comes to rest", found: "600 rounds were not enough".into() })
}
