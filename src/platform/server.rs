//! The HTTP servers: how a socket is bound, capped, drained and stopped.
//!
//! Routers live below (`webhook`, `admin`), certificates in `tls`. No verdicts, no Kubernetes.
//!
//! Both servers run on axum-server: it has the handshake timeout, leaves a connection that is still
//! in its handshake out of the drain, and reports accept errors without ending. What it does not
//! have is added here: a cap on connections, and a drain during which answers carry
//! `Connection: close`, so that a client leaves by itself instead of losing a request in the race
//! between its write and our close (the API server does not repeat a POST that met a closed socket).

pub mod admin;
mod cap;
pub mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum_server::accept::{TcpConfigAcceptor, TcpKeepaliveConfig, TcpSocketConfig};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Address, Handle, Server};
use http::{HeaderValue, Version, header};
use rustls::ServerConfig;

use crate::platform::metrics::Metrics;
use cap::Capped;

/// Most of a request's head that is read, and of a body ahead of its reader, for each connection: the
/// API server's heads have 1 KiB. hyper's own bound, about 400 KiB, would make 800 MB of a full house.
const READ_AHEAD: usize = 32 * 1024;
/// The same for HTTP/2, where the client may send so much unasked.
const WINDOW: u32 = 64 * 1024;

/// Bounds of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; one more is closed at once and counted.
    pub connections: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest wait for the head of a request, the idle time of a kept-alive connection included.
    ///
    /// One knob for both, because hyper has only one. It must stay above the 90 s after which Go's
    /// HTTP client drops an idle connection: whoever closes first must be the API server, or one of
    /// its calls is lost in the race.
    pub idle: Duration,
    /// Requests side by side on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    /// 2,000 connections, 10 s for a handshake, 120 s idle, 100 streams.
    fn default() -> Self {
        Self {
            connections: 2_000,
            handshake: Duration::from_secs(10),
            idle: Duration::from_mins(2),
            streams: 100,
        }
    }
}

/// A bound socket that nobody serves yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds, so that a taken port is an error at start and not a server that never gets ready.
    ///
    /// # Errors
    /// Whatever the operating system says, with the address in front.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot bind {address}: {e}"));
        let socket = TcpListener::bind(address).map_err(named)?;
        let address = socket.local_addr().map_err(named)?;
        Ok(Self { socket, address })
    }

    /// The address in use (the port is filled in when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The outside handle of a running server; clones steer the same one.
#[derive(Clone, Debug, Default)]
pub struct Control {
    handle: Handle<SocketAddr>,
    draining: Arc<AtomicBool>,
}

impl Control {
    /// A control for a server that is still to be started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the server accepts connections; `None` when it never will.
    pub async fn listening(&self) -> Option<SocketAddr> {
        self.handle.listening().await
    }

    /// Open connections, those still in their handshake included.
    pub fn connections(&self) -> usize {
        self.handle.connection_count()
    }

    /// First phase of a shutdown: everything is still served, but each HTTP/1.1 answer closes its
    /// connection, so that clients move to another replica without losing a call.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Second phase: accepts nothing more, closes idle connections, lets requests in flight finish
    /// and cuts what is left after `within`.
    pub fn stop(&self, within: Duration) {
        self.drain();
        self.handle.graceful_shutdown(Some(within));
    }
}

/// Serves `router` over TLS until [`Control::stop`]; ends when the last connection has.
///
/// # Errors
/// When the socket cannot be handed to the runtime.
pub async fn https(
    listener: Listener,
    router: Router,
    tls: Arc<ServerConfig>,
    control: Control,
    limits: &Limits,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let errors = Arc::clone(&metrics);
    let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls))
        .handshake_timeout(limits.handshake)
        .acceptor(Capped::new(tcp(), control.handle.clone(), limits.connections));
    prepared(listener, &control, limits)?
        .acceptor(acceptor)
        .accept_error_handler(move |peer, error| {
            let reason = cap::reason(error);
            errors.webhook_connection_error(reason);
            // Debug: whoever reaches the port can cause one of these per packet.
            tracing::debug!(?peer, reason, %error, "connection refused");
        })
        .serve(closing(router, &control).into_make_service())
        .await
}

/// Serves `router` in the clear until [`Control::stop`]; ends when the last connection has.
///
/// # Errors
/// When the socket cannot be handed to the runtime.
pub async fn http(
    listener: Listener,
    router: Router,
    control: Control,
    limits: &Limits,
) -> io::Result<()> {
    let acceptor = Capped::new(tcp(), control.handle.clone(), limits.connections);
    prepared(listener, &control, limits)?
        .acceptor(acceptor)
        .accept_error_handler(
            |peer, error| tracing::debug!(?peer, %error, "admin connection refused"),
        )
        .serve(closing(router, &control).into_make_service())
        .await
}

fn prepared(
    listener: Listener,
    control: &Control,
    limits: &Limits,
) -> io::Result<Server<SocketAddr>> {
    let mut server = axum_server::from_tcp(listener.socket)?
        .handle(control.handle.clone())
        // The same as `idle`, not shorter: Go dials connections ahead of need, and closing one of
        // those just as it is taken up would lose a call.
        .first_request_timeout(limits.idle);
    let http = server.http_builder();
    http.http1()
        .header_read_timeout(limits.idle)
        .max_headers(64)
        .max_buf_size(READ_AHEAD)
        .keep_alive(true);
    http.http2()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(WINDOW / 4)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok(server)
}

/// No delay: an answer in two packets would wait 40 ms for an acknowledgement. Keep-alive probes
/// find the dead peers.
fn tcp() -> TcpConfigAcceptor {
    let probes = TcpKeepaliveConfig::new()
        .time(Duration::from_secs(30))
        .interval(Duration::from_secs(10))
        .retries(3);
    TcpConfigAcceptor::new(TcpSocketConfig::new().nodelay(true).keepalive(probes))
}

fn closing(router: Router, control: &Control) -> Router {
    let draining = Arc::clone(&control.draining);
    router.layer(middleware::from_fn_with_state(draining, close_when_draining))
}

async fn close_when_draining(
    State(draining): State<Arc<AtomicBool>>,
    request: Request,
    next: Next,
) -> Response {
    // HTTP/2 forbids the header; its connections are told to go by GOAWAY in `stop`.
    let can_say_close = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if can_say_close && draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Keeps the address type of axum-server out of the signatures of `cap`.
trait CountsConnections: Clone + Send + Sync + 'static {
    /// Open connections now.
    fn open(&self) -> usize;
}

impl<A: Address + Send + Sync + 'static> CountsConnections for Handle<A> {
    fn open(&self) -> usize {
        self.connection_count()
    }
}
