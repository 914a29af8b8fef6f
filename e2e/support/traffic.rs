//! Requests to a Service, with a new connection each, at a steady rate; and their results.
//!
//! Runs in the cluster's network ($CLUSTER_EXEC), where cluster IPs work. It has its own few lines of
//! HTTP, so that no pool and no retry hides a failed connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::waiting::until;

/// The longest time of a request.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest time of a load, even if its test hangs.
const LONGEST: Duration = Duration::from_mins(2);

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection: the error of the operating system.
    Connect(String),
    /// Connected, but no answer.
    Broken(String),
    /// Neither within [`LIMIT`].
    Late,
    /// Another status than 200.
    Status(String),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub started: Instant,
    pub ended: Instant,
    pub answer: Result<String, Failure>,
}

/// Sends one request over a new connection; the body of the answer, without its newline.
pub async fn ask(to: SocketAddr, method: &str, path: &str) -> Result<String, Failure> {
    let exchange = async {
        let connect = TcpStream::connect(to).await;
        let mut stream = connect.map_err(|e| Failure::Connect(e.kind().to_string()))?;
        let broken = |e: std::io::Error| Failure::Broken(e.kind().to_string());
        // 1.0: a body of unknown length comes whole, not in chunks.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: e2e\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.map_err(broken)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(broken)?;
        Ok(text)
    };
    let text = timeout(LIMIT, exchange).await.unwrap_or(Err(Failure::Late))?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| Failure::Broken("no whole answer".into()))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.trim_end_matches('\n').to_owned())
    } else {
        Err(Failure::Status(status.to_owned()))
    }
}

/// Waits until a request is answered. The first one after a Service has appeared may come before kube-proxy.
#[track_caller]
pub fn until_answered(to: SocketAddr) -> impl Future<Output = String> {
    until(format!("{to} answers"), move || async move {
        ask(to, "GET", "/").await.map_err(|e| format!("{e:?}"))
    })
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins to send `per_second` requests a second.
    pub fn start(to: SocketAddr, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(send(to, per_second, stop.clone(), done.clone()));
        Self { stop, done, task }
    }

    /// Waits until `count` more requests have ended.
    pub async fn more(&self, count: usize) {
        let goal = self.done.lock().unwrap().len() + count;
        while self.done.lock().unwrap().len() < goal && !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops and returns all requests in the order of their start.
    pub async fn finish(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let mut all = std::mem::take(&mut *self.done.lock().unwrap());
        all.sort_by_key(|r| r.started);
        Answers(all)
    }
}

async fn send(to: SocketAddr, rate: u32, stop: Arc<AtomicBool>, done: Arc<Mutex<Vec<Request>>>) {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        pace.tick().await;
        let done = done.clone();
        requests.spawn(async move {
            let started = Instant::now();
            let answer = ask(to, "GET", "/").await;
            done.lock().unwrap().push(Request { started, ended: Instant::now(), answer });
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// The results that the client saw.
#[derive(Debug)]
pub struct Answers(pub Vec<Request>);

impl Answers {
    /// The pods that answered.
    pub fn pods(&self) -> BTreeSet<&str> {
        self.0.iter().filter_map(|r| r.answer.as_deref().ok()).collect()
    }

    pub fn failures(&self) -> Vec<&Failure> {
        self.0.iter().filter_map(|r| r.answer.as_ref().err()).collect()
    }

    /// The times of the first and the last answer of a pod.
    fn span(&self, pod: &str) -> Option<(Instant, Instant)> {
        let ends = self.0.iter().filter(|r| r.answer.as_deref() == Ok(pod)).map(|r| r.ended);
        Some((ends.clone().min()?, ends.max()?))
    }

    /// Between the last answer of one pod and the first of another; negative where they overlap
    /// (requests run side by side).
    pub fn gap_ms(&self, old: &str, new: &str) -> f64 {
        let (Some((_, last)), Some((first, _))) = (self.span(old), self.span(new)) else {
            return f64::NAN;
        };
        let distance = |a: Instant, b: Instant| (b - a).as_secs_f64() * 1000.0;
        if first >= last { distance(last, first) } else { -distance(first, last) }
    }

    /// The pods answered one after the other in this order. A request that began after an answer of a
    /// later pod did not fail and was not answered by an earlier pod. No other pod answered.
    pub fn assert_order<S: AsRef<str>>(&self, pods: &[S]) {
        let place = |pod: &str| pods.iter().position(|p| p.as_ref() == pod);
        let mut reached = 0;
        let mut pending: Vec<(Instant, usize)> = Vec::new();
        let mut at_last = Vec::new();
        for request in &self.0 {
            pending.retain(|(ended, place)| {
                let over = *ended < request.started;
                if over {
                    reached = reached.max(*place);
                }
                !over
            });
            match &request.answer {
                Ok(pod) => {
                    let here = place(pod).unwrap_or_else(|| panic!("{pod} answered; {self}"));
                    assert!(
                        here >= reached,
                        "{pod} answered a request begun after an answer of {} had come; {self}",
                        pods[reached].as_ref()
                    );
                    pending.push((request.ended, here));
                }
                Err(why) if reached + 1 == pods.len() => at_last.push(why),
                Err(_) => {}
            }
        }
        let failed = at_last.len();
        assert!(failed == 0, "{failed} requests failed after the last switch: {self}");
        for pod in pods {
            assert!(self.span(pod.as_ref()).is_some(), "{} never answered; {self}", pod.as_ref());
        }
    }

    /// One pod answered every request.
    pub fn assert_only(&self, pod: &str) {
        assert!(self.failures().is_empty() && self.pods() == BTreeSet::from([pod]), "{self}");
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<Result<&str, &Failure>, usize> = BTreeMap::new();
        for request in &self.0 {
            *counts.entry(request.answer.as_deref()).or_default() += 1;
        }
        write!(f, "{} requests", self.0.len())?;
        for (what, count) in counts {
            match what {
                Ok(pod) => write!(f, ", {count} by {pod}")?,
                Err(why) => write!(f, ", {count} failed ({why:?})")?,
            }
        }
        Ok(())
    }
}
