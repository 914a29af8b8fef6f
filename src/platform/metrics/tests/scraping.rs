//! The text about Services, line for line, and the parts in which a scrape is written.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::platform::metrics::series::{FamilyKind, SeriesFamily};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// What a scrape says about Services, with the heads above it.
fn about_services(m: &Metrics) -> String {
    let (mut scrape, mut process, mut text) = (m.scrape().unwrap(), String::new(), String::new());
    assert!(scrape.write_part(&mut process));
    assert!(!process.contains("service="), "{process}");
    while scrape.write_part(&mut text) {}
    text
}

#[test]
fn the_text_about_a_few_services_is_exact() {
    let m = Metrics::with_clock(Clock::fixed(at(0))).unwrap();
    let (led, idle, odd) = (key("shop", "led"), key("bar", "idle"), key("a\\b", "\"\n"));
    for key in [&led, &idle, &odd] {
        m.track(key);
    }
    m.decided(&led, true, Some(false), false);
    m.failover(&led, "pod_gone", None);
    m.failover(&led, "first_leader", None);
    m.failover(&led, "pod_gone", Some(Duration::from_millis(4)));
    m.failover(&led, "pod_gone", Some(Duration::from_mins(2)));
    m.reconciled(&led, "ok", false, Duration::from_millis(1500));
    m.reconciled(&led, "quota", true, Duration::from_micros(250));
    m.reconciled(&odd, "ok", false, Duration::from_secs(2));
    m.retry_attempt("gone", "gone", "get_slice", 12);
    m.retry_success("shop", "led", "get_slice");
    let report = ServiceReport {
        leader_since: Some(at(-10)),
        leader_pod_created: Some(at(-100)),
        pods_available: 3,
        endpoints: 1,
        epoch: u64::MAX,
        stable: true,
        leader_service: true,
        slices: 2,
    };
    m.services().set(&led, &report);
    m.services().set(&odd, &ServiceReport { leader_service: true, ..ServiceReport::default() });
    let wanted = r#"# HELP zen_lead_reconciliation_errors_total Reconciles of a Service that ended with an error.
# TYPE zen_lead_reconciliation_errors_total counter
zen_lead_reconciliation_errors_total{namespace="shop",service="led"} 1
# HELP zen_lead_leader_selection_attempts_total Decisions in which a leader had to be chosen.
# TYPE zen_lead_leader_selection_attempts_total counter
zen_lead_leader_selection_attempts_total{namespace="shop",service="led"} 1
# HELP zen_lead_sticky_leader_misses_total Decisions in which the incumbent could not stay.
# TYPE zen_lead_sticky_leader_misses_total counter
zen_lead_sticky_leader_misses_total{namespace="shop",service="led"} 1
# HELP zen_lead_failover_count_total Switches of the leader written by this replica, by reason.
# TYPE zen_lead_failover_count_total counter
zen_lead_failover_count_total{namespace="shop",reason="first_leader",service="led"} 1
zen_lead_failover_count_total{namespace="shop",reason="pod_gone",service="led"} 3
# HELP zen_lead_reconciliations_total Reconciles of a Service, by result.
# TYPE zen_lead_reconciliations_total counter
zen_lead_reconciliations_total{namespace="a\\b",result="ok",service="\"\n"} 1
zen_lead_reconciliations_total{namespace="shop",result="ok",service="led"} 1
zen_lead_reconciliations_total{namespace="shop",result="quota",service="led"} 1
# HELP zen_lead_retry_attempts_total Attempts of API calls that failed for a transient reason, by attempt number (10+ stands for 10 and above).
# TYPE zen_lead_retry_attempts_total counter
zen_lead_retry_attempts_total{attempt="10+",namespace="",operation="get_slice",service=""} 1
# HELP zen_lead_retry_success_after_retry_total API calls that succeeded after at least one retry.
# TYPE zen_lead_retry_success_after_retry_total counter
zen_lead_retry_success_after_retry_total{namespace="shop",operation="get_slice",service="led"} 1
# HELP zen_lead_leader_duration_seconds How long the current leader has led; 0 without a leader.
# TYPE zen_lead_leader_duration_seconds gauge
zen_lead_leader_duration_seconds{namespace="a\\b",service="\"\n"} 0
zen_lead_leader_duration_seconds{namespace="shop",service="led"} 10
# HELP zen_lead_leader_pod_age_seconds Age of the leader's pod; 0 without a leader.
# TYPE zen_lead_leader_pod_age_seconds gauge
zen_lead_leader_pod_age_seconds{namespace="a\\b",service="\"\n"} 0
zen_lead_leader_pod_age_seconds{namespace="shop",service="led"} 100
# HELP zen_lead_pods_available Ready pods that could lead.
# TYPE zen_lead_pods_available gauge
zen_lead_pods_available{namespace="a\\b",service="\"\n"} 0
zen_lead_pods_available{namespace="shop",service="led"} 3
# HELP zen_lead_leader_epoch Number of the last switch; it only grows.
# TYPE zen_lead_leader_epoch gauge
zen_lead_leader_epoch{namespace="a\\b",service="\"\n"} 0
zen_lead_leader_epoch{namespace="shop",service="led"} 18446744073709551615
# HELP zen_lead_leader_stable 1 while a leader is routed and no timer is running.
# TYPE zen_lead_leader_stable gauge
zen_lead_leader_stable{namespace="a\\b",service="\"\n"} 0
zen_lead_leader_stable{namespace="shop",service="led"} 1
# HELP zen_lead_leader_service_without_endpoints 1 while the leader Service routes to no pod.
# TYPE zen_lead_leader_service_without_endpoints gauge
zen_lead_leader_service_without_endpoints{namespace="a\\b",service="\"\n"} 1
zen_lead_leader_service_without_endpoints{namespace="shop",service="led"} 0
# HELP zen_lead_reconciliation_last_duration_seconds Duration of the last reconcile of a Service.
# TYPE zen_lead_reconciliation_last_duration_seconds gauge
zen_lead_reconciliation_last_duration_seconds{namespace="a\\b",service="\"\n"} 2
zen_lead_reconciliation_last_duration_seconds{namespace="shop",service="led"} 0.00025
# HELP zen_lead_failover_latency_seconds Time from the event that ended a leadership to the slice write that named the next leader.
# TYPE zen_lead_failover_latency_seconds histogram
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.005"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.01"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.02"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.05"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.1"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.25"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="0.5"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="1"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="2.5"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="5"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="15"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="60"} 1
zen_lead_failover_latency_seconds_bucket{namespace="shop",service="led",le="+Inf"} 2
zen_lead_failover_latency_seconds_sum{namespace="shop",service="led"} 120.004
zen_lead_failover_latency_seconds_count{namespace="shop",service="led"} 2
"#;
    assert_eq!(about_services(&m), wanted);
}

