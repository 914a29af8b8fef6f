//! The only way to call the API server: with a deadline, retries, and a count of every attempt.
//!
//! [`call`] is one call with its retries, [`attempt`] one attempt of a caller that repeats it without end
//! (a watch), [`collection`] several calls under a common deadline. The caller decides what follows from a
//! failure.

mod classify;
mod client;
mod connections;
mod delays;
mod error;
pub mod proxy;
#[cfg(test)]
mod tests;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use classify::{by_webhook, retry_after, whole_ms, with_causes};
pub use client::client;
#[cfg(test)]
pub(crate) use client::keep_retry_after;
pub use delays::Delays;
pub use error::{Call, CallError, ErrorKind};
pub use tokio::time::error::Elapsed;
pub use warm::keep_warm;

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
use crate::platform::operation::{Operation, Target};
use crate::platform::telemetry::spans::Tracer;
use classify::{RetryVerdict, Transient, classify};

/// Deadline and retries of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Deadline of the whole call, including waits.
    pub deadline: Duration,
    /// Deadline of one attempt.
    pub attempt: Duration,
    /// The wait after the first failed attempt, before jitter.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
}

impl Default for Policy {
    /// 10 s in total, 5 s per attempt, waits from 50 ms to 2 s.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(2),
        }
    }
}

/// What every call needs.
#[derive(Clone)]
pub struct Caller {
    /// Counts the attempts.
    pub metrics: Arc<Metrics>,
    /// Deadline and retries.
    pub policy: Policy,
    /// Makes a span of each attempt.
    pub tracer: Tracer,
}

impl Caller {
    /// A caller with the default policy and without tracing.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, policy: Policy::default(), tracer: Tracer::off() }
    }
}

/// The state of one call over its attempts.
struct Attempts<'a> {
    caller: &'a Caller,
    operation: Operation,
    target: Target<'a>,
    deadline: Instant,
    delays: Delays,
    made: u32,
    /// Whether a failed attempt may have taken effect.
    maybe_applied: bool,
}

