//! Random walks: moves of the world and of the replicas from a seed, a run, and a shortened trace.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Service};
use zen_lead::keys::setting;

use crate::checks::{self, Bad, Ledger};
use crate::fixtures::api::{Server, Stored};
use crate::fixtures::{Object, PodFixture, ServiceFixture, foreign_slice, pod, service};
use crate::replica::{KINDS, Kind, Outcome, Replica, Without};

/// The sources of a world: `web`, and `api` that may ask for the same leader Service.
const SOURCES: [&str; 2] = ["web", "api"];
const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// A small generator (SplitMix64): walks must be the same everywhere and for ever.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// What happens to a pod.
#[derive(Clone, Copy, Debug)]
pub enum PodMove {
    ComeOrGo,
    Ready(bool),
    Terminate,
    Finish,
    Relabel(&'static str),
    Readdress(u8),
}

/// What users and the cluster do.
#[derive(Clone, Copy, Debug)]
pub enum World {
    Pod(&'static str, PodMove),
    Select(&'static str),
    Set(&'static str, &'static str),
    Families(bool),
    DeleteSource,
    PutSource,
    StripAnnotations,
    Rival(bool),
    Stranger(bool),
    PutSelectorOnLeader,
    EditLeader,
    DeleteLeader,
    EditLock,
    DeleteSlice(&'static str),
    ForeignSlice(&'static str, bool),
    CollectGarbage,
    Quota { slices: bool, services: bool },
    Tick(u16),
}

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
    /// Everything arrives and so many calls go well.
    Run(usize, u8),
}

/// Which moves a walk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Pods, the source's settings, replicas: the protocol.
    Protocol,
    /// All of that, and everything people can do to what is ours.
    Everything,
}

/// A walk to be run.
#[derive(Clone)]
pub struct Walk {
    pub seed: u64,
    pub without: Without,
    pub dual: bool,
    pub replicas: usize,
    pub moves: Vec<Move>,
    /// It begins where everything was served already.
    pub served: bool,
    /// In the end only the first replica is alive; the others wake up late.
    pub lonely: bool,
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
        let mut dice = Dice::new(seed);
        let dual = !dice.one_in(3);
        let replicas = 2 + dice.below(2);
        let lonely = dice.one_in(3);
        let served = !dice.one_in(4);
        let moves = (0..steps).map(|_| a_move(&mut dice, profile, replicas)).collect();
        Self { seed, without, dual, replicas, moves, served, lonely }
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
        let mut dice = Dice::new(self.seed ^ 0xabcd);
        put_source(&mut server, self.dual);
        for name in PODS.iter().take(3) {
            let ready = dice.below(10) < 7;
            let now = server.now;
            server.put_pod(fresh(name, &server).readiness(ready, now));
        }
        let mut replicas: Vec<Replica> = (0..self.replicas)
            .map(|i| {
                let skew = [0, checks::MOST_AHEAD, -700][i % 3];
                Replica::new(format!("zen-lead-{i}"), skew, self.without)
            })
            .collect();
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
        server.slice_quota = false;
        server.service_quota = false;
        let alive = if self.lonely { 1 } else { replicas.len() };
        settle(&mut server, &mut replicas[..alive], ledger, trace)?;
        checks::at_rest(&server, &SOURCES)?;
        // Whoever slept wakes up and finishes what it had begun.
        settle(&mut server, &mut replicas, ledger, trace)?;
        checks::at_rest(&server, &SOURCES)?;
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

    fn apply(
        &self,
        server: &mut Server,
        replicas: &mut [Replica],
        step: Move,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        match step {
            Move::World(what) => self.happen(server, what, ledger),
            Move::Deliver(r, kind) => _ = replicas[r].deliver(server, kind),
            Move::Bookmark(r, kind) => replicas[r].bookmark(server, kind),
            Move::List(r, kind) => replicas[r].list(server, kind),
            Move::Freeze(r, kind, frozen) => replicas[r].freeze(kind, frozen),
            Move::Lost(r, lost) => replicas[r].lost = lost,
            Move::Crash(r) => replicas[r].restart(),
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

    fn happen(&self, server: &mut Server, what: World, ledger: &mut Ledger) {
        let source = server.services.now.get("web").cloned();
        let change = |server: &mut Server, change: &dyn Fn(Service) -> Service| {
            if let Some(source) = source.clone() {
                server.put_service(change(source));
            }
        };
        let leader = server
            .services
            .now
            .values()
            .find(|s| {
                s.metadata
                    .labels
                    .as_ref()
                    .is_some_and(|l| l.contains_key(zen_lead::keys::status::SOURCE_SERVICE))
            })
            .cloned();
        match what {
            World::Pod(name, what) => pod_moves(server, name, what),
            World::Select(value) => change(server, &|s| s.selecting("app", value)),
            World::Set(key, value) => change(server, &|mut s| {
                if value.is_empty() {
                    s.metadata.annotations.get_or_insert_default().remove(key);
                    s
                } else {
                    s.annotation(key, value)
                }
            }),
            World::Families(dual) => change(server, &|s| {
                if dual && self.dual {
                    s.dual_stack()
                } else {
                    let mut s = s;
                    s.spec().ip_families = Some(vec!["IPv4".into()]);
                    s.spec().ip_family_policy = Some("SingleStack".into());
                    s
                }
            }),
            World::DeleteSource => _ = server.remove_service("web"),
            World::PutSource => {
                if source.is_none() {
                    put_source(server, self.dual);
                }
            }
            World::StripAnnotations => change(server, &|mut s| {
                s.metadata.annotations = None;
                s
            }),
            World::Rival(there) => {
                if there {
                    let now = server.now;
                    let mut rival =
                        service("api").enabled().set("leader-service-name", "web-leader");
                    rival.metadata.creation_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
                    if !server.services.now.contains_key("api") {
                        server.put_service(rival);
                    }
                } else {
                    server.remove_service("api");
                }
            }
            World::Stranger(there) => {
                let held = server.services.now.get("web-leader");
                let theirs = held.is_none_or(|s| s.metadata.labels.is_none());
                if there && held.is_none() {
                    server.put_service(service("web-leader").selecting("app", "theirs"));
                } else if !there && held.is_some() && theirs {
                    server.remove_service("web-leader");
                }
            }
            World::PutSelectorOnLeader => {
                if let Some(leader) = leader {
                    let left = foreign_slice("built-in", &leader.name()).owned_by(
                        "Service",
                        &leader.name(),
                        &leader.id(),
                    );
                    server.put_service(leader.selecting("app", "web"));
                    server.built_in.insert("built-in".into(), left);
                }
            }
            World::EditLeader => {
                if let Some(mut leader) = leader {
                    leader.spec().ports.get_or_insert_default()[0].port = 81;
                    server.put_service(leader);
                }
            }
            World::DeleteLeader => {
                if let Some(leader) = leader {
                    server.remove_service(&leader.name());
                    ledger.by_hand = true;
                }
            }
            World::EditLock => {
                if let Some(mut lock) = server.slices.now.get("web-leader-zen-lead-ipv4").cloned()
                    && let Some(endpoint) = lock.endpoints.get_or_insert_default().first_mut()
                {
                    endpoint.addresses = vec!["10.66.66.66".into()];
                    server.put_slice(lock);
                }
            }
            World::DeleteSlice(family) => {
                if server.remove_slice(&format!("web-leader-zen-lead-{family}")).is_some() {
                    ledger.by_hand = true;
                }
            }
            World::ForeignSlice(name, there) => {
                if there && !server.slices.now.contains_key(name) {
                    server.put_slice(foreign_slice(name, "web-leader"));
                } else if !there
                    && server
                        .slices
                        .now
                        .get(name)
                        .is_some_and(|s| s.metadata.owner_references.is_none())
                {
                    server.remove_slice(name);
                }
            }
            World::CollectGarbage => _ = server.collect_garbage(),
            World::Quota { slices, services } => {
                server.slice_quota = slices;
                server.service_quota = services;
            }
            World::Tick(ms) => server.now += SignedDuration::from_millis(i64::from(ms)),
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
        let mut best = self.clone();
        let fails = |walk: &Self| walk.run().err().is_some_and(|b| b.property == failed.property);
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

/// Lets everything arrive and everybody act until nothing moves, over all timers.
fn settle(
    server: &mut Server,
    replicas: &mut [Replica],
    ledger: &mut Ledger,
    trace: &mut Option<String>,
) -> Result<(), Bad> {
    let mut quiet = 0;
    for replica in replicas.iter_mut() {
        replica.unblock();
    }
    for round in 0..600 {
        let before = server.version;
        while server.collect_garbage() {}
        for replica in replicas.iter_mut() {
            replica.catch_up(server);
            if let Some(trace) = trace
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
        let Some(timer) = replicas.iter().filter_map(Replica::timer).min() else { return Ok(()) };
        server.now = server.now.max(timer) + SignedDuration::from_millis(1);
        quiet = 0;
    }
    Err(Bad { property: "it comes to rest", found: "600 rounds were not enough".into() })
}

fn put_source(server: &mut Server, dual: bool) {
    let source = service("web").enabled();
    server.put_service(if dual { source.dual_stack() } else { source });
}

fn fresh(name: &str, server: &Server) -> Pod {
    let mut pod = pod(name).readiness(false, server.now);
    pod.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(server.now));
    pod
}

fn pod_moves(server: &mut Server, name: &str, what: PodMove) {
    let known = server.pods.now.get(name).cloned();
    let now = server.now;
    let Some(known) = known else {
        let made = fresh(name, server);
        let ready = matches!(what, PodMove::Ready(true) | PodMove::ComeOrGo);
        server.put_pod(made.readiness(ready, now));
        return;
    };
    let changed = match what {
        PodMove::ComeOrGo => {
            server.remove_pod(name);
            return;
        }
        PodMove::Ready(ready) => {
            let conditions = known.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let is = conditions.into_iter().any(|c| c.status == "True");
            if is == ready {
                return;
            }
            known.readiness(ready, now)
        }
        PodMove::Terminate => known.terminating(),
        PodMove::Finish => known.phase("Failed"),
        PodMove::Relabel(value) => known.label("app", value),
        PodMove::Readdress(n) => {
            let (four, six) = (format!("10.1.200.{n}"), format!("fd00::ff{n:02x}"));
            known.ips(&[&four, &six])
        }
    };
    server.put_pod(changed);
}

fn a_move(dice: &mut Dice, profile: Profile, replicas: usize) -> Move {
    let replica = dice.below(replicas);
    let kind = dice.of(&KINDS);
    match dice.below(1000) {
        0..130 => Move::World(happening(dice, profile)),
        130..480 => Move::Deliver(replica, kind),
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
        548..610 => Move::Run(replica, u8::try_from(1 + dice.below(6)).unwrap_or(1)),
        _ => {
            let outcome = match dice.below(40) {
                0 => Outcome::Failed,
                1 | 2 => Outcome::AnswerLost,
                _ => Outcome::Answered,
            };
            Move::Act(replica, outcome)
        }
    }
}

fn happening(dice: &mut Dice, profile: Profile) -> World {
    let pod = dice.of(&PODS);
    // Two in three of everything is the protocol all the same.
    let wild = profile == Profile::Everything && dice.one_in(3);
    match if wild { 100 + dice.below(40) } else { dice.below(100) } {
        0..8 => World::Pod(pod, PodMove::ComeOrGo),
        8..32 => World::Pod(pod, PodMove::Ready(false)),
        32..60 => World::Pod(pod, PodMove::Ready(true)),
        60..64 => World::Pod(pod, PodMove::Terminate),
        64..66 => World::Pod(pod, PodMove::Finish),
        66..70 => World::Pod(pod, PodMove::Relabel(dice.of(&["web", "alt"]))),
        70..72 => World::Pod(pod, PodMove::Readdress(u8::try_from(dice.below(200)).unwrap_or(0))),
        72..78 => World::Select(dice.of(&["web", "web", "alt"])),
        78..86 => World::Set(setting::STICKY, dice.of(&["true", "false", "false"])),
        86..88 => World::Set(setting::FAILOVER_MIN_DELAY, dice.of(&["3s", "0s"])),
        88..90 => World::Set(setting::MIN_READY_DURATION, dice.of(&["2s", "0s"])),
        90..100 => World::Tick(dice.of(&[1, 300, 1000, 2500])),
        100..103 => World::Set(setting::STICKY, dice.of(&["perhaps", "true", "true"])),
        103..108 => World::Set(setting::ENABLED, dice.of(&["true", "true", "true", "false"])),
        108..111 => World::Set(setting::LEADER_SERVICE_NAME, dice.of(&["front", "web-leader", ""])),
        111..114 => World::Families(dice.one_in(2)),
        114..116 => World::DeleteSource,
        116..120 => World::PutSource,
        120..121 => World::StripAnnotations,
        121..123 => World::Rival(dice.one_in(3)),
        123..126 => World::Stranger(dice.one_in(3)),
        126..127 => World::PutSelectorOnLeader,
        127..128 => World::EditLeader,
        128..129 => World::DeleteLeader,
        129..130 => World::EditLock,
        130..132 => World::DeleteSlice(dice.of(&["ipv4", "ipv6"])),
        132..134 => {
            let name =
                dice.of(&["by-hand", "web-leader-zen-lead-ipv4", "web-leader-zen-lead-ipv6"]);
            World::ForeignSlice(name, dice.one_in(2))
        }
        134..138 => World::CollectGarbage,
        _ => World::Quota { slices: dice.one_in(5), services: dice.one_in(5) },
    }
}
