//! docs/metrics.md as a contract: its tables, and the differences between them and a scrape. Used by the
//! tests of src/platform/metrics and of tests/cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::Exposition;

/// Labels whose values are not a closed set.
const OPEN: [&str; 4] = ["namespace", "service", "version", "le"];

/// A row of a table of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: String,
    pub labels: BTreeSet<String>,
    pub meaning: String,
}

/// The document.
#[derive(Clone, Debug)]
pub struct Contract {
    pub metrics: BTreeMap<String, Row>,
    /// Values by metric and label.
    pub values: BTreeMap<(String, String), BTreeSet<String>>,
}

/// The words between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

impl Contract {
    /// Reads docs/metrics.md.
    pub fn read() -> Self {
        Self::of(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")))
    }

    /// Rows of four cells that begin with a metric are metrics; of three that begin with a label
    /// are its values.
    pub fn of(text: &str) -> Self {
        let mut found = Self { metrics: BTreeMap::new(), values: BTreeMap::new() };
        for line in text.lines().filter(|l| l.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let first = quoted(cells[0]).next().unwrap_or_default();
            match cells[..] {
                [_, kind, labels, meaning] if first.starts_with("zen_lead_") => {
                    let labels = labels.split(',').map(|l| l.trim().to_owned());
                    let row = Row {
                        kind: kind.to_owned(),
                        labels: labels.filter(|l| !l.is_empty()).collect(),
                        meaning: meaning.to_owned(),
                    };
                    assert_eq!(found.metrics.insert(first, row), None, "twice: {line}");
                }
                [_, metrics, values] => {
                    for metric in quoted(metrics) {
                        let key = (metric, first.clone());
                        let before = found.values.insert(key, quoted(values).collect());
                        assert_eq!(before, None, "twice: {line}");
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The contradictions in the document.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, row) in &self.metrics {
            for label in row.labels.iter().filter(|l| !OPEN.contains(&l.as_str())) {
                if !self.values.contains_key(&(name.clone(), label.clone())) {
                    faults.push(format!("{name}: the values of {label} are not listed"));
                }
            }
        }
        for (name, label) in self.values.keys() {
            if !self.metrics.get(name).is_some_and(|row| row.labels.contains(label)) {
                faults.push(format!("values of {label} are listed for {name}, which has none"));
            }
        }
        faults
    }

    /// The differences between the scrapes of one or more replicas and the document. A metric is missing
    /// if no scrape has it. `absent` are metrics that the scrapes cannot have: one of them in a scrape
    /// is a fault too.
    pub fn differences(&self, scrapes: &[Exposition], absent: &[&str]) -> Vec<String> {
        let mut faults = self.faults();
        for (name, family) in scrapes.iter().flat_map(|s| &s.families) {
            let Some(row) = self.metrics.get(name) else {
                faults.push(format!("{name} is not in docs/metrics.md"));
                continue;
            };
            if absent.contains(&name.as_str()) {
                faults.push(format!("{name} is exported, although it is listed as absent"));
            }
            if row.kind != family.kind {
                faults.push(format!("{name} is a {}, documented as a {}", family.kind, row.kind));
            }
            if !row.meaning.starts_with(&family.help) {
                let (meaning, help) = (&row.meaning, &family.help);
                faults
                    .push(format!("{name}: the meaning {meaning:?} does not begin with {help:?}"));
            }
            let documented = BTreeSet::from([row.labels.clone()]);
            if family.label_sets() != documented {
                let found = family.label_sets();
                faults.push(format!("{name} has the labels {found:?}, documented {documented:?}"));
            }
            for (label, value) in family.samples.iter().flat_map(|s| &s.labels) {
                let known = self.values.get(&(name.clone(), label.clone()));
                if known.is_some_and(|values| !values.contains(value)) {
                    faults.push(format!("{name}: {label}={value:?} is not documented"));
                }
            }
        }
        for name in self.metrics.keys() {
            let missing = !scrapes.iter().any(|s| s.families.contains_key(name));
            if missing && !absent.contains(&name.as_str()) {
                faults.push(format!(
                    "{name} is documented and was not exported: record it in record_everything \
                     (src/platform/metrics/tests.rs); in tests/cluster/metrics.rs make it happen, or list \
                     it in ABSENT with the reason"
                ));
            }
        }
        faults
    }
}
