//! A pod as the index keeps it: what choosing, routing and explaining need, nothing else.
//!
//! Trimmed at the door, because 100,000 pods have to fit. No choosing here (`decide::elect`).

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use strum::{EnumString, IntoStaticStr};

use super::LabelPairs;
use crate::decode::{Decoded, Unreadable};
use crate::keys;
use crate::version::Rv;

/// IP family of an EndpointSlice and of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumString, IntoStaticStr)]
pub enum Family {
    /// IPv4.
    #[strum(serialize = "IPv4")]
    V4,
    /// IPv6.
    #[strum(serialize = "IPv6")]
    V6,
}

crate::texts!(Family);

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A named container port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// Name of the port.
    pub name: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// Port number.
    pub number: u16,
}

/// The Ready condition of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Status is `True`.
    pub ready: bool,
    /// When the status last changed, where the pod says so.
    pub since: Option<Timestamp>,
}

/// Which revision of which workload a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision {
    /// Kind and name of the workload (the Deployment behind a ReplicaSet).
    pub workload: Box<str>,
    /// pod-template-hash or controller-revision-hash.
    pub hash: Box<str>,
}

/// How much of a pod is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was read.
    Now,
    /// It cannot be read any longer: this is its last known state.
    Before,
    /// It was never read: only its metadata are known.
    Nothing,
    /// Not even its metadata can be read: its labels may have changed.
    Name,
}

/// What the pods of one template have in common. The index keeps it once for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    /// All labels, sorted by key: selectors change.
    pub labels: Box<LabelPairs>,
    /// The pod shares its node's addresses.
    pub host_network: bool,
    /// Named ports of containers, then of restartable init containers.
    pub ports: Box<[NamedPort]>,
    /// Workload and revision, for pods that have one.
    pub revision: Option<Revision>,
}

/// A trimmed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name of the pod.
    pub name: Arc<str>,
    /// Uid: a pod of the same name with another uid is another pod.
    pub uid: Arc<str>,
    /// Version of the object this was trimmed from.
    pub version: Rv,
    /// What it has in common with others.
    pub template: Arc<Template>,
    /// creationTimestamp.
    pub created: Timestamp,
    /// When its deletion was asked for; `None` for a pod that is not terminating.
    pub deletion_asked: Option<Timestamp>,
    /// Phase is Succeeded or Failed: it keeps its address, which is given to others.
    pub finished: bool,
    /// The Ready condition (it includes readiness gates and the node controller's word).
    pub readiness: Readiness,
    /// podIPs, parsed: one per family at most.
    pub addresses: Box<[IpAddr]>,
    /// Node the pod runs on.
    pub node: Option<Arc<str>>,
    /// How much of this is known.
    pub known: Known,
}

/// A trimmed pod and its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedPod {
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// The pod.
    pub pod: Pod,
}

impl NamespacedPod {
    /// Trims a pod; `None` when it has no namespace, name or uid, which no API server sends.
    pub fn trim(pod: &core::Pod) -> Option<Self> {
        Some(Self { namespace: pod.metadata.namespace.as_deref()?.into(), pod: Pod::trim(pod)? })
    }

    /// Trims a pod that may be one that cannot be read.
    pub fn trim_decoded(pod: Decoded<core::Pod>) -> Option<Decoded<Self>> {
        pod.try_map(|pod| Self::trim(&pod))
    }
}

impl Pod {
    /// Trims a pod; `None` when it has no name or uid, which no API server sends.
    pub fn trim(pod: &core::Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let labels = meta.labels.iter().flatten();
        let template = Template {
            labels: labels.map(|(k, v)| (Arc::from(&**k), Arc::from(&**v))).collect(),
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            ports: spec.map(named_ports).unwrap_or_default(),
            revision: revision(meta),
        };
        Some(Self {
            name: meta.name.as_deref()?.into(),
            uid: meta.uid.as_deref()?.into(),
            version: Rv::of(meta),
            template: Arc::new(template),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            deletion_asked: deletion_asked(meta),
            finished: matches!(
                status.and_then(|s| s.phase.as_deref()),
                Some("Succeeded" | "Failed")
            ),
            readiness: readiness(status),
            addresses: addresses(status),
            node: spec.and_then(|s| s.node_name.as_deref()).map(Arc::from),
            known: Known::Now,
        })
    }

