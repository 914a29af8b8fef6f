//! What a reconcile reads before a step that rests on more than the cache, and how long it waits for the
//! watches first.
//!
//! Which reads a step needs is decided in the core (`decide::inputs`); the calls are `control::reader`.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{Basis, REPORT_READS, Reconciler, Round};
use crate::platform::api::CallError;
use crate::platform::clock;
use zen_lead_core::decide::{Decision, Inputs, Step};
use zen_lead_core::index::Index;
use zen_lead_core::names::ServiceKey;

/// How long a decision waits for a watch that lies behind what others have seen. An event takes
/// milliseconds; a LIST of a large namespace takes longer than this.
const WATCH_WAIT: Duration = Duration::from_millis(200);
/// The same for a step that makes or deletes an object. It moves no traffic away from a lost leader, and an API
/// server that makes hundreds of Services sends its events late: lists would delay it further.
const LONG_WATCH_WAIT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

impl Reconciler {
    /// Reads the namespace. Where only the watches lie behind another replica's, they get a moment first,
    /// once in a reconcile.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense.
    pub(super) async fn read_namespace(
        &self,
        round: &mut Round<'_>,
        decision: &Decision,
    ) -> Result<(), CallError> {
        let key = round.key;
        if let Some(marks) = decision.overtaken_at.filter(|_| !round.waited) {
            round.waited = true;
            if self.comes_to(WATCH_WAIT, |index| !index.seen(&key.namespace).behind(&marks)).await {
                return Ok(());
            }
        }
        debug!(%key, step = ?decision.read_for.as_ref().map(Step::kind), "reading the namespace");
        round.view = self.read(key).await?;
        Ok(())
    }

    /// Reads what the step rests on by name. Where the cache does not know one of these as it is, and does
    /// not learn it in a moment, the whole namespace is read.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense.
    pub(super) async fn read_inputs(
        &self,
        round: &mut Round<'_>,
        decision: &Decision,
        inputs: &Inputs,
    ) -> Result<(), CallError> {
        let (key, step) = (round.key, decision.read_for.as_ref());
        debug!(%key, step = ?step.map(Step::kind), "reading {} objects", inputs.len());
        let present = self.reader.present(key, inputs).await?;
        *self.known.answered.lock() = Some(clock::monotonic());
        if self.comes_to(LONG_WATCH_WAIT, |index| present.is_known(index)).await {
            if let Some(step) = step {
                round.verified.add(inputs, step);
            }
        } else {
            round.view = self.read(key).await?;
        }
        Ok(())
    }

    /// Looks again after a write that was overtaken: what overtook it is about to come by the watch. If it does
    /// not come, or the write was decided on a read, the namespace is read.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense.
    pub(super) async fn look_again(
        &self,
        round: &mut Round<'_>,
        step: &Step,
    ) -> Result<(), CallError> {
        let key = round.key;
        let overtaken = |index: &Index| step.is_overtaken(index, &key.namespace);
        let wait = if step.needs_read() { LONG_WATCH_WAIT } else { WATCH_WAIT };
        if matches!(round.view, Basis::Cache) && self.comes_to(wait, overtaken).await {
            round.met.taken = None;
        } else {
            round.view = self.read(key).await?;
        }
        Ok(())
    }

    /// Whether the cache is there, or comes there within this time.
    async fn comes_to(&self, wait: Duration, there: impl Fn(&Index) -> bool) -> bool {
        let until = clock::monotonic() + wait;
        loop {
            if there(&self.index.read()) {
                return true;
            }
            if clock::monotonic() >= until {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// When a report that has to rest on a read may be read for, if not now.
    pub(super) fn reads_later(&self, key: &ServiceKey, step: &Step) -> Option<Instant> {
        if !step.kind().is_copy() {
            return None;
        }
        let now = clock::monotonic();
        self.remember(key, |known| {
            let later = known.report_read.map(|at| at + REPORT_READS).filter(|at| *at > now);
            if later.is_none() {
                known.report_read = Some(now);
            }
            later
        })
    }

    pub(super) async fn read(&self, key: &ServiceKey) -> Result<Basis, CallError> {
        let read = self.reader.read(key).await?;
        *self.known.answered.lock() = Some(clock::monotonic());
        Ok(Basis::Read(Box::new((*read).clone())))
    }
}
