//! The metrics of the process: one struct of handles, registered once, shared by both flows.
//!
//! docs/metrics.md lists names, types and labels. Values of labels other than namespace and service come
//! from closed enums of the callers (`&'static str`). No statics, no decisions, no HTTP.

mod record;
mod register;
mod scrape;
mod series;
mod services;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use strum::{IntoStaticStr, VariantArray};

pub use scrape::Scrape;
pub use services::Services;

use crate::platform::clock::Clock;
use series::SeriesFamily;
use zen_lead_core::names::ServiceKey;

/// The names of all metrics begin with it.
const PREFIX: &str = "zen_lead";
/// Buckets for durations up to that of an API call, in seconds.
pub const FAST_BUCKETS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Buckets for the duration of a failover, in seconds.
pub const FAILOVER_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Labels of the attempts of a call; the last one stands for all higher numbers.
const ATTEMPTS: [&str; 10] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10+"];

/// Why a server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Closing {
    /// Its first whole request was late.
    FirstRequest,
    /// It gave its place to another one.
    MadeRoom,
    /// It gave its place to another one of its address, which has as many as it may have.
    AddressLimit,
    /// It came when no other one could give way.
    Refused,
}

zen_lead_core::texts!(all Closing);

register::metrics! {
    reconcile_duration: HistogramVec, "reconciliation_duration_seconds", ["result"],
        "Duration of one reconcile, over all Services.", FAST_BUCKETS;
    api_call_duration: HistogramVec, "api_call_duration_seconds", ["operation", "result"],
        "Duration of each attempt of an API call.", FAST_BUCKETS;
    timeouts: IntCounterVec, "timeout_occurrences_total", ["operation"],
        "API calls, and groups of calls, that hit their deadline, by operation.";
    cache_size: IntGaugeVec, "cache_size", ["resource"],
        "Objects and entries held in memory, by resource.";
    cache_limit: IntGaugeVec, "cache_limit", ["limit"],
        "Configured bounds, by limit; 0 means no bound.";
    cache_hits: IntCounterVec, "cache_hits_total", ["resource"], "Decisions made from the index.";
    cache_misses: IntCounterVec, "cache_misses_total", ["resource"],
        "Decisions on a consistent read of the namespace.";
    cache_evictions: IntCounterVec, "cache_evictions_total", ["reason"],
        "Namespaces whose pods were dropped from the index.";
    cache_update_duration: HistogramVec, "cache_update_duration_seconds", ["resource"],
        "Duration of one change of the index, by resource.",
        [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.1];
    limit_refusals: IntCounterVec, "limit_refusals_total", ["limit"],
        "Work refused because a bound was reached, by limit.";
    watch_up: IntGaugeVec, "watch_up", ["resource"],
        "1 when every watch of the resource is synced and alive.";
    watch_restarts: IntCounterVec, "watch_restarts_total", ["resource", "reason"],
        "Watches restarted, by resource and reason.";
    watch_malformed: IntCounterVec, "watch_malformed_objects_total", ["resource"],
        "Objects in lists, watches and consistent reads that could not be parsed; what exists for them is kept.";
    watch_last_heard: GaugeVec, "watch_last_heard_timestamp_seconds", ["resource"],
        "When the quietest watch of the resource was last heard from.";
    queue_depth: IntGauge, "queue_depth", [], "Services waiting to be reconciled now.";
    certificate_expiry: GaugeVec, "certificate_expiry_timestamp_seconds", ["certificate"],
        "When the certificate in use expires, by certificate.";
    certificate_loads: IntCounterVec, "certificate_loads_total", ["result"],
        "Certificates put into use or refused, by result.";
    webhook_requests: IntCounterVec, "webhook_requests_total", ["path", "operation", "verdict"],
        "Admission reviews, by path, operation and verdict.";
    webhook_violations: IntCounterVec, "webhook_violations_total", ["rule"],
        "Violations found at admission, by rule.";
    webhook_duration: HistogramVec, "webhook_duration_seconds", ["path"],
        "Duration of one admission review in this process.",
        [0.000_05, 0.000_1, 0.000_3, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0];
    webhook_in_flight: IntGauge, "webhook_in_flight", [], "Admission reviews in progress.";
    webhook_rejected_bodies: IntCounterVec, "webhook_rejected_bodies_total", ["reason"],
        "Admission requests refused before a verdict, by reason.";
    webhook_connection_errors: IntCounterVec, "webhook_connection_errors_total", ["reason"],
        "Connections that ended in their handshake, by reason.";
    connections: IntGaugeVec, "connections", ["server"], "Open connections, by server.";
    connections_closed: IntCounterVec, "connections_closed_total", ["server", "reason"],
        "Connections that a server closed to keep places free, by reason.";
    ca_bundle_writes: IntCounterVec, "ca_bundle_writes_total", ["kind", "result"],
        "Writes of the caBundle of a webhook configuration, by kind and result.";
    events: IntCounterVec, "events_total", ["reason", "result"],
        "Kubernetes Events, by reason and result.";
    started: Gauge, "process_ready_seconds", [],
        "Seconds from the start of the process to its first readiness.";
    queue_latency: Histogram, "queue_latency_seconds", [],
        "Time a Service waited in the queue after it was due.", FAST_BUCKETS;
    trace_spans: IntCounterVec, "trace_spans_total", ["result"], "Trace spans, by outcome.";
}

