//! Exports spans by OTLP: the connection, the batches, and the report of lost spans.
//!
//! Only [`Tracing::flush`] waits for an export: a span that ends goes into a bounded queue or is dropped, a
//! thread of OpenTelemetry collects batches, and a task of the runtime sends them. `spans` makes the spans,
//! `settings` reads the configuration.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanProcessor,
};
use opentelemetry_semantic_conventions::attribute::{
    K8S_NAMESPACE_NAME, K8S_POD_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION,
};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::settings::{Protocol, Sampling, TraceSettings};
use super::spans::Tracer;
use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;

/// Timeout of a connection to the collector.
const CONNECT: Duration = Duration::from_secs(5);
/// How often lost spans are reported.
const REPORT_AGAIN: Duration = Duration::from_mins(1);

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A file of certificates or keys cannot be used.
    #[error("{path}: {source}; it must hold PEM (named by an OTEL_EXPORTER_OTLP_ variable)")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The machine has no certificates, or none that can be read.
    #[error(
        "no certificates to check {0} against: name a PEM file in OTEL_EXPORTER_OTLP_CERTIFICATE \
         (the image has none of its own)"
    )]
    NoRoots(String),
    /// The certificates are not valid.
    #[error("the certificates for the collector are not usable: {0}")]
    Tls(#[from] rustls::Error),
    /// The gRPC client does not accept the endpoint.
    #[error("the endpoint cannot be used for gRPC: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// The exporter does not accept the settings.
    #[error("the exporter of traces cannot be made: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Tracing that is on.
pub struct Tracing {
    provider: SdkTracerProvider,
}

/// Sets up tracing, without connecting yet. `pod` and `namespace` are those of this replica.
///
/// # Errors
/// If a file cannot be read, or the settings are not valid together.
pub fn start(
    settings: &TraceSettings,
    pod: &str,
    namespace: &str,
    metrics: Arc<Metrics>,
) -> Result<Tracing, OtlpError> {
    let stats = Arc::new(ExportStats {
        metrics,
        endpoint: shown(settings),
        waiting: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        reported: Mutex::new(None),
    });
    let exporter = Exporter {
        inner: Arc::new(exporter(settings)?),
        runtime: Handle::current(),
        limit: settings.timeout,
        stats: stats.clone(),
    };
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(settings.batch.queue)
        .with_max_export_batch_size(settings.batch.size)
        .with_scheduled_delay(settings.batch.delay)
        .build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded { inner, most: settings.batch.queue, stats })
        .with_sampler(sampler(settings.sampling))
        .with_resource(resource(settings, pod, namespace))
        .build();
    tracing::info!(
        endpoint = shown(settings),
        protocol = ?settings.protocol,
        ratio = settings.sampling.ratio,
        "traces are sent"
    );
    Ok(Tracing { provider })
}

impl Tracing {
    /// The tracer that makes the spans.
    pub fn tracer(&self) -> Tracer {
        Tracer::on(self.provider.tracer("zen-lead"))
    }

