//! The only place that spawns tasks: no task of the process ends unnoticed.
//!
//! A critical task that ends early or panics stops the process, with the same drain as a signal and a
//! non-zero exit code. A passing task (the watch of a namespace) may end. Nothing here knows Kubernetes or
//! what the tasks do.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::CatchUnwind;
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};

use crate::platform::clock::monotonic;
use crate::platform::shutdown::Shutdown;

/// The result of a task.
pub trait Ending {
    /// The error, if there was one.
    fn fault(self) -> Option<String>;
}

impl Ending for () {
    fn fault(self) -> Option<String> {
        None
    }
}

impl<E: Display> Ending for Result<(), E> {
    fn fault(self) -> Option<String> {
        self.err().map(|e| e.to_string())
    }
}

/// Spawns and joins the tasks of the process; clones share them.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<SupervisorInner>,
}

struct SupervisorInner {
    shutdown: Shutdown,
    tasks: Mutex<Vec<Task>>,
    failures: Mutex<Vec<String>>,
}

struct Task {
    name: String,
    passing: bool,
    handle: JoinHandle<()>,
}

/// A passing task; dropping this ends it.
#[must_use = "dropping the handle ends the task"]
pub struct Passing {
    abort: AbortHandle,
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// The process did not end cleanly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Failed(pub Vec<String>);

impl Supervisor {
    /// A supervisor that triggers `shutdown` when a critical task fails.
    pub fn new(shutdown: Shutdown) -> Self {
        let inner =
            SupervisorInner { shutdown, tasks: Mutex::default(), failures: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a critical task: it must not end before the shutdown has reached its last phase, and
    /// must end soon after.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let caught = caught(future);
        self.start(name.to_owned(), false, async move {
            let ended = caught.await;
            let expected = inner.shutdown.is_closing();
            match ended.map(Ending::fault) {
                Ok(None) if expected => tracing::debug!(task = name, "task ended"),
                Ok(None) => inner.fail(format!("task {name} ended early")),
                Ok(Some(fault)) => inner.fail(format!("task {name} failed: {fault}")),
                Err(panic) => inner.fail(format!("task {name} panicked: {}", words(&*panic))),
            }
        });
    }

    /// Starts a critical task that is dropped in the last phase of the shutdown.
    pub fn spawn_until_stopping<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, until_stopping(future, self.inner.shutdown.clone()));
    }

    /// Starts a task that may end, and that ends when its handle is dropped. A panic in it is fatal, as in
    /// any other task.
    pub fn spawn_passing<F>(&self, name: String, future: F) -> Passing
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let task = name.clone();
        let caught = caught(future);
        let abort = self.start(name, true, async move {
            if let Err(panic) = caught.await {
                inner.fail(format!("task {task} panicked: {}", words(&*panic)));
            }
        });
        Passing { abort }
    }

    fn start<F>(&self, name: String, passing: bool, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = self.inner.tasks.lock();
        // Removes ended and aborted tasks here, so that short-lived watches leave nothing behind.
        tasks.retain(|task| !task.handle.is_finished());
        #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(future);
        let abort = handle.abort_handle();
        tasks.push(Task { name, passing, handle });
        abort
    }

    /// Ends the passing tasks and waits for the critical ones. Aborts those that have not ended after
    /// `deadline`.
    ///
    /// # Errors
    /// Names each task that failed, panicked, ended early, or did not end in time.
    pub async fn join(&self, deadline: Duration) -> Result<(), Failed> {
        let until = monotonic() + deadline;
        loop {
            let Some(mut task) = self.inner.tasks.lock().pop() else { break };
            if task.passing {
                task.handle.abort();
            }
            // The result is not needed: the task itself has noted errors and panics.
            if tokio::time::timeout_at(until, &mut task.handle).await.is_err() {
                task.handle.abort();
                self.inner.note(format!(
                    "task {} did not end within {deadline:?} and was aborted",
                    task.name
                ));
            }
        }
        let failures = self.inner.failures.lock().clone();
        if failures.is_empty() { Ok(()) } else { Err(Failed(failures)) }
    }
}

impl SupervisorInner {
    fn fail(&self, fault: String) {
        self.note(fault);
        self.shutdown.trigger("a task failed");
    }

    fn note(&self, fault: String) {
        tracing::error!("{fault}");
        self.failures.lock().push(fault);
    }
}

// Both in a box: an `async` block has room for what it takes in and, again, for what it waits for. So a watch
// of 11 KB took 22, or 44.

/// A panic of the future becomes its result.
fn caught<F: Future>(future: F) -> Pin<Box<CatchUnwind<AssertUnwindSafe<F>>>> {
    Box::pin(AssertUnwindSafe(future).catch_unwind())
}

/// The future, until the last phase of the shutdown.
fn until_stopping<F>(future: F, shutdown: Shutdown) -> impl Future<Output = ()>
where
    F: Future<Output = ()>,
{
    let future = Box::pin(future);
    async move {
        tokio::select! { () = future => {}, () = shutdown.stopping() => {} }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_around_a_future_has_no_room_for_it() {
        let large = async {
            let held = [0_u8; 4096];
            tokio::task::yield_now().await;
            std::hint::black_box(held);
        };
        assert!(size_of_val(&large) > 4096);
        let until = until_stopping(large, Shutdown::new());
        assert!(size_of_val(&until) < 1024);
        assert!(size_of_val(&caught(until)) < 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_early_stops_everything() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        supervisor.spawn("short", async {});
        shutdown.draining().await;
        let failed = supervisor.join(SOON).await.unwrap_err();
        assert_eq!(failed.to_string(), "task short ended early");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_and_a_panic_are_named() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        supervisor.spawn("server", async { Err::<(), _>("address in use") });
        shutdown.draining().await;
        let watch = supervisor.spawn_passing("watch".into(), async { panic!("index {}", 7) });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let failed = supervisor.join(SOON).await.unwrap_err();
        assert_eq!(
            failed.0,
            ["task server failed: address in use", "task watch panicked: index 7"]
        );
        drop(watch);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_end_with_the_shutdown_are_fine() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let stop = shutdown.clone();
        supervisor.spawn("worker", async move { stop.stopping().await });
        shutdown.advance_to_end();
        assert_eq!(supervisor.join(SOON).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_named_and_aborted() {
        struct Flag(Arc<Mutex<bool>>);
        impl Drop for Flag {
            fn drop(&mut self) {
                *self.0.lock() = true;
            }
        }
        let ended = Arc::new(Mutex::new(false));
        let flag = Flag(Arc::clone(&ended));
        let supervisor = Supervisor::new(Shutdown::new());
        supervisor.spawn("stuck", async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        let failed = supervisor.join(SOON).await.unwrap_err();
        assert_eq!(failed.to_string(), "task stuck did not end within 1s and was aborted");
        tokio::task::yield_now().await;
        assert!(*ended.lock());
    }

    #[tokio::test(start_paused = true)]
    async fn passing_tasks_end_with_their_handle_and_leave_nothing() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        for n in 0..100 {
            let watch = supervisor.spawn_passing(format!("watch {n}"), std::future::pending());
            drop(watch);
            tokio::task::yield_now().await;
        }
        let short = supervisor.spawn_passing("short".into(), async {});
        let long = supervisor.spawn_passing("long".into(), std::future::pending());
        assert!(supervisor.inner.tasks.lock().len() <= 3);
        assert_eq!(supervisor.join(SOON).await, Ok(()), "what still runs is ended");
        assert!(!shutdown.is_draining());
        drop((short, long));
    }
}
