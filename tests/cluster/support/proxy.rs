//! A proxy between zen-lead and the real API server that fails on demand and keeps what it saw.
//!
//! Plain HTTP on loopback towards zen-lead; towards the API server it is kube's own client with
//! zen-lead's credentials. Watches, and requests without a rule, pass unchanged. The tests decide what
//! a request means.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::lag::Lag;

/// A fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status with a plain text, and with this `Retry-After`; the API server sees nothing.
    Answer(u16, Option<String>),
    /// 503 with a `Retry-After` that names the time this much later; the API server sees nothing.
    RetryIn(Duration),
    /// The connection is reset; the API server sees nothing.
    Reset,
    /// The API server does what was asked, and the connection is reset instead of its answer.
    ResetAfter,
    /// No answer at all; the API server sees nothing.
    Stall,
    /// Passed on this much later.
    Delay(Duration),
    /// As if the client had died before it sent this: from now on nothing passes.
    DieBefore,
    /// As if it had died before it got the answer: the API server executes the request, and then nothing
    /// passes any more.
    DieAfter,
}

impl Fault {
    pub fn answer(code: u16) -> Self {
        Self::Answer(code, None)
    }

    pub fn retry_after(code: u16, text: &str) -> Self {
        Self::Answer(code, Some(text.to_owned()))
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing yet.
    Pending,
    /// The client went away before the answer, and whether it took effect is not known.
    Left,
    /// The API server answered this status.
    Passed(u16),
    /// A rule applied.
    Failed(Fault),
    /// The API server could not be reached: the test proves nothing.
    Broken(String),
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET, POST, …; WATCH for a watch.
    pub verb: String,
    /// Without the query.
    pub path: String,
    /// `metadata.name` of the body, empty where there is none.
    pub name: String,
    /// When it had come in.
    pub at: Instant,
    /// What became of it.
    pub done: Done,
}

/// The way to the API server.
#[derive(Clone)]
struct Upstream {
    client: Client,
    lag: Arc<Lag>,
}

type Applies = Box<dyn Fn(&Seen) -> bool + Send + Sync>;

struct Rule {
    left: usize,
    fault: Fault,
    applies: Applies,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    rules: Vec<Rule>,
    /// A rule of a death has been met.
    dying: bool,
    /// And the API server has executed the last request.
    dead: bool,
}

impl State {
    /// Keeps a request. Returns its number and its fault, or `None` if nothing passes any more.
    fn meet(&mut self, seen: Seen) -> Option<(usize, Option<Fault>)> {
        if self.dying {
            return None;
        }
        let rule = self.rules.iter_mut().find(|r| r.left > 0 && (r.applies)(&seen));
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.fault.clone()
        });
        self.dying = matches!(fault, Some(Fault::DieBefore | Fault::DieAfter));
        self.dead = fault == Some(Fault::DieBefore);
        let done = fault.clone().map_or(Done::Pending, Done::Failed);
        self.seen.push(Seen { done, ..seen });
        Some((self.seen.len() - 1, fault))
    }

    /// The last request has been passed on.
    fn die(&mut self, number: usize, broken: Option<String>) {
        self.dead = true;
        if let Some(error) = broken {
            self.seen[number].done = Done::Broken(error);
        }
    }
}

/// A running proxy; it ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes on to the server of this kubeconfig.
    pub async fn start(kubeconfig: &Path) -> Self {
        let read = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(read, &options).await.unwrap();
        // A retry here would hide the retries of zen-lead.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let upstream = Upstream { client, lag: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(accept(listener, upstream.clone(), state.clone()));
        Self { address, upstream, state, task }
    }

    /// The delay of the watches that pass here.
    pub fn lag(&self) -> &Lag {
        &self.upstream.lag
    }

    /// Writes a kubeconfig that leads here, made from the one of the API server.
    pub fn write_kubeconfig(&self, from: &Path, to: &Path) {
        let text = std::fs::read_to_string(from).unwrap();
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        for entry in config["clusters"].as_array_mut().unwrap() {
            entry["cluster"] = json!({"server": format!("http://{}", self.address)});
        }
        std::fs::write(to, config.to_string()).unwrap();
    }

    /// The next `times` requests for which `applies` is true get the fault. If several rules apply, the
    /// oldest that is not used up counts.
    pub fn fail(
        &self,
        times: usize,
        fault: Fault,
        applies: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    ) {
        let rule = Rule { left: times, fault, applies: Box::new(applies) };
        self.state.lock().unwrap().rules.push(rule);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Faults that no request has got yet.
    pub fn left(&self) -> usize {
        self.state.lock().unwrap().rules.iter().map(|r| r.left).sum()
    }

    /// Whether a rule of a death was used and no request is under way any more.
    pub fn dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }

    /// Every request so far, in the order in which they came in.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }
}

