//! Each recording function moves exactly the series it should.

use jiff::Timestamp;
use prometheus::Error;

use super::register::{build_info, registered};
use super::*;

/// Records into a fresh process and compares all samples that are not zero, but for `build_info`,
/// buckets and sums.
fn moves(what: impl FnOnce(&Metrics, &ServiceKey), expected: &[(&str, f64)]) {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    what(&m, &web);
    let scrape = scrape(&m);
    let samples = scrape.families.values().flat_map(|f| &f.samples);
    let mut found: Vec<(String, f64)> = samples
        .filter(|s| s.value != 0.0 && s.name != "zen_lead_build_info")
        .filter(|s| !s.name.ends_with("_bucket") && !s.name.ends_with("_seconds_sum"))
        .map(|s| {
            let labels: Vec<&str> = s.labels.values().map(String::as_str).collect();
            let name = s.name.strip_prefix("zen_lead_").expect("the prefix");
            (format!("{name} {}", labels.join(" ")).trim_end().to_owned(), s.value)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected: Vec<(String, f64)> =
        expected.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
}

const TOOK: Duration = Duration::from_millis(20);

#[test]
fn nothing_is_exported_for_a_service_before_something_is_recorded() {
    moves(|_, _| (), &[]);
}

#[test]
fn what_is_about_a_service() {
    moves(
        |m, k| m.failover(k, "preferred", None),
        &[("failover_count_total shop preferred web", 1.0)],
    );
    moves(
        |m, k| m.failover(k, "pod_gone", Some(TOOK)),
        &[
            ("failover_count_total shop pod_gone web", 1.0),
            ("failover_latency_seconds_count shop web", 1.0),
        ],
    );
    moves(
        |m, k| m.reconciled(k, "ok", false, TOOK),
        &[
            ("reconciliations_total shop ok web", 1.0),
            ("reconciliation_last_duration_seconds shop web", 0.02),
            ("reconciliation_duration_seconds_count success", 1.0),
        ],
    );
    moves(
        |m, k| {
            m.reconciled(k, "ok", false, TOOK);
            m.reconciled(k, "quota", true, 2 * TOOK);
        },
        &[
            ("reconciliations_total shop ok web", 1.0),
            ("reconciliations_total shop quota web", 1.0),
            ("reconciliation_errors_total shop web", 1.0),
            ("reconciliation_last_duration_seconds shop web", 0.04),
            ("reconciliation_duration_seconds_count success", 1.0),
            ("reconciliation_duration_seconds_count error", 1.0),
        ],
    );
    moves(|m, k| m.decided(k, false, None, false), &[]);
    moves(
        |m, k| m.decided(k, true, None, false),
        &[("leader_selection_attempts_total shop web", 1.0)],
    );
    moves(
        |m, k| m.decided(k, false, Some(true), false),
        &[("sticky_leader_hits_total shop web", 1.0)],
    );
    moves(
        |m, k| m.decided(k, false, Some(false), false),
        &[("sticky_leader_misses_total shop web", 1.0)],
    );
    moves(
        |m, k| m.decided(k, false, None, true),
        &[("port_resolution_failures_total shop web", 1.0)],
    );
    moves(
        |m, k| m.slice_write_failed(k, true),
        &[("endpoint_write_conflicts_total shop web", 1.0)],
    );
    moves(|m, k| m.slice_write_failed(k, false), &[("endpoint_write_errors_total shop web", 1.0)]);
    moves(
        |m, _| m.retry_success("shop", "web", "get_slice"),
        &[("retry_success_after_retry_total shop get_slice web", 1.0)],
    );
}

#[test]
fn attempts_are_counted_by_number_up_to_nine() {
    for (attempt, label) in
        [(0, "1"), (1, "1"), (2, "2"), (9, "9"), (10, "10+"), (11, "10+"), (u32::MAX, "10+")]
    {
        moves(
            |m, _| m.retry_attempt("shop", "web", "get_slice", attempt),
            &[(&format!("retry_attempts_total {label} shop get_slice web"), 1.0)],
        );
    }
}

#[test]
fn what_is_about_calls_watches_index_and_queue() {
    moves(
        |m, _| m.api_call("list_pods", "ok", TOOK),
        &[("api_call_duration_seconds_count list_pods ok", 1.0)],
    );
    moves(|m, _| m.timeout("list_pods"), &[("timeout_occurrences_total list_pods", 1.0)]);
    moves(|m, _| m.set_cache_size("pods", 7), &[("cache_size pods", 7.0)]);
    moves(
        |m, _| m.set_cache_limit("namespace_watches", 50),
        &[("cache_limit namespace_watches", 50.0)],
    );
    #[allow(clippy::cast_precision_loss, reason = "as the exposition does")]
    let largest = i64::MAX as f64;
    moves(|m, _| m.set_cache_size("pods", usize::MAX), &[("cache_size pods", largest)]);
    moves(|m, _| m.cache_lookup("services", true), &[("cache_hits_total services", 1.0)]);
    moves(|m, _| m.cache_lookup("services", false), &[("cache_misses_total services", 1.0)]);
    moves(|m, _| m.cache_eviction("idle_ttl"), &[("cache_evictions_total idle_ttl", 1.0)]);
    moves(
        |m, _| m.cache_update("pods", TOOK),
        &[("cache_update_duration_seconds_count pods", 1.0)],
    );
    moves(
        |m, _| m.limit_refusal("pods_per_service"),
        &[("limit_refusals_total pods_per_service", 1.0)],
    );
    moves(|m, _| m.set_watch_up("pods", true), &[("watch_up pods", 1.0)]);
    moves(
        |m, _| {
            m.set_watch_up("pods", true);
            m.set_watch_up("pods", false);
        },
        &[],
    );
    moves(|m, _| m.watch_restart("pods", "gone"), &[("watch_restarts_total gone pods", 1.0)]);
    moves(|m, _| m.watch_malformed("pods"), &[("watch_malformed_objects_total pods", 1.0)]);
    moves(
        |m, _| m.set_watch_last_heard("pods", 1_700_000_000.25),
        &[("watch_last_heard_timestamp_seconds pods", 1_700_000_000.25)],
    );
    moves(|m, _| m.set_queue_depth(3), &[("queue_depth", 3.0)]);
    // A histogram without labels is there from the start, so its count may be zero elsewhere.
    moves(|m, _| m.queue_waited(TOOK), &[("queue_latency_seconds_count", 1.0)]);
    moves(|m, _| m.trace_spans("dropped", 3), &[("trace_spans_total dropped", 3.0)]);
}

#[test]
fn what_is_about_the_webhook_certificates_and_the_process() {
    moves(
        |m, _| m.set_certificate_expiry("webhook", 1_800_000_000.0),
        &[("certificate_expiry_timestamp_seconds webhook", 1_800_000_000.0)],
    );
    moves(|m, _| m.certificate_load("refused"), &[("certificate_loads_total refused", 1.0)]);
    moves(
        |m, _| m.ca_bundle_write("mutating", "conflict"),
        &[("ca_bundle_writes_total mutating conflict", 1.0)],
    );
    moves(
        |m, _| m.webhook_connection_error("other"),
        &[("webhook_connection_errors_total other", 1.0)],
    );
    moves(|m, _| m.set_connections("admin", 7), &[("connections admin", 7.0)]);
    moves(
        |m, _| m.connection_closed("webhook", Closing::Refused),
        &[("connections_closed_total refused webhook", 1.0)],
    );
    moves(
        |m, _| m.webhook_request("validate", "create", "denied", TOOK),
        &[
            ("webhook_requests_total create validate denied", 1.0),
            ("webhook_duration_seconds_count validate", 1.0),
        ],
    );
    moves(|m, _| m.webhook_violation("boolean"), &[("webhook_violations_total boolean", 1.0)]);
    moves(|m, _| m.webhook_in_flight().inc(), &[("webhook_in_flight", 1.0)]);
    moves(|m, _| m.webhook_rejected_body("path"), &[("webhook_rejected_bodies_total path", 1.0)]);
    moves(
        |m, _| m.event("DriftRepaired", "dropped"),
        &[("events_total DriftRepaired dropped", 1.0)],
    );
    moves(|m, _| m.set_ready_after(Duration::from_millis(1500)), &[("process_ready_seconds", 1.5)]);
}

#[test]
fn gauges_are_computed_from_the_last_report_and_the_time_of_the_scrape() {
    let at = |s: i64| Timestamp::from_second(1_700_000_000 + s).unwrap();
    let clock = Clock::fixed(at(0));
    let m = Metrics::with_clock(clock.clone()).unwrap();
    let (led, lost) = (key("shop", "led"), key("shop", "lost"));
    m.track(&led);
    m.track(&lost);
    let report = ServiceReport {
        leader_since: Some(at(-10)),
        leader_pod_created: Some(at(-100)),
        pods_available: 3,
        endpoints: 1,
        epoch: 1_700_000_000_123,
        stable: true,
        leader_service: true,
        slices: 2,
    };
    m.services().set(&led, &ServiceReport { pods_available: 9, ..report.clone() });
    m.services().set(&led, &report.clone());
    let no_leader = ServiceReport { endpoints: 0, slices: 1, leader_since: None, ..report };
    m.services().set(&lost, &ServiceReport { leader_pod_created: None, ..no_leader });
    let about = |service: &str| {
        let scrape = scrape(&m);
        [
            "leader_duration_seconds",
            "leader_pod_age_seconds",
            "pods_available",
            "leader_epoch",
            "leader_stable",
            "leader_service_without_endpoints",
        ]
        .map(|n| scrape.value(&format!("zen_lead_{n}"), &[("service", service)]).unwrap())
        .to_vec()
    };
    assert_eq!(about("led"), [10.0, 100.0, 3.0, 1_700_000_000_123.0, 1.0, 0.0]);
    assert_eq!(about("lost"), [0.0, 0.0, 3.0, 1_700_000_000_123.0, 0.0, 1.0]);
    clock.set(at(5));
    assert_eq!(about("led")[..2], [15.0, 105.0], "nothing was written, but time has passed");
    // The clock of another replica that wrote the time may be ahead.
    clock.set(at(-50));
    assert_eq!(about("led")[..2], [0.0, 50.0]);
    assert_eq!(lines(&m, "leader_services"), ["zen_lead_leader_services 2"]);
    assert_eq!(lines(&m, "endpointslices"), ["zen_lead_endpointslices 3"]);
    m.forget(&led);
    assert_eq!(lines(&m, "leader_services"), ["zen_lead_leader_services 1"]);
    assert_eq!(lines(&m, "endpointslices"), ["zen_lead_endpointslices 1"]);
}

#[test]
fn a_second_registration_is_an_error_that_names_the_metric() {
    let r = Registry::new_custom(Some("zen_lead".into()), None).unwrap();
    let message = |result: prometheus::Result<()>| match result.unwrap_err() {
        Error::Msg(text) => text,
        other => panic!("{other}"),
    };
    macro_rules! made {
        ($($made:tt)*) => { &|| registered(&r, register::metrics!($($made)*)).map(drop) };
    }
    let twice: [(&str, &dyn Fn() -> prometheus::Result<()>); 8] = [
        ("a_total", made!(@["x"] IntCounterVec, "a_total", "A.")),
        ("b", made!(@["x"] IntGaugeVec, "b", "B.")),
        ("c", made!(@["x"] GaugeVec, "c", "C.")),
        ("d", made!(@[] IntGauge, "d", "D.")),
        ("e", made!(@[] Gauge, "e", "E.")),
        ("f_seconds", made!(@["x"] HistogramVec, "f_seconds", "F.", FAST_BUCKETS)),
        ("g_seconds", made!(@[] Histogram, "g_seconds", "G.", FAST_BUCKETS)),
        ("build_info", &|| build_info(&r)),
    ];
    for (name, register) in twice {
        register().unwrap();
        let error = message(register());
        assert!(error.starts_with(&format!("the metric {name} cannot be registered: ")), "{error}");
    }
    // The same name with another type fails as well.
    let error = message(made!(@["y"] IntCounterVec, "a_total", "A.")());
    assert!(error.starts_with("the metric a_total cannot be registered: "), "{error}");
    // Each process-wide struct has a registry of its own.
    Metrics::new().unwrap();
}
