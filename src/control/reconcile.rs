//! The worker: pop a key, take a snapshot, decide, apply, record; again until nothing is left.
//!
//! What a refusal means for the next decision is settled here. No objects are built and nothing is
//! chosen here: that is `decide`'s.

mod blocks;
mod cause;
mod flips;
mod memory;
mod reads;
mod requeue;
mod room;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod turns;
mod waits;
mod words;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

pub use memory::Memories;
pub use requeue::Requeue;
pub use room::Room;
use standing::{After, Met};
pub use turns::Turns;

use crate::control::apply::{Applied, Applier};
use crate::control::pause::LAST_WAIT;
use crate::control::pressure::Pressure;
use crate::control::reader::Reader;
use crate::control::record::Recorder;
use crate::platform::api::CallError;
use crate::platform::clock::{self, Clock};
use crate::platform::metrics::Metrics;
use crate::platform::operation::Operation;
use crate::platform::telemetry::spans::Tracer;
use crate::shared::{Replicas, SharedIndex};
use zen_lead_core::decide::{self, Action, Blocked, Context, Decision, Step, Trust, Verified};
use zen_lead_core::index::{Dirty, Index, Snapshot};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking::{DECISION_VERSION, TAKEOVER};
use zen_lead_core::reason::Reason;
use zen_lead_core::shrink;

/// Steps of one reconcile before it lets others pass; a normal one takes at most six.
const MAX_STEPS: usize = 16;
/// The pause after such a reconcile, doubled for each one in a row up to [`LAST_WAIT`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest reconcile before it lets others pass; looked at between two steps, each of which has
/// deadlines of its own.
const DEADLINE: Duration = Duration::from_mins(1);

/// Two reads of one Service for a report, which changes no routing, are at least this long apart. After a
/// decision on a read, both replicas are behind its mark until their watches say more, up to a minute.
const REPORT_READS: Duration = Duration::from_secs(5);

/// Everything a reconcile needs.
pub struct Reconciler {
    /// The shared cache.
    pub index: SharedIndex,
    /// Writes.
    pub applier: Arc<Applier>,
    /// Consistent reads.
    pub reader: Arc<Reader>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Reports.
    pub recorder: Recorder,
    /// Wall clock.
    pub clock: Clock,
    /// Name of this replica's pod.
    pub me: String,
    /// Ready replicas.
    pub replicas: Replicas,
    /// Whether the watches behind a namespace can be trusted.
    pub trust: Box<dyn Fn(&str) -> Trust + Send + Sync>,
    /// Has another Service looked at.
    pub wake: Box<dyn Fn(ServiceKey) + Send + Sync>,
    /// Makes a span of each reconcile and its parts.
    pub tracer: Tracer,
    /// Sources whose first leader Service is being made.
    pub turns: Turns,
    /// Workers a namespace may have.
    pub room: Room,
    /// Whether leaders are being moved.
    pub pressure: Arc<Pressure>,
    /// What it remembers.
    pub known: Memories,
}

/// Where the snapshot of a reconcile comes from.
enum Basis {
    Cache,
    Read(Box<Index>),
}

/// One reconcile, as far as it has come.
struct Round<'a> {
    key: &'a ServiceKey,
    /// When the change that led here was seen.
    noticed: Instant,
    began: Instant,
    view: Basis,
    met: Met,
    /// It has written: it goes on whatever its rank.
    acting: bool,
    /// What was read by name.
    verified: Verified,
    /// It has waited for a watch that another replica's was ahead of.
    waited: bool,
    /// The turn to make a first leader Service.
    turn: Option<turns::Turn<'a>>,
}

impl Round<'_> {
    /// Whether it takes a step whatever its rank: it has written before. Copies it leaves to the replica that
    /// comes first all the same.
    fn goes_on(&self, step: &Step) -> bool {
        self.acting && !step.kind().is_copy()
    }
}

/// A decision and what it rests on.
struct Planned {
    snapshot: Snapshot,
    decision: Decision,
}

/// Whether a reconcile goes on.
enum GoAhead {
    /// It does.
    Open,
    /// It plans again: something was learned that changes the decision.
    Again,
    /// It ends.
    Closed(Requeue),
}

