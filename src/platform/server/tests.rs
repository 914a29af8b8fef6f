//! Tests over a real socket: handshakes, swaps, both HTTP versions and the drain.

mod clients;
mod floods;
mod occupied;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::platform::clock::monotonic;
use crate::platform::health::Health;
use crate::platform::pki::Ca;
use tls::CertificateSource;
use zen_lead_core::names::ServiceKey;

const SECOND: Duration = Duration::from_secs(1);
const NAME: &str = "zen-lead.zen.svc";

fn now() -> Timestamp {
    crate::platform::clock::Clock::system().now()
}

#[allow(clippy::disallowed_methods, reason = "a test waits for every task it starts")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

struct Running {
    control: Control,
    address: SocketAddr,
    source: Arc<CertificateSource>,
    metrics: Arc<Metrics>,
    /// A request to `/held` adds a permit to the first, and is answered with one of the second.
    arrived: Arc<Semaphore>,
    held: Arc<Semaphore>,
    ended: JoinHandle<io::Result<()>>,
}

impl Running {
    fn counted(&self, line: &str) -> u64 {
        let text = self.metrics.exposition().unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(&format!("zen_lead_{line} ")));
        value.map_or(0, |n| n.parse().unwrap())
    }

    fn closed(&self, reason: &str) -> u64 {
        let labels = format!("reason=\"{reason}\",server=\"webhook\"");
        self.counted(&format!("connections_closed_total{{{labels}}}"))
    }

    async fn end(self) {
        self.control.stop(5 * SECOND);
        ends_within(self, 10 * SECOND).await;
    }
}

fn new_ca() -> Ca {
    Ca::generate(now(), Duration::from_hours(24), None).unwrap()
}

fn show(source: &CertificateSource, ca: &Ca) {
    let leaf = ca.sign(&[NAME.to_owned()], now(), Duration::from_hours(1)).unwrap();
    source.swap(leaf.chain(), leaf.key(), now()).unwrap();
}

async fn start(limits: ServerLimits, ca: &Ca) -> Running {
    start_for(limits, ca, None).await
}

