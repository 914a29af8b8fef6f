//! Floods within one HTTP/2 connection, by frames that no client library sends.

use futures::stream::{self, StreamExt};

use super::*;

/// Above any wait of these tests.
const PATIENCE: Duration = Duration::from_mins(1);
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The error code by which a server says that a client behaves badly.
const ENHANCE_YOUR_CALM: u32 = 11;
/// POST https://a/, in HPACK: three entries of the static table, and the authority as a literal.
const HEAD: &[u8] = &[0x83, 0x87, 0x84, 0x01, 1, b'a'];
/// content-length: 5
const LENGTH: &[u8] = &[0x0f, 0x0d, 1, b'5'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The odd numbers that a client gives its streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// Sends frames, and reads to the end of the connection: the error code of its GOAWAY.
async fn reply(running: &Running, ca: &Ca, frames: Vec<u8>) -> Option<u32> {
    let stream = connect(running.address, ca, NAME, "h2").await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frame(4, 0, 0, &[]));
        all.extend(frames);
        // The server may close before it has read everything.
        let _ = to.write_all(&all).await;
        let _ = to.flush().await;
    };
    let read = async {
        let mut bytes = Vec::new();
        let _closed_or_reset = from.read_to_end(&mut bytes).await;
        bytes
    };
    let ((), bytes) = timeout(PATIENCE, async { tokio::join!(send, read) }).await.unwrap();
    let mut rest = &bytes[..];
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let (kind, payload) = (rest[3], rest.get(9..9 + length)?);
        if kind == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = &rest[9 + length..];
    }
    None
}

#[tokio::test]
async fn floods_of_frames_end_their_connection() {
    let ca = new_ca();
    let running = start(ServerLimits::default(), &ca).await;
    let resets = streams(500).flat_map(|id| {
        let cancel = 8_u32.to_be_bytes();
        [frame(HEADERS, END_HEADERS, id, HEAD), frame(RST_STREAM, 0, id, &cancel)].concat()
    });
    // Each promises a body and ends without one.
    let faults = streams(500)
        .flat_map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &[HEAD, LENGTH].concat()));
    let pieces = (0..1_000).flat_map(|_| frame(CONTINUATION, 0, 1, &[]));
    let head = [frame(HEADERS, 0, 1, HEAD), pieces.collect()].concat();
    for (what, frames) in
        [("resets", resets.collect()), ("faults", faults.collect()), ("pieces of a head", head)]
    {
        let code = reply(&running, &ca, frames).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{what}");
        let mut honest = Http1::new(&running, &ca).await;
        assert_eq!(honest.call("GET", "/").await.unwrap().0, "hello", "after {what}");
    }
    running.end().await;
}

#[tokio::test]
async fn streams_without_an_end_are_bounded_and_others_are_served() {
    let ca = new_ca();
    let limits = ServerLimits { connections_per_address: 4, ..ServerLimits::default() };
    let running = start(limits, &ca).await;
    let stream = connect(running.address, &ca, NAME, "h2").await.unwrap();
    let (two, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    spawn(connection);
    let endless = || {
        let mut two = two.clone();
        async move {
            let body = stream::pending::<io::Result<Bytes>>();
            let request = Request::post(format!("https://{NAME}/read"));
            two.send_request(request.body(Body::from_stream(body)).unwrap()).await.unwrap().status()
        }
    };
    // One, and four beyond it, are under way; the others are refused.
    let mut refused = (0..20).map(|_| endless()).collect::<futures::stream::FuturesUnordered<_>>();
    for _ in 0..15 {
        let status = timeout(PATIENCE, refused.next()).await.unwrap();
        assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE));
    }
    let mut honest = Http1::new(&running, &ca).await;
    assert_eq!(honest.call("GET", "/").await.unwrap().0, "hello");
    drop(refused);
    drop(two);
    running.end().await;
}
