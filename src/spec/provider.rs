//! Annotations that steer a load balancer: which they are, and the list of those to be copied.
//!
//! A mirrored leader Service is a second load balancer. Made without the annotation that keeps the
//! first one internal, it would be public; so every annotation that may steer a provider has to be
//! named in `zen-lead.io/copy-annotations`, with a leading `-` where it is not to be copied.
//! The reasons are in docs/decisions/provider-annotations.md.

use std::collections::BTreeSet;

use super::violation::{Cause, Rule, Violation, annotation_field, quoted};
use super::{LeaderType, values};
use crate::keys;

/// Most keys in one list.
pub const MAX_KEYS: usize = 32;

/// Annotation that kubectl keeps for itself; copied, it would confuse the next `kubectl apply`.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Domains whose annotations on a Service steer a provider (each with its subdomains).
const DOMAINS: &[&str] = &[
    // The common ground: cloud-provider settings in Kubernetes' own name.
    "service.beta.kubernetes.io",
    "service.alpha.kubernetes.io",
    "service.kubernetes.io",
    // Clouds.
    "akamai.com",
    "amazonaws.com",
    "azure.com",
    "civo.com",
    "cloud.google.com",
    "cloud.tencent.com",
    "cloudscale.ch",
    "digitalocean.com",
    "exoscale.com",
    "gke.io",
    "hetzner.cloud",
    "ibm.com",
    "k8s.aws",
    "openstack.org",
    "oraclecloud.com",
    "ovhcloud.com",
    "scaleway.com",
    "stackit.cloud",
    "tencent.com",
    "upcloud.com",
    "yandex.cloud",
    // Load balancers that run in the cluster or in front of it.
    "avi.vmware.com",
    "cilium.io",
    "cis.f5.com",
    "citrix.com",
    "f5.com",
    "io.cilium",
    "k8s.ovn.org",
    "kube-vip.io",
    "kubesphere.io",
    "loxilb.io",
    "metallb.io",
    "metallb.universe.tf",
    "ncp",
    "ngrok.com",
    "openelb.io",
    "projectcalico.org",
    "purelb.io",
    "tailscale.com",
    "vmware.com",
];

/// Words in a key that speak of a load balancer or of who may reach it.
const WORDS: &[&str] = &[
    "alb",
    "clb",
    "eip",
    "elb",
    "elbv2",
    "external",
    "ilb",
    "inet",
    "internal",
    "internet",
    "intranet",
    "lb",
    "lbaas",
    "metallb",
    "nlb",
    "private",
    "public",
    "slb",
    "subnet",
    "subnets",
    "vip",
    "vpc",
    "whitelist",
];

/// Values that say who may reach a load balancer, whatever the key.
const REACH: &[&str] = &["internal", "intranet", "private", "internet-facing"];

/// Written by controllers about a load balancer that exists: they describe, they steer nothing, and
/// on another Service they would be wrong.
const REPORTS: &[&str] = &[
    "cloud.google.com/neg-status",
    "field.cattle.io/publicEndpoints",
    "kube-vip.io/vipHost",
    "metallb.io/ip-allocated-from-pool",
    "metallb.universe.tf/ip-allocated-from-pool",
    "service.kubernetes.io/backend-service",
    "service.kubernetes.io/firewall-rule",
    "service.kubernetes.io/firewall-rule-for-hc",
    "service.kubernetes.io/healthcheck",
    "service.kubernetes.io/tcp-forwarding-rule",
    "service.kubernetes.io/udp-forwarding-rule",
];

/// Kubernetes' own annotations under a provider's domain: about routing inside of the cluster.
const IN_CLUSTER: &[&str] = &[
    "service.alpha.kubernetes.io/tolerate-unready-endpoints",
    "service.kubernetes.io/headless",
    "service.kubernetes.io/topology-aware-hints",
    "service.kubernetes.io/topology-mode",
];

/// Whether an annotation may steer a load balancer. In doubt it does.
///
/// Not so those of ExternalDNS (`external-dns.*`): they name a record, and not copying them makes
/// nothing public.
pub fn is_provider(key: &str, value: &str) -> bool {
    if key.starts_with(keys::PREFIX)
        || key == LAST_APPLIED
        || REPORTS.contains(&key)
        || IN_CLUSTER.contains(&key)
    {
        return false;
    }
    let key = key.to_ascii_lowercase();
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if domain.starts_with("external-dns.") {
        return false;
    }
    DOMAINS.iter().any(|known| {
        domain.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }) || ["loadbalancer", "load-balancer", "load_balancer", "load.balancer"]
        .iter()
        .any(|word| key.contains(word))
        || key.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
        || REACH.iter().any(|reach| value.trim().eq_ignore_ascii_case(reach))
}

