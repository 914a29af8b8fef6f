//! The shutdown of the process: a signal, then unready, wait, finish requests, stop workers.
//!
//! Knows neither servers nor workers, only the phases that they wait for (`shutdown`).

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::platform::clock::monotonic;
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::platform::operation::Operation;
use crate::platform::shutdown::{Phase, Shutdown};
use crate::platform::supervise::{Failed, Supervisor};

/// How long the phases may take: together less than the 30 s that Kubernetes gives by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// From unready to closed sockets: the time the cluster needs to learn that the replica is unready.
    pub propagation: Duration,
    /// For the requests in flight.
    pub requests: Duration,
    /// For the workers.
    pub workers: Duration,
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All work was finished.
    Clean,
    /// Something failed before or during the shutdown.
    Failed(Failed),
    /// A second signal cut the shutdown short.
    Aborted,
}

impl Ended {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed(_) | Self::Aborted => 1,
        }
    }
}

/// A source of signals.
pub trait Signals: Send {
    /// Waits for the next signal and returns its name.
    fn next(&mut self) -> impl Future<Output = &'static str> + Send;
}

/// SIGTERM and SIGINT of the operating system.
pub struct UnixSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl UnixSignals {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl Signals for UnixSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits for a signal or a failed task, then takes the process through the phases.
///
/// A second signal ends it immediately. Tasks must have been started before: a task that is spawned while
/// the workers are joined is not waited for.
pub async fn run(
    shutdown: &Shutdown,
    supervisor: &Supervisor,
    health: &Health,
    times: &Times,
    metrics: &Metrics,
    mut signals: impl Signals,
) -> Ended {
    tokio::select! {
        signal = signals.next() => shutdown.trigger(signal),
        () = shutdown.draining() => {}
    }
    tokio::select! {
        ended = phases(shutdown, supervisor, health, times, metrics) => ended,
        signal = signals.next() => {
            tracing::error!(signal, "second signal received, exiting immediately");
            Ended::Aborted
        }
    }
}

async fn phases(
    shutdown: &Shutdown,
    supervisor: &Supervisor,
    health: &Health,
    times: &Times,
    metrics: &Metrics,
) -> Ended {
    let begun = monotonic();
    health.drain();
    tokio::time::sleep(times.propagation).await;
    log("propagation", begun, true);

    let closing = monotonic();
    shutdown.advance(Phase::Closing);
    let mut in_flight = shutdown.in_flight();
    let finished = tokio::time::timeout(times.requests, in_flight.wait_for(|n| *n == 0)).await;
    let finished = finished.is_ok();
    if !finished {
        metrics.timeout(Operation::DrainRequests.as_str());
    }
    log("requests", closing, finished);

    let stopping = monotonic();
    shutdown.advance(Phase::Stopping);
    let joined = supervisor.join(times.workers).await;
    if monotonic() - stopping >= times.workers {
        metrics.timeout(Operation::DrainWorkers.as_str());
    }
    log("workers", stopping, joined.is_ok());
    match joined {
        Err(failed) => Ended::Failed(failed),
        Ok(()) if finished => Ended::Clean,
        Ok(()) => Ended::Failed(Failed(vec![format!(
            "drain_requests: admission reviews were still in flight after {:?}; they are aborted, \
             and the API server applies the failurePolicy of the webhook to them",
            times.requests
        )])),
    }
}

fn log(phase: &'static str, since: tokio::time::Instant, complete: bool) {
    let seconds = monotonic().duration_since(since).as_secs_f64();
    tracing::info!(phase, seconds, complete, "shutdown phase finished");
}
