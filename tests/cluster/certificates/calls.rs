//! Continuous calls to the webhooks: by writes through the API server, which keeps its connections, and
//! directly to each ready replica, with a new connection for each call.
//!
//! The direct callers get the bundles late, as API servers do.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::fleet::{Fleet, REPLICAS};
use super::try_write;
use crate::support::case::Case;
use crate::support::webhook::{Hook, recorded, review};

/// The time between two reads of the bundles, and the greatest age of the last read at a call.
const READ_EVERY: Duration = Duration::from_millis(50);
const READ_AGE: Duration = Duration::from_millis(500);
/// The greatest age of a bundle that a direct caller trusts.
const LAG: Duration = Duration::from_secs(2);
/// The number of callers of each kind, and the most calls of each in a second.
const CALLERS: usize = 4;
const PACE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(40)];

/// A bundle of both configurations, and when it was read first.
type Read = (Instant, [String; 2]);

/// The results of the calls.
#[derive(Default)]
pub struct Tally {
    /// Calls that were answered, over new connections.
    pub closing: usize,
    /// Calls that were answered, made by the API server: two a write.
    pub kept: usize,
    pub failed: Vec<String>,
    /// Calls with a bundle that was out of date for longer than is promised: they prove nothing.
    pub void: usize,
    /// Calls that were answered, by replica.
    pub by_replica: BTreeMap<usize, usize>,
    /// Certificates that were shown.
    pub leaves: HashSet<CertificateDer<'static>>,
    /// The slowest call of each kind.
    pub slowest: [Duration; 2],
}

impl Tally {
    /// All calls that were answered.
    pub fn made(&self) -> usize {
        self.closing + self.kept
    }

    /// No call failed, and at most one in a hundred proves nothing.
    pub fn none_failed(&self) {
        let (failed, made) = (&self.failed, self.made());
        let first = &failed[..failed.len().min(20)];
        assert!(failed.is_empty(), "{} failed: {first:#?}", failed.len());
        assert!(self.void * 100 <= made, "{} of {made} calls without a verdict", self.void);
    }
}

/// Calls that are being made.
pub struct Calls {
    case: Arc<Case>,
    fleet: Arc<Fleet>,
    /// How long a bundle that was replaced may still be trusted.
    promised: Duration,
    history: Mutex<Vec<Read>>,
    last_read: Mutex<Instant>,
    tally: Mutex<Tally>,
    stop: AtomicBool,
    count: AtomicUsize,
}

impl Calls {
    /// Begins to call; [`Self::finish`] ends it.
    pub async fn start(
        case: &Arc<Case>,
        fleet: &Arc<Fleet>,
        promised: Duration,
    ) -> (Arc<Self>, JoinSet<()>) {
        let calls = Arc::new(Self {
            case: case.clone(),
            fleet: fleet.clone(),
            promised,
            history: Mutex::default(),
            last_read: Mutex::new(Instant::now()),
            tally: Mutex::default(),
            stop: AtomicBool::new(false),
            count: AtomicUsize::new(0),
        });
        calls.read().await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(calls.clone().keep_reading());
        for _ in 0..CALLERS {
            tasks.spawn(calls.clone().call_directly());
            tasks.spawn(calls.clone().write());
        }
        (calls, tasks)
    }

    /// Calls of each kind so far: over new connections, and by the API server.
    pub fn made(&self) -> [usize; 2] {
        let tally = self.tally.lock().unwrap();
        [tally.closing, tally.kept]
    }

    /// Stops, and returns the results.
    pub async fn finish(self: Arc<Self>, tasks: JoinSet<()>) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        std::mem::take(&mut *self.tally.lock().unwrap())
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn read(&self) -> Result<(), String> {
        let (admin, name) = (self.case.admin(), &self.case.world.system);
        let began = Instant::now();
        let validating = Hook::Validating.bundle(&admin, name).await?;
        let both = [validating, Hook::Mutating.bundle(&admin, name).await?];
        *self.last_read.lock().unwrap() = began;
        let mut history = self.history.lock().unwrap();
        if history.last().is_none_or(|(_, last)| *last != both) {
            history.push((Instant::now(), both));
        }
        Ok(())
    }

    async fn keep_reading(self: Arc<Self>) {
        while self.goes_on() {
            if let Err(why) = self.read().await {
                self.tally.lock().unwrap().failed.push(format!("reading the bundles: {why}"));
            }
            sleep(READ_EVERY).await;
        }
    }

    /// The bundle of `lag` ago, and the number of the read that replaces it.
    fn bundle(&self, hook: Hook, lag: Duration) -> (String, usize) {
        let history = self.history.lock().unwrap();
        let then = Instant::now().checked_sub(lag);
        let known = |(at, _): &&Read| then.is_some_and(|then| *at <= then);
        let newer = history.iter().take_while(known).count().max(1);
        let bundle = history[newer - 1].1[usize::from(hook == Hook::Mutating)].clone();
        (bundle, newer)
    }

    /// Whether a bundle had been replaced for longer than is promised at the end of a call.
    async fn outdated(&self, newer: usize, ended: Instant) -> bool {
        while *self.last_read.lock().unwrap() < ended && self.goes_on() {
            sleep(READ_EVERY).await;
        }
        let replaced = self.history.lock().unwrap().get(newer).map(|(at, _)| *at);
        replaced.is_some_and(|at| ended.duration_since(at) > self.promised)
    }

    async fn call_directly(self: Arc<Self>) {
        let body = recorded("create-enabled");
        let mut pace = interval(PACE[0]);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.goes_on() {
            pace.tick().await;
            if self.last_read.lock().unwrap().elapsed() > READ_AGE {
                continue;
            }
            let n = self.count.fetch_add(1, Ordering::Relaxed);
            let (replica, hook) = (n % REPLICAS, Hook::BOTH[n / REPLICAS % 2]);
            // All lags, in an order that does not depend on the replicas.
            let lag = LAG * u32::try_from(n * 37 % 100).unwrap() / 100;
            let port = self.fleet.port(replica);
            let call = async {
                let (began, (bundle, newer)) = (Instant::now(), self.bundle(hook, lag));
                let outcome = review(port, hook, &bundle, &body).await;
                (outcome, newer, began.elapsed())
            };
            let Some((outcome, newer, took)) = self.fleet.call(replica, call).await else {
                continue;
            };
            // The machine stalled for seconds between the read and the end of the call.
            let void = outcome.is_err() && self.outdated(newer, Instant::now()).await;
            let mut tally = self.tally.lock().unwrap();
            match outcome {
                Ok(reviewed) if reviewed.response["allowed"] == true => {
                    tally.closing += 1;
                    *tally.by_replica.entry(replica).or_default() += 1;
                    tally.leaves.insert(reviewed.shown);
                    tally.slowest[0] = tally.slowest[0].max(took);
                }
                Err(_) if void => tally.void += 1,
                other => {
                    let why = other.map_or_else(|e| e, |answer| answer.response.to_string());
                    tally
                        .failed
                        .push(format!("replica {replica}, {hook:?}, {lag:?} behind: {why}"));
                }
            }
        }
    }

    /// Writes through the API server.
    async fn write(self: Arc<Self>) {
        let mut pace = interval(PACE[1]);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.goes_on() {
            pace.tick().await;
            let began = Instant::now();
            let written = try_write(&self.case).await;
            let mut tally = self.tally.lock().unwrap();
            tally.slowest[1] = tally.slowest[1].max(began.elapsed());
            match written {
                Ok(()) => tally.kept += 2,
                Err(why) => tally.failed.push(format!("write: {why}")),
            }
        }
    }
}