/// The list of `zen-lead.io/copy-annotations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CopyList {
    /// Keys that are copied.
    pub(super) copied: BTreeSet<String>,
    /// Keys written with a leading `-`: seen, and not copied.
    pub(super) left_out: BTreeSet<String>,
}

impl CopyList {
    /// Reads keys separated by commas or white space.
    pub(super) fn read(key: &str, value: &str) -> Result<Self, Violation> {
        let invalid = |detail: String| {
            let field = annotation_field(key);
            Err(Violation::of_value(field, Rule::CopyAnnotations, Cause::Invalid, value, detail))
        };
        let mut list = Self::default();
        let entries = value.split(|c: char| c == ',' || c.is_whitespace());
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let (name, keys) = match entry.strip_prefix('-') {
                Some(name) => (name, &mut list.left_out),
                None => (entry, &mut list.copied),
            };
            if name.starts_with(keys::PREFIX) {
                return invalid(format!("{} is zen-lead's own; leave it out", quoted(name)));
            }
            if name == LAST_APPLIED {
                return invalid(format!("{} is kubectl's own; leave it out", quoted(name)));
            }
            if let Some(fault) = key_fault(name) {
                return invalid(format!("{} is no annotation key: {fault}", quoted(name)));
            }
            keys.insert(name.to_owned());
            // Checked here, so that a megabyte of keys is not read to its end.
            if list.copied.len() + list.left_out.len() > MAX_KEYS {
                return Err(Violation::plain(
                    annotation_field(key),
                    Rule::CopyAnnotations,
                    Cause::TooMany,
                    format!("must name at most {MAX_KEYS} annotation keys"),
                ));
            }
        }
        if let Some(both) = list.copied.intersection(&list.left_out).next() {
            return invalid(format!(
                "{} is named twice, to be copied and (with \"-\") not to be; keep one",
                quoted(both)
            ));
        }
        Ok(list)
    }

    /// Refuses what a mirrored Service has of provider annotations that the list does not name.
    pub(super) fn check<'a>(
        &self,
        annotations: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Option<Violation> {
        let unnamed: Vec<&str> = annotations
            .filter(|(key, _)| !self.copied.contains(*key) && !self.left_out.contains(*key))
            .filter(|(key, value)| is_provider(key, value))
            .map(|(key, _)| key.as_str())
            .collect();
        let shown: Vec<_> = unnamed.iter().take(5).map(|key| quoted(key)).collect();
        let more = match unnamed.len() {
            0 => return None,
            n if n > shown.len() => format!(" and {} more", n - shown.len()),
            _ => String::new(),
        };
        let mirror = LeaderType::Mirror.as_str();
        Some(Violation::plain(
            annotation_field(keys::setting::COPY_ANNOTATIONS),
            Rule::ProviderAnnotation,
            Cause::Required,
            format!(
                "leader-type \"{mirror}\" makes a second load balancer, and these annotations of \
                 the Service may say who can reach it: {}{more}; name each of them, or with a \
                 leading \"-\" where it must not be copied",
                shown.join(", ")
            ),
        ))
    }
}

/// Says what keeps a text from being an annotation key, or `None`.
///
/// As the API server judges it: an optional DNS subdomain and `/`, then at most 63 letters, digits,
/// `-`, `_` or `.` that start and end with a letter or digit; annotations may be in upper case.
fn key_fault(key: &str) -> Option<&'static str> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    let edges = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if let Some(domain) = domain {
        let label = |label: &str| {
            edges(label) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if domain.len() > 253 || !domain.split('.').all(label) {
            return Some("before the \"/\" there must be a DNS name, such as \"example.com\"");
        }
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() > 63 {
        return Some("the name must be no more than 63 characters");
    }
    if !edges(name) || !name.bytes().all(allowed) {
        return Some(
            "the name must consist of letters, digits, \"-\", \"_\" or \".\", and start and end \
             with a letter or digit",
        );
    }
    None
}

/// The key of `zen-lead.io/` that was probably meant.
pub(super) fn nearest_setting(key: &str) -> Option<&'static str> {
    let plain = if key.len() > 64 { String::new() } else { key.to_ascii_lowercase() };
    values::nearest(&plain, keys::setting::ALL)
}
