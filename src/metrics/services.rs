//! Gauges about managed Services, computed at scrape from what the last reconcile reported.
//!
//! Ages grow without anybody writing them, so they cannot be plain gauges. No counters here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc, Metric, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::clock::Clock;
use crate::names::ServiceKey;

/// What one reconcile found out about a managed Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceReport {
    /// When the present leader became leader; `None` without a leader.
    pub leader_since: Option<Timestamp>,
    /// When the leader's pod was created.
    pub leader_pod_created: Option<Timestamp>,
    /// Candidates: ready pods that could lead.
    pub pods_available: usize,
    /// Pods in the leader Service's slice that take traffic (0 or 1).
    pub endpoints: usize,
    /// Number of the last switch.
    pub epoch: u64,
    /// False while the leader is lost, or a timer of the Service is running.
    pub stable: bool,
    /// Whether the leader Service exists.
    pub leader_service: bool,
    /// Slices zen-lead keeps for it.
    pub slices: usize,
}

/// The reports of all managed Services.
#[derive(Clone, Default)]
pub struct ServiceReports {
    reports: Arc<Mutex<HashMap<ServiceKey, ServiceReport>>>,
    clock: Clock,
}

impl ServiceReports {
    /// Keeps the newest report of a Service.
    pub fn set(&self, key: &ServiceKey, report: ServiceReport) {
        self.reports.lock().insert(key.clone(), report);
    }

    /// Drops a Service; its series end with the next scrape.
    pub fn remove(&self, key: &ServiceKey) {
        self.reports.lock().remove(key);
    }

    /// Number of managed Services.
    pub fn len(&self) -> usize {
        self.reports.lock().len()
    }

    /// True when no Service is managed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn collector(&self) -> prometheus::Result<ServiceCollector> {
        ServiceCollector::new(self.clone())
    }
}

/// Names and helps of the per-Service gauges, in the order in which `values` gives them.
const GAUGES: [(&str, &str); 6] = [
    ("leader_duration_seconds", "How long the present leader has led; 0 without a leader."),
    ("leader_pod_age_seconds", "Age of the leader's pod; 0 without a leader."),
    ("pods_available", "Ready pods that could lead."),
    ("leader_epoch", "Number of the last switch; it only grows."),
    ("leader_stable", "1 while a leader is routed and no timer is running."),
    ("leader_service_without_endpoints", "1 while the leader Service routes to nobody."),
];

/// Emits the gauges of [`ServiceReports`] at scrape.
pub(super) struct ServiceCollector {
    reports: ServiceReports,
    gauges: Vec<GaugeVec>,
    totals: [prometheus::IntGauge; 2],
}

impl ServiceCollector {
    fn new(reports: ServiceReports) -> prometheus::Result<Self> {
        // Registry prefixes only reach plain metrics through `gather`, so names carry none here.
        let gauges = GAUGES
            .iter()
            .map(|(name, help)| GaugeVec::new(Opts::new(*name, *help), &["namespace", "service"]))
            .collect::<prometheus::Result<_>>()?;
        let totals = [
            prometheus::IntGauge::new("leader_services", "Leader Services kept by zen-lead.")?,
            prometheus::IntGauge::new("endpointslices", "EndpointSlices kept by zen-lead.")?,
        ];
        Ok(Self { reports, gauges, totals })
    }
}

fn values(report: &ServiceReport, now: Timestamp) -> [f64; 6] {
    let age = |since: Option<Timestamp>| {
        since.map_or(0.0, |t| now.duration_since(t).as_secs_f64().max(0.0))
    };
    let routed = report.endpoints > 0;
    #[allow(clippy::cast_precision_loss, reason = "metric values are floats")]
    [
        age(report.leader_since),
        age(report.leader_pod_created),
        report.pods_available as f64,
        report.epoch as f64,
        f64::from(u8::from(routed && report.stable)),
        f64::from(u8::from(report.leader_service && !routed)),
    ]
}

impl Collector for ServiceCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges
            .iter()
            .flat_map(Collector::desc)
            .chain(self.totals.iter().flat_map(Collector::desc))
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.reports.clock.now();
        // Held to the end: two scrapes at once share the gauges.
        let reports = self.reports.reports.lock();
        for gauge in &self.gauges {
            gauge.reset();
        }
        let (mut leaders, mut slices) = (0, 0);
        for (key, report) in reports.iter() {
            for (gauge, value) in self.gauges.iter().zip(values(report, now)) {
                gauge.with_label_values(&[&*key.namespace, &*key.name]).set(value);
            }
            leaders += i64::from(report.leader_service);
            slices += i64::try_from(report.slices).unwrap_or(i64::MAX);
        }
        self.totals[0].set(leaders);
        self.totals[1].set(slices);
        self.gauges
            .iter()
            .flat_map(Collector::collect)
            .chain(self.totals.iter().flat_map(Collector::collect))
            .collect()
    }
}

/// Removes every series of a vector whose labels name this Service, whatever its other labels say.
pub(super) fn remove_series<T: MetricVecBuilder>(vec: &MetricVec<T>, namespace: &str, service: &str)
where
    T::M: Metric,
{
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|l| (l.name(), l.value())).collect();
            if labels.get("namespace") == Some(&namespace)
                && labels.get("service") == Some(&service)
            {
                // Already gone is fine: another task may have removed it.
                let _ = vec.remove(&labels);
            }
        }
    }
}
