//! Creates one metric and registers it; only the types, no names.
//!
//! The errors name the metric, which those of the prometheus crate do not always do.

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

fn registered<C: Collector + Clone + 'static>(
    r: &Registry,
    name: &str,
    metric: C,
) -> prometheus::Result<C> {
    let named = |e| Error::Msg(format!("the metric {name} cannot be registered: {e}"));
    r.register(Box::new(metric.clone())).map_err(named)?;
    Ok(metric)
}

pub(super) fn counter(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let v = IntCounterVec::new(Opts::new(name, help), labels)?;
    registered(r, name, v)
}

pub(super) fn gauge(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let v = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registered(r, name, v)
}

pub(super) fn float_gauge(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<GaugeVec> {
    let v = GaugeVec::new(Opts::new(name, help), labels)?;
    registered(r, name, v)
}

pub(super) fn plain_gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let v = IntGauge::with_opts(Opts::new(name, help))?;
    registered(r, name, v)
}

pub(super) fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let v = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registered(r, name, v)
}

pub(super) fn build_info(r: &Registry) -> prometheus::Result<()> {
    let v = IntGaugeVec::new(
        Opts::new("build_info", "Always 1; the version is in the label."),
        &["version"],
    )?;
    v.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registered(r, "build_info", v).map(drop)
}

pub(super) fn plain_float_gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let v = Gauge::with_opts(Opts::new(name, help))?;
    registered(r, name, v)
}

pub(super) fn plain_histogram(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<Histogram> {
    let v = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registered(r, name, v)
}
