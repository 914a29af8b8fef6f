//! An EndpointSlice as the index keeps it, and the truth that zen-lead writes on its own.
//!
//! Reading only; what a slice should say is `decide::slices`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt;

use super::evidence;
use super::kept::Kept;
use super::pod::Family;
use super::service::Leader;
use crate::decode::Unreadable;
use crate::keys::{self, status};
use crate::version::{Marks, Rv};

type Annotations = BTreeMap<String, String>;

/// A slice with what identifies it and its writer.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "signs that do not depend on each other")]
pub struct Slice {
    /// Name of the slice.
    pub name: Arc<str>,
    /// Uid of the slice.
    pub uid: Arc<str>,
    /// Version, for compare-and-swap.
    pub version: Rv,
    /// Name of the Service it belongs to: the one its name is made of where zen-lead wrote it, else
    /// the one its label names.
    pub service: Arc<str>,
    /// Its label ties it to [`Slice::service`], so that it adds endpoints to that Service.
    pub tied: bool,
    /// Its managed-by label is ours.
    pub managed: bool,
    /// It carries an annotation that zen-lead writes on each slice.
    pub stamped: bool,
    /// Name of the source that its label names.
    pub source: Option<Arc<str>>,
    /// Uid of the controller owner.
    pub owner_uid: Option<Arc<str>>,
    /// Being deleted.
    pub deleting: bool,
    /// The object itself; kept for slices that zen-lead may have written (one endpoint each).
    pub object: Option<Kept<EndpointSlice>>,
    /// Names of the pods that the object names, so that its text need not be read for them.
    pub(super) pods: Box<[Arc<str>]>,
    /// Why a slice that may be ours cannot be read any longer, where that is so: the rest is what was
    /// known before.
    pub unreadable: Option<Arc<str>>,
}

/// What a slice of ours says: the truth about who leads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Uid of the last pod that became leader.
    pub pod_uid: Option<String>,
    /// Its name.
    pub pod_name: Option<String>,
    /// Number of the last switch.
    pub epoch: u64,
    /// Time of the last switch.
    pub switched_at: Option<Timestamp>,
    /// Reason of the last switch, as written.
    pub reason: Option<String>,
    /// How far the decision had seen.
    pub marks: Marks,
    /// Hash of what the source asked for.
    pub source_hash: Option<String>,
    /// When the incumbent was taken out for being NotReady.
    pub not_ready_since: Option<Timestamp>,
    /// Version of the decision rules of the writer.
    pub decision_version: u32,
    /// Replica that decided it.
    pub writer: Option<String>,
}

impl Truth {
    /// What annotations say of the last switch: those of a slice, or their copy on a leader Service.
    pub fn of_switch(annotations: &Annotations) -> Self {
        Self {
            pod_uid: said(annotations, status::LEADER_POD_UID).cloned(),
            pod_name: said(annotations, status::LEADER_POD_NAME).cloned(),
            epoch: parsed(annotations, status::LEADER_EPOCH).unwrap_or(0),
            switched_at: parsed(annotations, status::LAST_SWITCH_TIME),
            reason: said(annotations, status::SWITCH_REASON).cloned(),
            ..Self::default()
        }
    }
}

fn said<'a>(annotations: &'a Annotations, key: &str) -> Option<&'a String> {
    annotations.get(key).filter(|value| !value.is_empty())
}

/// The value of an annotation; `None` where it is missing or no such value.
pub(super) fn parsed<T: FromStr>(annotations: &Annotations, key: &str) -> Option<T> {
    annotations.get(key)?.parse().ok()
}

impl Slice {
    /// Trims a slice; `None` for one that belongs to no Service.
    pub fn trim(mut slice: EndpointSlice) -> Option<Self> {
        slice.metadata.managed_fields = None;
        slice.metadata.uid.as_ref()?;
        let trimmed = Self::by_its_metadata(&slice.metadata)?;
        // Of others' no more is kept than whose they are.
        let object = may_be_ours(&slice.metadata).then_some(slice);
        let pods = object.as_ref().map(pod_names).unwrap_or_default();
        Some(Self { object: object.map(Kept::new), pods, ..trimmed })
    }

    /// Keeps the text of the object instead of the object.
    pub(super) fn close(&mut self) {
        if let Some(object) = &mut self.object {
            object.close();
        }
    }

    /// The same with its object.
    pub(super) fn opened(self: &Arc<Self>) -> Arc<Self> {
        let object = self.object.as_ref().filter(|object| !object.is_open()).map(Kept::opened);
        object.map_or_else(
            || self.clone(),
            |o| Arc::new(Self { object: Some(o), ..(**self).clone() }),
        )
    }