impl Reconciler {
    /// Brings one Service to where it should be.
    ///
    /// `noticed` is when the change that led here was seen.
    ///
    /// # Errors
    /// A call that failed after its retries; the queue backs off and tries again.
    pub async fn reconcile(
        &self,
        key: &ServiceKey,
        noticed: Instant,
    ) -> Result<Requeue, CallError> {
        let began = clock::monotonic();
        let Some(seat) = self.room.enter(key, &*self.wake) else {
            self.remember(key, |known| _ = known.noticed.get_or_insert(noticed));
            return Ok(Requeue::Waits(None));
        };
        let noticed = self.remember(key, |known| known.noticed.take()).unwrap_or(noticed);
        self.metrics.track(key);
        let span = self.tracer.reconcile(key);
        let result = span.run(self.run(key, noticed)).await;
        span.reconciled(match &result {
            Ok(next) => Ok(next.as_str()),
            Err(error) => Err(error.category()),
        });
        let took = clock::monotonic() - began;
        let label = match &result {
            Ok(_) => "ok",
            Err(error) => error.category(),
        };
        match &result {
            Ok(Requeue::Forget) => {
                let mut memory = self.known.services.lock();
                memory.remove(key);
                shrink::map(&mut memory);
                drop(memory);
                self.metrics.forget(key);
                self.recorder.forget(key);
                self.forget_ending(&key.namespace);
            }
            // Nothing was done, so nothing succeeded.
            Ok(Requeue::Waits(_)) => {}
            _ => self.metrics.reconciled(key, label, result.is_err(), took),
        }
        self.metrics.set_cache_size("remembered_services", self.remembered());
        drop(seat);
        result
    }

    /// Takes the steps, and reports what was routed when the last one was planned, also if it waits or failed.
    async fn run(&self, key: &ServiceKey, noticed: Instant) -> Result<Requeue, CallError> {
        let mut last = None;
        let result = self.steps(key, noticed, &mut last).await;
        let report = last.as_ref().and_then(|planned| planned.decision.report.as_ref());
        if let Some(report) = report {
            self.metrics.services().set(key, report);
        }
        result
    }

    /// Plans, checks whether it may act, and acts, until nothing is left to do.
    async fn steps(
        &self,
        key: &ServiceKey,
        noticed: Instant,
        last: &mut Option<Planned>,
    ) -> Result<Requeue, CallError> {
        let mut round = Round {
            key,
            noticed,
            began: clock::monotonic(),
            view: Basis::Cache,
            met: Met::default(),
            acting: false,
            verified: Verified::default(),
            waited: false,
            turn: self.turns.given(key, &*self.wake),
        };
        for _ in 0..MAX_STEPS {
            if self.is_late(&round) {
                break;
            }
            let planned = &*last.insert(self.plan(&round));
            match self.may_plan_this(&mut round, planned) {
                GoAhead::Open => {}
                GoAhead::Again => continue,
                GoAhead::Closed(next) => return Ok(next),
            }
            let step = match &planned.decision.action {
                Action::Nothing => return Ok(self.at_rest(key, planned)),
                Action::Wait => return Ok(Requeue::Idle),
                Action::Read => {
                    self.read_namespace(&mut round, &planned.decision).await?;
                    continue;
                }
                Action::ReadInputs(inputs) => {
                    self.read_inputs(&mut round, &planned.decision, inputs).await?;
                    continue;
                }
                Action::Do(step) => step.clone(),
            };
            match self.may_write(&mut round, planned, &step) {
                GoAhead::Open => self.perform(&mut round, planned, step).await?,
                GoAhead::Again => {}
                GoAhead::Closed(next) => return Ok(next),
            }
        }
        Ok(self.pause(&round))
    }

    /// Whether the reconcile has taken so long that others come first.
    fn is_late(&self, round: &Round<'_>) -> bool {
        let late = clock::monotonic() - round.began >= DEADLINE;
        if late {
            let (operation, key) = (Operation::Reconcile, round.key);
            self.metrics.timeout(operation.as_str());
            warn!(
                "{operation} {key}: not finished within {DEADLINE:?}, the API server is slow; \
                 completed writes are kept, and the Service is queued behind the others"
            );
        }
        late
    }

    /// Takes a snapshot and decides.
    fn plan(&self, round: &Round<'_>) -> Planned {
        let key = round.key;
        let cached = matches!(round.view, Basis::Cache);
        let gathering = self.tracer.snapshot(cached);
        let snapshot = self.snapshot(key, &round.view);
        drop(gathering);
        self.note_asked(key, &snapshot);
        self.note_accepted(key, &snapshot);
        let blocked = self.blocked(key, &snapshot);
        let decision = self.decide(key, &snapshot, &blocked, round.verified);
        self.note_newer(key, decision.may_take_over);
        self.metrics.cache_lookup("services", cached);
        self.note_loss(key, &decision, round.noticed);
        Planned { snapshot, decision }
    }

