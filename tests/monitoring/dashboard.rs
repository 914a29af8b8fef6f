//! Reads the dashboard of deploy/monitoring. Shared with tests/cluster, which runs its queries. No checks
//! here.

#![allow(dead_code, reason = "each of the two suites that share this file uses a part of it")]

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../deploy/chart/files/zen-lead-dashboard.json");

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// Number of the panel, unique in the dashboard.
    pub panel: u64,
    pub title: String,
    /// Letter of the query, unique in its panel.
    pub letter: String,
    /// As it stands in the file, with Grafana's variables.
    pub expr: String,
    /// True if the panel shows one moment instead of a period.
    pub instant: bool,
}

/// The whole document.
pub fn document() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// The panels, without the rows that only carry a heading.
pub fn panels(document: &Value) -> Vec<&Value> {
    document["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row").collect()
}

/// Every query of every panel, in the order of the file.
pub fn queries() -> Vec<Query> {
    let document = document();
    let mut found = Vec::new();
    for panel in panels(&document) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push(Query {
                panel: panel["id"].as_u64().unwrap(),
                title: text(&panel["title"]),
                letter: text(&target["refId"]),
                expr: text(&target["expr"]),
                instant: target["instant"] == true,
            });
        }
    }
    found
}

/// An expression as Grafana sends it: every namespace and Service chosen, the rate interval and the
/// time shown filled in (as `20s`).
pub fn filled_in(expr: &str, rate_interval: &str, range: &str) -> String {
    let filled = expr
        .replace("$namespace", ".*")
        .replace("$service", ".*")
        .replace("$__rate_interval", rate_interval)
        .replace("$__range", range);
    assert!(!filled.contains('$'), "a variable that this test does not know: {filled}");
    filled
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
