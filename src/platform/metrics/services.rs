//! All metrics about single Services, grouped by Service, so that the cost of forgetting one does not depend
//! on the number of others.
//!
//! Gauges are computed at scrape time from the report of the last reconcile, so ages grow without writes.
//! `series` lists the counters; docs/decisions/service-series.md says why none of this is a vector of the
//! prometheus crate.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::series::{Series, SeriesFamily, of_service};
use crate::platform::clock::Clock;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::report::ServiceReport;
use zen_lead_core::shrink;

/// The report and the series of one Service.
#[derive(Default)]
struct TrackedService {
    report: Option<ServiceReport>,
    series: Series,
}

/// All Services that are tracked; clones share them.
///
/// Only `Services::track` creates the series of a Service. A record for a Service that is not tracked, or not
/// tracked any more, has no effect.
#[derive(Clone)]
pub struct Services {
    known: Arc<RwLock<HashMap<ServiceKey, Arc<Mutex<TrackedService>>>>>,
    /// Records that belong to no tracked Service but must be counted.
    others: Arc<Mutex<TrackedService>>,
    clock: Clock,
}

impl Services {
    pub(super) fn new(clock: Clock) -> Self {
        Self { known: Arc::default(), others: Arc::default(), clock }
    }

    /// Keeps series for a Service from now on, until it is forgotten.
    pub(super) fn track(&self, key: &ServiceKey) {
        // The Service is almost always there, and readers do not wait for each other.
        if !self.known.read().contains_key(key) {
            self.known.write().entry(key.clone()).or_default();
        }
    }

    /// Drops a Service with all its series.
    pub(super) fn forget(&self, key: &ServiceKey) {
        let mut known = self.known.write();
        known.remove(key);
        shrink::map(&mut known);
    }

    /// Keeps the newest report of a tracked Service.
    pub fn set(&self, key: &ServiceKey, report: ServiceReport) {
        if let Some(known) = self.of(key) {
            known.lock().report = Some(report);
        }
    }

    /// Records something about a tracked Service; does nothing for any other.
    pub(super) fn record(&self, key: &ServiceKey, what: impl FnOnce(&mut Series)) {
        if let Some(known) = self.of(key) {
            what(&mut known.lock().series);
        }
    }

    /// Records something that counts even if its Service is not tracked; the labels are then empty.
    pub(super) fn record_always(&self, key: &ServiceKey, what: impl FnOnce(&mut Series)) {
        let known = self.of(key).unwrap_or_else(|| self.others.clone());
        what(&mut known.lock().series);
    }

    fn of(&self, key: &ServiceKey) -> Option<Arc<Mutex<TrackedService>>> {
        self.known.read().get(key).cloned()
    }

    pub(super) fn collector(&self) -> prometheus::Result<ServiceCollector> {
        ServiceCollector::new(self.clone())
    }
}

/// Names and help texts of the gauges about a Service, in the order in which `values` gives them.
const GAUGES: [(&str, &str); 6] = [
    ("leader_duration_seconds", "How long the current leader has led; 0 without a leader."),
    ("leader_pod_age_seconds", "Age of the leader's pod; 0 without a leader."),
    ("pods_available", "Ready pods that could lead."),
    ("leader_epoch", "Number of the last switch; it only grows."),
    ("leader_stable", "1 while a leader is routed and no timer is running."),
    ("leader_service_without_endpoints", "1 while the leader Service routes to no pod."),
];
/// Names and help texts of the sums over all Services.
const TOTALS: [(&str, &str); 2] = [
    ("leader_services", "Leader Services kept by zen-lead."),
    ("endpointslices", "EndpointSlices kept by zen-lead."),
];

/// Emits all metrics of [`Services`] at scrape time.
pub(super) struct ServiceCollector {
    services: Services,
    descriptions: Vec<Desc>,
}

impl ServiceCollector {
    fn new(services: Services) -> prometheus::Result<Self> {
        // The registry adds its prefix to the names.
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let mut descriptions = Vec::new();
        for (name, help) in GAUGES {
            descriptions.push(desc(name, help, &["namespace", "service"])?);
        }
        for (name, help) in TOTALS {
            descriptions.push(desc(name, help, &[])?);
        }
        for family in SeriesFamily::ALL {
            let d = family.definition();
            descriptions.push(desc(
                d.name,
                d.help,
                &[&["namespace", "service"], d.labels].concat(),
            )?);
        }
        Ok(Self { services, descriptions })
    }
}

#[allow(clippy::cast_precision_loss, reason = "metric values are floats")]
fn values(report: &ServiceReport, now: Timestamp) -> [f64; 6] {
    let age = |since: Option<Timestamp>| {
        since.map_or(0.0, |t| now.duration_since(t).as_secs_f64().max(0.0))
    };
    let routed = report.endpoints > 0;
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
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.services.clock.now();
        let mut gauges = [(); GAUGES.len()].map(|()| Vec::new());
        let mut totals = [0_usize; TOTALS.len()];
        let mut families = [(); SeriesFamily::ALL.len()].map(|()| Vec::new());
        // Locks the map only while its pointers are copied, then one Service at a time, so that recording
        // does not wait for a scrape.
        let all: Vec<_> =
            self.services.known.read().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (key, known) in
            all.into_iter().chain([(ServiceKey::new("", ""), self.services.others.clone())])
        {
            let known = known.lock();
            if let Some(report) = &known.report {
                for (metrics, value) in gauges.iter_mut().zip(values(report, now)) {
                    metrics.push(gauge(of_service(&key), value));
                }
                totals[0] += usize::from(report.leader_service);
                totals[1] += report.slices;
            }
            for (family, metric) in known.series.metrics(&key) {
                families[family as usize].push(metric);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "metric values are floats")]
        let totals = totals.map(|n| vec![gauge(Vec::new(), n as f64)]);
        let gauges = GAUGES.into_iter().chain(TOTALS).zip(gauges.into_iter().chain(totals));
        let gauges = gauges.map(|((name, help), m)| exposed(name, help, MetricType::GAUGE, m));
        let counted = SeriesFamily::ALL.into_iter().zip(families).map(|(family, metrics)| {
            let d = family.definition();
            exposed(d.name, d.help, d.kind(), metrics)
        });
        gauges.chain(counted).collect()
    }
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn exposed(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
