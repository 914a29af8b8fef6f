//! The cap on open connections, and the metric label of a refused connection.
//!
//! Only the acceptor is here; axum-server counts the connections.

use std::io;

use axum_server::accept::Accept;
use futures::future::{Either, Ready, ready};

/// Text of the error for a connection above the cap; [`reason`] recognizes it.
const ABOVE_CAP: &str = "too many open connections";

/// Refuses a connection above the cap before a byte of it is read.
#[derive(Clone)]
pub(super) struct Capped<A, C> {
    inner: A,
    count: C,
    most: usize,
}

impl<A, C> Capped<A, C> {
    pub(super) fn new(inner: A, count: C, most: usize) -> Self {
        Self { inner, count, most }
    }
}

impl<A, C, I, S> Accept<I, S> for Capped<A, C>
where
    A: Accept<I, S>,
    C: Fn() -> usize,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Either<A::Future, Ready<io::Result<(A::Stream, A::Service)>>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        // The count already includes this connection.
        if (self.count)() > self.most {
            // Closed, not queued: a queue would hold file descriptors without a bound.
            return Either::Right(ready(Err(io::Error::other(ABOVE_CAP))));
        }
        Either::Left(self.inner.accept(stream, service))
    }
}

/// The metric label of a connection that failed before its first request.
pub(super) fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "handshake_timeout",
        // Reported by rustls: a client that does not use TLS, or that rejects our certificate.
        io::ErrorKind::InvalidData => "handshake_failed",
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "client_left",
        io::ErrorKind::Other if error.to_string() == ABOVE_CAP => "connection_limit",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_above_the_cap_is_refused() {
        let inner = axum_server::accept::DefaultAcceptor::new();
        for (open, admitted) in [(1, true), (3, true), (4, false), (100, false)] {
            let capped = Capped::new(inner, move || open, 3);
            let got = Accept::<&str, &str>::accept(&capped, "stream", "service").await;
            match got {
                Ok(pair) => assert!(admitted && pair == ("stream", "service"), "{open} open"),
                Err(e) => {
                    assert!(!admitted, "{open} open");
                    assert_eq!(reason(&e), "connection_limit");
                }
            }
        }
    }
}