impl Metrics {
    /// Creates all handles and registers them with a new registry.
    ///
    /// # Errors
    /// Only if two metrics share a name: a programming error that a test finds.
    pub fn new() -> prometheus::Result<Self> {
        Self::with_clock(Clock::system())
    }

    /// The state of each managed Service from its last reconcile; gauges are computed from it at scrape time.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Begins a scrape: everything as text (Prometheus format 0.0.4), part by part.
    ///
    /// # Errors
    /// If a label value cannot be encoded; never for the values that this module records.
    pub fn scrape(&self) -> prometheus::Result<Scrape> {
        let process = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        Ok(Scrape::new(self.services.clone(), process))
    }

    /// A whole scrape in one text, for tests.
    ///
    /// # Errors
    /// As [`Metrics::scrape`].
    pub fn exposition(&self) -> prometheus::Result<String> {
        let (mut scrape, mut out) = (self.scrape()?, String::new());
        while scrape.write_part(&mut out) {}
        Ok(out)
    }

    /// Keeps series for a Service from now on, until [`Metrics::forget`]. A Service that is not tracked has
    /// no series, so a late record does not bring any back.
    pub fn track(&self, key: &ServiceKey) {
        self.services.track(key);
    }

    /// Counts a switch of the leader, and its duration if the time of its cause is known.
    pub fn failover(&self, key: &ServiceKey, reason: &'static str, latency: Option<Duration>) {
        self.services.record(key, |record| {
            record.inc(SeriesFamily::Failovers, &[reason]);
            if let Some(latency) = latency {
                record.failed_over(latency);
            }
        });
    }

    /// Counts a finished reconcile and keeps its duration; `result` is from a closed enum. The histogram of
    /// the process has it also if the Service is not tracked.
    pub fn reconciled(&self, key: &ServiceKey, result: &'static str, error: bool, took: Duration) {
        let outcome = if error { "error" } else { "success" };
        self.reconcile_duration.with_label_values(&[outcome]).observe(took.as_secs_f64());
        self.services.record(key, |record| {
            record.inc(SeriesFamily::Reconciliations, &[result]);
            if error {
                record.inc(SeriesFamily::ReconcileErrors, &[]);
            }
            record.reconciled(took);
        });
    }

    /// Counts a decision: whether a leader had to be chosen, and whether the incumbent stayed.
    pub fn decided(
        &self,
        key: &ServiceKey,
        chosen: bool,
        incumbent_stayed: Option<bool>,
        ports_failed: bool,
    ) {
        self.services.record(key, |record| {
            if chosen {
                record.inc(SeriesFamily::SelectionAttempts, &[]);
            }
            match incumbent_stayed {
                Some(true) => record.inc(SeriesFamily::StickyHits, &[]),
                Some(false) => record.inc(SeriesFamily::StickyMisses, &[]),
                None => {}
            }
            if ports_failed {
                record.inc(SeriesFamily::PortFailures, &[]);
            }
        });
    }

    /// Counts a slice write that failed.
    pub fn slice_write_failed(&self, key: &ServiceKey, conflict: bool) {
        let family =
            if conflict { SeriesFamily::WriteConflicts } else { SeriesFamily::WriteErrors };
        self.services.record(key, |record| record.inc(family, &[]));
    }

    /// Counts attempt number `attempt` (from 1) of a call that failed for a transient reason.
    /// Namespace and service are empty if the call is not about a tracked Service.
    pub fn retry_attempt(
        &self,
        namespace: &str,
        service: &str,
        operation: &'static str,
        attempt: u32,
    ) {
        let last = ATTEMPTS.len() - 1;
        let attempt = usize::try_from(attempt).unwrap_or(usize::MAX).saturating_sub(1).min(last);
        self.services.record_always(&ServiceKey::new(namespace, service), |record| {
            record.inc(SeriesFamily::RetryAttempts, &[ATTEMPTS[attempt], operation]);
        });
    }

    /// Counts a call that succeeded after at least one retry; labels as in
    /// [`Metrics::retry_attempt`].
    pub fn retry_success(&self, namespace: &str, service: &str, operation: &'static str) {
        self.services.record_always(&ServiceKey::new(namespace, service), |record| {
            record.inc(SeriesFamily::RetrySuccesses, &[operation]);
        });
    }

    /// Observes one attempt of an API call.
    pub fn api_call(&self, operation: &'static str, result: &'static str, took: Duration) {
        self.api_call_duration.with_label_values(&[operation, result]).observe(took.as_secs_f64());
    }

    /// Sets the number of objects of a resource in the index.
    pub fn set_cache_size(&self, resource: &'static str, size: usize) {
        self.cache_size.with_label_values(&[resource]).set(to_i64(size));
    }

