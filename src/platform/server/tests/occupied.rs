//! Clients that occupy connections: a new one is served all the same. Order and counts are checked, no times.

use std::net::IpAddr;

use futures::future::join_all;
use tokio::net::TcpSocket;

use super::*;

/// Above any wait of these tests.
const PATIENCE: Duration = Duration::from_mins(1);
const HONEST: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];
/// The first bytes of HTTP/2, with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn tcp(running: &Running, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(from), 0).into()).unwrap();
    socket.connect(running.address).await.unwrap()
}

async fn tls(running: &Running, ca: &Ca, from: [u8; 4], alpn: &str) -> TlsStream<TcpStream> {
    let config = trusting(ca).with_no_client_auth();
    shake(tcp(running, from).await, config, NAME, alpn).await.unwrap()
}

async fn http(running: &Running, ca: &Ca, from: [u8; 4]) -> Http1 {
    Http1::over(tls(running, ca, from, "http/1.1").await).await
}

/// How much of a first request an idle connection has sent.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Nothing,
    Handshake,
    Preface,
    HalfHead,
    HalfBody,
    Whole,
}

/// Keeps a connection open.
#[allow(dead_code, reason = "held, not read")]
enum Idle {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http(Http1),
}

impl Sent {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Handshake,
        Self::Preface,
        Self::HalfHead,
        Self::HalfBody,
        Self::Whole,
    ];

    async fn send(self, running: &Running, ca: &Ca, from: [u8; 4]) -> Idle {
        let (alpn, bytes) = match self {
            Self::Nothing => return Idle::Tcp(tcp(running, from).await),
            Self::Whole => {
                let mut whole = http(running, ca, from).await;
                whole.call("GET", "/").await.unwrap();
                return Idle::Http(whole);
            }
            Self::Handshake => ("http/1.1", &b""[..]),
            Self::Preface => ("h2", PREFACE),
            Self::HalfHead => ("http/1.1", &b"POST /read HTTP/1.1\r\nhost"[..]),
            Self::HalfBody => (
                "http/1.1",
                &b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1234"[..],
            ),
        };
        let mut stream = tls(running, ca, from, alpn).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        Idle::Tls(Box::new(stream))
    }
}

