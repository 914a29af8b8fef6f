//! Reads the rules file of the chart, which Prometheus reads too. Shared with tests/cluster. No checks here.

#![allow(dead_code, reason = "each of the two suites that share this file uses a part of it")]

use std::path::{Path, PathBuf};

use serde_json::Value;

const RULES: &str = include_str!("../../deploy/chart/files/zen-lead.rules.yaml");

/// A recording or an alert rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of the recorded series, or of the alert.
    pub name: String,
    pub expr: String,
    pub alert: bool,
    /// The whole rule.
    pub document: Value,
}

fn documents() -> Vec<Value> {
    let document: Value = serde_saphyr::from_str(RULES).unwrap();
    document["groups"].as_array().unwrap().clone()
}

/// The names of all groups, in the order of the file.
pub fn groups() -> Vec<String> {
    documents().iter().map(|g| g["name"].as_str().unwrap().to_owned()).collect()
}

/// All rules, in the order of the file.
pub fn rules() -> Vec<Rule> {
    let groups = documents();
    let rules = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
    rules
        .map(|rule| {
            let alert = rule.get("alert").is_some();
            let name = if alert { &rule["alert"] } else { &rule["record"] };
            Rule {
                name: name.as_str().unwrap().to_owned(),
                expr: rule["expr"].as_str().unwrap().to_owned(),
                alert,
                document: rule.clone(),
            }
        })
        .collect()
}

/// The path of the rules file.
pub fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/chart/files/zen-lead.rules.yaml")
}
