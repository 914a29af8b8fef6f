//! How the handles of `metrics` are made from their table and registered; only the types, no names.
//!
//! The errors name the metric, which those of the prometheus crate do not always do.

use prometheus::core::Collector;
use prometheus::{Error, IntGaugeVec, Opts, Registry};

pub(super) fn registered<C: Collector + Clone + 'static>(
    r: &Registry,
    made: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = made?;
    let name = metric.desc().first().map_or_else(String::new, |desc| desc.fq_name.clone());
    let named = |e| Error::Msg(format!("the metric {name} cannot be registered: {e}"));
    r.register(Box::new(metric.clone())).map_err(named)?;
    Ok(metric)
}

pub(super) fn build_info(r: &Registry) -> prometheus::Result<()> {
    let opts = Opts::new("build_info", "Always 1; the version is in the label.");
    let v = registered(r, IntGaugeVec::new(opts, &["version"]))?;
    v.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

/// Makes [`Metrics`](super::Metrics) from a table: field and type, then name, labels, help text and, for a
/// histogram, its buckets.
macro_rules! metrics {
    ($($field:ident: $type:ident, $name:literal, $labels:tt, $help:literal $(, $buckets:expr)?;)*) => {
        /// All metric handles of the process.
        pub struct Metrics {
            registry: Registry,
            services: Services,
            $($field: $type,)*
        }

        impl Metrics {
            fn with_clock(clock: Clock) -> prometheus::Result<Self> {
                let registry = Registry::new_custom(Some(PREFIX.into()), None)?;
                let services = Services::new(&registry, clock)?;
                register::build_info(&registry)?;
                $(let made = register::metrics!(@$labels $type, $name, $help $(, $buckets)?);
                let $field = register::registered(&registry, made)?;)*
                Ok(Self { registry, services, $($field),* })
            }
        }
    };
    (@[] $type:ident, $name:literal, $help:literal) => { $type::new($name, $help) };
    (@[] $type:ident, $name:literal, $help:literal, $buckets:expr) => {
        $type::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))
    };
    (@$labels:tt $type:ident, $name:literal, $help:literal) => {
        $type::new(Opts::new($name, $help), &$labels)
    };
    (@$labels:tt $type:ident, $name:literal, $help:literal, $buckets:expr) => {
        $type::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &$labels)
    };
}
pub(super) use metrics;
