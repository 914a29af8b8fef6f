//! Tests of the client through proxies that the test implements, with credentials.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::proxy::Variables;
use crate::platform::api::proxy::choose;

const ANSWER: &str = "{\"metadata\":{\"name\":\"x\"}}";

/// Reads the head of a request, which ends with an empty line.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn bytes(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Answers the request that came through the tunnel.
async fn answer(stream: &mut TcpStream) -> String {
    let request = head(stream).await;
    let length = ANSWER.len();
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{ANSWER}");
    stream.write_all(text.as_bytes()).await.unwrap();
    request.lines().next().unwrap().to_owned()
}

/// A client for a server that only the proxy can reach.
async fn through(scheme: &str) -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let value = format!("{scheme}://bob:pa%40ss@{}", listener.local_addr().unwrap());
    let variables = Variables { http: Some(("HTTP_PROXY", value)), ..Variables::default() };
    let server: http::Uri = "http://api.invalid:6443".parse().unwrap();
    let proxy = choose(&server, None, &variables).unwrap();
    (listener, client(Config::new(server), proxy.as_ref()).unwrap())
}

#[tokio::test]
async fn calls_go_through_an_http_proxy() {
    let (listener, client) = through("http").await;
    let maps = maps(client);
    let proxy = async {
        let mut stream = listener.accept().await.unwrap().0;
        let connect = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
        (connect, answer(&mut stream).await)
    };
    let (got, (connect, request)) = tokio::join!(maps.get("x"), proxy);
    assert_eq!(got.unwrap().metadata.name.as_deref(), Some("x"));
    assert_eq!(
        connect,
        "CONNECT api.invalid:6443 HTTP/1.1\r\nHost: api.invalid:6443\r\n\
         Proxy-Authorization: Basic Ym9iOnBhQHNz\r\n\r\n"
    );
    assert_eq!(request, "GET /api/v1/namespaces/team/configmaps/x HTTP/1.1");
}

/// RFC 1928 and, for the credentials, RFC 1929.
#[tokio::test]
async fn calls_go_through_a_socks_proxy() {
    let (listener, client) = through("socks5").await;
    let maps = maps(client);
    let proxy = async {
        let mut stream = listener.accept().await.unwrap().0;
        let offered = bytes(&mut stream, 3).await;
        assert_eq!(offered, [5, 1, 2], "version 5, one method: user name and password");
        stream.write_all(&[5, 2]).await.unwrap();
        assert_eq!(bytes(&mut stream, 11).await, b"\x01\x03bob\x05pa@ss");
        stream.write_all(&[1, 0]).await.unwrap();
        let wanted = bytes(&mut stream, 5 + 11 + 2).await;
        assert_eq!(wanted, b"\x05\x01\x00\x03\x0bapi.invalid\x19\x2b");
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.unwrap();
        answer(&mut stream).await
    };
    let (got, request) = tokio::join!(maps.get("x"), proxy);
    assert_eq!(got.unwrap().metadata.name.as_deref(), Some("x"));
    assert_eq!(request, "GET /api/v1/namespaces/team/configmaps/x HTTP/1.1");
}
