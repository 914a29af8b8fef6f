//! Compares the exported metrics with docs/metrics.md. What a live process exports is compared
//! in tests/cluster.

use std::collections::BTreeSet;

use super::contract::Contract;
use super::*;
use crate::control::watch::{Kind, Restart};
use crate::platform::metrics::series::SeriesFamily;
use crate::platform::operation::Operation;
use zen_lead_core::decide::elect;
use zen_lead_core::reason::Reason;
use zen_lead_core::settings::violation::Rule;

#[test]
fn every_metric_is_as_documented_and_every_documented_one_is_exported() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    record_everything(&m, &web);
    let faults = Contract::read().differences(&[scrape(&m)], &[]);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What `record_everything` leaves out is not exported, and would be compared with nothing.
#[test]
fn every_series_of_a_service_is_recorded_by_these_tests() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    record_everything(&m, &web);
    let found = scrape(&m);
    for family in SeriesFamily::ALL {
        let name = format!("zen_lead_{}", family.definition().name);
        let advice = "call what records it in record_everything (src/platform/metrics/tests.rs)";
        assert!(found.families.contains_key(&name), "{name}: {advice}");
    }
}

#[test]
fn the_values_of_closed_labels_are_those_of_the_code() {
    let contract = Contract::read();
    let check = |metric: &str, label: &str, values: Vec<&str>| {
        let key = (format!("zen_lead_{metric}"), label.to_owned());
        let found: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
        assert_eq!(contract.values[&key], found, "{metric} {label}");
    };
    let operations: Vec<_> = Operation::ALL.iter().map(|o| o.as_str()).collect();
    for metric in ["api_call_duration_seconds", "retry_attempts_total", "timeout_occurrences_total"]
    {
        check(metric, "operation", operations.clone());
    }
    check("retry_attempts_total", "attempt", ATTEMPTS.into());
    let switches = elect::SwitchReason::ALL.iter().map(|reason| reason.as_str());
    check("failover_count_total", "reason", switches.collect());
    check("events_total", "reason", Reason::ALL.iter().map(|reason| reason.as_str()).collect());
    check("webhook_violations_total", "rule", Rule::ALL.iter().map(|rule| rule.as_str()).collect());
    check("watch_up", "resource", Kind::ALL.iter().map(|kind| kind.as_str()).collect());
    let restarts = Restart::ALL.iter().map(|reason| reason.as_str());
    check("watch_restarts_total", "reason", restarts.collect());
}

/// The prometheus crate takes two series of a vector for one when their values, put one after the
/// other, are the same (docs/decisions/service-series.md).
#[test]
fn no_two_documented_combinations_of_values_run_together() {
    let contract = Contract::read();
    for (name, row) in &contract.metrics {
        let (m, web) = (metrics(), key("shop", "web"));
        m.track(&web);
        record_everything(&m, &web);
        // In the order of the definition, which is what is hashed.
        let order = order_of_labels(&m, name);
        if order.len() < 2 || row.labels.contains("service") {
            continue;
        }
        let mut joined = vec![String::new()];
        for label in &order {
            let values = &contract.values[&(name.clone(), label.clone())];
            joined = joined
                .iter()
                .flat_map(|before| values.iter().map(move |v| format!("{before}{v}")))
                .collect();
        }
        let distinct: BTreeSet<&String> = joined.iter().collect();
        assert_eq!(distinct.len(), joined.len(), "{name}");
    }
}

fn order_of_labels(m: &Metrics, name: &str) -> Vec<String> {
    let vectors: [&dyn prometheus::core::Collector; 5] = [
        &m.api_call_duration,
        &m.watch_restarts,
        &m.ca_bundle_writes,
        &m.webhook_requests,
        &m.events,
    ];
    let all = vectors.iter().flat_map(|v| v.desc());
    let mut found = all.filter(|d| format!("zen_lead_{}", d.fq_name) == name);
    found.next().map(|d| d.variable_labels.clone()).unwrap_or_default()
}

#[test]
fn the_comparison_finds_each_kind_of_difference() {
    let row = "| `zen_lead_a_total` | counter | reason | Things. And more words. |\n\
               | `reason` | `zen_lead_a_total` | `x`, `y` |\n";
    let scrape = "# HELP zen_lead_a_total Things.\n# TYPE zen_lead_a_total counter\n\
                  zen_lead_a_total{reason=\"x\"} 1\n";
    let faults = |document: &str, scrape: &str, absent: &[&str]| {
        Contract::of(document).differences(&[parse(scrape).unwrap()], absent)
    };
    assert_eq!(faults(row, scrape, &[]), [""; 0]);
    for (document, exported, absent, wanted) in [
        (row.to_owned(), String::new(), &[][..], "is documented and was not exported"),
        (String::new(), scrape.to_owned(), &[], "is not in docs/metrics.md"),
        (row.into(), scrape.into(), &["zen_lead_a_total"], "listed as absent"),
        (
            row.replace("counter", "gauge"),
            scrape.into(),
            &[],
            "is a counter, documented as a gauge",
        ),
        (row.replace("Things", "Thing"), scrape.into(), &[], "does not begin with"),
        (row.replace("reason |", "reason, z |"), scrape.into(), &[], "has the labels"),
        (row.into(), scrape.replace("\"x\"", "\"z\""), &[], "reason=\"z\" is not documented"),
        (
            row.replace("| `reason` | `zen_lead_a", "| `reason` | `zen_lead_b"),
            scrape.into(),
            &[],
            "are not listed",
        ),
        (
            row.replace("| `reason` | `zen_lead_a", "| `reason` | `zen_lead_b"),
            scrape.into(),
            &[],
            "which has none",
        ),
    ] {
        let found = faults(&document, &exported, absent);
        assert!(found.iter().any(|f| f.contains(wanted)), "{wanted:?}: {found:?}");
    }
    let twice = std::panic::catch_unwind(|| Contract::of(&format!("{row}{row}")));
    assert!(twice.is_err());
}
