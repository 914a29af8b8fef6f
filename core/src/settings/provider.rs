//! Annotations that steer a load balancer: which they are, and the list of those to be copied.
//!
//! A mirrored leader Service is a second load balancer. Made without the annotation that keeps the
//! first one internal, it would be public; so every annotation that may steer a provider has to be
//! named in `zen-lead.io/copy-annotations`, with a leading `-` where it is not to be copied. Until
//! then the leader Service is not published; which pod leads is never a question of annotations.
//! The reasons are in docs/decisions/provider-annotations.md.

use std::collections::{BTreeMap, BTreeSet};

use super::values::qualified_name_fault;
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

/// Written by controllers on a Service whose load balancer they have made: they describe it, and on
/// another Service they would be wrong. Never copied unless named, and never asked for: most of them
/// appear after admission. Some can also be set by a user who hands in an address or a load balancer
/// that exists; a second Service must not have that either.
const REPORTS: &[&str] = &[
    // kubernetes/ingress-gce, pkg/annotations/service.go: "used by l4 controller to record ...".
    "cloud.google.com/neg-status",
    "service.kubernetes.io/backend-service",
    "service.kubernetes.io/firewall-rule",
    "service.kubernetes.io/firewall-rule-for-hc",
    "service.kubernetes.io/firewall-rule-for-hc-ipv6",
    "service.kubernetes.io/firewall-rule-ipv6",
    "service.kubernetes.io/healthcheck",
    "service.kubernetes.io/l3-forwarding-rule",
    "service.kubernetes.io/l3-forwarding-rule-ipv6",
    "service.kubernetes.io/tcp-forwarding-rule",
    "service.kubernetes.io/tcp-forwarding-rule-ipv6",
    "service.kubernetes.io/udp-forwarding-rule",
    "service.kubernetes.io/udp-forwarding-rule-ipv6",
    // digitalocean/digitalocean-cloud-controller-manager.
    "kubernetes.digitalocean.com/load-balancer-id",
    // kubernetes/cloud-provider-openstack (and OVHcloud), expose-applications-using-loadbalancer-type-service.md:
    // "automatically added".
    "loadbalancer.openstack.org/load-balancer-address",
    "loadbalancer.openstack.org/load-balancer-id",
    // scaleway/scaleway-cloud-controller-manager, docs/loadbalancer-annotations.md: "populated by the CCM".
    "service.beta.kubernetes.io/scw-loadbalancer-id",
    // exoscale/exoscale-cloud-controller-manager, docs/service-loadbalancer.md: "set automatically".
    "service.beta.kubernetes.io/exoscale-loadbalancer-id",
    // UpCloudLtd/cloud-controller-manager, README: "created during load-balancer provision".
    "service.beta.kubernetes.io/upcloud-load-balancer-id",
    "service.beta.kubernetes.io/upcloud-load-balancer-name",
    // vultr/vultr-cloud-controller-manager, vultr/loadbalancers.go: "managed by the CCM".
    "service.beta.kubernetes.io/vultr-loadbalancer-id",
    // cloudscale-ch/cloudscale-cloud-controller-manager, pkg/cloudscale_ccm/loadbalancer.go: EnsureLoadBalancer.
    "k8s.cloudscale.ch/loadbalancer-config-version",
    "k8s.cloudscale.ch/loadbalancer-uuid",
    "k8s.cloudscale.ch/loadbalancer-zone",
    // civo/civo-cloud-controller-manager, README: "Load Balancer Status Annotations".
    "kubernetes.civo.com/cluster-id",
    "kubernetes.civo.com/loadbalancer-id",
    "kubernetes.civo.com/loadbalancer-name",
    // hetznercloud/hcloud-cloud-controller-manager, internal/annotation/load_balancer.go: "Read-only".
    "load-balancer.hetzner.cloud/id",
    "load-balancer.hetzner.cloud/ipv4",
    "load-balancer.hetzner.cloud/ipv6",
    // Tencent Kubernetes Engine, Service annotations: "a read-only annotation".
    "service.kubernetes.io/loadbalance-id",
    // VMware NCP: the address that its network policies use.
    "ncp/internal_ip_for_policy",
    // kube-vip/kube-vip, pkg/manager (vipHost, and hwaddr and requestedIP with DHCP) and
    // kube-vip/kube-vip-cloud-provider (loadbalancerIPs).
    "kube-vip.io/active-endpoint",
    "kube-vip.io/active-endpoint-ipv6",
    "kube-vip.io/hwaddr",
    "kube-vip.io/loadbalancerIPs",
    "kube-vip.io/requestedIP",
    "kube-vip.io/vipHost",
    // metallb/metallb, controller/service.go.
    "metallb.io/ip-allocated-from-pool",
    "metallb.universe.tf/ip-allocated-from-pool",
    // purelb/purelb, "PureLB-Set Annotations".
    "purelb.io/allocated-by",
    "purelb.io/allocated-from",
    "purelb.io/announcing-IPv4",
    "purelb.io/announcing-IPv6",
    "purelb.io/announcing-interface",
    "purelb.io/announcing-node",
    "purelb.io/pool-type",
    "purelb.io/skip-ipv6-dad",
    // rancher/rancher.
    "field.cattle.io/publicEndpoints",
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
/// The key says so, never the value: a word such as `internal` in a value of another tool means
/// anything. Not so those of ExternalDNS (`external-dns.*`): they name a record, and not copying them
/// makes nothing public.
pub fn is_provider(key: &str) -> bool {
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
        let invalid =
            |detail: String| Err(values::invalid(key, Rule::CopyAnnotations, value, &detail));
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
            if let Some(fault) = qualified_name_fault(name) {
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

    /// The provider annotations of a Service that the list does not name, in order.
    pub(super) fn unnamed(&self, annotations: &BTreeMap<String, String>) -> Vec<String> {
        let keys = annotations.keys();
        keys.filter(|key| !self.copied.contains(*key) && !self.left_out.contains(*key))
            .filter(|key| is_provider(key))
            .cloned()
            .collect()
    }
}

/// Why a mirrored leader Service is not published, and what to write.
pub fn unnamed_reason(unnamed: &[String]) -> String {
    let shown: Vec<_> = unnamed.iter().take(5).map(|key| quoted(key)).collect();
    let more = match unnamed.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "leader-type \"{}\" makes a second load balancer, and these annotations of the Service may \
         say who can reach it: {}{more}; name each of them, or with a leading \"-\" where it must \
         not be copied",
        LeaderType::Mirror.as_str(),
        shown.join(", ")
    )
}

/// The refusal of a change that brings provider annotations which `copy-annotations` does not name.
pub fn unnamed_violation(unnamed: &[String]) -> Option<Violation> {
    (!unnamed.is_empty()).then(|| {
        Violation::plain(
            annotation_field(keys::setting::COPY_ANNOTATIONS),
            Rule::ProviderAnnotation,
            Cause::Required,
            unnamed_reason(unnamed),
        )
    })
}

/// The key of `zen-lead.io/` that was probably meant.
pub(super) fn nearest_setting(key: &str) -> Option<&'static str> {
    let plain = if key.len() > 64 { String::new() } else { key.to_ascii_lowercase() };
    values::nearest(&plain, keys::setting::ALL)
}
