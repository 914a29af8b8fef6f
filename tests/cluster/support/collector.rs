//! A collector of traces: OTLP over gRPC and over HTTP on one port of 127.0.0.1, spans as they came.
//!
//! Spans are decoded from protobuf and kept; the tests check them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    /// `INTERNAL`, `CLIENT` or `SERVER`.
    pub kind: String,
    /// In hexadecimal, as are the others.
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
    pub failed: bool,
    pub begin: u64,
    pub end: u64,
    /// `grpc` or `http/protobuf`.
    pub by: &'static str,
    /// The header `x-test` of the request.
    pub header: String,
}

impl Seen {
    pub fn is(&self, attribute: &str, value: &str) -> bool {
        self.attributes.get(attribute).is_some_and(|found| found == value)
    }
}

/// The collector; clones share what arrived.
#[derive(Clone, Default)]
pub struct Collector {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    /// Listens on a free port until the runtime ends.
    pub async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = collector.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (collector, address)
    }

    /// As [`Collector::start`], with TLS and this certificate and key (PEM); if `clients` is given,
    /// clients need a certificate that it signed.
    pub fn start_tls(certificate: &Path, key: &Path, clients: Option<&Path>) -> (Self, SocketAddr) {
        let collector = Self::default();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(ring.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), ring);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let secret = PrivateKeyDer::from_pem_file(key).unwrap();
        let mut config = builder.with_single_cert(chain, secret).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum_server::from_tcp_rustls(listener, config).unwrap();
        let router = collector.router();
        tokio::spawn(async move { server.serve(router.into_make_service()).await.unwrap() });
        (collector, address)
    }

    fn router(&self) -> Router {
        let grpc = TraceServiceServer::new(self.clone());
        tonic::service::Routes::new(grpc)
            .into_axum_router()
            .merge(Router::new().route("/v1/traces", post(by_http)).with_state(self.clone()))
    }

    /// Everything so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The spans of one trace.
    pub fn of_trace(&self, trace: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|span| span.trace == trace).collect()
    }

    fn keep(&self, request: ExportTraceServiceRequest, by: &'static str, header: &str) {
        let mut seen = self.seen.lock().unwrap();
        for group in request.resource_spans {
            let resource = plain(group.resource.unwrap_or_default().attributes);
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let kind = SpanKind::try_from(span.kind).unwrap().as_str_name();
                let status = span.status.unwrap_or_default().code;
                seen.push(Seen {
                    kind: kind.trim_start_matches("SPAN_KIND_").to_owned(),
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: plain(span.attributes),
                    resource: resource.clone(),
                    failed: status == SpanStatus::Error as i32,
                    begin: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    name: span.name,
                    by,
                    header: header.to_owned(),
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("x-test").map(|v| v.to_str().unwrap().to_owned());
        self.keep(request.into_inner(), "grpc", &header.unwrap_or_default());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn by_http(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok());
    if kind != Some("application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let header = headers.get("x-test").map(|v| v.to_str().unwrap()).unwrap_or_default();
    collector.keep(request, "http/protobuf", header);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

fn plain(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let before = found.insert(key.clone(), text(value));
        assert!(before.is_none(), "the attribute {key} came twice");
    }
    found
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|v| v.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::ArrayValue(array)) => {
            array.values.into_iter().map(|v| text(Some(v))).collect::<Vec<_>>().join(",")
        }
        other => panic!("an attribute of another kind: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
