//! What stands in deploy/ and what stands in the code have to agree: names and lists that are written
//! down twice. No cluster: how the manifests behave is e2e/test_manifests.sh.

use std::collections::BTreeSet;

use zen_lead::keys::{self, setting, status};

const WEBHOOKS: &str = include_str!("../deploy/manifests/60-webhooks.yaml");
const PROTECTION: &str = include_str!("../deploy/manifests/70-protection.yaml");
const USER: &str = "system:serviceaccount:zen-lead-system:zen-lead";

/// The keys in the list variable of each policy, in the order of the file.
fn lists_of_keys() -> Vec<BTreeSet<&'static str>> {
    PROTECTION
        .split("- name: keys\n")
        .skip(1)
        .map(|rest| {
            let (list, _) = rest.split_once(']').expect("a list ends");
            list.split('"').filter(|word| word.starts_with(keys::PREFIX)).collect()
        })
        .collect()
}

#[test]
fn the_policies_protect_every_key_there_is() {
    let truth: BTreeSet<_> = status::ALL.into_iter().collect();
    let all: BTreeSet<_> = truth.iter().copied().chain(setting::ALL).collect();
    assert_eq!(lists_of_keys(), [all, truth], "Services first, slices second");
}

#[test]
fn both_webhooks_are_asked_about_the_same_writes() {
    let conditions: Vec<_> = WEBHOOKS
        .split("    matchConditions:\n")
        .skip(1)
        .map(|rest| rest.split("---").next().unwrap_or_default().trim_end())
        .collect();
    assert_eq!(conditions.len(), 2);
    assert_eq!(conditions[0], conditions[1]);
    assert!(conditions[0].contains(USER), "{}", conditions[0]);
}

#[test]
fn zen_lead_is_exempt_by_the_name_it_has() {
    let exemption = format!("request.userInfo.username != \"{USER}\"");
    assert_eq!(WEBHOOKS.matches(&exemption).count(), 2);
    assert_eq!(PROTECTION.matches(&exemption).count(), 2);
}

#[test]
fn the_policies_look_for_the_labels_that_are_written() {
    assert!(PROTECTION.contains(&format!("- key: {}\n", status::SOURCE_SERVICE)));
    let slices = format!(
        "matchLabels:\n        {}: {}\n",
        keys::kubernetes::SLICE_MANAGED_BY,
        keys::MANAGER
    );
    assert!(PROTECTION.contains(&slices));
}
