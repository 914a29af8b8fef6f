//! The parts of the measurements (e2e/bench) that touch no cluster: what is counted as a call, what is
//! copied, how two binaries are compared, what is in the file of a run, and its pictures. What is measured
//! is not tested here.

// clippy.toml allows more in test code, but clippy does not recognize the shared files as such.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![allow(dead_code, reason = "shared files, of which this uses a part")]

use std::io::Write;

use serde_json::{Value, json};

#[path = "cluster/support"]
mod support {
    pub mod audit;
    pub mod names;
}

#[path = "../e2e/bench/ab.rs"]
mod ab;
#[path = "../e2e/bench/calls.rs"]
mod calls;
#[path = "../e2e/bench/copies.rs"]
mod copies;
#[path = "../e2e/bench/measure.rs"]
mod measure;
#[path = "../e2e/bench/plot.rs"]
mod plot;
#[path = "../e2e/bench/results.rs"]
mod results;

use calls::{Call, Calls};
use results::{Figure, Shape, Table};

fn entry(verb: &str, stage: &str, about: &str, code: u16) -> Value {
    let (resource, subresource) = about.split_once('/').unwrap_or((about, ""));
    json!({
        "user": {"username": "system:serviceaccount:zen-lead-system:zen-lead"},
        "verb": verb, "stage": stage, "stageTimestamp": "2026-11-30T10:00:00.000001Z",
        "requestURI": "/version",
        "objectRef": {"resource": resource, "subresource": subresource},
        "responseStatus": {"code": code},
    })
}

#[test]
fn a_watch_counts_once_when_it_begins() {
    let counted = |stage, code| Call::of(&entry("watch", stage, "pods", code)).is_some();
    assert!(counted("ResponseStarted", 200));
    assert!(!counted("ResponseComplete", 200));
    assert!(counted("ResponseComplete", 410), "a refused one has no other entry");
}

#[test]
fn other_calls_count_when_they_are_answered() {
    let call = Call::of(&entry("patch", "ResponseComplete", "services/status", 200)).unwrap();
    assert!(call.mirrors() && call.writes() && !call.failed && !call.writes_event());
    assert!(Call::of(&entry("create", "ResponseComplete", "events", 201)).unwrap().writes_event());
    assert!(!Call::of(&entry("list", "ResponseComplete", "pods", 200)).unwrap().writes());
    assert!(Call::of(&entry("update", "ResponseComplete", "endpointslices", 409)).unwrap().failed);
    assert_eq!(Call::of(&entry("get", "ResponseStarted", "pods", 200)), None);
    let mut of_no_object = entry("get", "ResponseComplete", "", 200);
    of_no_object["objectRef"] = Value::Null;
    assert_eq!(Call::of(&of_no_object).unwrap().resource, "/version");
}

#[test]
fn the_log_is_read_from_where_it_was_and_only_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let line = |verb: &str| entry(verb, "ResponseComplete", "pods", 200).to_string();
    std::fs::write(&path, line("get") + "\n").unwrap();
    let mut calls = Calls::follow(&path);
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut other = entry("get", "ResponseComplete", "pods", 200);
    other["user"]["username"] = json!("system:serviceaccount:zen-lead-system:zen-lead-2");
    let (begin, end) = (line("patch"), line("delete"));
    let (half, rest) = end.split_at(40);
    write!(log, "{begin}\n{other}\n{half}").unwrap();
    let verbs = |calls: &mut Calls| -> Vec<String> {
        calls.new_ones().into_iter().map(|call| call.verb).collect()
    };
    assert_eq!(verbs(&mut calls), ["patch"]);
    writeln!(log, "{rest}").unwrap();
    assert_eq!(verbs(&mut calls), ["delete"]);
}

