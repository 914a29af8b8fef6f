//! The counters and histograms of one Service: plain numbers that are dropped together.
//!
//! [`SeriesFamily::definition`] lists them. No locks and no Services here (`services`). `metrics` decides what is
//! counted when.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricType};

use super::{FAILOVER_BUCKETS, FAST_BUCKETS};
use zen_lead_core::names::ServiceKey;

/// A counter or histogram about a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SeriesFamily {
    Failovers,
    FailoverLatency,
    Reconciliations,
    ReconcileErrors,
    ReconcileDuration,
    SelectionAttempts,
    StickyHits,
    StickyMisses,
    PortFailures,
    WriteErrors,
    WriteConflicts,
    RetryAttempts,
    RetrySuccesses,
}

/// Name, help text, labels and buckets of a family.
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Labels beyond namespace and service; their values come from closed enums.
    pub(super) labels: &'static [&'static str],
    /// Upper bounds in seconds; none for a counter.
    pub(super) buckets: Option<&'static [f64]>,
}

impl SeriesFamily {
    pub(super) const ALL: [Self; 13] = [
        Self::Failovers,
        Self::FailoverLatency,
        Self::Reconciliations,
        Self::ReconcileErrors,
        Self::ReconcileDuration,
        Self::SelectionAttempts,
        Self::StickyHits,
        Self::StickyMisses,
        Self::PortFailures,
        Self::WriteErrors,
        Self::WriteConflicts,
        Self::RetryAttempts,
        Self::RetrySuccesses,
    ];

    pub(super) fn definition(self) -> Definition {
        let counter =
            |name, help, labels: &'static [_]| Definition { name, help, labels, buckets: None };
        let histogram = |name, help, labels: &'static [_], buckets: &'static [_]| Definition {
            name,
            help,
            labels,
            buckets: Some(buckets),
        };
        match self {
            Self::Failovers => counter(
                "failover_count_total",
                "Switches of the leader written by this replica, by reason.",
                &["reason"],
            ),
            Self::FailoverLatency => histogram(
                "failover_latency_seconds",
                "Time from the event that ended a leadership to the slice write that named the next leader.",
                &[],
                &FAILOVER_BUCKETS,
            ),
            Self::Reconciliations => {
                counter("reconciliations_total", "Reconciles of a Service.", &[])
            }
            Self::ReconcileErrors => counter(
                "reconciliation_errors_total",
                "Reconciles of a Service that ended with an error.",
                &[],
            ),
            Self::ReconcileDuration => histogram(
                "reconciliation_duration_seconds",
                "Duration of one reconcile of a Service.",
                &["result"],
                &FAST_BUCKETS,
            ),
            Self::SelectionAttempts => counter(
                "leader_selection_attempts_total",
                "Decisions in which a leader had to be chosen.",
                &[],
            ),
            Self::StickyHits => counter(
                "sticky_leader_hits_total",
                "Decisions in which an eligible incumbent stayed.",
                &[],
            ),
            Self::StickyMisses => counter(
                "sticky_leader_misses_total",
                "Decisions in which the incumbent could not stay.",
                &[],
            ),
            Self::PortFailures => counter(
                "port_resolution_failures_total",
                "Decisions in which a named port was not found on the leader.",
                &[],
            ),
            Self::WriteErrors => counter(
                "endpoint_write_errors_total",
                "Slice writes that failed for another reason than a conflict.",
                &[],
            ),
            Self::WriteConflicts => counter(
                "endpoint_write_conflicts_total",
                "Slice writes that met a newer version of the slice.",
                &[],
            ),
            Self::RetryAttempts => counter(
                "retry_attempts_total",
                "Attempts of API calls that failed for a transient reason, by attempt number (10+ stands for 10 and above).",
                &["operation", "attempt"],
            ),
            Self::RetrySuccesses => counter(
                "retry_success_after_retry_total",
                "API calls that succeeded after at least one retry.",
                &["operation"],
            ),
        }
    }
}

impl Definition {
    pub(super) fn kind(&self) -> MetricType {
        if self.buckets.is_some() { MetricType::HISTOGRAM } else { MetricType::COUNTER }
    }
}

/// Values of the labels beyond namespace and service, in the order of the definition.
type More = [&'static str; 2];

/// The numbers of one Service.
#[derive(Default)]
pub(super) struct Series {
    counts: BTreeMap<(SeriesFamily, More), u64>,
    observations: BTreeMap<(SeriesFamily, More), Observations>,
}

/// Observations per bucket (not cumulative); the last bucket counts those above all bounds.
struct Observations {
    counts: Box<[u64]>,
    sum: f64,
}

impl Series {
    pub(super) fn inc(&mut self, family: SeriesFamily, labels: &[&'static str]) {
        *self.counts.entry((family, more(labels))).or_default() += 1;
    }

    pub(super) fn observe(
        &mut self,
        family: SeriesFamily,
        labels: &[&'static str],
        took: Duration,
    ) {
        let bounds = family.definition().buckets.unwrap_or_default();
        let seconds = took.as_secs_f64();
        let new = || Observations { counts: vec![0; bounds.len() + 1].into(), sum: 0.0 };
        let seen = self.observations.entry((family, more(labels))).or_insert_with(new);
        seen.counts[bounds.partition_point(|bound| *bound < seconds)] += 1;
        seen.sum += seconds;
    }

    /// All counters and histograms, in the exposed form.
    pub(super) fn metrics(&self, key: &ServiceKey) -> impl Iterator<Item = (SeriesFamily, Metric)> {
        let counts = self.counts.iter().map(|((family, more), count)| {
            let mut counter = Counter::default();
            #[allow(clippy::cast_precision_loss, reason = "metric values are floats")]
            counter.set_value(*count as f64);
            let mut metric = Metric::from_label(labels(key, *family, *more));
            metric.set_counter(counter);
            (*family, metric)
        });
        let observations = self.observations.iter().map(|((family, more), seen)| {
            let mut metric = Metric::from_label(labels(key, *family, *more));
            metric.set_histogram(seen.histogram(*family));
            (*family, metric)
        });
        counts.chain(observations)
    }
}

impl Observations {
    fn histogram(&self, family: SeriesFamily) -> Histogram {
        let mut total = 0;
        let bounds = family.definition().buckets.unwrap_or_default();
        let buckets = bounds.iter().zip(&self.counts).map(|(bound, count)| {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.counts.iter().sum());
        histogram.set_sample_sum(self.sum);
        histogram
    }
}

fn more(labels: &[&'static str]) -> More {
    [labels.first().unwrap_or(&""), labels.get(1).unwrap_or(&"")]
}

fn labels(key: &ServiceKey, family: SeriesFamily, more: More) -> Vec<LabelPair> {
    let mut pairs = of_service(key);
    pairs
        .extend(family.definition().labels.iter().zip(more).map(|(name, value)| pair(name, value)));
    pairs.sort();
    pairs
}

/// The labels that every metric about a Service has.
pub(super) fn of_service(key: &ServiceKey) -> Vec<LabelPair> {
    vec![pair("namespace", &key.namespace), pair("service", &key.name)]
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
