//! The buckets of the histograms: computed, and compared line for line.

use super::*;

/// Observations in milliseconds; 20 is a bound, which belongs to its bucket.
const OBSERVED: [u64; 6] = [0, 4, 20, 21, 400, 90_000];

#[test]
fn the_buckets_of_a_failover_line_for_line() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    for ms in [0, 5, 6, 50, 51, 999, 60_000, 60_001] {
        m.failover(&web, "pod_gone", Some(Duration::from_millis(ms)));
    }
    let expected = [
        ("0.005", 2),
        ("0.01", 3),
        ("0.02", 3),
        ("0.05", 4),
        ("0.1", 5),
        ("0.25", 5),
        ("0.5", 5),
        ("1", 6),
        ("2.5", 6),
        ("5", 6),
        ("15", 6),
        ("60", 7),
        ("+Inf", 8),
    ];
    let labels = r#"namespace="shop",service="web""#;
    let mut wanted: Vec<String> = expected
        .map(|(le, n)| {
            format!(r#"zen_lead_failover_latency_seconds_bucket{{{labels},le="{le}"}} {n}"#)
        })
        .into();
    wanted.push(format!("zen_lead_failover_latency_seconds_sum{{{labels}}} 121.112"));
    wanted.push(format!("zen_lead_failover_latency_seconds_count{{{labels}}} 8"));
    assert_eq!(lines(&m, "failover_latency_seconds"), wanted);
}

#[test]
fn the_own_histogram_is_that_of_the_prometheus_crate() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    let r = Registry::new_custom(Some(PREFIX.into()), None).unwrap();
    let name = "failover_latency_seconds";
    let opts = HistogramOpts::new(name, "Durations.").buckets(FAILOVER_BUCKETS.to_vec());
    let theirs = HistogramVec::new(opts, &["namespace", "service"]);
    let theirs = register::registered(&r, theirs).unwrap();
    for ms in OBSERVED {
        let took = Duration::from_millis(ms);
        m.failover(&web, "pod_gone", Some(took));
        theirs.with_label_values(&["shop", "web"]).observe(took.as_secs_f64());
    }
    let theirs = TextEncoder::new().encode_to_string(&r.gather()).unwrap();
    let theirs: Vec<&str> = theirs.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines(&m, name), theirs);
}

#[test]
fn every_histogram_ends_with_its_count() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    record_everything(&m, &web);
    let scrape = scrape(&m);
    let histograms: Vec<_> =
        scrape.families.iter().filter(|(_, f)| f.kind == "histogram").collect();
    assert_eq!(histograms.len(), 6);
    for (name, family) in histograms {
        let mut last = 0.0;
        for sample in &family.samples {
            match sample.name.strip_prefix(name.as_str()).unwrap() {
                "_bucket" => {
                    assert!(sample.value >= last, "{name} falls: {sample:?}");
                    last = sample.value;
                }
                "_count" => {
                    assert!((sample.value - last).abs() < f64::EPSILON, "{name}: {sample:?}");
                    last = 0.0;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_switch_of_which_the_cause_is_not_known_is_not_observed() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    m.failover(&web, "first_leader", None);
    assert_eq!(lines(&m, "failover_latency_seconds"), [""; 0]);
}
