//! How long what was refused is left alone: pauses that double, longer for replicas of a later rank.

use std::time::Duration;

/// First wait, doubled each time up to [`LAST_WAIT`].
pub const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait.
pub const LAST_WAIT: Duration = Duration::from_mins(5);
/// A replica that is not the first for a Service waits so many times as long: what does not work for
/// one does not work for the others.
const LATER_RANKS: u32 = 3;

/// The wait after this one; the first where there was none.
pub fn next_wait(last: Option<Duration>) -> Duration {
    last.map_or(FIRST_WAIT, |wait| (wait * 2).min(LAST_WAIT))
}

/// How long a replica of this rank waits where the first one waits so long.
pub fn for_rank(wait: Duration, rank: usize) -> Duration {
    if rank == 0 { wait } else { wait * LATER_RANKS }
}