#[test]
fn a_copy_is_as_large_and_has_nothing_by_which_zen_lead_knows_its_own() {
    let metadata = json!({
        "name": "web-leader", "namespace": "shop", "uid": "1", "resourceVersion": "7",
        "ownerReferences": [{"kind": "Service", "name": "web", "uid": "2"}],
        "labels": {"app.kubernetes.io/managed-by": "zen-lead", "zen-lead.io/source-service": "web"},
        "annotations": {"zen-lead.io/leader-epoch": "4"},
    });
    let service = json!({
        "kind": "Service", "metadata": metadata,
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]},
        "status": {"conditions": [{"type": "zen-lead.io/LeaderReady", "status": "True"}]},
    });
    let mut slice = json!({
        "kind": "EndpointSlice", "metadata": metadata,
        "endpoints": [{"addresses": ["10.1.1.1"], "targetRef": {"kind": "Pod", "name": "web-a"}}],
    });
    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("zen-lead");
    let template = copies::Template::new(service, slice);
    assert_eq!(
        template.service("app-0"),
        json!({
            "kind": "Service", "spec": {"type": "ClusterIP"},
            "metadata": {
                "name": "app-0",
                "labels": {
                    "app.kubernetes.io/managed-by": "zen-lead-bench",
                    "plain.tests/source-service": "web",
                },
                "annotations": {"plain.tests/leader-epoch": "4"},
            },
        })
    );
    assert_eq!(
        template.mirror(),
        json!({
            "metadata": {"annotations": {"plain.tests/leader-epoch": "4"}},
            "status": {"conditions": [{"type": "plain.tests/LeaderReady", "status": "True"}]},
        })
    );
    let copy = template.slice("app-0", "app-0-1");
    assert_eq!(copy["metadata"]["labels"]["kubernetes.io/service-name"], "app-0");
    assert_eq!(copy["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], copies::PLAIN);
    assert_eq!(copy["endpoints"][0]["targetRef"]["name"], "app-0-1");
    assert_eq!(copy["endpoints"][0]["conditions"]["ready"], true);
    assert!(!copy.to_string().contains("zen-lead.io/"), "{copy}");
}

fn table(title: &str, head: &[&str], rows: &[Value]) -> Table {
    Table {
        measurement: "burst".to_owned(),
        binary: None,
        title: title.to_owned(),
        time: String::new(),
        load: Vec::new(),
        head: head.iter().map(|h| (*h).to_owned()).collect(),
        rows: rows.iter().map(|row| row.as_array().unwrap().clone()).collect(),
    }
}

#[test]
fn two_binaries_are_compared_number_by_number() {
    let pass = |median: f64, again: f64| {
        vec![table(
            "burst: 5 leaders; ms",
            &["workers", "how", "median", "remark"],
            &[json!([16, "quiet", median, "x"]), json!([16, "quiet", again, null])],
        )]
    };
    let (head, rows) =
        ab::compare(&[pass(10.0, 1.0), pass(4.0, 2.0), pass(6.0, 2.0), pass(30.0, 1.0)]);
    assert_eq!(head, ["table", "row", "column", "A", "B", "B again", "A again", "B / A"]);
    let cells = |row: &Vec<String>| row.join(" | ");
    assert_eq!(
        rows.iter().map(cells).collect::<Vec<_>>(),
        [
            "burst | 16 quiet | median | 10.00 | 4.00 | 6.00 | 30.00 | 0.25",
            "burst | 16 quiet (2) | median | 1.00 | 2.00 | 2.00 | 1.00 | 2.00",
        ]
    );
}

#[test]
fn a_failed_pass_leaves_a_gap_in_the_comparison() {
    let pass = |value: f64| vec![table("t", &["who", "ms"], &[json!(["zen-lead", value])])];
    let (_, rows) = ab::compare(&[pass(2.0), Vec::new(), pass(3.0), pass(4.0)]);
    assert_eq!(rows[0][3..], ["2.00", "NaN", "3.00", "4.00", "1.00"]);
}

fn bars() -> Shape {
    Shape::Bars {
        unit: "ms".to_owned(),
        parts: vec!["median".to_owned(), "p95".to_owned()],
        values: vec![
            ("a < b".to_owned(), vec![1.0, 2.5]),
            ("none".to_owned(), vec![f64::NAN, 0.0]),
        ],
    }
}

#[test]
fn a_picture_has_its_words_and_its_lines() {
    let figure = |shape| Figure { name: "f".to_owned(), title: "t & u".to_owned(), shape };
    let svg = plot::svg(&figure(bars())).unwrap();
    for words in ["t &amp; u", "a &lt; b", "p95 2.5", "none", "ms"] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    let lines =
        vec![("one".to_owned(), vec![(0.0, 0.0), (5.0, 7.0)]), ("empty".to_owned(), Vec::new())];
    let (across, up) = ("ms".to_owned(), "slices".to_owned());
    let svg = plot::svg(&figure(Shape::Lines { across, up, lines })).unwrap();
    for words in ["one", "empty", "slices", "<polyline"] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
}

// One test, because the results are those of the process.
#[test]
fn a_run_is_written_with_numbers_settings_and_pictures() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("results");
    results::begin("run", serde_json::Map::from_iter([("kubernetes".to_owned(), json!("v1"))]));
    results::measuring("burst", Some("A"));
    let _ = measure::setting("NOT_SET_BY_ANYONE", 7);
    measure::table("burst: x", &["who", "ms"], &[vec!["zen-lead".into(), "1.50".into()]]);
    measure::table("burst: y", &["ms"], &[vec!["NaN".into()]]);
    for title in ["first", "last"] {
        results::draw("burst", title, bars());
    }
    results::write(&dir).unwrap();
    let text = std::fs::read_to_string(dir.join("run.json")).unwrap();
    let run: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(run["versions"]["kubernetes"], "v1");
    assert_eq!(run["settings"]["ZEN_LEAD_BENCH_NOT_SET_BY_ANYONE"], 7.0);
    assert_eq!(run["tables"][0]["rows"], json!([["zen-lead", 1.5]]));
    assert_eq!(run["tables"][0]["binary"], "A");
    assert_eq!(run["tables"][0]["load"].as_array().unwrap().len(), 3);
    assert_eq!(run["tables"][1]["rows"], json!([[null]]));
    assert_eq!(run["figures"].as_array().unwrap().len(), 1, "the last of a name");
    assert_eq!(run["figures"][0]["title"], "last");
    assert_eq!(results::tables_of("burst").len(), 2);
    assert!(dir.join("run-burst-A.svg").exists());
}
