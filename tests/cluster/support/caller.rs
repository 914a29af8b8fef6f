//! Calls a replica's webhook without an API server: real TLS against the bundle in the webhook
//! configuration, and as much of HTTP/1.1 as is needed to break it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::case::Case;
use super::http::Answer;
use super::waiting::until;

/// The longest time to wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one replica.
#[derive(Clone)]
pub struct Caller {
    connector: TlsConnector,
    port: u16,
}

/// An open connection.
pub struct Line(pub TlsStream<TcpStream>);

impl Caller {
    /// A caller of a replica that trusts the bundle in the webhook configuration.
    pub async fn new(t: &Case, replica: usize) -> Self {
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
        let bundle = until("the webhook configuration has a bundle", || async {
            let hook = hooks.get(&t.world.system).await.map_err(|e| e.to_string())?;
            let hook = hook.webhooks.unwrap_or_default().pop().ok_or("no webhook")?;
            hook.client_config.ca_bundle.map(|bundle| bundle.0).ok_or_else(|| "none".to_owned())
        })
        .await;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Self { connector, port: t.world.product.webhook_port(replica) }
    }

    /// A connection without any bytes sent.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).await
    }

    /// A connection after its handshake.
    pub async fn connect(&self) -> io::Result<Line> {
        self.over(self.tcp().await?).await
    }

    /// The handshake on a connection.
    pub async fn over(&self, tcp: TcpStream) -> io::Result<Line> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Ok(Line(self.connector.connect(name, tcp).await?))
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, head: &str, body: &[u8]) -> Result<Answer, String> {
        let mut line = self.connect().await.map_err(|e| e.to_string())?;
        line.ask(head, body).await
    }

    /// One review on a connection of its own.
    pub async fn review(&self, target: &str, review: &[u8]) -> Result<Answer, String> {
        self.ask(&head(target, review.len()), review).await
    }
}

impl Line {
    /// Sends a head and a body, and reads the answer.
    pub async fn ask(&mut self, head: &str, body: &[u8]) -> Result<Answer, String> {
        // A server that refuses a body unread closes the connection while it is sent; its answer still arrives.
        let _ = self.send(head.as_bytes()).await;
        let _ = self.send(body).await;
        self.answer().await
    }

    /// Sends bytes that need not be a whole request.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Reads an answer that has a length.
    pub async fn answer(&mut self) -> Result<Answer, String> {
        let read = timeout(PATIENCE, self.read_answer()).await;
        read.map_err(|_| format!("no answer within {PATIENCE:?}"))?
    }

    async fn read_answer(&mut self) -> Result<Answer, String> {
        let mut bytes = Vec::new();
        let why = |e: io::Error| format!("instead of an answer: {e}");
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            }
            if self.0.read_buf(&mut bytes).await.map_err(why)? == 0 {
                return Err(format!("closed after {:?}", String::from_utf8_lossy(&bytes)));
            }
        };
        let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("no status code")?;
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
        });
        let length: usize = length.map_or(0, |l| l.trim().parse().unwrap());
        while bytes.len() < length {
            if self.0.read_buf(&mut bytes).await.map_err(why)? == 0 {
                return Err(format!("{} of {length} bytes", bytes.len()));
            }
        }
        Ok(Answer { code, body: String::from_utf8(bytes).unwrap() })
    }
}

/// The head of a POST of JSON.
pub fn head(target: &str, length: usize) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: zen-lead\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A review of the creation of this Service.
pub fn review(uid: &str, service: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Service"},
            "resource": {"group": "", "version": "v1", "resource": "services"},
            "operation": "CREATE",
            "name": service["metadata"]["name"],
            "namespace": "abuse",
            "userInfo": {"username": "alice"},
            "object": service,
            "oldObject": null,
            "dryRun": false,
        },
    })
}

/// The response in an answer to a review of this uid.
pub fn response(answer: &Answer, uid: &str) -> Value {
    assert_eq!(answer.code, 200, "{:.300}", answer.body);
    let mut answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["response"]["uid"], uid, "the uid is echoed");
    answer["response"].take()
}