    /// What is known of a pod that cannot be read: what was known before, where it is the same pod;
    /// else what its metadata say. `None` for one without a name.
    pub fn unreadable(known: Option<&Self>, found: &Unreadable) -> Option<Self> {
        let meta = &found.metadata;
        let same = known.filter(|k| meta.uid.as_deref().is_none_or(|uid| *k.uid == *uid));
        let now = Self::trim(&core::Pod { metadata: meta.clone(), ..core::Pod::default() });
        let labelled = found.knows_metadata();
        let Some(before) = same else {
            let known = if labelled { Known::Nothing } else { Known::Name };
            return Some(Self { known, ..now? });
        };
        // Which Services select it, its metadata say, so that all replicas find the same.
        let now = now.filter(|_| labelled);
        let mut template = before.template.clone();
        if let Some(now) = now {
            Arc::make_mut(&mut template).labels.clone_from(&now.template.labels);
        }
        let known = match before.known {
            _ if !labelled => Known::Name,
            Known::Now | Known::Before => Known::Before,
            Known::Nothing | Known::Name => Known::Nothing,
        };
        let deletion_asked = deletion_asked(meta).or(before.deletion_asked);
        // A replica that never read it knows no address at which it could still be served.
        let addresses = deletion_asked.map_or_else(|| before.addresses.clone(), |_| Box::default());
        Some(Self {
            version: Rv::of(meta),
            // That is known, whatever else is not.
            deletion_asked,
            addresses,
            known,
            template,
            ..before.clone()
        })
    }

    /// Nothing says whether this pod takes traffic now: what routes to it must stay as it is, also where a
    /// replica knew it before. One that has just started does not, and the two must not disagree.
    pub fn unjudged(&self) -> bool {
        self.known != Known::Now && !self.terminating()
    }

    /// It may take traffic, as far as is known.
    pub fn may_be_eligible(&self) -> bool {
        self.eligible() || self.unjudged()
    }

    /// The pod's address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| Family::of(*a) == family)
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&Arc<str>> {
        let labels = &self.template.labels;
        let found = labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&labels[found].1)
    }

    /// The pod's own topology zone label.
    pub fn zone(&self) -> Option<&str> {
        self.label(keys::kubernetes::ZONE).map(|zone| &**zone)
    }

    /// Whether it can take traffic.
    pub(super) fn serves(&self) -> bool {
        self.readiness.ready && self.deletion_asked.is_none() && !self.finished
    }

    /// Whether only its version and labels differ from those of another one, and none that is read for itself.
    pub(super) fn differs_in_labels_only(&self, other: &Self) -> bool {
        let labels = other.template.labels.clone();
        let template = Arc::new(Template { labels, ..(*self.template).clone() });
        let same = Self { version: other.version, template, ..self.clone() };
        same == *other && self.zone() == other.zone()
    }

    /// Whether the pod has all these labels.
    pub fn has_labels(&self, wanted: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(key, value)| self.label(key).is_some_and(|v| **v == **value))
    }

    /// Terminating pods take no new traffic.
    pub fn terminating(&self) -> bool {
        self.deletion_asked.is_some()
    }

    /// May take traffic: Ready, not terminating, not finished.
    pub fn eligible(&self) -> bool {
        self.readiness.ready && !self.terminating() && !self.finished
    }
}

/// The API server sets deletionTimestamp to the time of the request plus the grace period.
fn deletion_asked(meta: &ObjectMeta) -> Option<Timestamp> {
    let at = meta.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0));
    Some(at.checked_sub(grace).unwrap_or(at))
}

fn readiness(status: Option<&core::PodStatus>) -> Readiness {
    let condition = status
        .and_then(|s| s.conditions.as_ref())
        .and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    Readiness {
        ready: condition.is_some_and(|c| c.status == "True"),
        since: condition.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0),
    }
}

/// Loopback, link-local and multicast addresses are left out: EndpointSlice validation refuses them.
fn addresses(status: Option<&core::PodStatus>) -> Box<[IpAddr]> {
    let Some(status) = status else { return Box::default() };
    let listed = status.pod_ips.iter().flatten().map(|p| p.ip.as_str());
    let mut found: Vec<IpAddr> = Vec::new();
    for address in listed.chain(status.pod_ip.as_deref()) {
        let Ok(address) = address.parse::<IpAddr>() else { continue };
        let link_local = match address {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        let refused = address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || link_local;
        if !refused && !found.iter().any(|f| Family::of(*f) == Family::of(address)) {
            found.push(address);
        }
    }
    found.into()
}

/// Containers first, then restartable init containers: the order of the built-in controller's
/// `FindPort` (k8s.io/endpointslice).
fn named_ports(spec: &core::PodSpec) -> Box<[NamedPort]> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(NamedPort {
                name: p.name.as_deref()?.into(),
                protocol: p.protocol.as_deref().unwrap_or("TCP").into(),
                number: u16::try_from(p.container_port).ok()?,
            })
        })
        .collect()
}

fn revision(meta: &ObjectMeta) -> Option<Revision> {
    let labels = meta.labels.as_ref()?;
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    if let Some(hash) = labels.get(keys::kubernetes::POD_TEMPLATE_HASH) {
        // A ReplicaSet is named after its Deployment and the hash.
        let name = owner.name.strip_suffix(hash.as_str()).unwrap_or(&owner.name);
        let workload = format!("{}/{}", owner.kind, name.trim_end_matches('-'));
        return Some(Revision { workload: workload.into(), hash: hash.as_str().into() });
    }
    let hash = labels.get(keys::kubernetes::CONTROLLER_REVISION_HASH)?;
    let workload = format!("{}/{}", owner.kind, owner.name);
    Some(Revision { workload: workload.into(), hash: hash.as_str().into() })
}