/// Calls the API server, and retries while the failure looks transient and the deadline allows it.
///
/// `f` makes one attempt. It must be safe to repeat; writes are, by their preconditions on resourceVersion
/// and uid (see [`CallError::maybe_applied`] for the answer that a retry may then get).
///
/// # Errors
/// A refusal immediately, or the last failure when the deadline does not allow another attempt. A
/// `Retry-After` beyond the deadline ends the call immediately, with the server's message.
pub async fn call<T, F, Fut>(
    caller: &Caller,
    operation: Operation,
    target: Target<'_>,
    mut f: F,
) -> Result<T, CallError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = kube::Result<T>>,
{
    let mut attempts = Attempts::new(caller, operation, target, caller.policy.deadline);
    loop {
        attempts.made += 1;
        let started = monotonic();
        let limit = caller.policy.attempt.min(attempts.deadline.duration_since(started));
        let span = caller.tracer.attempt(operation, target, attempts.made);
        let verdict = match tokio::time::timeout(limit, span.run(f())).await {
            Ok(Ok(value)) => {
                attempts.succeeded(started);
                return Ok(value);
            }
            Ok(Err(error)) => classify(&error, operation.routes()),
            Err(_) => RetryVerdict::Transient(Transient::no_answer(limit)),
        };
        match verdict {
            RetryVerdict::Final(refusal) => {
                let error = refusal.into_error(attempts.call(), attempts.settles_nothing());
                attempts.timed(error.category(), started);
                span.failed(error.category());
                return Err(error);
            }
            RetryVerdict::Transient(transient) => {
                attempts.failed(&transient, started);
                span.failed(transient.category);
                let wait = attempts.wait(&transient)?;
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// One attempt of a call that its caller repeats without end, timed and counted like those of [`call`].
/// `failed` is the caller's number of consecutive attempts that failed for a transient reason; it is updated
/// here.
///
/// # Errors
/// [`Elapsed`] if there was no answer within `limit`.
pub async fn attempt<T>(
    caller: &Caller,
    operation: Operation,
    target: Target<'_>,
    failed: &mut u32,
    limit: Duration,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, Elapsed> {
    let started = monotonic();
    let mut attempts = Attempts::new(caller, operation, target, limit);
    attempts.made = *failed + 1;
    let outcome = tokio::time::timeout(limit, future).await;
    let verdict = match &outcome {
        Ok(Ok(_)) => {
            attempts.succeeded(started);
            *failed = 0;
            return outcome;
        }
        Ok(Err(error)) => classify(error, operation.routes()),
        Err(_) => {
            caller.metrics.timeout(operation.as_str());
            RetryVerdict::Transient(Transient::no_answer(limit))
        }
    };
    match verdict {
        RetryVerdict::Final(refusal) => {
            attempts.timed(refusal.kind.category(), started);
            *failed = 0;
        }
        RetryVerdict::Transient(transient) => {
            attempts.failed(&transient, started);
            *failed = attempts.made;
        }
    }
    outcome
}

/// Runs several calls that belong together under a common deadline. Each has its own deadline, but many slow
/// calls together must not delay the caller without bound.
///
/// # Errors
/// The error of `future`, or [`ErrorKind::Overdue`].
pub async fn collection<T, E: From<CallError>>(
    metrics: &Metrics,
    operation: Operation,
    target: Target<'_>,
    deadline: Duration,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if let Ok(result) = tokio::time::timeout(deadline, future).await {
        return result;
    }
    metrics.timeout(operation.as_str());
    let call = Call { operation, object: target.named() };
    Err(CallError::new(call, ErrorKind::Overdue(deadline), "no answer").into())
}

impl<'a> Attempts<'a> {
    fn new(caller: &'a Caller, operation: Operation, target: Target<'a>, limit: Duration) -> Self {
        let deadline = monotonic() + limit;
        let delays = Delays::new(caller.policy.first_delay, caller.policy.max_delay);
        Self { caller, operation, target, deadline, delays, made: 0, maybe_applied: false }
    }

    fn call(&self) -> Call {
        Call { operation: self.operation, object: self.target.named() }
    }

    fn settles_nothing(&self) -> bool {
        self.maybe_applied && self.operation.is_write()
    }

    fn timed(&self, result: &'static str, started: Instant) {
        let took = monotonic().duration_since(started);
        self.caller.metrics.api_call(self.operation.as_str(), result, took);
    }

    fn succeeded(&self, started: Instant) {
        self.timed("ok", started);
        if self.made > 1 {
            let Target { namespace, service, .. } = self.target;
            self.caller.metrics.retry_success(namespace, service, self.operation.as_str());
        }
    }

    fn failed(&mut self, transient: &Transient, started: Instant) {
        self.timed(transient.category, started);
        self.maybe_applied |= transient.maybe_applied;
        let Target { namespace, service, .. } = self.target;
        let operation = self.operation.as_str();
        self.caller.metrics.retry_attempt(namespace, service, operation, self.made);
        let object = self.target.named();
        tracing::debug!(operation, %object, attempt = self.made, "{}", transient.message);
    }

    /// How long to wait before the next attempt, or the error if none fits before the deadline.
    fn wait(&mut self, transient: &Transient) -> Result<Duration, CallError> {
        let left = self.deadline.saturating_duration_since(monotonic());
        let asked = transient.retry_after.unwrap_or_default();
        // The jitter is added to the pause that the server asked for: otherwise callers that were
        // rejected together would retry together.
        let wait = asked.saturating_add(self.delays.next_delay());
        if wait < left {
            return Ok(wait);
        }
        // If the pause is longer than the whole deadline, the deadline is not the cause.
        if asked < self.caller.policy.deadline {
            self.caller.metrics.timeout(self.operation.as_str());
        }
        let turned_away = asked >= left && !asked.is_zero();
        let kind = transient.kind(self.caller.policy.deadline, turned_away);
        let timed_out = matches!(kind, ErrorKind::Timeout(_));
        Err(CallError {
            maybe_applied: self.settles_nothing(),
            retry_after: transient.retry_after.filter(|_| !timed_out),
            attempts: self.made,
            ..CallError::new(self.call(), kind, transient.message.clone())
        })
    }
}
