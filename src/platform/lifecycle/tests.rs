//! Tests of the phases, with signals from a channel and paused time.

use parking_lot::Mutex;
use tokio::sync::mpsc;

use std::sync::Arc;

use super::*;
use crate::platform::metrics::Metrics;

impl Signals for mpsc::UnboundedReceiver<&'static str> {
    async fn next(&mut self) -> &'static str {
        match self.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

struct Process {
    shutdown: Shutdown,
    supervisor: Supervisor,
    health: Health,
    metrics: Arc<Metrics>,
    /// What happened, with the second at which it happened.
    story: Arc<Mutex<Vec<(u64, &'static str)>>>,
    start: tokio::time::Instant,
}

impl Process {
    fn new() -> Self {
        let shutdown = Shutdown::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        Self {
            supervisor: Supervisor::new(shutdown.clone()),
            shutdown,
            health: Health::new(&[], metrics.clone()),
            metrics,
            story: Arc::default(),
            start: monotonic(),
        }
    }

    fn record(&self) -> impl Fn(&'static str) + Send + Sync + 'static {
        let (story, start) = (Arc::clone(&self.story), self.start);
        move |what| story.lock().push(((monotonic() - start).as_secs(), what))
    }

    /// A server that needs `drain` for its last request, and a worker.
    fn spawn(&self, drain: Duration) {
        let (stop, record, serving) =
            (self.shutdown.clone(), self.record(), self.shutdown.serving());
        self.supervisor.spawn("server", async move {
            stop.closing().await;
            record("server stops accepting");
            tokio::time::sleep(drain).await;
            record("server is through");
            drop(serving);
        });
        let (stop, record) = (self.shutdown.clone(), self.record());
        self.supervisor.spawn("worker", async move {
            stop.stopping().await;
            record("worker stops");
        });
        let (stop, record, health) = (self.shutdown.clone(), self.record(), self.health.clone());
        self.supervisor.spawn("observer", async move {
            stop.draining().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            record(if health.readiness().ready { "ready" } else { "unready" });
            stop.stopping().await;
        });
    }

    async fn run(&self, signals: mpsc::UnboundedReceiver<&'static str>) -> Ended {
        let times = Times {
            propagation: Duration::from_secs(3),
            requests: Duration::from_secs(5),
            workers: Duration::from_secs(5),
        };
        run(&self.shutdown, &self.supervisor, &self.health, &times, &self.metrics, signals).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_leads_through_the_phases_in_order() {
    let process = Process::new();
    process.spawn(Duration::from_secs(2));
    let (signal, signals) = mpsc::unbounded_channel();
    signal.send("SIGTERM").unwrap();
    assert_eq!(process.run(signals).await, Ended::Clean);
    assert_eq!(
        *process.story.lock(),
        [
            (0, "unready"),
            (3, "server stops accepting"),
            (5, "server is through"),
            (5, "worker stops"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_finish_is_not_waited_for() {
    let process = Process::new();
    process.spawn(Duration::from_mins(1));
    let (signal, signals) = mpsc::unbounded_channel();
    signal.send("SIGINT").unwrap();
    let ended = process.run(signals).await;
    assert_eq!(
        ended,
        Ended::Failed(Failed(vec!["task server did not end within 5s and was aborted".into()]))
    );
    assert_eq!(ended.exit_code(), 1);
    let text = process.metrics.exposition().unwrap();
    for operation in ["drain_requests", "drain_workers"] {
        let line = format!(r#"zen_lead_timeout_occurrences_total{{operation="{operation}"}} 1"#);
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert_eq!(process.story.lock().last(), Some(&(8, "worker stops")));
    assert_eq!((monotonic() - process.start).as_secs(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    let process = Process::new();
    process.spawn(Duration::from_secs(2));
    let (signal, signals) = mpsc::unbounded_channel();
    signal.send("SIGTERM").unwrap();
    signal.send("SIGTERM").unwrap();
    assert_eq!(process.run(signals).await, Ended::Aborted);
    assert_eq!((monotonic() - process.start).as_secs(), 0);
    assert_eq!(Ended::Aborted.exit_code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_drains_as_a_signal_does_and_exits_non_zero() {
    let process = Process::new();
    process.spawn(Duration::from_secs(1));
    process.supervisor.spawn("watch", async {
        let broken = std::hint::black_box(None::<()>);
        broken.expect("broken");
    });
    let (_signal, signals) = mpsc::unbounded_channel();
    let ended = process.run(signals).await;
    assert_eq!(ended, Ended::Failed(Failed(vec!["task watch panicked: broken".into()])));
    let story = process.story.lock();
    assert_eq!(story.last(), Some(&(4, "worker stops")), "{story:?}");
}
