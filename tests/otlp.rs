//! Sends traces, without a cluster: both protocols, TLS, and a missing collector.
//!
//! tests/cluster/tracing.rs checks the content of zen-lead's spans with a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what fails here fails the test"
)]

// Shared with the tests against a cluster.
#[allow(dead_code, reason = "each of the two uses a part of it")]
#[path = "cluster/support/collector.rs"]
mod collector;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector::Collector;
use zen_lead::config::traces::{Traces, Variables};
use zen_lead::platform::metrics::Metrics;
use zen_lead::platform::telemetry::otlp::{self, Tracing};
use zen_lead::platform::telemetry::settings;
use zen_lead_core::names::ServiceKey;

/// Far longer than a flush may take, far shorter than the wait for a collector that never answers.
const BOUND: Duration = Duration::from_secs(8);

fn start(variables: &[(&str, &str)]) -> (Tracing, Arc<Metrics>) {
    let variables: Variables =
        variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let settings = settings::read(&Traces::default(), &variables).unwrap().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    (otlp::start(&settings, "zl-0", "system", metrics.clone()).unwrap(), metrics)
}

fn spans(tracing: &Tracing, number: usize) {
    let key = ServiceKey::new("team", "web");
    for _ in 0..number {
        drop(tracing.tracer().reconcile(&key));
    }
}

/// The counter of spans with this result.
fn counted(metrics: &Metrics, result: &str) -> usize {
    let text = metrics.exposition().unwrap();
    let series = format!("zen_lead_trace_spans_total{{result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Sends three spans and returns how they arrived.
async fn arrives(collector: &Collector, variables: &[(&str, &str)]) {
    let (tracing, metrics) = start(variables);
    spans(&tracing, 3);
    tracing.flush(Duration::from_secs(10)).await;
    let seen = collector.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let protocol = variables.iter().find(|(name, _)| name.ends_with("PROTOCOL")).unwrap().1;
    for span in seen {
        assert_eq!(
            (span.by, span.name.as_str(), span.kind.as_str()),
            (protocol, "reconcile", "INTERNAL")
        );
        assert!(
            span.is("k8s.namespace.name", "team") && span.is("zen_lead.service", "web"),
            "{span:?}"
        );
        assert!(span.begin > 0 && span.end >= span.begin);
        let resource: Vec<(&str, &str)> =
            span.resource.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            resource,
            [
                ("deployment.environment.name", "test"),
                ("k8s.namespace.name", "system"),
                ("k8s.pod.name", "zl-0"),
                ("service.instance.id", "zl-0"),
                ("service.name", "zen-lead"),
                ("service.version", version),
            ]
        );
    }
    assert_eq!(counted(&metrics, "sent"), 3);
    assert_eq!(counted(&metrics, "failed") + counted(&metrics, "dropped"), 0);
}

const ENVIRONMENT: (&str, &str) = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_by_both_protocols_as_protobuf() {
    for protocol in ["grpc", "http/protobuf"] {
        let (collector, address) = Collector::start().await;
        let endpoint = format!("http://{address}");
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ENVIRONMENT,
        ];
        arrives(&collector, &variables).await;
    }
}

/// A certificate for 127.0.0.1 and its key, as files of this name.
fn certificate(name: &str) -> (PathBuf, PathBuf) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

/// Sends a span that must not get through.
async fn is_refused(collector: &Collector, variables: &[(&str, &str)]) {
    let before = collector.seen().len();
    let (tracing, metrics) = start(variables);
    spans(&tracing, 1);
    tracing.flush(Duration::from_secs(10)).await;
    assert_eq!(counted(&metrics, "failed"), 1, "{variables:?}");
    assert_eq!(collector.seen().len(), before, "{variables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_named_certificate() {
    let (certificate, key) = certificate("collector");
    let (other, _) = self::certificate("other");
    for protocol in ["grpc", "http/protobuf"] {
        let (collector, address) = Collector::start_tls(&certificate, &key, None);
        let endpoint = format!("https://{address}");
        let mut variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ENVIRONMENT,
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate.to_str().unwrap()),
        ];
        arrives(&collector, &variables).await;
        // With another CA nothing gets through.
        variables[3].1 = other.to_str().unwrap();
        is_refused(&collector, &variables).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_certificate_is_shown_to_a_collector_that_asks_for_one() {
    let (server, server_key) = certificate("asking-collector");
    let (client, client_key) = certificate("client");
    let (stranger, stranger_key) = certificate("stranger");
    for protocol in ["grpc", "http/protobuf"] {
        let (collector, address) = Collector::start_tls(&server, &server_key, Some(&client));
        let endpoint = format!("https://{address}");
        let mut variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ENVIRONMENT,
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", server.to_str().unwrap()),
        ];
        // Without a client certificate, and with one that the collector does not know.
        is_refused(&collector, &variables).await;
        variables.extend([
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", stranger.to_str().unwrap()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", stranger_key.to_str().unwrap()),
        ]);
        is_refused(&collector, &variables).await;
        variables[4].1 = client.to_str().unwrap();
        variables[5].1 = client_key.to_str().unwrap();
        arrives(&collector, &variables).await;
    }
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let of = |path: &str| {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "https://c:4318".to_owned()),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE".to_owned(), path.to_owned()),
        ];
        let settings = settings::read(&Traces::default(), &variables.into()).unwrap().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let metrics = Arc::new(Metrics::new().unwrap());
        otlp::start(&settings, "", "", metrics).err().unwrap().to_string()
    };
    let error = of("/no/such/file");
    assert!(error.starts_with("/no/such/file: ") && error.contains("No such file"), "{error}");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let error = of(manifest);
    assert!(error.starts_with(manifest) && error.contains("no certificate in it"), "{error}");
}

/// A listener that accepts connections and never answers, and a port without a listener.
fn silent() -> (TcpListener, [SocketAddr; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = listener.local_addr().unwrap();
    (listener, [address, closed])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_delays_nothing() {
    let (_open, addresses) = silent();
    for protocol in ["grpc", "http/protobuf"] {
        for address in addresses {
            let endpoint = format!("http://{address}");
            let (tracing, metrics) = start(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ]);
            let begun = Instant::now();
            spans(&tracing, 10_000);
            assert!(begun.elapsed() < BOUND, "spans wait for {address} by {protocol}");
            // Only the queue, and a batch that was under way when it was full, may still wait.
            let lost = counted(&metrics, "dropped") + counted(&metrics, "failed");
            assert!(lost >= 10_000 - 110, "{lost} counted");
            tracing.flush(Duration::from_secs(1)).await;
            assert!(begun.elapsed() < BOUND, "the end waits for {address} by {protocol}");
            assert_eq!(counted(&metrics, "sent"), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_an_attempt_at_a_silent_collector() {
    let (_open, [address, _]) = silent();
    for protocol in ["grpc", "http/protobuf"] {
        let endpoint = format!("http://{address}");
        let (tracing, metrics) = start(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ]);
        spans(&tracing, 2);
        tracing.flush(Duration::from_secs(10)).await;
        assert_eq!(counted(&metrics, "failed"), 2, "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sampling_nothing_is_sent_or_lost() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let (tracing, metrics) = start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ]);
    spans(&tracing, 50);
    tracing.flush(Duration::from_secs(10)).await;
    assert!(collector.seen().is_empty());
    let all = ["sent", "failed", "dropped"].map(|result| counted(&metrics, result));
    assert_eq!(all, [0, 0, 0]);
}
