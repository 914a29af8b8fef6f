//! Calls the webhook as an API server does: a review over a new TLS connection that trusts a given bundle
//! and nothing else. Also reads and changes the webhook configurations in the cluster.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far longer than an API server waits: tests prove that an answer comes, not how fast.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which of the two webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Validating,
    Mutating,
}

impl Hook {
    pub const BOTH: [Self; 2] = [Self::Validating, Self::Mutating];

    /// Path of its URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Validating => "/validate",
            Self::Mutating => "/mutate",
        }
    }

    fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Validating => ("ValidatingWebhookConfiguration", "validate.zen-lead.io"),
            Self::Mutating => ("MutatingWebhookConfiguration", "mutate.zen-lead.io"),
        }
    }

    /// The configurations of its kind.
    pub fn configurations(self, client: &Client) -> Api<DynamicObject> {
        let version = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", self.kind().0);
        Api::all_with(client.clone(), &ApiResource::from_gvk(&version))
    }

    /// The bundle that its configuration carries, empty where there is none.
    pub async fn bundle(self, client: &Client, name: &str) -> Result<String, String> {
        let found = self.configurations(client).get(name).await.map_err(|e| e.to_string())?;
        let text = found.data["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or("");
        let bytes = BASE64_STANDARD.decode(text).map_err(|e| e.to_string())?;
        String::from_utf8(bytes).map_err(|e| e.to_string())
    }

    /// Removes the bundle, as a `kubectl replace` of the manifest does.
    pub async fn wipe(self, client: &Client, name: &str) {
        let bundle = |item: &mut Value| {
            item["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        };
        self.edit(client, name, bundle).await;
    }

    /// Sets one field of its item, and leaves all others as they are.
    pub async fn set(self, client: &Client, name: &str, field: &str, value: &Value) {
        self.edit(client, name, |item| item[field] = value.clone()).await;
    }

    async fn edit(self, client: &Client, name: &str, change: impl Fn(&mut Value)) {
        let configurations = self.configurations(client);
        let params =
            PostParams { field_manager: Some("gitops".to_owned()), ..PostParams::default() };
        loop {
            let mut object = configurations.get(name).await.unwrap();
            change(&mut object.data["webhooks"][0]);
            match configurations.replace(name, &params, &object).await {
                Ok(_) => return,
                // zen-lead wrote in between.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Applies a few fields of its item, as a second field manager that forces conflicts.
    pub async fn apply(self, client: &Client, name: &str, item: &Value) {
        let (kind, item_name) = self.kind();
        let mut item = item.clone();
        item["name"] = json!(item_name);
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name}, "webhooks": [item],
        });
        let params = PatchParams::apply("gitops").force();
        self.configurations(client).patch(name, &params, &Patch::Apply(patch)).await.unwrap();
    }
}

/// A review that an API server once sent.
pub fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/reviews/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The result of a call: the certificate that was shown, and the response.
pub struct Reviewed {
    pub shown: CertificateDer<'static>,
    pub response: Value,
}

/// Sends a review to a port of 127.0.0.1 over a connection of its own, closed after the answer.
/// The certificate that is shown has to be one for that address and signed by one of `bundle`.
pub async fn review(
    port: u16,
    hook: Hook,
    bundle: &str,
    review: &Value,
) -> Result<Reviewed, String> {
    let call = async {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| format!("TCP: {e}"))?;
        let _ = tcp.set_nodelay(true);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector(bundle)?.connect(name, tcp).await;
        let stream = stream.map_err(|e| format!("handshake: {e}"))?;
        let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone());
        let (mut requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("HTTP: {e}"))?;
        tokio::spawn(connection);
        let request = Request::post(format!("{}?timeout=10s", hook.path()))
            .header(HOST, "127.0.0.1")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Body::from(review.to_string()))
            .unwrap();
        let answer = requests.send_request(request).await.map_err(|e| format!("request: {e}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| format!("answer: {e}"))?;
        let body = body.to_bytes();
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|e| format!("answer: {e}"))?;
        let response = answer["response"].clone();
        if response["uid"] != review["request"]["uid"] {
            return Err(format!("an answer to something else: {answer}"));
        }
        Ok(Reviewed { shown: shown.ok_or("no certificate")?.into_owned(), response })
    };
    timeout(PATIENCE, call).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
}

/// A client that trusts the bundle and resumes no session: each call is a whole handshake.
pub fn connector(bundle: &str) -> Result<tokio_rustls::TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let root = root.map_err(|e| format!("bundle: {e:?}"))?;
        roots.add(root).map_err(|e| format!("bundle: {e}"))?;
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}
