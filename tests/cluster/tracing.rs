//! Traces of the real binary, as a collector receives them: their shape is the one in docs/tracing.md,
//! and a missing collector changes nothing.
//!
//! Each test has the replicas to itself and starts one, with variables of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::case::Case;
use crate::support::collector::{Collector, Seen};
use crate::support::harness::tests;
use crate::support::objects::source_set;
use crate::support::proxy::{Fault, Proxy};
use crate::support::waiting::{check, until};
use crate::support::webhook::{Hook, connector};

tests![
    failover_is_traced_as_documented_by_grpc,
    failover_is_traced_as_documented_by_http,
    a_retried_call_counts_its_repetitions,
    review_continues_the_callers_trace,
    last_spans_are_sent_at_the_end,
    sampled_out_traces_are_not_sent,
    silent_or_missing_collector_changes_nothing,
    wrong_settings_end_the_start_with_advice,
];

/// The only replica of these tests; the API server calls its webhook.
const REPLICA: usize = 0;
const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn traced(t: &Case, variables: &[(&str, &str)]) -> Collector {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let mut all = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("ZEN_LEAD_LOG_FORMAT", "json"),
    ];
    all.extend(variables);
    start(t, &all).await;
    collector
}

async fn start(t: &Case, variables: &[(&str, &str)]) {
    // It leaves no copy to another one that does not run.
    t.world.list_replicas(1).await;
    let product = &t.world.product;
    product.spawn_with(REPLICA, product.kubeconfig(), &[], variables);
    t.world.product.until_ready(REPLICA).await;
}

/// Two pods, the first leads; then it is lost.
async fn failover(t: &Case) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_message("web-leader", "a leads; b: standby").await;
    // Until the watch has delivered this write of zen-lead, the next one waits and belongs to another trace.
    tokio::time::sleep(Duration::from_secs(1)).await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    t.until_message("web-leader", "b leads; a: not Ready").await;
    t.until_reported("web-leader", 2).await;
}

/// The trace in which the leader was switched for this reason, once it is complete.
async fn switch(collector: &Collector, ns: &str, reason: &str) -> Vec<Seen> {
    until("the trace of the switch", || async {
        let seen = collector.seen();
        let decision = seen
            .iter()
            .filter(|s| s.is("zen_lead.switch.reason", reason))
            .find(|s| {
                let mut calls = seen.iter().filter(|c| c.trace == s.trace && c.kind == "CLIENT");
                calls.any(|c| c.is("k8s.namespace.name", ns))
            })
            .ok_or_else(|| format!("none among {} spans", seen.len()))?;
        let trace = collector.of_trace(&decision.trace);
        check(trace.iter().any(|s| s.parent.is_empty()), "no root yet")?;
        check(trace.iter().any(|s| s.name.ends_with("/events")), "no event yet")?;
        Ok::<_, String>(trace)
    })
    .await
}

/// A trace as in docs/tracing.md: names and kinds, children below their parents in the order of their
/// start.
fn drawn(trace: &[Seen]) -> Vec<String> {
    fn below(trace: &[Seen], parent: &str, depth: usize, lines: &mut Vec<String>) {
        let mut children: Vec<&Seen> = trace.iter().filter(|s| s.parent == parent).collect();
        // Another task writes the Event, sometimes before the last round begins: it is drawn last.
        children.sort_by_key(|s| (s.name.ends_with("/events"), s.begin));
        for span in children {
            lines.push(format!("{}{} {}", "  ".repeat(depth), span.kind, span.name));
            below(trace, &span.id, depth + 1, lines);
        }
    }
    let mut lines = Vec::new();
    below(trace, "", 0, &mut lines);
    assert_eq!(lines.len(), trace.len(), "a span without its parent: {trace:#?}");
    lines
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tracing.md");
    std::fs::read_to_string(path).unwrap()
}

/// The indented block after the line "The trace of one failover:".
fn documented_shape() -> Vec<String> {
    let text = document();
    let after = text.split("The trace of one failover:\n\n").nth(1).expect("the drawing");
    after.lines().map_while(|l| l.strip_prefix("    ").map(str::to_owned)).collect()
}