async fn start_for(limits: ServerLimits, ca: &Ca, clients: Option<Arc<tls::Clients>>) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    let source = CertificateSource::new(Arc::clone(&metrics));
    show(&source, ca);
    let config = tls::server_config(Arc::clone(&source), clients).unwrap();
    let (arrived, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (arrival, permits) = (arrived.clone(), held.clone());
    let asked = arrived.clone();
    let much = move || async move {
        asked.add_permits(1);
        let pieces = (0..1024).map(|_| io::Result::Ok(vec![b'x'; 64 * 1024]));
        Body::from_stream(futures::stream::iter(pieces))
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/much", get(much))
        .route("/read", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/held",
            post(|_: Bytes| async move {
                arrival.add_permits(1);
                permits.acquire().await.unwrap().forget();
                "done"
            }),
        )
        .route(
            "/slow",
            post(|| async {
                tokio::time::sleep(Duration::from_millis(600)).await;
                "done"
            }),
        );
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let control = Control::new();
    let server = {
        let (control, metrics) = (control.clone(), Arc::clone(&metrics));
        async move { https(listener, router, config, control, &limits, metrics).await }
    };
    let ended = spawn(server);
    assert_eq!(control.listening().await, Some(address));
    Running { control, address, source, metrics, arrived, held, ended }
}

/// What a client of the server trusts, without a certificate of its own.
fn trusting(ca: &Ca) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

async fn connect(
    address: SocketAddr,
    ca: &Ca,
    name: &'static str,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    shake(TcpStream::connect(address).await?, trusting(ca).with_no_client_auth(), name, alpn).await
}

async fn shake(
    stream: TcpStream,
    mut config: ClientConfig,
    name: &'static str,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

struct Http1(http1::SendRequest<Body>);

impl Http1 {
    async fn new(running: &Running, ca: &Ca) -> Self {
        let stream = connect(running.address, ca, NAME, "http/1.1").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Self::over(stream).await
    }

    async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        spawn(connection);
        Self(sender)
    }

    /// Body, and whether the server said that it closes.
    async fn call(&mut self, method: &str, path: &str) -> hyper::Result<(String, bool)> {
        self.0.ready().await?;
        let request = Request::builder().method(method).uri(path).header("host", NAME);
        let response = self.0.send_request(request.body(Body::empty()).unwrap()).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let closes = response.headers().get("connection").is_some_and(|v| v == "close");
        let body = response.into_body().collect().await?.to_bytes();
        Ok((String::from_utf8(body.to_vec()).unwrap(), closes))
    }
}

async fn ends_within(running: Running, most: Duration) {
    timeout(most, running.ended).await.expect("the server ends in time").unwrap().unwrap();
}

#[tokio::test]
async fn both_http_versions_are_served_and_wrong_callers_refused() {
    let ca = new_ca();
    let running = start(ServerLimits::default(), &ca).await;
    let mut one = Http1::new(&running, &ca).await;
    assert_eq!(one.call("GET", "/").await.unwrap(), ("hello".into(), false));
    assert_eq!(one.call("GET", "/").await.unwrap(), ("hello".into(), false), "kept alive");

    let stream = connect(running.address, &ca, NAME, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut two, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    spawn(connection);
    let request = Request::get(format!("https://{NAME}/")).body(Body::empty()).unwrap();
    let response = two.send_request(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");

    let stranger = connect(running.address, &new_ca(), NAME, "h2").await.unwrap_err().to_string();
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let other = connect(running.address, &ca, "other.zen.svc", "h2").await.unwrap_err();
    assert!(other.to_string().contains("not valid for name"), "{other}");

    let mut plain = TcpStream::connect(running.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _reset_or_closed = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is answered in the clear");

    running.control.stop(5 * SECOND);
    let metrics = Arc::clone(&running.metrics);
    ends_within(running, 2 * SECOND).await;
    let text = metrics.exposition().unwrap();
    let refused = "zen_lead_webhook_connection_errors_total{reason=\"handshake_failed\"} 3";
    assert!(text.contains(refused), "{text}");
}

#[tokio::test]
async fn a_swap_shows_in_new_handshakes_and_spares_open_connections() {
    let (old, new) = (new_ca(), new_ca());
    let running = start(ServerLimits::default(), &old).await;
    let mut before = Http1::new(&running, &old).await;
    before.call("GET", "/").await.unwrap();

    show(&running.source, &new);
    assert_eq!(before.call("GET", "/").await.unwrap().0, "hello");
    let mut after = Http1::new(&running, &new).await;
    assert_eq!(after.call("GET", "/").await.unwrap().0, "hello");
    assert!(connect(running.address, &old, NAME, "http/1.1").await.is_err());

    running.control.stop(5 * SECOND);
    ends_within(running, 2 * SECOND).await;
}

#[tokio::test]
async fn a_drain_closes_by_answer_and_a_stop_waits_for_what_is_in_flight() {
    let ca = new_ca();
    let running = start(ServerLimits::default(), &ca).await;
    let mut idle = Http1::new(&running, &ca).await;
    idle.call("GET", "/").await.unwrap();
    let mut busy = Http1::new(&running, &ca).await;
    busy.call("GET", "/").await.unwrap();
    let mut leaving = Http1::new(&running, &ca).await;
    leaving.call("GET", "/").await.unwrap();

    running.control.drain();
    assert_eq!(leaving.call("GET", "/").await.unwrap(), ("hello".into(), true));
    assert!(leaving.call("GET", "/").await.is_err(), "the connection is gone");
    let mut late = Http1::new(&running, &ca).await;
    assert_eq!(late.call("GET", "/").await.unwrap(), ("hello".into(), true), "still served");

    let in_flight = spawn(async move { busy.call("POST", "/slow").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = monotonic();
    running.control.stop(5 * SECOND);
    assert_eq!(in_flight.await.unwrap().unwrap(), ("done".into(), true));
    let address = running.address;
    ends_within(running, 2 * SECOND).await;
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited for the answer");
    assert!(idle.call("GET", "/").await.is_err());
    assert!(TcpStream::connect(address).await.is_err(), "the socket is closed");
}

#[tokio::test]
async fn silent_clients_do_not_hold_up_the_end() {
    let ca = new_ca();
    let limits = ServerLimits { first_request: 60 * SECOND, ..ServerLimits::default() };
    let running = start(limits, &ca).await;
    // One sends nothing, one sends nothing after the handshake, one stops in the middle of a head.
    let _mute = TcpStream::connect(running.address).await.unwrap();
    let _handshaken = connect(running.address, &ca, NAME, "http/1.1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.control.connections(), 2);
    running.control.stop(30 * SECOND);
    ends_within(running, 2 * SECOND).await;

    let running = start(ServerLimits::default(), &ca).await;
    let mut half = connect(running.address, &ca, NAME, "http/1.1").await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    half.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.control.stop(SECOND);
    ends_within(running, 2 * SECOND).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_at_once_and_the_plain_server_works() {
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot bind {address}: ")), "{error}");

    let control = Control::new();
    let server = {
        let (control, router) = (control.clone(), Router::new().route("/", get(|| async { "up" })));
        let metrics = Arc::new(Metrics::new().unwrap());
        async move { http(listener, router, control, &ServerLimits::default(), metrics).await }
    };
    let ended = spawn(server);
    control.listening().await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nup"),
        "{answer}"
    );
    control.stop(SECOND);
    timeout(2 * SECOND, ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_scrape_is_sent_chunked_and_whole_to_old_clients() {
    let metrics = Arc::new(Metrics::new().unwrap());
    for n in 0..2_000 {
        let key = ServiceKey::new("shop", format!("s{n}"));
        metrics.track(&key);
        metrics.reconciled(&key, "ok", false, SECOND);
    }
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let control = Control::new();
    let server = {
        let router = admin::router(metrics.clone(), Health::new(&[], metrics.clone()), None);
        // Its own metrics: the scrape is compared with a later one.
        let (control, metrics) = (control.clone(), Arc::new(Metrics::new().unwrap()));
        async move { http(listener, router, control, &ServerLimits::default(), metrics).await }
    };
    let ended = spawn(server);
    control.listening().await.unwrap();
    let ask = async |version: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /metrics HTTP/{version}\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let (head, body) = ask("1.1").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(body.ends_with("\r\n0\r\n\r\n"), "the last chunk");
    let (head, body) = ask("1.0").await;
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(body, metrics.exposition().unwrap());
    control.stop(SECOND);
    timeout(2 * SECOND, ended).await.unwrap().unwrap().unwrap();
}
