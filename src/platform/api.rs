//! The one way to call the API server: a deadline, retries, and every attempt counted.
//!
//! [`call`] is one call with its retries, [`attempt`] one attempt of a caller that repeats it for as
//! long as it lives (a watch), [`collection`] several calls under a deadline of their own. What a call
//! means, and what follows from its failure, is the caller's business.

mod client;
mod delays;
mod error;
mod judge;
pub mod proxy;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use client::client;
#[cfg(test)]
pub(crate) use client::keep_retry_after;
pub use delays::Delays;
pub use error::{Call, CallError};
pub use judge::{by_webhook, retry_after, whole_ms, with_causes};
pub use tokio::time::error::Elapsed;

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
use crate::platform::operation::{Operation, Target};
use crate::platform::telemetry::spans::Tracer;
use judge::{Passing, Verdict, judge};

/// How long and how often a call is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Everything together, waits included.
    pub deadline: Duration,
    /// One attempt.
    pub attempt: Duration,
    /// The wait after the first failed attempt, before jitter.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
}

impl Default for Policy {
    /// 10 s in all, 5 s an attempt, waits from 50 ms to 2 s.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(2),
        }
    }
}

/// What every call needs besides itself.
#[derive(Clone)]
pub struct Caller {
    /// Where attempts are counted.
    pub metrics: Arc<Metrics>,
    /// How long and how often.
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
    /// Whether an attempt may have taken effect although it failed.
    lost: bool,
}

/// Calls the API server, again while the failure looks passing and the deadline is not over.
///
/// `f` makes one attempt; it must be safe to repeat, which writes are by their resourceVersion and
/// uid preconditions (see [`CallError::after_lost_attempt`] for what the repetition may then meet).
///
/// # Errors
/// The server's refusal at once, or the last failure once the deadline does not allow another
/// attempt. A `Retry-After` beyond the deadline ends the call at once, with the server's words.
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
    let mut attempts = Attempts {
        caller,
        operation,
        target,
        deadline: monotonic() + caller.policy.deadline,
        delays: Delays::new(caller.policy.first_delay, caller.policy.max_delay),
        made: 0,
        lost: false,
    };
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
            Ok(Err(error)) => judge(&error, operation.routes()),
            Err(_) => Verdict::Passing(Passing::no_answer(limit)),
        };
        match verdict {
            Verdict::Final(refusal) => {
                let error = refusal.into_error(attempts.call(), attempts.settles_nothing());
                attempts.timed(error.category(), started);
                span.failed(error.category());
                return Err(error);
            }
            Verdict::Passing(passing) => {
                attempts.failed(&passing, started);
                span.failed(passing.category);
                let wait = attempts.wait(&passing)?;
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// One attempt of a call that its caller repeats for as long as it lives, timed and counted as those
/// of [`call`] are. `failed` is the caller's number of attempts in a row that failed for a passing
/// reason; it is kept up to date here.
///
/// # Errors
/// [`Elapsed`] when there was no answer within `limit`.
pub async fn attempt<T>(
    caller: &Caller,
    operation: Operation,
    target: Target<'_>,
    failed: &mut u32,
    limit: Duration,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, Elapsed> {
    let started = monotonic();
    let mut attempts = Attempts {
        caller,
        operation,
        target,
        deadline: started + limit,
        delays: Delays::new(caller.policy.first_delay, caller.policy.max_delay),
        made: *failed + 1,
        lost: false,
    };
    let outcome = tokio::time::timeout(limit, future).await;
    let verdict = match &outcome {
        Ok(Ok(_)) => {
            attempts.succeeded(started);
            *failed = 0;
            return outcome;
        }
        Ok(Err(error)) => judge(error, operation.routes()),
        Err(_) => {
            caller.metrics.timeout(operation.as_str());
            Verdict::Passing(Passing::no_answer(limit))
        }
    };
    match verdict {
        Verdict::Final(refusal) => {
            attempts.timed(refusal.category(), started);
            *failed = 0;
        }
        Verdict::Passing(passing) => {
            attempts.failed(&passing, started);
            *failed = attempts.made;
        }
    }
    outcome
}

/// Runs several calls that belong together under a deadline of their own: each has its own deadline,
/// but a row of slow ones must not hold up whoever waits for all of them.
///
/// # Errors
/// What `future` says, or [`CallError::Overdue`].
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
    Err(CallError::Overdue { call, deadline }.into())
}

impl Attempts<'_> {
    fn call(&self) -> Call {
        Call { operation: self.operation, object: self.target.named() }
    }

    fn settles_nothing(&self) -> bool {
        self.lost && self.operation.is_write()
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

    fn failed(&mut self, passing: &Passing, started: Instant) {
        self.timed(passing.category, started);
        self.lost |= passing.lost;
        let Target { namespace, service, .. } = self.target;
        let operation = self.operation.as_str();
        self.caller.metrics.retry_attempt(namespace, service, operation, self.made);
        let object = self.target.named();
        tracing::debug!(operation, %object, attempt = self.made, "{}", passing.message);
    }

    /// How long to wait before the next attempt, or the error when none fits before the deadline.
    fn wait(&mut self, passing: &Passing) -> Result<Duration, CallError> {
        let left = self.deadline.saturating_duration_since(monotonic());
        let asked = passing.retry_after.unwrap_or_default();
        // The jitter goes on top of what the server asked for: callers that were turned away
        // together would otherwise come back together.
        let wait = asked.saturating_add(self.delays.next_delay());
        if wait < left {
            return Ok(wait);
        }
        // A pause that could never have fitted is the server's doing, not a deadline run into.
        if asked < self.caller.policy.deadline {
            self.caller.metrics.timeout(self.operation.as_str());
        }
        let turned_away = asked >= left && !asked.is_zero();
        Err(passing.give_up(
            self.call(),
            self.caller.policy.deadline,
            self.made,
            self.settles_nothing(),
            turned_away,
        ))
    }
}