/// The table of attributes: by span, the attributes and whether they are always there.
fn documented_attributes() -> BTreeMap<String, BTreeMap<String, bool>> {
    let mut table: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for line in document().lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, span, attribute, when, ..] = cells[..]
            && let Some(name) = attribute.strip_prefix('`').and_then(|a| a.strip_suffix('`'))
            && ["reconcile", "snapshot", "decide", "call", "review"].contains(&span)
        {
            table.entry(span.to_owned()).or_default().insert(name.to_owned(), when == "always");
        }
    }
    assert_eq!(table.len(), 5, "{table:?}");
    table
}

/// Only documented attributes are sent, and those that are always sent are there.
fn attributes_are_documented(spans: &[Seen]) {
    let table = documented_attributes();
    for span in spans {
        let row = match span.kind.as_str() {
            "CLIENT" => "call",
            "SERVER" => "review",
            _ => span.name.as_str(),
        };
        let documented = &table[row];
        let sent: BTreeSet<&String> = span.attributes.keys().collect();
        let unknown: Vec<_> = sent.iter().filter(|name| !documented.contains_key(**name)).collect();
        assert!(unknown.is_empty(), "{row}: not documented: {unknown:?}");
        let missing: Vec<_> =
            documented.iter().filter(|(name, always)| **always && !sent.contains(name)).collect();
        assert!(missing.is_empty(), "{row}: missing: {missing:?} in {span:?}");
    }
}

async fn failover_is_traced_as_documented(t: &Case, protocol: &'static str) {
    let variables =
        [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_EXPORTER_OTLP_HEADERS", "x-test=a%20b")];
    let collector = traced(t, &variables).await;
    failover(t).await;
    let trace = switch(&collector, &t.ns, "pod_not_ready").await;
    assert_eq!(drawn(&trace), documented_shape());
    attributes_are_documented(&collector.seen());
    for span in &trace {
        assert_eq!((span.by, span.header.as_str()), (protocol, "a b"));
        assert_eq!(span.resource["service.name"], "zen-lead");
        assert_eq!(span.resource["k8s.pod.name"], "zl-0");
        assert!(!span.failed && span.end >= span.begin, "{span:?}");
    }
    let find = |name: &str| trace.iter().find(|s| s.name.starts_with(name)).unwrap();
    let root = find("reconcile");
    assert!(root.is("k8s.namespace.name", &t.ns) && root.is("zen_lead.service", "web"), "{root:?}");
    assert!(root.is("zen_lead.outcome", "idle"), "{root:?}");
    let decision = trace.iter().find(|s| s.is("zen_lead.switch.reason", "pod_not_ready")).unwrap();
    assert!(decision.is("zen_lead.action", "slice"), "{decision:?}");
    assert!(decision.is("zen_lead.leader.previous", "a"), "{decision:?}");
    assert!(decision.is("zen_lead.leader.name", "b"), "{decision:?}");
    let slice = t.until_led_by("web-leader", "b").await;
    let epoch = crate::support::case::epoch(&slice).to_string();
    assert!(decision.is("zen_lead.leader.epoch", &epoch), "{decision:?} and not {epoch}");
    let write = find("PUT ");
    assert!(write.is("http.request.method", "PUT"), "{write:?}");
    assert!(write.is("http.response.status_code", "200"), "{write:?}");
    assert!(write.is("zen_lead.operation", "replace_slice"), "{write:?}");
    let path = format!("/namespaces/{}/endpointslices/", t.ns);
    assert!(write.attributes["url.full"].contains(&path), "{write:?}");
    // The log line of the switch names the trace.
    let line = t.world.product.lines_about(REPLICA, "leader switched", 50);
    let mut lines = line.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let line =
        lines.find(|l| l["key"] == format!("{}/web", t.ns) && l["reason"] == "pod_not_ready");
    let line = line.expect("the log reports the switch");
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(root.trace), &json!(root.id)));
}

async fn failover_is_traced_as_documented_by_grpc(t: Arc<Case>) {
    failover_is_traced_as_documented(&t, "grpc").await;
}

