//! The series of a Service end with it: completely, at low cost, and also if a record comes late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::platform::clock::monotonic;

#[test]
fn everything_about_a_service_is_forgotten_and_nothing_else() {
    let m = metrics();
    let (web, api) = (key("shop", "web"), key("shop", "api"));
    m.track(&web);
    record_everything(&m, &web);
    let before = scrape(&m).series();
    m.track(&api);
    record_everything(&m, &api);
    let both = scrape(&m).series();
    let of_api = |(_, labels): &&(String, _)| {
        let labels: &std::collections::BTreeMap<String, String> = labels;
        labels.get("service").is_some_and(|s| s == "api")
    };
    // Seven gauges, eleven counters (two of them with two values of a label), one latency with its buckets.
    let number = both.iter().filter(of_api).count();
    assert_eq!(
        number,
        7 + 13 + FAILOVER_BUCKETS.len() + 3,
        "a new series changes this sum and the comment above it"
    );
    m.forget(&api);
    assert_eq!(scrape(&m).series(), before);
    m.forget(&api);
    m.forget(&key("shop", "never"));
    assert_eq!(scrape(&m).series(), before);
}

#[test]
fn ten_thousand_services_come_and_go_without_a_trace_and_in_bounded_time() {
    const MANY: usize = 10_000;
    let m = metrics();
    let stays = key("shop", "web");
    m.track(&stays);
    record_everything(&m, &stays);
    // Metrics that are not about single Services change too, and stay.
    let others = |text: String| {
        let of_services = text.lines().filter(|l| l.contains("namespace=")).map(str::to_owned);
        of_services.collect::<Vec<_>>()
    };
    let before = others(text(&m));
    let keys: Vec<_> = (0..MANY).map(|n| key("mass", &format!("s{n}"))).collect();
    for key in &keys {
        m.track(key);
        record_everything(&m, key);
    }
    let began = monotonic();
    for key in &keys {
        m.forget(key);
    }
    let took = began.elapsed();
    assert_eq!(others(text(&m)), before, "line for line as before");
    // Milliseconds; the bound is for a busy machine. Quadratic work would be 140 million series.
    assert!(took < Duration::from_secs(5), "{MANY} Services were forgotten in {took:?}");
}

#[test]
fn what_comes_after_a_service_was_forgotten_brings_nothing_back() {
    let (m, web) = (metrics(), key("shop", "web"));
    m.track(&web);
    record_everything(&m, &web);
    m.forget(&web);
    // A reconcile that ends late, and the writer of Events, which tries a call again.
    record_everything(&m, &web);
    let found = scrape(&m);
    let left: Vec<_> = found
        .series()
        .into_iter()
        .filter(|(_, l)| l.get("service").is_some_and(|s| s == "web"))
        .collect();
    assert_eq!(left, []);
    let no_service = [("namespace", ""), ("service", "")];
    let attempts = found.value("zen_lead_retry_attempts_total", &no_service);
    let successes = found.value("zen_lead_retry_success_after_retry_total", &no_service);
    assert_eq!((attempts, successes), (Some(1.0), Some(1.0)), "calls are counted all the same");
    assert_eq!(found.value("zen_lead_reconciliations_total", &[]), None);
    // The next Service of that name begins at zero.
    m.track(&web);
    m.reconciled(&web, "ok", false, Duration::ZERO);
    let counted = scrape(&m).value("zen_lead_reconciliations_total", &[("service", "web")]);
    assert_eq!(counted, Some(1.0));
}

#[test]
fn tracking_again_keeps_what_was_counted() {
    let (m, web) = (metrics(), key("shop", "web"));
    for _ in 0..3 {
        m.track(&web);
        m.reconciled(&web, "ok", false, Duration::ZERO);
    }
    assert_eq!(scrape(&m).value("zen_lead_reconciliations_total", &[]), Some(3.0));
}

#[test]
fn scrapes_updates_and_forgetting_at_once_lose_no_count() {
    const ROUNDS: usize = 2_000;
    let m = metrics();
    let stays = key("shop", "web");
    m.track(&stays);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                let (m, stays) = (&m, &stays);
                scope.spawn(move || {
                    let own = key("own", &format!("s{n}"));
                    for round in 0..ROUNDS {
                        m.track(&own);
                        m.reconciled(stays, "ok", round % 2 == 0, Duration::from_millis(3));
                        m.decided(&own, true, Some(true), true);
                        m.retry_attempt("own", &own.name, "list_pods", 1);
                        m.forget(&own);
                        m.services().set(&own, &ServiceReport::default());
                        m.event("LeaderChanged", "written");
                    }
                })
            })
            .collect();
        let scraper = scope.spawn(|| {
            let mut scrapes = 0;
            let mut last = 0.0;
            while !done.load(Ordering::Relaxed) {
                let found = scrape(&m);
                let now = found.value("zen_lead_reconciliations_total", &[("service", "web")]);
                let now = now.unwrap_or_default();
                assert!(now >= last, "a counter fell from {last} to {now}");
                last = now;
                scrapes += 1;
            }
            scrapes
        });
        let ended: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(scraper.join().unwrap() > 0);
        assert!(ended.iter().all(Result::is_ok));
    });
    let found = scrape(&m);
    let web = [("service", "web")];
    let all = 3.0 * 2000.0;
    for (name, labels, wanted) in [
        ("reconciliations_total", &web[..], all),
        ("reconciliation_errors_total", &web, all / 2.0),
        ("reconciliation_duration_seconds_count", &[("result", "success")], all / 2.0),
        ("reconciliation_duration_seconds_count", &[("result", "error")], all / 2.0),
    ] {
        assert_eq!(found.value(&format!("zen_lead_{name}"), labels), Some(wanted), "{name}");
    }
    assert_eq!(found.value("zen_lead_events_total", &[]), Some(all));
    let of_own = |(_, l): &(String, std::collections::BTreeMap<String, String>)| {
        l.get("namespace").is_some_and(|n| n == "own")
    };
    assert!(!found.series().iter().any(of_own));
}
