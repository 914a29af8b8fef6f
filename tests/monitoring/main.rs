//! Checks what operators see, without a cluster: promtool checks the rules of the chart, with a
//! case for and against every alert; rules, dashboard, ServiceMonitor and documents have to agree.
//!
//! tests/cluster/monitoring.rs checks that the queries find series in a real Prometheus.

// clippy.toml allows more in test code, but clippy does not recognize tests in a binary without the
// standard harness.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "every test has one signature"
)]
#![deny(dead_code, reason = "a test that no list names never runs")]

mod dashboard;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

type Outcome = Result<(), Failed>;
type Named = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let plain: [Named; 8] = [
        ("groups_are_evaluated_in_the_order_of_the_file", order_is_given),
        ("every_alert_has_a_case_for_and_one_against_it", both_cases),
        ("every_alert_says_what_to_do", alerts_are_complete),
        ("queries_use_documented_metrics_and_labels", documented),
        ("recorded_series_are_used_or_documented", recorded),
        ("dashboard_can_be_loaded", dashboard_is_sound),
        ("service_monitor_finds_the_service", service_monitor_fits),
        ("readme_shows_the_picture", picture_is_shown),
    ];
    let by_promtool: [Named; 2] =
        [("promtool_accepts_the_rules", promtool_check), ("promtool_cases_hold", promtool_test)];
    let mut trials: Vec<Trial> =
        plain.into_iter().map(|(name, run)| Trial::test(name, run)).collect();
    // Without promtool these are reported as ignored, by name; where CI runs, they fail.
    let skipped = promtool().is_none() && std::env::var("CI").as_deref() != Ok("true");
    if skipped && !args.list {
        println!("not run without PROMTOOL (source target/cluster/env): the promtool_ tests");
    }
    trials.extend(
        by_promtool
            .into_iter()
            .map(|(name, run)| Trial::test(name, run).with_ignored_flag(skipped)),
    );
    libtest_mimic::run(&args, trials).exit_code()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn none(faults: Vec<String>) -> Outcome {
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

fn case_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/monitoring")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn alerts() -> Vec<rules::Rule> {
    rules::rules().into_iter().filter(|r| r.alert).collect()
}

fn both_cases() -> Outcome {
    let mut fires = BTreeSet::new();
    let mut rests = BTreeSet::new();
    for file in case_files() {
        let cases: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for case in cases["tests"].as_array().unwrap() {
            let mut firing = BTreeSet::new();
            let mut rested = BTreeSet::new();
            for expected in case["alert_rule_test"].as_array().unwrap() {
                let name = expected["alertname"].as_str().unwrap().to_owned();
                let alerts = expected["exp_alerts"].as_array().unwrap();
                if alerts.is_empty() {
                    rested.insert(name)
                } else {
                    firing.insert(name)
                };
            }
            // "Not yet" in a case in which it fires later is not a case against it.
            rests.extend(rested.difference(&firing).cloned());
            fires.extend(firing);
        }
    }
    let known: BTreeSet<String> = alerts().into_iter().map(|a| a.name).collect();
    let mut faults = Vec::new();
    for (what, cases) in [("fires", &fires), ("does not fire", &rests)] {
        faults.extend(known.difference(cases).map(|a| format!("{a}: no case in which it {what}")));
        faults.extend(cases.difference(&known).map(|a| format!("{a}: a case, but no such alert")));
    }
    none(faults)
}

/// Without a given order promtool evaluates groups in any order, so that an alert could read a recorded
/// series of this minute or of the last one.
fn order_is_given() -> Outcome {
    let groups = Value::from(rules::groups());
    let wrong = case_files().into_iter().filter(|file| {
        let cases: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        cases["group_eval_order"] != groups
    });
    none(wrong.map(|f| format!("{}: group_eval_order is not {groups}", f.display())).collect())
}

