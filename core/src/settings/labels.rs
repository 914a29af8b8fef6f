//! The list of `zen-lead.io/copy-labels`: which labels of the source the leader Service gets too.
//!
//! Only reads the list. No label is copied that is not named: a copied one would have metrics scraped
//! twice, or make a tool take the leader Service for its own.

use std::collections::BTreeSet;

use super::provider::MAX_KEYS;
use super::values::{invalid, qualified_name_fault};
use super::violation::{Cause, Rule, Violation, annotation_field, quoted};
use crate::keys::{self, kubernetes};

/// Reads keys separated by commas or white space.
pub(super) fn read(key: &str, value: &str) -> Result<BTreeSet<String>, Violation> {
    let mut labels = BTreeSet::new();
    let entries = value.split(|c: char| c == ',' || c.is_whitespace());
    for label in entries.filter(|entry| !entry.is_empty()) {
        if let Some(fault) = fault(label) {
            let detail = format!("{} {fault}", quoted(label));
            return Err(invalid(key, Rule::CopyLabels, value, &detail));
        }
        labels.insert(label.to_owned());
        // Checked here, so that a megabyte of keys is not read to its end.
        if labels.len() > MAX_KEYS {
            let detail = format!("must name at most {MAX_KEYS} label keys");
            let field = annotation_field(key);
            return Err(Violation::plain(field, Rule::CopyLabels, Cause::TooMany, detail));
        }
    }
    Ok(labels)
}

/// Why a label cannot be copied, or `None`.
fn fault(label: &str) -> Option<String> {
    let own = label.starts_with(keys::PREFIX) || label == kubernetes::MANAGED_BY;
    let routing = label == kubernetes::SERVICE_NAME || label.starts_with("endpointslice.");
    // kube-proxy looks at no Service and no slice with this label (cmd/kube-proxy/app/server.go).
    let hides = label == kubernetes::HEADLESS;
    if own {
        return Some("is zen-lead's own on the leader Service; leave it out".into());
    }
    if label == kubernetes::SERVICE_PROXY_NAME {
        return Some("is always copied; leave it out".into());
    }
    if routing || hides {
        return Some(
            "says who routes the leader Service, which zen-lead does; leave it out".into(),
        );
    }
    if label.starts_with('-') {
        return Some(
            "begins with \"-\": labels that are not named are not copied; leave it out".into(),
        );
    }
    if let Some(fault) = qualified_name_fault(label) {
        return Some(format!("is no label key: {fault}"));
    }
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let upper = domain.bytes().any(|b| b.is_ascii_uppercase());
    upper.then(|| "is no label key: before the \"/\" there must be no capital letters".into())
}
