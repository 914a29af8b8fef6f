//! The HTTP servers: how a socket is bound, how connections are accepted, drained and stopped.
//!
//! Routers are elsewhere (`webhook`, `admin`), certificates in `tls`. No verdicts, no Kubernetes.
//!
//! `places` says which connections may be open, `connection` serves one of them. The drain has two phases. In
//! the first, answers carry `Connection: close`: the client then closes the connection itself and loses no
//! request in the race between its write and our close (the API server does not retry a POST on a closed
//! socket).

pub mod admin;
mod connection;
mod places;
pub mod tls;
mod token;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderValue, Version, header};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
pub use connection::Peer;
use connection::Serving;
use places::Places;
pub use token::{Token, TokenError};

/// Limit per connection for the head of a request, and for body data read ahead. The heads of the API server
/// have 1 KiB. With hyper's default, about 400 KiB, the maximum of connections would take 800 MB.
const READ_AHEAD: usize = 32 * 1024;
/// The flow-control window of HTTP/2: data that the client may send before it is read.
const WINDOW: u32 = 64 * 1024;
/// Streams of one HTTP/2 connection that the client may reset before they are served, and faulty streams that
/// are reset here. Above it, the connection ends. An honest client resets a stream when its call times out.
const RESETS: usize = 20;
/// Connections that the kernel keeps until they are accepted. With the 128 of std, a burst from one client
/// would make the packets of others wait for a second, which is all the time that a call has.
const BACKLOG: i32 = 4096;
/// Pause after an error of the listening socket, such as a process without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Maximum of open connections. At the maximum, a new connection takes the place of another one.
    pub connections: usize,
    /// Maximum of open connections from one source address; 0: no bound but `connections`.
    pub connections_per_address: usize,
    /// Longest time from the start of a connection to its first whole request: handshake, head and body.
    pub first_request: Duration,
    /// Longest idle time after that, and longest wait for the head of a further request.
    ///
    /// One setting for both, because hyper has only one. It must stay above the 90 s after which Go's
    /// HTTP client closes an idle connection: if the server closed first, a call of the API server could
    /// be lost in the race.
    pub idle: Duration,
    /// Longest time that requests may be under way on a connection without a pause. A review ends earlier; a
    /// client that does not read its answer would otherwise keep its connection. After it, the connection
    /// parts gently, and loses no request that ends in time.
    pub answer: Duration,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

impl ServerLimits {
    /// The default of `connections_per_address`: more than the calls that three API servers behind one
    /// address make at once (each has 200 changing requests under way), and half of all connections.
    pub const PER_ADDRESS: usize = 1_000;
}

impl Default for ServerLimits {
    /// 2,000 connections, half of them from one address, 5 s for a first request, 120 s idle, a
    /// minute of work without a pause, 100 streams.
    fn default() -> Self {
        Self {
            connections: 2_000,
            connections_per_address: Self::PER_ADDRESS,
            first_request: Duration::from_secs(5),
            idle: Duration::from_mins(2),
            answer: Duration::from_mins(1),
            streams: 100,
        }
    }
}

/// Binds a socket early, so that a port in use is an error at start-up and not a server that never gets ready.
///
/// # Errors
/// The error of the operating system, with the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot bind {address}: {e}"));
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // As std does, so that a restart does not wait for connections of the process before.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(named)
}

/// The handle of a running server; clones control the same one.
#[derive(Clone, Default)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    draining: AtomicBool,
    /// The time for requests in flight, once the server is to stop.
    stop: watch::Sender<Option<Duration>>,
    listening: watch::Sender<Listening>,
    places: OnceLock<Arc<Places>>,
}

#[derive(Clone, Copy, Default)]
enum Listening {
    #[default]
    NotYet,
    At(SocketAddr),
    Never,
}

impl Control {
    /// A control for a server that is not started yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the server accepts connections; `None` if it never will.
    pub async fn listening(&self) -> Option<SocketAddr> {
        let mut listening = self.inner.listening.subscribe();
        let known = listening.wait_for(|state| !matches!(state, Listening::NotYet)).await;
        match known.map(|state| *state) {
            Ok(Listening::At(address)) => Some(address),
            _ => None,
        }
    }