    /// What is known of a slice that cannot be read: whose it is, which its metadata say, and of one that
    /// may be ours what was known before, where it is the same object. `None` for one that belongs to no
    /// Service.
    pub fn unreadable(known: Option<&Self>, found: &Unreadable) -> Option<Self> {
        let meta = &found.metadata;
        let same = known.filter(|k| meta.uid.as_deref().is_none_or(|uid| *k.uid == *uid));
        let error = Arc::from(&*found.error);
        if let Some(known) = same.filter(|_| !found.knows_metadata()) {
            // Not even these can be read, or some of them were left out.
            let version = Rv::of(meta);
            return Some(Self { version, unreadable: Some(error), ..known.clone() });
        }
        let now = Self::by_its_metadata(meta)?;
        // What it says of the leader is in its metadata as well.
        let object = same.and_then(|known| known.object.as_deref()).cloned();
        let object =
            object.map(|object| Kept::new(EndpointSlice { metadata: meta.clone(), ..object }));
        let writer = label(meta, keys::kubernetes::SLICE_MANAGED_BY);
        // Of others' slices no more is ever read.
        let foreign = writer.is_some_and(|by| by != keys::MANAGER) && !may_be_ours(meta);
        let object = object.filter(|_| !foreign);
        Some(Self {
            uid: same.map_or(now.uid, |known| known.uid.clone()),
            pods: object.as_deref().map(pod_names).unwrap_or_default(),
            object,
            unreadable: (!foreign).then_some(error),
            ..now
        })
    }

    /// What the metadata of a slice say. Every replica reads that alike.
    fn by_its_metadata(meta: &ObjectMeta) -> Option<Self> {
        let name = meta.name.as_deref()?;
        let named_for = evidence::leader_of_slice_name(name);
        let labelled = label(meta, keys::kubernetes::SERVICE_NAME);
        // Its label may have been changed, its name cannot.
        let service = named_for.filter(|_| may_be_ours(meta)).or(labelled).or(named_for)?;
        Some(Self {
            name: name.into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: Rv::of(meta),
            tied: labelled == Some(service),
            service: service.into(),
            managed: label(meta, keys::kubernetes::SLICE_MANAGED_BY) == Some(keys::MANAGER),
            stamped: evidence::is_stamped(meta),
            source: label(meta, status::SOURCE_SERVICE).map(Arc::from),
            owner_uid: controller_uid(meta).map(Arc::from),
            deleting: meta.deletion_timestamp.is_some(),
            object: None,
            pods: Box::default(),
            unreadable: None,
        })
    }

    /// True when zen-lead provably made it for this leader Service (docs/decisions/evidence.md): the
    /// controller owner says so together with its label or its name; without any controller owner
    /// (an orphaning deletion takes it off) its name, an annotation and one of its labels have to.
    pub fn is_ours(&self, leader: &Leader) -> bool {
        let named = evidence::leader_of_slice_name(&self.name) == Some(leader.name());
        let sourced = || leader.sources().any(|source| self.source.as_ref() == Some(source));
        self.object.is_some()
            && match self.owner_uid.as_deref() {
                Some(owner) => owner == leader.uid() && (self.managed || named),
                None => named && self.stamped && (self.managed || sourced()),
            }
    }

    /// True when all that zen-lead writes to identify a slice is in place.
    pub fn is_whole(&self, leader: &Leader) -> bool {
        self.managed && self.tied && self.owner_uid.as_deref() == Some(leader.uid())
    }

    /// Address family, for a slice of ours.
    pub fn family(&self) -> Option<Family> {
        self.object.as_ref()?.address_type.parse().ok()
    }

    /// What a slice of ours says.
    pub fn truth(&self) -> Truth {
        let Some(object) = &self.object else { return Truth::default() };
        let annotations = object.annotations();
        let get = |key: &str| said(annotations, key);
        Truth {
            marks: get(status::DECIDED_AT).map(|m| Marks::parse(m)).unwrap_or_default(),
            source_hash: get(status::ASKED).cloned(),
            not_ready_since: parsed(annotations, status::NOT_READY_SINCE),
            decision_version: parsed(annotations, status::DECISION_VERSION).unwrap_or(0),
            writer: get(status::WRITER).cloned(),
            ..Truth::of_switch(annotations)
        }
    }

    /// Names and uids of the pods the slice names, whatever their conditions.
    pub fn named_pods(&self) -> impl Iterator<Item = (&str, &str)> {
        self.object
            .iter()
            .flat_map(|o| o.endpoints.iter().flatten())
            .filter_map(|e| e.target_ref.as_ref())
            .filter_map(|pod| Some((pod.name.as_deref()?, pod.uid.as_deref()?)))
    }

    /// Uids of the pods the slice routes to (a missing condition means ready, API reference).
    pub fn routed_pods(&self) -> impl Iterator<Item = &str> {
        self.object
            .iter()
            .flat_map(|o| o.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false))
            .filter_map(|e| e.target_ref.as_ref()?.uid.as_deref())
    }
}

fn pod_names(slice: &EndpointSlice) -> Box<[Arc<str>]> {
    let pods = slice.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref());
    let named = pods.filter(|pod| pod.uid.is_some());
    named.filter_map(|pod| pod.name.as_deref().map(Arc::from)).collect()
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a slice carries the label of zen-lead, or its name and an annotation that only zen-lead writes.
fn may_be_ours(meta: &ObjectMeta) -> bool {
    let manager = label(meta, keys::kubernetes::SLICE_MANAGED_BY);
    let named = meta.name.as_deref().and_then(evidence::leader_of_slice_name).is_some();
    manager.is_some_and(|manager| manager == keys::MANAGER) || (named && evidence::is_stamped(meta))
}

/// Uid of the controller owner of an object.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    evidence::controller(meta).map(|o| o.uid.as_str())
}
