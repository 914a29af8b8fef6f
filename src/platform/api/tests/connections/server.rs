//! A server with TLS behind connections in memory, so that tokio's time may be paused. A connection can be made
//! a black hole. What is checked is the business of the tests.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::{Client, Config};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::platform::api::client::stack;
use crate::platform::clock::{Clock, monotonic};
use crate::platform::pki::Ca;

/// The name in the certificate.
const NAME: &str = "api.example.com";
/// How long a connection may have no request: `IdleTimeout` in pkg/server/secure_serving.go of k8s.io/apiserver.
pub(super) const IDLE: Duration = Duration::from_secs(90);

const MAP: &str = r#"{"metadata":{"name":"x"}}"#;
const LIST: &str = r#"{"metadata":{"resourceVersion":"1"},"items":[]}"#;
const SERVED_VERSION: &str = r#"{"major":"1","minor":"37","gitVersion":"v1.37.2","gitCommit":"",
    "gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;

/// A request that came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Number of its connection, in the order in which they were opened.
    pub(super) connection: usize,
    pub(super) version: Version,
    pub(super) path: String,
}

/// The server; clones share everything.
#[derive(Clone)]
pub(super) struct Server {
    inner: Arc<ServerInner>,
}

struct ServerInner {
    ca: Ca,
    tls: TlsAcceptor,
    streams: u32,
    lines: Mutex<Vec<Line>>,
    seen: Mutex<Vec<Seen>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What is known of a connection.
struct Line {
    dead: Arc<AtomicBool>,
    last: watch::Sender<Last>,
}

#[derive(Clone, Copy)]
struct Last {
    request: Instant,
    /// It is to end when the requests under way are answered.
    ends: bool,
}

impl Server {
    /// A server that offers these protocols, and takes `streams` requests at once on an HTTP/2 connection.
    pub(super) fn new(protocols: &[&str], streams: u32) -> Self {
        let now = Clock::system().now();
        let ca = Ca::generate(now, Duration::from_hours(24), None).unwrap();
        let leaf = ca.sign(&[NAME.to_owned()], now, Duration::from_hours(1)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(leaf.chain(), leaf.key())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let tls = TlsAcceptor::from(Arc::new(config));
        let (lines, seen, tasks) = Default::default();
        Self { inner: Arc::new(ServerInner { ca, tls, streams, lines, seen, tasks }) }
    }

    /// How to reach it under this URL.
    pub(super) fn config(&self, url: &str) -> Config {
        let mut config = Config::new(url.parse().unwrap());
        config.root_cert = Some(vec![self.inner.ca.certificate.der().to_vec()]);
        config.tls_server_name = Some(NAME.to_owned());
        config
    }

    /// The client of the process over connections in memory.
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let transport = tower::service_fn(move |_: Uri| {
            let server = server.clone();
            async move { Ok::<_, io::Error>(server.open()) }
        });
        stack(self.config("https://api.example.com:6443/prefix"), transport).unwrap()
    }

    fn open(&self) -> Wire {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let dead = self.serve(there);
        Wire { io: TokioIo::new(here), dead }
    }

    /// Serves a connection, and returns what makes it a black hole.
    pub(super) fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Arc<AtomicBool> {
        let dead = Arc::new(AtomicBool::new(false));
        let last = watch::Sender::new(Last { request: monotonic(), ends: false });
        let number = {
            let mut lines = self.inner.lines.lock();
            lines.push(Line { dead: dead.clone(), last });
            lines.len() - 1
        };
        self.inner.tasks.lock().spawn(self.clone().connection(number, io));
        dead
    }

    async fn connection(
        self,
        number: usize,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let Ok(stream) = self.inner.tls.accept(io).await else { return };
        let server = self.clone();
        let service = service_fn(move |request| server.clone().answer(number, request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(self.inner.streams);
        let mut work = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = work.as_mut() => return,
            () = self.end(number) => work.as_mut().graceful_shutdown(),
        }
        let _ = work.await;
    }

    /// Returns when the connection had no request for too long, or is to end. Pings do not count.
    async fn end(&self, number: usize) {
        let mut last = self.inner.lines.lock()[number].last.subscribe();
        loop {
            let Last { request, ends } = *last.borrow_and_update();
            if ends || timeout_at(request + IDLE, last.changed()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(
        self,
        number: usize,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (version, path) = (request.version(), request.uri().path().to_owned());
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.inner.seen.lock().push(Seen { connection: number, version, path });
        let ends = name == "ends";
        self.inner.lines.lock()[number].last.send_modify(|last| {
            last.request = monotonic();
            last.ends |= ends;
        });
        let body = match name.as_str() {
            "version" => Body::from(SERVED_VERSION),
            "configmaps" => Body::from(LIST),
            // The head and a part of the body, and then nothing more on this connection.
            "torn" if number == 0 => {
                let line = self.inner.lines.lock()[number].dead.clone();
                let part = futures::stream::once(async move { Ok::<_, Infallible>(&MAP[..9]) });
                let rest = futures::stream::once(async move {
                    sleep(Duration::from_millis(1)).await;
                    line.store(true, Ordering::Relaxed);
                    std::future::pending().await
                });
                Body::from_stream(futures::StreamExt::chain(part, rest))
            }
            _ => {
                if name == "slow" || ends {
                    sleep(Duration::from_secs(1)).await;
                }
                Body::from(MAP)
            }
        };
        Ok(Response::new(body))
    }

    /// From now on nothing arrives on the connections that are open, and nothing comes from them.
    pub(super) fn swallow(&self) {
        for line in self.inner.lines.lock().iter() {
            line.dead.store(true, Ordering::Relaxed);
        }
    }

    /// How many connections were opened so far.
    pub(super) fn connections(&self) -> usize {
        self.inner.lines.lock().len()
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }
}

/// The client's end of a connection in memory.
struct Wire {
    io: TokioIo<DuplexStream>,
    dead: Arc<AtomicBool>,
}

impl Wire {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Pending } else { Pin::new(&mut self.io).poll_read(cx, buffer) }
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // As a socket does whose packets are lost.
        if self.is_dead() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_shutdown(cx) }
    }
}