    /// Open connections, including those in their handshake.
    pub fn connections(&self) -> usize {
        self.inner.places.get().map_or(0, |places| places.open())
    }

    /// First phase of a shutdown: requests are still served, but each HTTP/1.1 answer closes its
    /// connection, so that clients move to another replica without losing a call.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Second phase: accepts no connections, closes idle ones, lets requests in flight finish, and closes
    /// the rest after `within`.
    pub fn stop(&self, within: Duration) {
        self.drain();
        self.inner.stop.send_replace(Some(within));
    }

    /// Waits for [`Control::stop`]; the time for requests in flight.
    async fn stopped(&self) -> Duration {
        let mut stop = self.inner.stop.subscribe();
        let within = stop.wait_for(Option::is_some).await;
        within.ok().and_then(|within| *within).unwrap_or_default()
    }
}

/// Serves `router` over TLS until [`Control::stop`]; returns when the last connection has ended.
///
/// # Errors
/// If the socket cannot be handed to the runtime.
pub async fn https(
    listener: TcpListener,
    router: Router,
    tls: Arc<ServerConfig>,
    control: Control,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let tls = Some(TlsAcceptor::from(tls));
    accepting("webhook", listener, router, tls, control, limits, metrics).await
}

/// Serves `router` without TLS until [`Control::stop`]; returns when the last connection has ended.
///
/// # Errors
/// If the socket cannot be handed to the runtime.
pub async fn http(
    listener: TcpListener,
    router: Router,
    control: Control,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    accepting("admin", listener, router, None, control, limits, metrics).await
}

/// Accepts connections, and joins their tasks.
async fn accepting(
    server: &'static str,
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    control: Control,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let places = Places::new(server, limits.clone(), Arc::clone(&metrics));
    let _ = control.inner.places.set(Arc::clone(&places));
    let ready = listener.set_nonblocking(true);
    let listener = ready.and_then(|()| tokio::net::TcpListener::from_std(listener));
    let address = listener.as_ref().ok().and_then(|listener| listener.local_addr().ok());
    control.inner.listening.send_replace(address.map_or(Listening::Never, Listening::At));
    let listener = listener?;
    let router = closing(router, &control);
    let builder = builder(limits);
    let serving = Arc::new(Serving { server, tls, builder, router, places, control, metrics });

    let mut tasks = JoinSet::new();
    let mut stopped = std::pin::pin!(serving.control.stopped());
    let within = loop {
        tokio::select! {
            biased;
            within = &mut stopped => break within,
            Some(ended) = tasks.join_next() => log_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    let address = peer.ip().to_canonical();
                    if let Ok((seat, go)) = serving.places.admit(address, monotonic()) {
                        prepare(&tcp);
                        tasks.spawn(Arc::clone(&serving).run(tcp, seat, go));
                    } else {
                        // Debug level: any client that reaches the port can cause one of these per packet.
                        tracing::debug!(server, %peer, "no place for a connection");
                    }
                }
                // A client that left before it was accepted.
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    serving.places.make_room(monotonic());
                    tracing::warn!(server, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    drop(listener);
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            log_panic(ended);
        }
    };
    // What is left after that ends with `tasks`.
    let _ = timeout(within, all).await;
    tasks.shutdown().await;
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a connection failed");
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn builder(limits: &ServerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(64)
        .max_buf_size(READ_AHEAD)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize)
        // h2 derives the number of CONTINUATION frames of a head from it.
        .max_header_list_size(WINDOW / 4)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// TCP_NODELAY: an answer in two packets would wait 40 ms for an acknowledgement. Keep-alive probes
/// detect dead peers.
fn prepare(tcp: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    // They fail on a socket that is gone already, which its task finds out.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&probes);
}

fn closing(router: Router, control: &Control) -> Router {
    router.layer(middleware::from_fn_with_state(control.clone(), close_when_draining))
}

async fn close_when_draining(
    State(control): State<Control>,
    request: Request,
    next: Next,
) -> Response {
    // HTTP/2 forbids the header; `stop` ends its connections with GOAWAY.
    let can_say_close = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if can_say_close && control.inner.draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