#[tokio::test]
async fn idle_connections_of_every_kind_leave_room_for_new_ones() {
    let ca = new_ca();
    for sent in Sent::ALL {
        for from in [OTHER, HONEST] {
            let limits = ServerLimits {
                connections: 8,
                connections_per_address: 0,
                first_request: PATIENCE,
                ..ServerLimits::default()
            };
            let running = start(limits, &ca).await;
            let mut before = http(&running, &ca, HONEST).await;
            before.call("GET", "/").await.unwrap();
            let mut idle = Vec::new();
            for _ in 0..10 {
                idle.push(sent.send(&running, &ca, from).await);
            }
            let mut new = http(&running, &ca, HONEST).await;
            let answer = timeout(PATIENCE, new.call("GET", "/")).await;
            assert_eq!(answer.unwrap().unwrap().0, "hello", "{sent:?} {from:?}");
            if from == OTHER {
                assert_eq!(before.call("GET", "/").await.unwrap().0, "hello", "{sent:?}");
            }
            // 12 connections, 8 places.
            assert_eq!(running.closed("made_room"), 4, "{sent:?} {from:?}");
            assert_eq!(running.closed("refused"), 0, "{sent:?} {from:?}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn an_address_above_its_bound_loses_its_own_connections() {
    let ca = new_ca();
    let limits = ServerLimits { connections_per_address: 3, ..ServerLimits::default() };
    let running = start(limits, &ca).await;
    let mut honest = http(&running, &ca, HONEST).await;
    honest.call("GET", "/").await.unwrap();
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut other = http(&running, &ca, OTHER).await;
        other.call("GET", "/").await.unwrap();
        others.push(other);
    }
    assert!(others[0].call("GET", "/").await.is_err(), "its oldest one");
    for other in &mut others[1..] {
        other.call("GET", "/").await.unwrap();
    }
    honest.call("GET", "/").await.unwrap();
    assert_eq!((running.closed("address_limit"), running.closed("made_room")), (1, 0));
    running.end().await;
}

#[tokio::test]
async fn connections_at_work_keep_their_places() {
    let ca = new_ca();
    let running = start(ServerLimits { connections: 2, ..ServerLimits::default() }, &ca).await;
    let mut at_work = Vec::new();
    for _ in 0..2 {
        let mut busy = http(&running, &ca, HONEST).await;
        busy.call("GET", "/").await.unwrap();
        at_work.push(spawn(async move { busy.call("POST", "/held").await }));
    }
    timeout(PATIENCE, running.arrived.acquire_many(2)).await.unwrap().unwrap().forget();
    let mut third = tcp(&running, OTHER).await;
    let closed = timeout(PATIENCE, third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!((running.closed("refused"), running.closed("made_room")), (1, 0));
    running.held.add_permits(2);
    for busy in at_work {
        assert_eq!(busy.await.unwrap().unwrap().0, "done");
    }
    let mut next = http(&running, &ca, HONEST).await;
    assert_eq!(next.call("GET", "/").await.unwrap().0, "hello", "there is room again");
    running.end().await;
}

#[tokio::test]
async fn who_sends_no_whole_request_in_time_is_cut_and_later_requests_have_theirs() {
    let ca = new_ca();
    let limits = ServerLimits { first_request: 3 * SECOND, ..ServerLimits::default() };
    let running = start(limits, &ca).await;
    let mut later = tls(&running, &ca, HONEST, "http/1.1").await;
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    later.write_all(get).await.unwrap();
    let mut answer = [0; 1024];
    assert_ne!(later.read(&mut answer).await.unwrap(), 0);
    let head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12";
    later.write_all(head).await.unwrap();

    let mut mute = tcp(&running, OTHER).await;
    let (mut trickling, mut lines) = (tls(&running, &ca, OTHER, "http/1.1").await, Vec::new());
    for sent in [Sent::Handshake, Sent::Preface, Sent::HalfHead, Sent::HalfBody] {
        match sent.send(&running, &ca, OTHER).await {
            Idle::Tls(stream) => lines.push(stream),
            _ => unreachable!(),
        }
    }
    let trickle = async {
        let head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
        let mut written = trickling.write_all(head).await;
        while written.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            written = trickling.write_all(b"x").await;
        }
    };
    let closed = async {
        let mut rest = Vec::new();
        let _closed_or_reset = mute.read_to_end(&mut rest).await;
        let lines = lines.iter_mut().map(|line| async {
            let mut rest = Vec::new();
            let _closed_or_reset = line.read_to_end(&mut rest).await;
        });
        join_all(lines).await;
    };
    timeout(PATIENCE, async { tokio::join!(trickle, closed) }).await.expect("all are cut");
    let silent = "webhook_connection_errors_total{reason=\"handshake_timeout\"}";
    assert_eq!((running.counted(silent), running.closed("first_request")), (1, 5));

    // Its second request has taken longer than the others had for their first.
    later.write_all(b"34").await.unwrap();
    let read = timeout(PATIENCE, later.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..read]);
    running.end().await;
}

#[tokio::test]
async fn an_http2_connection_that_gives_way_is_told_so() {
    let ca = new_ca();
    let running = start(ServerLimits { connections: 1, ..ServerLimits::default() }, &ca).await;
    let stream = tls(&running, &ca, HONEST, "h2").await;
    let (mut two, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = spawn(connection);
    let get = || Request::get(format!("https://{NAME}/")).body(Body::empty()).unwrap();
    let body = two.send_request(get()).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");

    let mut new = http(&running, &ca, HONEST).await;
    assert_eq!(new.call("GET", "/").await.unwrap().0, "hello");
    // GOAWAY without an error, so that the client repeats nothing that was answered.
    timeout(PATIENCE, connection).await.unwrap().unwrap().expect("a good end");
    assert!(two.send_request(get()).await.unwrap_err().is_canceled());
    running.end().await;
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_time() {
    let ca = new_ca();
    let running = start(ServerLimits { idle: SECOND, ..ServerLimits::default() }, &ca).await;
    let stream = tls(&running, &ca, HONEST, "h2").await;
    let (mut two, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let get = Request::get(format!("https://{NAME}/")).body(Body::empty()).unwrap();
    let asked = async { two.send_request(get).await.unwrap().into_body().collect().await };
    let (asked, ended) =
        timeout(PATIENCE, async { tokio::join!(asked, connection) }).await.unwrap();
    assert_eq!(asked.unwrap().to_bytes(), "hello");
    ended.expect("a good end");
    running.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut() {
    let ca = new_ca();
    let running = start(ServerLimits { answer: SECOND, ..ServerLimits::default() }, &ca).await;
    let mut line = tls(&running, &ca, HONEST, "http/1.1").await;
    line.write_all(b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // It reads nothing, and the kernel takes only a part of the pieces.
    let ended = async {
        while running.control.connections() > 0 || running.arrived.available_permits() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it is cut");
    running.end().await;
}