    /// Whether this replica goes on with what was planned: not where another one of a lower rank makes it
    /// or has reported that it is refused, and for a first leader Service only in its turn.
    fn may_plan_this<'a>(&'a self, round: &mut Round<'a>, planned: &Planned) -> GoAhead {
        let Planned { snapshot, decision } = planned;
        if let Some(at) = self.waits_for_settings(round.key, snapshot, decision) {
            let timer = decision.again_at.map(|at| self.instant(at));
            return GoAhead::Closed(Requeue::At(timer.map_or(at, |timer| timer.min(at))));
        }
        if let Some(step) = decision.read_for.as_ref().filter(|step| !round.goes_on(step)) {
            if step.needs_read() && self.learns(round.key, snapshot, step) {
                return GoAhead::Again;
            }
            // A switch is read for first: what is wanted is known only then, and the wait counts from there.
            if (step.needs_read() || step.kind().is_copy())
                && let Some(at) = self.waits_for_rank(round.key, step)
            {
                return GoAhead::Closed(Requeue::At(at));
            }
            if let Some(at) = self.reads_later(round.key, step) {
                let timer = decision.again_at.map(|at| self.instant(at));
                return GoAhead::Closed(Requeue::At(timer.map_or(at, |timer| timer.min(at))));
            }
        }
        if !decision.makes_first {
            round.turn = None;
        } else if round.turn.is_none() {
            match self.turns.ask(round.key, self.rank(round.key) == 0, &*self.wake) {
                Ok(turn) => round.turn = Some(turn),
                Err(at) => return GoAhead::Closed(Requeue::Waits(at)),
            }
        }
        GoAhead::Open
    }

    /// Whether the step may be written now.
    fn may_write(&self, round: &mut Round<'_>, planned: &Planned, step: &Step) -> GoAhead {
        let key = round.key;
        if self.is_taken(key, step, &mut round.met)
            || self.is_lacked(key, step)
            || self.learns(key, &planned.snapshot, step)
        {
            return GoAhead::Again;
        }
        if planned.decision.history_void {
            let note = "the slice was decided on newer data than the cluster now has: it was \
                        restored from a backup; deciding afresh";
            self.recorder.event(key, None, Reason::HistoryRestored, note);
        }
        if let Some(at) = self.waits_for_rank(key, step).filter(|_| !round.goes_on(step)) {
            return GoAhead::Closed(Requeue::At(at));
        }
        match self.gives_way(key, step) {
            Some(next) => GoAhead::Closed(next),
            None => GoAhead::Open,
        }
    }

    /// Writes a step, and records what came of it.
    ///
    /// # Errors
    /// A failure that says nothing about the step: the queue backs off.
    async fn perform(
        &self,
        round: &mut Round<'_>,
        planned: &Planned,
        step: Step,
    ) -> Result<(), CallError> {
        let (key, Planned { snapshot, decision }) = (round.key, planned);
        round.acting = true;
        round.verified.step = None;
        let began = clock::monotonic();
        let result = self.applier.apply(key, step.clone()).await;
        // After the write: nothing delays a leader that is moved.
        self.accept(key, snapshot, began);
        match result {
            Ok(applied) => {
                let lost_at = self.known.services.lock().get_mut(key).and_then(|m| m.lost_at);
                if step.kind().is_routing() {
                    self.pressure.moved(key);
                }
                self.wrote(key, &step, &applied, &mut round.met);
                self.recorder.applied(key, snapshot, decision, &step, lost_at);
                self.absorb(&mut round.view, key, &applied);
                if let Some(turn) = round.turn.as_ref().filter(|_| decision.makes_first) {
                    turn.succeeded();
                }
            }
            Err(error) => {
                self.recorder.failed(key, &step, &error);
                let after = self.after(key, snapshot, &step, error, &mut round.met, round.began);
                if let Some(turn) =
                    round.turn.as_ref().filter(|_| !matches!(after, After::Overtaken))
                {
                    turn.failed();
                }
                match after {
                    After::Overtaken => self.look_again(round, &step).await?,
                    After::Held => {}
                    After::Fail(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Nothing is left to do.
    fn at_rest(&self, key: &ServiceKey, planned: &Planned) -> Requeue {
        self.recorder.at_rest(key, &planned.snapshot);
        self.recorder.unreadable(key, &planned.snapshot);
        self.settled(key, &planned.snapshot, &planned.decision)
    }

    /// More is left to do than one reconcile may: others come first.
    fn pause(&self, round: &Round<'_>) -> Requeue {
        self.unfinished(round.key, &round.met);
        let pause = self.remember(round.key, |known| {
            known.unfinished = known.unfinished.saturating_add(1);
            PAUSE.saturating_mul(1 << (known.unfinished - 1).min(12)).min(LAST_WAIT)
        });
        Requeue::At(clock::monotonic() + pause)
    }

    fn decide(
        &self,
        key: &ServiceKey,
        snapshot: &Snapshot,
        blocked: &[Blocked],
        verified: Verified,
    ) -> Decision {
        let deciding = self.tracer.decide();
        let decision = decide::decide(
            snapshot,
            &Context {
                now: self.clock.now(),
                writer: &self.me,
                trust: (self.trust)(&key.namespace),
                blocked,
                version: DECISION_VERSION,
                replicas: &self.replicas.read(),
                verified,
                takes_over: self.takes_over_at(key).is_some_and(|at| at <= clock::monotonic()),
            },
        );
        deciding.decided(&decision);
        decision
    }

    fn snapshot(&self, key: &ServiceKey, view: &Basis) -> Snapshot {
        match view {
            Basis::Cache => self.index.read().snapshot(key),
            Basis::Read(index) => Snapshot { consistent: true, ..index.snapshot(key) },
        }
    }

    /// Folds the answer to a write into the cache (read your own writes) and into what was read.
    fn absorb(&self, view: &mut Basis, key: &ServiceKey, applied: &Applied) {
        let touched = fold(&mut self.index.write(), key, applied);
        // The watch event of our own write will change nothing any more: who else is concerned (a
        // rival that waits for a name) has to be told now.
        touched.into_iter().filter(|other| other != key).for_each(|other| (self.wake)(other));
        if let Basis::Read(index) = view {
            fold(index, key, applied);
        }
    }

    /// A timer or a refusal that runs out, or nothing; an unmanaged Service is forgotten.
    fn settled(&self, key: &ServiceKey, snapshot: &Snapshot, decision: &Decision) -> Requeue {
        let mut memory = self.known.services.lock();
        let known = memory.entry(key.clone()).or_default();
        known.wish = None;
        known.gives_way = None;
        known.rewording = None;
        known.unfinished = 0;
        known.blocks.expire();
        known.blocks.at_rest(|name| {
            let slice = snapshot.slices.iter().find(|s| *s.name == *name)?;
            slice.object.as_deref().map(decide::slice_content)
        });
        let Some(report) = &decision.report else {
            return known.blocks.until().map_or(Requeue::Forget, Requeue::At);
        };
        if report.endpoints > 0 {
            known.lost_at = None;
        }
        let now = clock::monotonic();
        let timer = decision.again_at.map(|at| self.instant(at));
        let blocked = known.blocks.until().into_iter().chain(known.blocks.on_probation()).min();
        // Once it is over, the takeover is a step like any other; a time that has passed would bring
        // the key back at once, without end, while that step is refused.
        let takeover = known.newer_gone.map(|since| since + TAKEOVER).filter(|at| *at > now);
        [timer, blocked, takeover].into_iter().flatten().min().map_or(Requeue::Idle, Requeue::At)
    }

    /// When this time of the wall clock comes.
    fn instant(&self, at: Timestamp) -> Instant {
        clock::monotonic() + until(at, self.clock.now())
    }

    /// Remembers when a leadership ended, for the failover latency.
    fn note_loss(&self, key: &ServiceKey, decision: &Decision, noticed: Instant) {
        let switching = decision.choice.as_ref().is_some_and(|c| {
            c.switch.is_some() && c.incumbent_stayed.is_some_and(|stayed| !stayed)
        });
        if switching {
            self.known
                .services
                .lock()
                .entry(key.clone())
                .or_default()
                .lost_at
                .get_or_insert(noticed);
        }
    }
}

fn fold(index: &mut Index, key: &ServiceKey, applied: &Applied) -> Dirty {
    match applied {
        Applied::Service(service) => index.answer_service((**service).clone()),
        Applied::Slice(slice) => index.answer_slice((**slice).clone()),
        Applied::ServiceGone(target) => index.forget_service(key, &target.name, &target.uid),
        Applied::SliceGone(target) => index.forget_slice(key, &target.name, &target.uid),
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
