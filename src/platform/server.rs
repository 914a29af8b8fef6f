//! The HTTP servers: how a socket is bound, capped, drained and stopped.
//!
//! Routers are elsewhere (`webhook`, `admin`), certificates in `tls`. No verdicts, no Kubernetes.
//!
//! Both servers run on axum-server. It has a handshake timeout, excludes a connection that is still in its
//! handshake from the drain, and continues after accept errors. This module adds a cap on connections, and a
//! drain during which answers carry `Connection: close`: the client then closes the connection itself and
//! loses no request in the race between its write and our close (the API server does not retry a POST on a
//! closed socket).

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
use axum_server::{Handle, Server};
use http::{HeaderValue, Version, header};
use rustls::ServerConfig;

use crate::platform::metrics::Metrics;
use cap::Capped;

/// Limit per connection for the head of a request, and for body data read ahead. The heads of the API server
/// have 1 KiB. With hyper's default, about 400 KiB, the maximum of connections would take 800 MB.
const READ_AHEAD: usize = 32 * 1024;
/// The flow-control window of HTTP/2: data that the client may send before it is read.
const WINDOW: u32 = 64 * 1024;

/// Bounds of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Maximum of open connections; further ones are closed immediately and counted.
    pub connections: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest wait for the head of a request, including the idle time of a kept-alive connection.
    ///
    /// One setting for both, because hyper has only one. It must stay above the 90 s after which Go's
    /// HTTP client closes an idle connection: if the server closed first, a call of the API server could
    /// be lost in the race.
    pub idle: Duration,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for ServerLimits {
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

/// Binds a socket early, so that a port in use is an error at start-up and not a server that never gets ready.
///
/// # Errors
/// The error of the operating system, with the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot bind {address}: {e}"));
    TcpListener::bind(address).map_err(named)
}

/// The handle of a running server; clones control the same one.
#[derive(Clone, Debug, Default)]
pub struct Control {
    handle: Handle<SocketAddr>,
    draining: Arc<AtomicBool>,
}

impl Control {
    /// A control for a server that is not started yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the server accepts connections; `None` if it never will.
    pub async fn listening(&self) -> Option<SocketAddr> {
        self.handle.listening().await
    }

    /// Open connections, including those in their handshake.
    pub fn connections(&self) -> usize {
        self.handle.connection_count()
    }

    /// First phase of a shutdown: requests are still served, but each HTTP/1.1 answer closes its
    /// connection, so that clients move to another replica without losing a call.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Second phase: accepts no connections, closes idle ones, lets requests in flight finish, and closes
    /// the rest after `within`.
    pub fn stop(&self, within: Duration) {
        self.drain();
        self.handle.graceful_shutdown(Some(within));
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
    let errors = Arc::clone(&metrics);
    let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls))
        .handshake_timeout(limits.handshake)
        .acceptor(capped(&control, limits));
    prepared(listener, &control, limits)?
        .acceptor(acceptor)
        .accept_error_handler(move |peer, error| {
            let reason = cap::reason(error);
            errors.webhook_connection_error(reason);
            // Debug level: any client that reaches the port can cause one of these per packet.
            tracing::debug!(?peer, reason, %error, "connection refused");
        })
        .serve(closing(router, &control).into_make_service())
        .await
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
) -> io::Result<()> {
    prepared(listener, &control, limits)?
        .acceptor(capped(&control, limits))
        .accept_error_handler(
            |peer, error| tracing::debug!(?peer, %error, "admin connection refused"),
        )
        .serve(closing(router, &control).into_make_service())
        .await
}

fn prepared(
    listener: TcpListener,
    control: &Control,
    limits: &ServerLimits,
) -> io::Result<Server<SocketAddr>> {
    let mut server = axum_server::from_tcp(listener)?
        .handle(control.handle.clone())
        // The same as `idle`, not shorter: Go opens connections in advance, and closing one just as it is
        // used would lose a call.
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

/// Accepts connections up to the limit.
///
/// TCP_NODELAY: an answer in two packets would wait 40 ms for an acknowledgement. Keep-alive probes
/// detect dead peers.
fn capped(
    control: &Control,
    limits: &ServerLimits,
) -> Capped<TcpConfigAcceptor, impl Fn() -> usize + Clone + Send + Sync + 'static> {
    let probes = TcpKeepaliveConfig::new()
        .time(Duration::from_secs(30))
        .interval(Duration::from_secs(10))
        .retries(3);
    let tcp = TcpConfigAcceptor::new(TcpSocketConfig::new().nodelay(true).keepalive(probes));
    let control = control.clone();
    Capped::new(tcp, move || control.connections(), limits.connections)
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
    // HTTP/2 forbids the header; `stop` ends its connections with GOAWAY.
    let can_say_close = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if can_say_close && draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
