//! The connections to the API server: which request uses which, and when one takes no more requests.
//!
//! Ordinary calls share one HTTP/2 connection, or use HTTP/1.1 where the server offers nothing else. Lists and
//! watches have HTTP/1.1 connections of their own, so that a large list delays no write. docs/decisions/warm-calls.md
//! has the reasons. How a socket is opened, and through which proxy, is the business of `client`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::Stream;
use http::{Method, Request, Response};
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, Connect, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{ConfigExt, RustlsTlsError};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// Below the 90 s after which the API server closes a connection without requests.
const POOL_IDLE: Duration = Duration::from_mins(1);
/// An HTTP/2 connection that was silent this long is tested with a ping.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection that does not answer a ping within this time is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that a connection with HTTP/1.1 reads at once, the content of a TLS record. A long list lets the buffer
/// grow to this, and its connection keeps the buffer for the watch that follows.
pub(super) const READ_BUFFER: usize = 16 * 1024;

type Pool<C> = Client<HttpsConnector<C>, kube::client::Body>;

/// All connections to the API server; clones share them.
#[derive(Clone)]
pub(super) struct Connections<C> {
    calls: Pool<C>,
    collections: Pool<C>,
}

impl<C> Connections<C>
where
    C: Clone,
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
{
    /// Opens nothing yet. `transport` opens sockets.
    ///
    /// # Errors
    /// If the configuration names unreadable certificates or keys.
    pub(super) fn new(config: &Config, transport: C) -> kube::Result<Self> {
        // Made once: this may run a credential plugin. What it learns of the server is shared.
        let tls = config.rustls_client_config()?;
        let any = secured(config, tls.clone())?.enable_all_versions();
        let only_http1 = secured(config, tls)?.enable_http1();

        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(POOL_IDLE).pool_timer(TokioTimer::new());
        builder.http1_max_buf_size(READ_BUFFER);
        let collections = builder.build(only_http1.wrap_connector(transport.clone()));
        builder
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true);
        Ok(Self { calls: builder.build(any.wrap_connector(transport)), collections })
    }

    /// Sends a request that [`mark`] has seen, and returns its answer when the head has arrived.
    ///
    /// # Errors
    /// If there is no connection, or it breaks.
    pub(super) async fn send(
        &self,
        mut request: Request<kube::client::Body>,
    ) -> Result<Response<Body>, Error> {
        if request.extensions_mut().remove::<OfCollection>().is_some() {
            return Ok(self.collections.request(request).await?.map(Body::new));
        }
        let guard = Guard(Some(capture_connection(&mut request)));
        let answer = self.calls.request(request).await?;
        Ok(answer.map(|body| {
            let body = Body::new(body).into_data_stream();
            Body::from_stream(Guarded { body, guard })
        }))
    }
}

fn secured(
    config: &Config,
    tls: ClientConfig,
) -> kube::Result<HttpsConnectorBuilder<WantsProtocols1>> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let Some(name) = config.tls_server_name.clone() else { return Ok(builder) };
    let name = ServerName::try_from(name)
        .map_err(|error| kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(error)))?;
    Ok(builder.with_server_name_resolver(FixedServerNameResolver::new(name)))
}

/// The request is a list or a watch.
#[derive(Clone)]
struct OfCollection;

/// Notes on a request whether it is a list or a watch. Must see the path as kube makes it: the URL of the
/// cluster may put anything before it.
pub(super) fn mark<B>(mut request: Request<B>) -> Request<B> {
    if request.method() == Method::GET && is_collection(request.uri().path()) {
        request.extensions_mut().insert(OfCollection);
    }
    request
}

/// Whether the path ends with a resource, not with a name.
fn is_collection(path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    let version = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return false,
    };
    let below: Vec<&str> = parts.skip(version).collect();
    matches!(below.as_slice(), [_] | ["namespaces", _, _])
}

/// Takes the connection out of use when dropped, unless the answer came to its end.
///
/// A call that its caller gives up has probably met a connection that is dead. All calls share it, so the
/// retry must not get it again. Calls that are under way on it go on.
struct Guard(Option<CaptureConnection>);

impl Guard {
    fn complete(&mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(captured) = &self.0
            && let Some(connection) = captured.connection_metadata().as_ref()
        {
            connection.poison();
        }
    }
}

/// A body that keeps its guard until it came to its end.
struct Guarded {
    body: BodyDataStream,
    guard: Guard,
}

impl Stream for Guarded {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.body).poll_next(cx));
        if piece.is_none() {
            self.guard.complete();
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_watches_are_recognised_by_their_path() {
        for (method, path, of_collection) in [
            ("GET", "/api/v1/services?limit=500", true),
            ("GET", "/api/v1/pods?watch=true", true),
            ("GET", "/api/v1/namespaces/team/pods?labelSelector=a", true),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices", true),
            ("GET", "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices?watch=true", true),
            ("GET", "/api/v1/namespaces", true),
            ("GET", "/api/v1/namespaces/team", false),
            ("GET", "/api/v1/namespaces/team/services/web", false),
            ("GET", "/api/v1/namespaces/team/services/web/status", false),
            (
                "GET",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zen-lead",
                false,
            ),
            ("GET", "/version", false),
            ("GET", "/", false),
            ("POST", "/api/v1/namespaces/team/services", false),
            ("PUT", "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices/web", false),
            ("PATCH", "/api/v1/namespaces/team/services/web/status", false),
        ] {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            let marked = mark(request).extensions().get::<OfCollection>().is_some();
            assert_eq!(marked, of_collection, "{method} {path}");
        }
    }
}