/// The anchors of a document's headings, as the usual Markdown renderers make them.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|l| l.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn alerts_are_complete() -> Outcome {
    let sections = anchors(&read("docs/troubleshooting.md"));
    let mut faults = Vec::new();
    for alert in alerts() {
        let name = &alert.name;
        let severity = &alert.document["labels"]["severity"];
        if !["critical", "warning"].iter().any(|s| severity == s) {
            faults.push(format!("{name}: severity {severity}"));
        }
        let said = |key: &str| alert.document["annotations"][key].as_str().unwrap_or_default();
        if said("summary").is_empty() || said("description").len() < 60 {
            faults.push(format!("{name}: summary or description is missing or empty talk"));
        }
        let wanted = format!("docs/troubleshooting.md#{}", name.to_lowercase());
        if said("runbook") != wanted {
            faults.push(format!("{name}: runbook is {:?}, not {wanted}", said("runbook")));
        }
        if !sections.contains(&name.to_lowercase()) {
            faults.push(format!("{name}: no section of that name in docs/troubleshooting.md"));
        }
    }
    none(faults)
}

/// The documented metrics with their type and labels.
fn documented_metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let table = read("docs/metrics.md");
    let rows = table.lines().filter(|l| l.starts_with("| `zen_lead_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(str::trim).filter(|l| !l.is_empty());
        let labels = labels.map(ToOwned::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

/// Words of an expression outside its strings.
fn words(expr: &str) -> Vec<&str> {
    let code = expr.split('"').step_by(2);
    code.flat_map(|part| part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')))
        .filter(|w| !w.is_empty())
        .collect()
}

/// The labels an expression groups by or matches on.
fn labels_of(expr: &str) -> BTreeSet<&str> {
    let grouped = expr.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap());
    let mut found: BTreeSet<&str> =
        grouped.flat_map(|list| list.split(',')).map(str::trim).collect();
    for rest in expr.split('{').skip(1) {
        let inside = rest.split('}').next().unwrap();
        for pair in inside.split(',').filter(|p| p.contains('=')) {
            found.insert(pair.split(['=', '!']).next().unwrap().trim());
        }
    }
    found
}

fn documented() -> Outcome {
    let metrics = documented_metrics();
    assert!(metrics.len() > 40, "the tables of docs/metrics.md are read: {}", metrics.len());
    let all = rules::rules();
    let recorded: BTreeSet<String> =
        all.iter().filter(|r| !r.alert).map(|r| r.name.clone()).collect();
    let mut expressions: Vec<(String, String)> =
        all.into_iter().map(|r| (r.name, r.expr)).collect();
    expressions
        .extend(dashboard::queries().into_iter().map(|q| (format!("panel {:?}", q.title), q.expr)));
    let mut faults = Vec::new();
    for (place, expr) in expressions {
        let mut known: BTreeSet<&str> = BTreeSet::from(["le"]);
        for word in words(&expr) {
            if word.contains(':') {
                if !recorded.contains(word) {
                    faults.push(format!("{place}: no rule records {word}"));
                }
                // Its labels are in its name, by the convention level:metric:operations.
                known.extend(["namespace", "service", "reason", "path", "verdict", "operation"]);
            } else if word.starts_with("zen_lead_") {
                let suffix = ["_bucket", "_count", "_sum"].into_iter().find_map(|s| {
                    word.strip_suffix(s).filter(|base| {
                        metrics.get(*base).is_some_and(|(kind, _)| kind == "histogram")
                    })
                });
                let name = suffix.unwrap_or(word);
                match metrics.get(name) {
                    None => faults.push(format!("{place}: {word} is not in docs/metrics.md")),
                    Some((kind, labels)) => {
                        if (kind == "histogram") != suffix.is_some() {
                            faults.push(format!("{place}: {word} is a {kind}"));
                        }
                        known.extend(labels.iter().map(String::as_str));
                    }
                }
            }
        }
        let unknown: Vec<&str> = labels_of(&expr).difference(&known).copied().collect();
        if !unknown.is_empty() {
            faults.push(format!("{place}: its metrics do not have the labels {unknown:?}"));
        }
    }
    none(faults)
}

fn recorded() -> Outcome {
    let all = rules::rules();
    let readme = read("deploy/monitoring/README.md");
    let alerts: Vec<&str> = all.iter().filter(|r| r.alert).map(|r| r.expr.as_str()).collect();
    let alerts = alerts.join(" ");
    let unused = all.iter().filter(|r| {
        !r.alert && !words(&alerts).contains(&r.name.as_str()) && !readme.contains(&r.name)
    });
    none(unused.map(|r| format!("{}: no alert uses it, no document names it", r.name)).collect())
}

fn dashboard_is_sound() -> Outcome {
    let document = dashboard::document();
    let mut faults = Vec::new();
    if document["schemaVersion"].as_u64() < Some(39) || document["uid"] != "zen-lead" {
        faults.push("schemaVersion below 39, or another uid than zen-lead".to_owned());
    }
    let mut ids = BTreeSet::new();
    let mut taken: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for panel in document["panels"].as_array().unwrap() {
        let id = panel["id"].as_u64().unwrap();
        if !ids.insert(id) {
            faults.push(format!("two panels have the number {id}"));
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap());
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, id) {
                faults.push(format!("panels {other} and {id} overlap"));
                break;
            }
        }
        if x + w > 24 {
            faults.push(format!("panel {id} is wider than the 24 columns"));
        }
    }
    for panel in dashboard::panels(&document) {
        let title = panel["title"].as_str().unwrap_or_default();
        if title.is_empty() || panel["description"].as_str().unwrap_or_default().is_empty() {
            faults.push(format!("panel {}: title or description is missing", panel["id"]));
        }
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<_> = targets.iter().map(|t| t["refId"].to_string()).collect();
        if targets.is_empty() || letters.len() != targets.len() {
            faults.push(format!("{title}: no query, or two of one letter"));
        }
        let sources = targets.iter().map(|t| &t["datasource"]).chain([&panel["datasource"]]);
        if sources.into_iter().any(|s| s["uid"] != "${datasource}") {
            faults.push(format!("{title}: another data source than the chosen one"));
        }
    }
    for query in dashboard::queries() {
        // Panics on a variable that the dashboard does not have.
        dashboard::filled_in(&query.expr, "1m", "1h");
    }
    none(faults)
}

fn service_monitor_fits() -> Outcome {
    let monitor: Value =
        serde_saphyr::from_str(&read("deploy/monitoring/servicemonitor.yaml")).unwrap();
    let services = read("deploy/manifests/30-services.yaml");
    let services: Vec<Value> = serde_saphyr::from_multiple(&services).unwrap();
    let asked = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let found: Vec<&Value> = services
        .iter()
        .filter(|s| asked.iter().all(|(k, v)| s["metadata"]["labels"].get(k) == Some(v)))
        .collect();
    assert_eq!(found.len(), 1, "the selector matches one Service");
    assert_eq!(found[0]["metadata"]["name"], "zen-lead-metrics");
    assert_eq!(found[0]["metadata"]["namespace"], monitor["metadata"]["namespace"]);
    let endpoints = monitor["spec"]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0]["port"], found[0]["spec"]["ports"][0]["name"]);
    assert_eq!(endpoints[0]["path"], "/metrics");
    Ok(())
}