    /// Sends the queued spans, for at most this long. No spans are accepted afterwards.
    pub async fn flush(self, within: Duration) {
        let provider = self.provider;
        // Blocks, so not on the threads of the runtime, which send the spans.
        let end = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
        match end.await {
            Ok(Ok(())) => tracing::info!("the last spans are sent"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// The endpoint without its path, for messages.
fn shown(settings: &TraceSettings) -> String {
    let scheme = settings.endpoint.scheme_str().unwrap_or_default();
    let place = settings.endpoint.authority().map_or("", http::uri::Authority::as_str);
    format!("{scheme}://{place}")
}

fn sampler(Sampling { parent_based, ratio }: Sampling) -> Sampler {
    // All or nothing without a ratio: the descriptions of samplers show the names.
    let root = if ratio >= 1.0 {
        Sampler::AlwaysOn
    } else if ratio <= 0.0 {
        Sampler::AlwaysOff
    } else {
        Sampler::TraceIdRatioBased(ratio)
    };
    if parent_based { Sampler::ParentBased(Box::new(root)) } else { root }
}

/// The attributes of this process; those that the user sets take precedence.
fn resource(settings: &TraceSettings, pod: &str, namespace: &str) -> Resource {
    let own = [
        (SERVICE_NAME, "zen-lead"),
        (SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        (SERVICE_INSTANCE_ID, pod),
        (K8S_NAMESPACE_NAME, namespace),
        (K8S_POD_NAME, pod),
    ];
    let own = own.map(|(key, value)| KeyValue::new(key, value.to_owned()));
    let given = settings.resource.iter();
    let given = given.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(own).with_attributes(given).build()
}

fn exporter(settings: &TraceSettings) -> Result<SpanExporter, OtlpError> {
    let connector = connector(settings)?;
    match settings.protocol {
        Protocol::Http => Ok(SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(HyperClient::new(connector, settings.timeout, None))
            .with_endpoint(settings.endpoint.to_string())
            .with_timeout(settings.timeout)
            .build()?),
        Protocol::Grpc => {
            let endpoint = Endpoint::from(settings.endpoint.clone())
                .connect_timeout(CONNECT)
                .timeout(settings.timeout)
                .user_agent(crate::platform::operation::USER_AGENT)?;
            Ok(SpanExporter::builder()
                .with_tonic()
                .with_channel(endpoint.connect_with_connector_lazy(connector))
                .with_timeout(settings.timeout)
                .build()?)
        }
    }
}

fn connector(settings: &TraceSettings) -> Result<HttpsConnector<HttpConnector>, OtlpError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let secured = HttpsConnectorBuilder::new().with_tls_config(tls(settings)?).https_or_http();
    Ok(match settings.protocol {
        Protocol::Http => secured.enable_http1().wrap_connector(tcp),
        Protocol::Grpc => secured.enable_http2().wrap_connector(tcp),
    })
}

fn tls(settings: &TraceSettings) -> Result<ClientConfig, OtlpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = match &settings.certificate {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            config.with_root_certificates(roots)
        }
        None if settings.endpoint.scheme_str() == Some("https") => {
            config.with_native_roots().map_err(|_| OtlpError::NoRoots(shown(settings)))?
        }
        None => config.with_root_certificates(RootCertStore::empty()),
    };
    let Some((certificate, key)) = &settings.identity else {
        return Ok(config.with_no_client_auth());
    };
    let wrong = |source| OtlpError::Pem { path: key.clone(), source };
    let secret = PrivateKeyDer::from_pem_file(key).map_err(wrong)?;
    Ok(config.with_client_auth_cert(certificates(certificate)?, secret)?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OtlpError> {
    let wrong = |source| OtlpError::Pem { path: path.to_owned(), source };
    let read = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() {
        let error = io::Error::new(io::ErrorKind::InvalidData, "no certificate in it");
        return Err(wrong(pem::Error::Io(error)));
    }
    Ok(found)
}

/// How many spans are queued, and the outcome of the others.
struct ExportStats {
    metrics: Arc<Metrics>,
    endpoint: String,
    waiting: AtomicUsize,
    /// Spans lost since the last report.
    lost: AtomicU64,
    /// When lost spans were last reported; `None` while exports succeed.
    reported: Mutex<Option<Instant>>,
}

impl fmt::Debug for ExportStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportStats").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl ExportStats {
    fn sent(&self, spans: usize) {
        self.metrics.trace_spans("sent", spans);
        if self.reported.lock().take().is_some() {
            self.lost.store(0, Ordering::Relaxed);
            tracing::info!(endpoint = self.endpoint, "traces are sent again");
        }
    }

    fn lose(&self, result: &'static str, spans: usize, why: &dyn fmt::Display) {
        self.metrics.trace_spans(result, spans);
        self.lost.fetch_add(spans as u64, Ordering::Relaxed);
        // One thread reports; the others do not wait for it.
        let Some(mut reported) = self.reported.try_lock() else { return };
        let now = monotonic();
        if reported.is_none_or(|at| now - at >= REPORT_AGAIN) {
            *reported = Some(now);
            drop(reported);
            let lost = self.lost.swap(0, Ordering::Relaxed);
            tracing::warn!(
                endpoint = self.endpoint,
                lost,
                "trace spans lost: {why}; zen-lead itself is unaffected (docs/tracing.md, \"When no traces arrive\")"
            );
        }
    }
}

/// Limits the queue and counts the spans that do not fit. (The inner processor has the same limit, but
/// reports nothing.)
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    most: usize,
    stats: Arc<ExportStats>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let waiting = &self.stats.waiting;
        if waiting.fetch_add(1, Ordering::AcqRel) >= self.most {
            waiting.fetch_sub(1, Ordering::AcqRel);
            self.stats.lose("dropped", 1, &"the queue is full (OTEL_BSP_MAX_QUEUE_SIZE)");
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Sends batches on the runtime (the thread that passes them in has none), within a time limit.
#[derive(Debug)]
struct Exporter {
    inner: Arc<SpanExporter>,
    runtime: Handle,
    limit: Duration,
    stats: Arc<ExportStats>,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.stats.waiting.fetch_sub(spans, Ordering::AcqRel);
        let (inner, limit) = (self.inner.clone(), self.limit);
        let send = async move { tokio::time::timeout(limit, inner.export(batch)).await };
        // Awaited right here, so it does not end unnoticed.
        let result = match self.runtime.spawn(send).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(limit)),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        };
        match &result {
            Ok(()) => self.stats.sent(spans),
            Err(error) => self.stats.lose("failed", spans, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before the first batch: there is no other reference yet.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}