#[test]
fn a_service_has_few_series() {
    let m = metrics();
    let (led, lost) = (key("shop", "led"), key("shop", "lost"));
    let number = |service: &str| {
        let label = format!("service=\"{service}\"");
        text(&m).lines().filter(|l| l.contains(&label)).count()
    };
    for key in [&led, &lost] {
        m.track(key);
        assert_eq!(number(&key.name), 0);
        m.reconciled(key, "ok", false, Duration::ZERO);
        m.services().set(key, &ServiceReport::default());
        assert_eq!(number(&key.name), 8, "without a leader");
        m.decided(key, true, None, false);
        m.failover(key, "first_leader", None);
        assert_eq!(number(&key.name), 10, "with a leader");
    }
    m.decided(&lost, true, Some(false), false);
    m.failover(&lost, "pod_gone", Some(Duration::ZERO));
    assert_eq!(number("lost"), 27, "after a loss");
    assert_eq!(number("led"), 10);
}

#[test]
fn families_are_kept_where_their_definitions_say() {
    for (n, family) in SeriesFamily::ALL.iter().enumerate() {
        let d = family.definition();
        let plain = d.kind == FamilyKind::Counter && d.labels.len() == 2;
        assert_eq!(plain, n < SeriesFamily::PLAIN, "{family:?}");
        assert!(d.labels.is_sorted(), "{family:?}");
    }
    assert!(std::mem::size_of::<crate::platform::metrics::record::Record>() <= 128);
}

#[test]
fn a_part_is_small_and_the_parts_make_the_whole() {
    const MANY: usize = 1_000;
    let m = Metrics::with_clock(Clock::fixed(at(0))).unwrap();
    for n in 0..MANY {
        let key = key("shop", &format!("s{n}"));
        m.track(&key);
        record_everything(&m, &key);
    }
    let (mut scrape, mut all, mut parts) = (m.scrape().unwrap(), String::new(), 0);
    loop {
        let before = all.len();
        let more = scrape.write_part(&mut all);
        // One Service has 15 lines of a histogram, about 1.5 KB.
        let part = all.len() - before;
        assert!(before == 0 || part < Scrape::PART_BYTES + 2048, "{part} bytes");
        parts += 1;
        if !more {
            break;
        }
    }
    assert!(parts > 100, "{parts}");
    assert_eq!(all, text(&m));
    assert!(!scrape.write_part(&mut all), "it stays at its end");
    let found = parse(&all).unwrap_or_else(|e| panic!("{e}"));
    for family in SeriesFamily::ALL {
        let name = format!("zen_lead_{}", family.definition().name);
        let named: BTreeSet<_> =
            found.families[&name].samples.iter().map(|s| &s.labels["service"]).collect();
        assert_eq!(named.len(), MANY, "{name}");
    }
}

#[test]
fn services_that_come_and_go_during_a_scrape_do_not_break_it() {
    let m = metrics();
    let of = |n: usize| key(&format!("ns-{}", n % 7), &format!("s{n}"));
    let come = |n: usize| {
        m.track(&of(n));
        record_everything(&m, &of(n));
    };
    (0..2_000).for_each(come);
    let (mut scrape, mut all) = (m.scrape().unwrap(), String::new());
    let (mut next, mut gone) = (2_000, 0);
    while scrape.write_part(&mut all) {
        // The last one that was written may be among those that go.
        for _ in 0..10 {
            come(next);
            next += 1;
            m.forget(&of(gone));
            gone += 2;
        }
    }
    assert!(gone > 2_000, "all even ones that were there at the start are gone: {gone}");
    let found = parse(&all).unwrap_or_else(|e| panic!("{e}"));
    // Those that stayed are complete.
    for n in (1..2_000).step_by(2) {
        let key = of(n);
        let labels = [("namespace", &*key.namespace), ("service", &*key.name)];
        for (name, value) in
            [("reconciliation_errors_total", 1.0), ("failover_latency_seconds_count", 1.0)]
        {
            let name = format!("zen_lead_{name}");
            assert_eq!(found.value(&name, &labels), Some(value), "{name} {key}");
        }
    }
}