fn picture_is_shown() -> Outcome {
    let picture = "docs/images/dashboard.svg";
    assert!(read("README.md").contains(picture), "README.md does not show {picture}");
    let text = read(picture);
    assert!(text.len() < 200_000, "{} bytes are too many for a picture in a README", text.len());
    // Every panel in the picture is in the dashboard, so it was made from this dashboard.
    let titles: BTreeSet<String> =
        dashboard::queries().into_iter().map(|q| q.title.replace('&', "&amp;")).collect();
    let shown: Vec<&str> = text
        .split("class=\"title\">")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap())
        .collect();
    assert!(shown.len() >= 8, "only {} panels", shown.len());
    let strangers = shown.iter().filter(|t| !titles.contains(**t));
    none(strangers.map(|t| format!("the picture shows {t:?}, the dashboard does not")).collect())
}

fn promtool() -> Option<PathBuf> {
    std::env::var_os("PROMTOOL").map(PathBuf::from).filter(|p| Path::exists(p))
}

fn by_promtool(args: &[&str], files: &[PathBuf]) -> Outcome {
    let promtool = promtool().ok_or("PROMTOOL names no program: run e2e/cluster.sh up")?;
    let result = Command::new(promtool).args(args).args(files).output().unwrap();
    let output = String::from_utf8_lossy(&result.stdout).into_owned()
        + &String::from_utf8_lossy(&result.stderr);
    if result.status.success() { Ok(()) } else { Err(output.into()) }
}

fn promtool_check() -> Outcome {
    by_promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &[rules::file()])
}

fn promtool_test() -> Outcome {
    let files = case_files();
    assert_eq!(files.len(), 3);
    by_promtool(&["test", "rules"], &files)
}
