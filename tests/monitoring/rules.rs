//! Reads the rules of deploy/monitoring, and prints them for Prometheus as its users do. Shared with
//! tests/cluster. No checks here.

#![allow(dead_code, reason = "each of the two suites that share this file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

const RULES: &str = include_str!("../../deploy/monitoring/prometheusrule.yaml");

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
    document["spec"]["groups"].as_array().unwrap().clone()
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

/// Writes the plain rules file with the script that the documentation names; returns its path.
pub fn plain_file() -> PathBuf {
    // Tests of one program share a process, and so the name of the draft below.
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(write_plain_file).clone()
}

fn write_plain_file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/prometheus_rules.sh")).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let dir = root.join("target/monitoring");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("zen-lead.rules.yaml");
    // Complete at any moment: two test programs may write it at the same time.
    let draft = dir.join(format!("zen-lead.rules.{}", std::process::id()));
    std::fs::write(&draft, &output.stdout).unwrap();
    std::fs::rename(&draft, &path).unwrap();
    path
}