async fn failover_is_traced_as_documented_by_http(t: Arc<Case>) {
    failover_is_traced_as_documented(&t, "http/protobuf").await;
}

/// Two attempts at the write of the slice meet a 503 on the way to the API server.
async fn a_retried_call_counts_its_repetitions(t: Arc<Case>) {
    let product = &t.world.product;
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let proxy = Proxy::start(product.kubeconfig()).await;
    let through = t.world.dir.join("kubeconfig-tracing");
    proxy.write_kubeconfig(product.kubeconfig(), &through);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("ZEN_LEAD_LOG_FORMAT", "json"),
    ];
    product.spawn_with(REPLICA, &through, &[], &variables);
    product.until_ready(REPLICA).await;
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_message("web-leader", "a leads; b: standby").await;
    let slices = format!("/namespaces/{}/endpointslices/", t.ns);
    proxy
        .fail(2, Fault::answer(503), move |seen| seen.verb == "PUT" && seen.path.contains(&slices));
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    assert_eq!(proxy.left(), 0);

    let trace = switch(&collector, &t.ns, "pod_not_ready").await;
    attributes_are_documented(&trace);
    let mut writes: Vec<&Seen> = trace.iter().filter(|s| s.name.starts_with("PUT ")).collect();
    writes.sort_by_key(|span| span.begin);
    let attempts: Vec<_> = writes
        .iter()
        .map(|span| {
            let of = |name: &str| span.attributes.get(name).map(String::as_str);
            (
                of("http.request.resend_count"),
                of("http.response.status_code"),
                of("error.type"),
                span.failed,
            )
        })
        .collect();
    assert_eq!(
        attempts,
        [
            (None, Some("503"), Some("unavailable"), true),
            (Some("1"), Some("503"), Some("unavailable"), true),
            (Some("2"), Some("200"), None, false),
        ]
    );
    assert!(writes.windows(2).all(|pair| pair[0].end <= pair[1].begin), "{writes:#?}");
}

/// POSTs to the webhook of the replica as the API server does, and returns the whole answer.
async fn post(t: &Case, path: &str, headers: &str, body: &str) -> String {
    let bundle = Hook::Validating.bundle(&t.admin(), &t.world.system).await.unwrap();
    let port = t.world.product.webhook_port(REPLICA);
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector(&bundle).unwrap().connect(name, tcp).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: webhook\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some peers close without a TLS close_notify; the bytes that were read count.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn review_continues_the_callers_trace(t: Arc<Case>) {
    let collector = traced(&t, &[]).await;
    let mut service =
        serde_json::to_value(source_set("web", &[("zen-lead.io/sticky", "maybe")])).unwrap();
    service["metadata"]["namespace"] = json!(t.ns);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": "CREATE", "dryRun": true,
            "kind": {"group": "", "version": "v1", "kind": "Service"},
            "namespace": t.ns, "name": "web", "userInfo": {"username": "alice"}, "object": service,
        },
    });
    let parent = "00f067aa0ba902b7";
    let header = format!("traceparent: 00-{CALLER}-{parent}-01\r\n");
    let answer = post(&t, "/validate?timeout=5s", &header, &review.to_string()).await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A trace that the caller does not sample, and an invalid header.
    let header = format!("traceparent: 00-{}-{parent}-00\r\n", CALLER.replace('4', "5"));
    post(&t, "/validate", &header, &review.to_string()).await;
    post(&t, "/mutate", "traceparent: 00-nonsense\r\n", "{}").await;

    let seen = until("both kept reviews arrived", || async {
        let seen: Vec<Seen> = collector.seen().into_iter().filter(|s| s.kind == "SERVER").collect();
        check(seen.iter().any(|s| s.name == "POST /mutate"), format!("{seen:?}"))?;
        check(seen.iter().any(|s| s.name == "POST /validate"), format!("{seen:?}"))?;
        Ok::<_, String>(seen)
    })
    .await;
    attributes_are_documented(&collector.seen());
    assert_eq!(seen.len(), 2, "{seen:?}");
    let review = seen.iter().find(|s| s.name == "POST /validate").unwrap();
    assert_eq!((review.trace.as_str(), review.parent.as_str()), (CALLER, parent));
    for (attribute, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/validate"),
        ("http.response.status_code", "200"),
        ("k8s.namespace.name", t.ns.as_str()),
        ("zen_lead.service", "web"),
        ("zen_lead.review.uid", "u-1"),
        ("zen_lead.review.user", "alice"),
        ("zen_lead.review.dry_run", "true"),
        ("zen_lead.review.operation", "create"),
        ("zen_lead.review.verdict", "denied"),
    ] {
        assert!(review.is(attribute, value), "{attribute} of {review:?}");
    }
    assert!(!review.attributes["zen_lead.review.rules"].is_empty() && !review.failed);
    let refused = seen.iter().find(|s| s.name == "POST /mutate").unwrap();
    assert_eq!(refused.parent, "");
    assert!(refused.is("http.response.status_code", "400"), "{refused:?}");
    assert!(refused.attributes.contains_key("error.type") && !refused.failed, "{refused:?}");
    let lines = t.world.product.lines_about(REPLICA, &t.ns, 50);
    let line =
        lines.lines().find(|l| l.contains("refused at admission")).expect("the refusal is logged");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(CALLER), &json!(review.id)));
}

