//! Test doubles shared by the unit tests of this crate, and what several of these ask of the metrics;
//! compiled for tests only.
//!
//! [`FakeApi`] answers kube's client as an API server would: resourceVersions, paged lists, watches
//! with bookmarks, preconditions; and fails on demand. It is spoken to in memory, so that tests can
//! pause tokio's time, or over TCP. It knows no admission, no defaulting, no field ownership.

mod api;
mod store;

pub use api::{FakeApi, Fault, Seen, bookmark};

use crate::platform::metrics::Metrics;

/// How many Events of this reason came to this end, by the metrics.
pub fn events(metrics: &Metrics, reason: &str, result: &str) -> usize {
    let text = String::from_utf8(metrics.exposition().unwrap()).unwrap();
    let labels = format!(r#"zen_lead_events_total{{reason="{reason}",result="{result}"}} "#);
    text.lines().find_map(|l| l.strip_prefix(&labels)).map_or(0, |value| value.parse().unwrap())
}
