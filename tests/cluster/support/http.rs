//! Plain HTTP to a loopback port, such as the admin port of a replica: a few lines without an HTTP
//! client.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Status code and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// Asks 127.0.0.1:`port` for `path`.
pub async fn get(port: u16, path: &str) -> Result<Answer, String> {
    ask(port, path, format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).await
}

/// As [`get`], with a bearer token.
pub async fn get_with(token: &str, port: u16, path: &str) -> Result<Answer, String> {
    let head = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}");
    ask(port, path, format!("{head}\r\n\r\n")).await
}

/// Posts JSON to `path` of 127.0.0.1:`port`.
pub async fn post(port: u16, path: &str, json: &str) -> Result<Answer, String> {
    let length = json.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}");
    ask(port, path, format!("{head}\r\nContent-Type: application/json\r\n\r\n{json}")).await
}

async fn ask(port: u16, path: &str, request: String) -> Result<Answer, String> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = timeout(LIMIT, ask)
        .await
        .map_err(|_| format!("no answer on port {port}{path} within {LIMIT:?}"))?
        .map_err(|e| format!("port {port}{path}: {e}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("no status code")?;
    Ok(Answer { code, body: body.to_owned() })
}
