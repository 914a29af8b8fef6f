//! Tests of the metrics: what each recording function exports, and that it can be read.

#[allow(dead_code, reason = "shared with tests/cluster")]
#[path = "../../../tests/cluster/support/contract.rs"]
mod contract;
#[allow(dead_code, reason = "shared with tests/cluster")]
#[path = "../../../tests/cluster/support/exposition.rs"]
mod exposition;

mod buckets;
mod documented;
mod forgetting;
mod labels;
mod recording;
mod scraping;

use super::*;
use exposition::{Exposition, parse};
use zen_lead_core::report::ServiceReport;

fn metrics() -> Metrics {
    Metrics::new().unwrap()
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey::new(namespace, name)
}

fn text(metrics: &Metrics) -> String {
    metrics.exposition().unwrap()
}

fn scrape(metrics: &Metrics) -> Exposition {
    parse(&text(metrics)).unwrap_or_else(|e| panic!("{e}"))
}

/// The lines of the exposition about one metric, without its head.
fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = text(metrics);
    let values = text.lines().filter(|l| l.starts_with(&format!("zen_lead_{name}")));
    values.map(str::to_owned).collect()
}

/// Calls every recording function for a Service that is tracked, and every branch of it.
fn record_everything(m: &Metrics, key: &ServiceKey) {
    let took = Duration::from_millis(3);
    let (ns, name) = (&*key.namespace, &*key.name);
    m.services().set(key, &ServiceReport::default());
    m.failover(key, "pod_gone", Some(took));
    m.failover(key, "first_leader", None);
    m.reconciled(key, "ok", false, took);
    m.reconciled(key, "timeout", true, took);
    m.decided(key, true, Some(false), true);
    m.decided(key, false, Some(true), false);
    m.slice_write_failed(key, true);
    m.slice_write_failed(key, false);
    m.retry_attempt(ns, name, "get_slice", 1);
    m.retry_success(ns, name, "get_slice");
    m.api_call("get_slice", "ok", took);
    m.timeout("get_slice");
    m.set_cache_size("pods", 3);
    m.set_cache_limit("namespace_watches", 50);
    m.cache_lookup("services", true);
    m.cache_lookup("services", false);
    m.cache_eviction("idle_ttl");
    m.cache_update("pods", took);
    m.limit_refusal("services_per_namespace");
    m.set_watch_up("pods", true);
    m.watch_restart("pods", "end");
    m.watch_malformed("pods");
    m.set_watch_last_heard("pods", 1.5);
    m.set_queue_depth(4);
    m.queue_waited(took);
    m.trace_spans("sent", 1);
    m.set_certificate_expiry("webhook", 2.5);
    m.certificate_load("ok");
    m.ca_bundle_write("mutating", "ok");
    m.webhook_connection_error("handshake_failed");
    m.set_connections("webhook", 2);
    m.connection_closed("webhook", Closing::MadeRoom);
    m.webhook_request("validate", "create", "denied", took);
    m.webhook_violation("boolean");
    m.webhook_in_flight().set(1);
    m.webhook_rejected_body("too_large");
    m.event("LeaderChanged", "written");
    m.set_ready_after(took);
}