    /// Publishes a configured bound.
    pub fn set_cache_limit(&self, limit: &'static str, value: usize) {
        self.cache_limit.with_label_values(&[limit]).set(to_i64(value));
    }

    /// Counts whether a decision could use the index.
    pub fn cache_lookup(&self, resource: &'static str, hit: bool) {
        let counter = if hit { &self.cache_hits } else { &self.cache_misses };
        counter.with_label_values(&[resource]).inc();
    }

    /// Observes one change of the index.
    pub fn cache_update(&self, resource: &'static str, took: Duration) {
        self.cache_update_duration.with_label_values(&[resource]).observe(took.as_secs_f64());
    }

    /// Sets whether all watches of a resource are synced and alive.
    pub fn set_watch_up(&self, resource: &'static str, up: bool) {
        self.watch_up.with_label_values(&[resource]).set(i64::from(up));
    }

    /// Records when a resource's watches were last heard from (seconds since 1970).
    pub fn set_watch_last_heard(&self, resource: &'static str, seconds: f64) {
        self.watch_last_heard.with_label_values(&[resource]).set(seconds);
    }

    /// Sets the number of Services due now.
    pub fn set_queue_depth(&self, depth: usize) {
        self.queue_depth.set(to_i64(depth));
    }

    /// Begins the series about the connections of a server: the first one that is closed for others is then an
    /// increase.
    pub fn begin_connections(&self, server: &'static str) {
        self.set_connections(server, 0);
        for reason in Closing::ALL {
            self.connections_closed.with_label_values(&[server, reason.as_str()]);
        }
    }

    /// Counts a connection that a server closed to keep places free.
    pub fn connection_closed(&self, server: &'static str, reason: Closing) {
        self.connections_closed.with_label_values(&[server, reason.as_str()]).inc();
    }

    /// Sets the number of open connections of a server.
    pub fn set_connections(&self, server: &'static str, open: usize) {
        self.connections.with_label_values(&[server]).set(to_i64(open));
    }

    /// Observes how long a due Service waited.
    pub fn queue_waited(&self, waited: Duration) {
        self.queue_latency.observe(waited.as_secs_f64());
    }

    /// Counts spans by outcome; `result` is `sent`, `failed` or `dropped`.
    pub fn trace_spans(&self, result: &'static str, spans: usize) {
        self.trace_spans.with_label_values(&[result]).inc_by(spans as u64);
    }

    /// Records when a certificate expires (seconds since 1970).
    pub fn set_certificate_expiry(&self, certificate: &'static str, seconds: f64) {
        self.certificate_expiry.with_label_values(&[certificate]).set(seconds);
    }

    /// Counts an admission review with its verdict.
    pub fn webhook_request(
        &self,
        path: &'static str,
        operation: &'static str,
        verdict: &'static str,
        took: Duration,
    ) {
        self.webhook_requests.with_label_values(&[path, operation, verdict]).inc();
        self.webhook_duration.with_label_values(&[path]).observe(took.as_secs_f64());
    }

    /// The gauge of reviews in flight.
    pub fn webhook_in_flight(&self) -> &IntGauge {
        &self.webhook_in_flight
    }

    /// Records the seconds from start to first readiness.
    pub fn set_ready_after(&self, took: Duration) {
        self.started.set(took.as_secs_f64());
    }

    /// Removes every series of a Service that is no longer managed.
    pub fn forget(&self, key: &ServiceKey) {
        self.services.forget(key);
    }
}

/// Methods that count one more, by the values of the labels.
macro_rules! counts {
    ($($(#[$doc:meta])* $count:ident($($label:ident),+) in $counter:ident;)*) => {
        impl Metrics {$(
            $(#[$doc])*
            pub fn $count(&self, $($label: &'static str),+) {
                self.$counter.with_label_values(&[$($label),+]).inc();
            }
        )*}
    };
}

counts! {
    /// Counts a call, or a group of calls, that hit its deadline.
    timeout(operation) in timeouts;
    /// Counts a namespace dropped from the index.
    cache_eviction(reason) in cache_evictions;
    /// Counts work refused at a bound.
    limit_refusal(limit) in limit_refusals;
    /// Counts a watch that was restarted.
    watch_restart(resource, reason) in watch_restarts;
    /// Counts an object of a list or a watch that could not be parsed.
    watch_malformed(resource) in watch_malformed;
    /// Counts a certificate that was put into use or refused.
    certificate_load(result) in certificate_loads;
    /// Counts a write of a caBundle.
    ca_bundle_write(kind, result) in ca_bundle_writes;
    /// Counts a connection that ended in its handshake.
    webhook_connection_error(reason) in webhook_connection_errors;
    /// Counts one violation.
    webhook_violation(rule) in webhook_violations;
    /// Counts a request that was refused before a verdict.
    webhook_rejected_body(reason) in webhook_rejected_bodies;
    /// Counts an Event, written or not.
    event(reason, result) in events;
}

fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
