//! Test doubles and metric queries shared by the unit tests of this crate; compiled for tests only.
//!
//! [`FakeApi`] answers kube's client as an API server would: resourceVersions, paged lists, watches
//! with bookmarks, preconditions. It fails on demand. Requests reach it in memory, so that tests can
//! pause tokio's time, or over TCP. It has no admission, no defaulting, no field ownership.

mod api;
mod store;

pub use api::{FakeApi, Fault, Seen, bookmark};

use crate::platform::metrics::Metrics;

/// The number of Events with this reason and result, from the metrics.
pub fn events(metrics: &Metrics, reason: &str, result: &str) -> usize {
    let text = metrics.exposition().unwrap();
    let labels = format!(r#"zen_lead_events_total{{reason="{reason}",result="{result}"}} "#);
    text.lines().find_map(|l| l.strip_prefix(&labels)).map_or(0, |value| value.parse().unwrap())
}
