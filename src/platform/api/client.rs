//! The HTTP client of the process: kube's, without its silent retries and with the server's
//! `Retry-After` kept.
//!
//! kube's own stack (`ClientBuilder::try_from`) gives no access to the socket options, speaks only HTTP/1.1, and
//! drops the response headers before a caller sees them. So this module builds it from the same parts. Which
//! connection a request uses is the business of `connections`.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use kube::client::ConfigExt;
use kube::core::Status;
use kube::core::response::StatusDetails;
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::connections::{Connections, mark};
use super::proxy::{Proxy, Scheme};
use crate::platform::clock::Clock;
use crate::platform::operation::USER_AGENT;
use crate::platform::telemetry;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is silent for `KEEPALIVE + 3 × KEEPALIVE_INTERVAL` counts as dead, so that broken idle
/// connections leave the pool.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged; by default the kernel retries for 15 minutes.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Longest error answer that is read.
const MAX_ERROR_BODY: usize = 1 << 20;

/// Makes the client that all calls and watches of the process share.
///
/// There is no read timeout: it would end quiet watches. [`super::call`] sets the deadlines of calls, the
/// watch loop those of watches.
///
/// Uses the given proxy and ignores `proxy_url` of the configuration.
///
/// # Errors
/// If the configuration names unreadable certificates or keys.
pub fn client(mut config: Config, proxy: Option<&Proxy>) -> kube::Result<Client> {
    config.headers.push((http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));

    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // Nagle's algorithm would delay the end of a write larger than a packet for up to 40 ms.
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    match proxy {
        None => stack(config, tcp),
        Some(proxy) if proxy.scheme == Scheme::Http => {
            let mut tunnel = Tunnel::new(proxy.address.clone(), tcp);
            if let Some(value) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(value);
            }
            stack(config, tunnel)
        }
        Some(proxy) => {
            let mut socks = SocksV5::new(proxy.address.clone(), tcp);
            if let Some((user, password)) = proxy.credentials.clone() {
                socks = socks.with_auth(user, password);
            }
            stack(config, socks)
        }
    }
}

/// Adds TLS to what opens sockets, and the layers around the connections.
pub(super) fn stack<C>(config: Config, transport: C) -> kube::Result<Client>
where
    C: Clone + Send + Sync + 'static,
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
{
    let connections = Connections::new(&config, transport)?;
    let service = ServiceBuilder::new()
        .map_request(mark)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .and_then(keep_retry_after)
        .service(service_fn(move |mut request| {
            // Runs in the future, so that the span is the caller's: kube passes requests to a task of its
            // own, and the caller awaits the future that this returns.
            let connections = connections.clone();
            async move {
                telemetry::http::sent(&mut request);
                let answer = connections.send(request).await?;
                telemetry::http::answered(answer.status());
                Ok::<_, hyper_util::client::legacy::Error>(answer)
            }
        }));
    Ok(Client::new(service, config.default_namespace))
}

/// Copies the header `Retry-After` of an error answer into its body, as a Status: kube passes only that on.
///
/// API priority and fairness answers 429 with the header and plain text, not with a Status
/// (k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go).
pub(crate) async fn keep_retry_after(answer: Response<Body>) -> Result<Response<Body>, BoxError> {
    let Some(seconds) = asked_pause(&answer) else { return Ok(answer) };
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, MAX_ERROR_BODY).await?;
    let mut status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| {
        Status::failure(String::from_utf8_lossy(&body).trim(), reason(parts.status))
    });
    status.code = parts.status.as_u16();
    let details = status.details.get_or_insert_with(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    });
    details.retry_after_seconds = seconds;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(serde_json::to_vec(&status)?)))
}

/// The pause in seconds that an error answer asks for: a number, or a date (RFC 9110, 10.2.3), which the API
/// server never sends but a proxy may. Any other value is ignored.
fn asked_pause(answer: &Response<Body>) -> Option<u32> {
    if !(answer.status().is_client_error() || answer.status().is_server_error()) {
        return None;
    }
    let header = |name| answer.headers().get(name)?.to_str().ok().map(str::trim);
    let text = header(RETRY_AFTER)?;
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        // A number that does not fit still asks for a very long pause.
        return Some(text.parse().unwrap_or(u32::MAX));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    // By the clock of the sender, if the answer has a Date header.
    let now = header(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
    let now = now.unwrap_or_else(|| Clock::system().now().into());
    // A date in the past asks for no pause; a part of a second is rounded up.
    let pause = until.duration_since(now).unwrap_or_default();
    let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    Some(seconds.try_into().unwrap_or(u32::MAX))
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => kube::core::response::reason::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE => kube::core::response::reason::SERVICE_UNAVAILABLE,
        _ => kube::core::response::reason::UNKNOWN,
    }
}
