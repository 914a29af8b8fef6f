//! One connection: its handshake, its requests, its time limits, and how it ends.
//!
//! `places` decides which connection gives way; sockets are accepted in the module above.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::Control;
use super::places::{Go, Next, Places, Seat, SeatId, UnderWay};
use crate::platform::clock::monotonic;
use crate::platform::metrics::{Closing, Metrics};

/// How long a connection without a request may take to part. The end of an HTTP/2 connection is agreed on.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long requests under way may take on a connection that parts: the longest review.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// The address that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// What all connections of a server share.
pub(super) struct Serving {
    pub(super) server: &'static str,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) router: Router,
    pub(super) places: Arc<Places>,
    pub(super) control: Control,
    pub(super) metrics: Arc<Metrics>,
}

impl Serving {
    /// Serves one connection to its end.
    pub(super) async fn run(
        self: Arc<Self>,
        tcp: TcpStream,
        seat: Seat,
        mut go: oneshot::Receiver<Go>,
    ) {
        let Some(tls) = &self.tls else { return self.serve(tcp, seat, go).await };
        let Next::At(end) = seat.next(monotonic()) else { return };
        let accepted = tokio::select! {
            biased;
            _ = &mut go => return,
            _ = self.control.stopped() => return,
            accepted = tls.accept(tcp) => accepted,
            () = sleep_until(end) => Err(io::ErrorKind::TimedOut.into()),
        };
        match accepted {
            Ok(stream) => self.serve(stream, seat, go).await,
            Err(error) => {
                let reason = reason(&error);
                self.metrics.webhook_connection_error(reason);
                // Debug level: any client that reaches the port can cause one of these per packet.
                tracing::debug!(peer = %seat.id().address, reason, %error, "no handshake");
            }
        }
    }

    async fn serve<I>(&self, io: I, seat: Seat, mut go: oneshot::Receiver<Go>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let id = seat.id();
        let service =
            service_fn(|request| answer(self.router.clone(), self.places.begin(&id), id, request));
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(io), service));
        let mut timer = pin!(sleep_until(monotonic()));
        let mut stopped = pin!(self.control.stopped());
        let (mut stopping, mut parting) = (false, None::<Instant>);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %id.address, %error, "connection ended");
                    }
                    return;
                }
                told = &mut go, if parting.is_none() => {
                    if told != Ok(Go::Gently) {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    parting = Some(monotonic());
                    timer.as_mut().reset(monotonic() + FAREWELL);
                }
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut timer => {
                    let now = monotonic();
                    if let Some(since) = parting {
                        if !seat.is_busy() || now - since >= LAST_REQUESTS {
                            return;
                        }
                        timer.as_mut().reset(now + FAREWELL);
                        continue;
                    }
                    match seat.next(now) {
                        Next::At(when) => {
                            timer.as_mut().reset(when);
                            continue;
                        }
                        Next::Over => {}
                        Next::Late => {
                            self.metrics.connection_closed(self.server, Closing::FirstRequest);
                            if seat.is_busy() {
                                return;
                            }
                        }
                    }
                    seat.leave();
                    connection.as_mut().graceful_shutdown();
                    parting = Some(now);
                    timer.as_mut().reset(now + FAREWELL);
                }
            }
        }
    }
}

/// Answers one request, and says when it has arrived and when its answer is sent.
async fn answer(
    router: Router,
    begun: Option<UnderWay>,
    seat: SeatId,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let Some(under_way) = begun else {
        let text = "too many requests under way from this address\n";
        return Ok((StatusCode::SERVICE_UNAVAILABLE, text).into_response());
    };
    let under_way = Arc::new(under_way);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Peer(seat.address));
    if body.is_end_stream() {
        under_way.is_whole();
    }
    let body = Body::new(Arriving { inner: body, asked: false, under_way: under_way.clone() });
    let response = router.oneshot(Request::from_parts(parts, body)).await?;
    Ok(response.map(|body| Body::new(Sending { inner: body, _under_way: under_way })))
}

pin_project! {
    /// The body of a request; notes its last byte.
    struct Arriving {
        #[pin]
        inner: Incoming,
        asked: bool,
        under_way: Arc<UnderWay>,
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut this = self.project();
        if !*this.asked {
            *this.asked = true;
            this.under_way.reads();
        }
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && this.inner.is_end_stream()) {
            this.under_way.is_whole();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The body of an answer; the request is under way until this is sent or given up.
    struct Sending {
        #[pin]
        inner: Body,
        _under_way: Arc<UnderWay>,
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The metric label of a connection that failed in its handshake.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "handshake_timeout",
        // Reported by rustls: a client that does not use TLS, that rejects our certificate, or whose own
        // is missing or refused.
        io::ErrorKind::InvalidData => "handshake_failed",
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "client_left",
        _ => "other",
    }
}
