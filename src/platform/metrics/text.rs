//! The Prometheus text format (0.0.4) of the metrics about Services: heads and samples.
//!
//! Which samples there are is known to `record`. The other metrics are written by the prometheus crate.

use std::fmt::{Display, Write};

use super::PREFIX;
use super::series::Definition;
use zen_lead_core::names::ServiceKey;

/// The two lines above the samples of a family.
pub(super) fn head(definition: &Definition) -> String {
    let Definition { name, help, kind, .. } = definition;
    let kind = kind.as_str();
    format!("# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}\n")
}

/// A sample that is being written; [`Sample::value`] ends it.
pub(super) struct Sample<'a> {
    out: &'a mut String,
}

impl<'a> Sample<'a> {
    /// Begins a sample of a family about a Service. `suffix` is of a histogram; `more` are the values of the
    /// labels that do not name the Service.
    pub(super) fn of(
        out: &'a mut String,
        family: &Definition,
        suffix: &str,
        key: &ServiceKey,
        more: &[&str],
    ) -> Self {
        for part in [PREFIX, "_", family.name, suffix] {
            out.push_str(part);
        }
        let mut more = more.iter();
        for (n, label) in family.labels.iter().enumerate() {
            let value = match *label {
                "namespace" => &key.namespace,
                "service" => &key.name,
                _ => more.next().copied().unwrap_or_default(),
            };
            for part in [if n == 0 { "{" } else { "," }, label, "=\""] {
                out.push_str(part);
            }
            escaped(out, value);
            out.push('"');
        }
        Self { out }
    }

    /// Adds the upper bound of a bucket.
    pub(super) fn bound(self, bound: impl Display) -> Self {
        append(self.out, format_args!(",le=\"{bound}\""));
        self
    }

    pub(super) fn value(self, value: impl Display) {
        append(self.out, format_args!("}} {value}\n"));
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _never_fails = out.write_fmt(text);
}

/// Appends a label value. Names of Services need no escape, but nothing here relies on that.
fn escaped(out: &mut String, value: &str) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (before, special) = rest.split_at(at);
        out.push_str(before);
        out.push_str(match special.as_bytes()[0] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &special[1..];
    }
    out.push_str(rest);
}
