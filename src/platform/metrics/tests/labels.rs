//! Any Service name as a label value: the exposition stays valid and exact.

use super::*;

fn odd() -> Vec<String> {
    let mut odd: Vec<String> = [
        "",
        " ",
        "\"",
        "\\",
        "\\n",
        "\n",
        "a\nb",
        "ends\\",
        "\"} 1\nzen_lead_build_info{version=\"forged\"} 1",
        "{}",
        "a=\"b\",c",
        "\r\t\u{0}\u{7f}",
        "snö☃\u{1f600}",
        "\u{202e}right to left",
        "#",
    ]
    .map(str::to_owned)
    .into();
    odd.push("x".repeat(10 * 1024));
    odd.push("é\\\"\n".repeat(2048));
    odd
}

#[test]
fn any_name_is_exported_and_read_back_as_it_was() {
    let m = metrics();
    let all = odd();
    for (n, name) in all.iter().enumerate() {
        let key = key(name, &format!("{name}{n}"));
        m.track(&key);
        record_everything(&m, &key);
    }
    let found = scrape(&m);
    for (n, name) in all.iter().enumerate() {
        let service = format!("{name}{n}");
        let labels = [("namespace", name.as_str()), ("service", service.as_str())];
        for (metric, value) in [
            ("reconciliations_total", 2.0),
            ("pods_available", 0.0),
            ("failover_latency_seconds_count", 1.0),
            ("retry_attempts_total", 1.0),
        ] {
            let metric = format!("zen_lead_{metric}");
            assert_eq!(found.value(&metric, &labels), Some(value), "{metric} {name:?}");
        }
    }
    let build = &found.families["zen_lead_build_info"].samples;
    assert_eq!(build.len(), 1, "nothing was forged: {build:?}");
    for (n, name) in all.iter().enumerate() {
        m.forget(&key(name, &format!("{name}{n}")));
    }
    assert!(!text(&m).contains("service=\"x"));
}

#[test]
fn services_whose_names_run_together_are_kept_apart() {
    let m = metrics();
    let (one, other) = (key("dev", "opsweb"), key("devops", "web"));
    for key in [&one, &other] {
        m.track(key);
    }
    m.reconciled(&one, "ok", false, Duration::ZERO);
    m.reconciled(&other, "ok", false, Duration::ZERO);
    m.reconciled(&other, "ok", false, Duration::ZERO);
    m.services().set(&one, &ServiceReport { epoch: 1, ..ServiceReport::default() });
    m.services().set(&other, &ServiceReport { epoch: 2, ..ServiceReport::default() });
    let total =
        |namespace| scrape(&m).value("zen_lead_reconciliations_total", &[("namespace", namespace)]);
    let epoch = |namespace| scrape(&m).value("zen_lead_leader_epoch", &[("namespace", namespace)]);
    assert_eq!((total("dev"), epoch("dev")), (Some(1.0), Some(1.0)));
    assert_eq!((total("devops"), epoch("devops")), (Some(2.0), Some(2.0)));
    m.forget(&one);
    assert_eq!((total("dev"), epoch("dev")), (None, None));
    assert_eq!((total("devops"), epoch("devops")), (Some(2.0), Some(2.0)));
}

#[test]
fn the_reader_of_these_tests_is_strict() {
    let head = "# HELP a A.\n# TYPE a counter\n";
    parse(&format!("{head}a{{x=\"1\\\\\\\"\\n\"}} 1\na 2\n")).unwrap();
    for broken in [
        "a 1\n".to_owned(),
        format!("{head}a 1"),
        format!("{head}a\n"),
        format!("{head}a x\n"),
        format!("{head}b 1\n"),
        format!("{head}a_count 1\n"),
        format!("{head}a 1\na 2\n"),
        format!("{head}a{{x=\"1\"}} 1\na{{x=\"1\"}} 1\n"),
        format!("{head}a{{x=\"1}} 1\n"),
        format!("{head}a{{x=\"\\t\"}} 1\n"),
        format!("{head}a{{x=1}} 1\n"),
        format!("{head}a{{x=\"1\",x=\"2\"}} 1\n"),
        format!("{head}a{{0=\"1\"}} 1\n"),
        format!("{head}a{{x=\"1\"}}1\n"),
        format!("{head}{head}a 1\n"),
        "# TYPE a counter\na 1\n".to_owned(),
        "# HELP a A.\n# TYPE a histogram\na 1\n".to_owned(),
        "# HELP a A.\n# TYPE a histogram\na_bucket 1\n".to_owned(),
    ] {
        assert!(parse(&broken).is_err(), "{broken:?}");
    }
}