async fn accept(listener: TcpListener, upstream: Upstream, state: Arc<Mutex<State>>) {
    // Ends with the proxy, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, upstream.clone(), state.clone()));
    }
}

async fn serve(stream: TcpStream, upstream: Upstream, state: Arc<Mutex<State>>) {
    // An end from this side is always a reset, not an orderly end.
    stream.set_zero_linger().unwrap();
    stream.set_nodelay(true).unwrap();
    let service = service_fn(move |request| {
        let (upstream, state) = (upstream.clone(), state.clone());
        async move { handle(request, &upstream, &state).await.ok_or("cut off on purpose") }
    });
    // Errors are the cuts, and clients that went away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Dropped with the request, also where its client leaves.
struct Underway<'a> {
    state: &'a Mutex<State>,
    number: usize,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let done = &mut self.state.lock().unwrap().seen[self.number].done;
        if *done == Done::Pending {
            *done = Done::Left;
        }
    }
}

/// The answer, or `None` to break the connection.
async fn handle(
    request: Request<Incoming>,
    upstream: &Upstream,
    state: &Mutex<State>,
) -> Option<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.ok()?;
    let Some((number, fault)) = state.lock().unwrap().meet(seen(&head, &body)) else {
        return std::future::pending().await;
    };
    let _underway = Underway { state, number };
    let pass = || pass(head, body.to_vec(), upstream);
    match fault {
        Some(Fault::Answer(code, retry_after)) => {
            let mut answer = Response::builder().status(code);
            if let Some(text) = retry_after {
                answer = answer.header("Retry-After", text);
            }
            return Some(answer.body(Body::from("the proxy of the test says no\n")).unwrap());
        }
        Some(Fault::RetryIn(time)) => {
            let date = httpdate::fmt_http_date(SystemTime::now() + time);
            let answer = Response::builder().status(503).header("Retry-After", date);
            return Some(answer.body(Body::empty()).unwrap());
        }
        Some(Fault::Reset) => return None,
        Some(Fault::ResetAfter) => {
            pass().await.ok()?;
            return None;
        }
        Some(Fault::Stall | Fault::DieBefore) => return std::future::pending().await,
        Some(Fault::DieAfter) => {
            let answer = pass().await;
            state.lock().unwrap().die(number, answer.err());
            return std::future::pending().await;
        }
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        None => {}
    }
    let (answer, done) = match pass().await {
        Ok(answer) => {
            let code = answer.status().as_u16();
            (answer, Done::Passed(code))
        }
        Err(error) => {
            let answer = Response::builder().status(502).body(Body::from(error.clone())).unwrap();
            (answer, Done::Broken(error))
        }
    };
    if fault.is_none() {
        state.lock().unwrap().seen[number].done = done;
    }
    Some(answer)
}

fn is_watch(head: &http::request::Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    query.split('&').any(|p| p == "watch=true" || p == "watch=1")
}

fn seen(head: &http::request::Parts, body: &[u8]) -> Seen {
    let verb = if is_watch(head) { "WATCH" } else { head.method.as_str() }.to_owned();
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = head.uri.path().to_owned();
    Seen { verb, path, name, at: Instant::now(), done: Done::Pending }
}

async fn pass(
    mut head: http::request::Parts,
    body: Vec<u8>,
    upstream: &Upstream,
) -> Result<Response<Body>, String> {
    let resource = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let watches = is_watch(&head);
    // Of this connection, or set anew by the client.
    for header in [HOST, CONNECTION, AUTHORIZATION] {
        head.headers.remove(header);
    }
    let request = Request::from_parts(head, kube::client::Body::from(body));
    let answer = upstream.client.send(request).await.map_err(|e| format!("{e:?}"))?;
    let (mut head, body) = answer.into_parts();
    head.version = Version::HTTP_11;
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    let body = Body::new(body);
    let body = if watches { upstream.lag.delay(&resource, body) } else { body };
    Ok(Response::from_parts(head, body))
}
