//! Admission webhooks of others, as in real clusters: one server that gives the answer named by the path,
//! registered for one namespace.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_rustls::TlsAcceptor;

use super::raw::Hand;
use crate::support::names;

/// The text in every refusal of these webhooks.
pub const WORDS: &str = "house rule 7 forbids it";

/// What a webhook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Refuses with this code.
    Refuse(u16),
    /// Answers HTTP 500 instead of a review.
    Fail,
    /// Answers after the API server has given up.
    Sleep,
    /// Its Service does not exist.
    Gone,
    /// Sets this label to another value.
    Label(&'static str),
    /// Takes this annotation away.
    Strip(&'static str),
}

/// The requests that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub resource: &'static str,
    pub operation: &'static str,
    /// Only objects with our label.
    pub ours: bool,
    pub does: Does,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = if self.ours { " with our label" } else { "" };
        write!(f, "webhook on {} {}{ours}: {:?}", self.operation, self.resource, self.does)
    }
}

impl Hook {
    fn mutates(&self) -> bool {
        matches!(self.does, Does::Label(_) | Does::Strip(_))
    }

    /// What the API server's refusal contains.
    pub fn words(&self) -> Option<&'static str> {
        match self.does {
            Does::Refuse(_) => Some(WORDS),
            Does::Fail | Does::Sleep | Does::Gone => Some("failed calling webhook"),
            Does::Label(_) | Does::Strip(_) => None,
        }
    }

    /// Registers it under this name, for the namespace of `admin`; returns once the API server has
    /// had time to notice.
    pub async fn register(&self, admin: &Hand, name: &str) {
        let server = server().await;
        let group = if self.resource == "endpointslices" { "discovery.k8s.io" } else { "" };
        let mut client = json!({"url": server.url(self.does), "caBundle": server.bundle});
        if self.does == Does::Gone {
            client = json!({"caBundle": server.bundle,
                "service": {"namespace": admin.ns, "name": "gone", "path": "/"}});
        }
        let mut webhook = json!({
            "name": "house.rules.example.com",
            "clientConfig": client,
            "rules": [{"apiGroups": [group], "apiVersions": ["*"],
                "resources": [self.resource], "operations": [self.operation]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": admin.ns}},
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"],
        });
        if self.ours {
            let exists = json!({"key": names::SOURCE_LABEL, "operator": "Exists"});
            webhook["objectSelector"] = json!({"matchExpressions": [exists]});
        }
        let (kind, path) = place(self.mutates());
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "labels": {"clumsy": admin.ns}}, "webhooks": [webhook]});
        admin.call("POST", path, "application/json", &object).await.unwrap();
        tokio::time::sleep(NOTICED).await;
    }

    /// Takes it away again.
    pub async fn unregister(&self, admin: &Hand, name: &str) {
        let path = format!("{}/{name}", place(self.mutates()).1);
        let _ = admin.call("DELETE", &path, "application/json", &Value::Null).await;
        tokio::time::sleep(NOTICED).await;
    }
}

/// The longest time until an API server notices a configuration, with room.
const NOTICED: Duration = Duration::from_millis(500);

fn place(mutates: bool) -> (&'static str, &'static str) {
    if mutates {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        ("MutatingWebhookConfiguration", path)
    } else {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        ("ValidatingWebhookConfiguration", path)
    }
}

/// The server of all of them.
struct Server {
    port: u16,
    bundle: String,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

async fn server() -> &'static Server {
    SERVER.get_or_init(Server::start).await
}

impl Server {
    fn url(&self, does: Does) -> String {
        let path = match does {
            Does::Refuse(code) => format!("refuse/{code}"),
            Does::Label(key) => format!("label/{}", key.replace('/', "~1")),
            Does::Strip(key) => format!("strip/{}", key.replace('/', "~1")),
            Does::Sleep => "sleep/".to_owned(),
            Does::Fail | Does::Gone => "fail/".to_owned(),
        };
        format!("https://127.0.0.1:{}/{path}", self.port)
    }

    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let key = made.signing_key.serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(answer);
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, bundle: BASE64_STANDARD.encode(made.cert.pem()) }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let (what, with) = path.split_once('/').unwrap_or((&path, ""));
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let object = &review["request"]["object"];
    let key = with.replace("~1", "/");
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    match what {
        "refuse" => {
            let code: u16 = with.parse().unwrap_or(403);
            response["allowed"] = json!(false);
            response["status"] = json!({"code": code, "message": WORDS});
        }
        "label" if object["metadata"]["labels"][&key] != "changed" => {
            let operation = if object["metadata"]["labels"].is_object() {
                json!([{"op": "add", "path": format!("/metadata/labels/{with}"), "value": "changed"}])
            } else {
                json!([{"op": "add", "path": "/metadata/labels", "value": {key: "changed"}}])
            };
            patched(&mut response, &operation);
        }
        "strip" if !object["metadata"]["annotations"][&key].is_null() => {
            let path = format!("/metadata/annotations/{with}");
            patched(&mut response, &json!([{"op": "remove", "path": path}]));
        }
        "sleep" => tokio::time::sleep(Duration::from_secs(3)).await,
        "fail" => {
            let mut broken = Response::new(Full::new(Bytes::from_static(b"out of order")));
            *broken.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(broken);
        }
        _ => {}
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": response});
    let mut answer = Response::new(Full::new(Bytes::from(review.to_string())));
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(answer)
}

fn patched(response: &mut Value, patch: &Value) {
    response["patchType"] = json!("JSONPatch");
    response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
}