async fn last_spans_are_sent_at_the_end(t: Arc<Case>) {
    // Nothing is sent before the end: the first batch would go after ten minutes.
    let collector = traced(&t, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]).await;
    failover(&t).await;
    assert_eq!(collector.seen().len(), 0);
    let status = t.world.product.stop(REPLICA).await.expect("it ran");
    assert!(status.success(), "{status}");
    let trace = switch(&collector, &t.ns, "pod_not_ready").await;
    assert_eq!(drawn(&trace), documented_shape());
}

async fn sampled_out_traces_are_not_sent(t: Arc<Case>) {
    let collector = traced(&t, &[("ZEN_LEAD_TRACE_SAMPLE_RATIO", "0")]).await;
    failover(&t).await;
    let status = t.world.product.stop(REPLICA).await.expect("it ran");
    assert!(status.success(), "{status}");
    assert_eq!(collector.seen().len(), 0);
    let lines = t.world.product.lines_about(REPLICA, &t.ns, 50);
    assert!(lines.contains("leader switched") && !lines.contains("trace_id"), "{lines}");
}

async fn silent_or_missing_collector_changes_nothing(t: Arc<Case>) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (n, (address, protocol)) in
        [(address, "grpc"), (closed, "http/protobuf")].into_iter().enumerate()
    {
        let endpoint = format!("http://{address}");
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
        ];
        start(&t, &variables).await;
        if n == 0 {
            failover(&t).await;
        } else {
            t.set_ready("a", true).await;
            t.set_ready("b", false).await;
            t.until_led_by("web-leader", "a").await;
        }
        // Admission answers: the webhook itself refuses the invalid Service, not its absence.
        let wrong = source_set("wrong", &[("zen-lead.io/sticky", "maybe")]);
        let refused = t.user_services().create(&Default::default(), &wrong).await.unwrap_err();
        assert!(refused.to_string().contains("zen-lead.io/sticky"), "{refused}");
        // `stop` fails the test if it takes too long.
        let status = t.world.product.stop(REPLICA).await.expect("it ran");
        assert!(status.success(), "{status}");
        let logged = t.world.product.lines_about(REPLICA, "the last spans were not sent", 9);
        assert!(
            !logged.is_empty() || protocol != "grpc",
            "it reports the spans that were not sent"
        );
    }
}

async fn wrong_settings_end_the_start_with_advice(t: Arc<Case>) {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let wrong = ("OTEL_TRACES_SAMPLER", "sometimes");
    let product = &t.world.product;
    product.spawn_with(REPLICA, product.kubeconfig(), &[], &[endpoint, wrong]);
    until("it ends", || async { check(!t.world.product.runs(REPLICA), "it runs") }).await;
    let logged = t.world.product.tail(REPLICA, 3);
    let want = "zen-lead: OTEL_TRACES_SAMPLER is \"sometimes\": write one of always_on";
    assert!(logged.contains(want), "{logged}");
}
