//! Waits for a condition, never for a time: it polls with a generous deadline, and the message of a
//! failure has the last answer.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take. Far longer than it should: this proves "it happens", and a machine
/// may be busy. The benchmarks measure how fast it happens.
pub const DEADLINE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_millis(40);

/// Polls until `check` returns `Ok`; panics with its last words after [`DEADLINE`].
#[track_caller]
pub fn until<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: impl Into<String>,
    check: impl FnMut() -> F,
) -> impl Future<Output = T> {
    within(DEADLINE, what, check)
}

/// As [`until`], with another deadline.
#[track_caller]
pub fn within<T, E: Display, F: Future<Output = Result<T, E>>>(
    limit: Duration,
    what: impl Into<String>,
    mut check: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let what = what.into();
    let caller = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        loop {
            match check().await {
                Ok(value) => return value,
                Err(last) if started.elapsed() > limit => {
                    panic!("{caller}: not within {limit:?}: {what}; last seen: {last}")
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// `Ok` when true, the words otherwise.
pub fn check(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
