//! What is kept of an object that was read: nothing that zen-lead does not use, and not more than a
//! bound. The user who may write an object decides how large it is.
//!
//! Which fields are read at all is `kinds`'. Objects of an admission review are not trimmed: their verdict
//! compares old and new values.

use std::collections::BTreeMap;
use std::io::Write;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Secret, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt;
use serde::Serialize;

use super::Decoded;
use crate::keys::{self, kubernetes, setting, status};
use crate::settings::{ours, source_label};

/// Annotations of one Service with settings, those of others included. The API server has no such bound:
/// it takes 256 KiB of them, which can be 40,000.
pub(super) const MOST_ANNOTATIONS: usize = 256;
/// Pairs in the selector of a Service with settings. Each pod and each review is compared with all of them.
pub(super) const MOST_PAIRS: usize = 64;
/// Labels of a pod.
pub(super) const MOST_LABELS: usize = 256;
/// What is kept of one object, in bytes of JSON.
pub(super) const MOST_BYTES: usize = 32 * 1024;
/// What is kept of an annotation of an object that is not read, in bytes.
const MOST_OF_A_VALUE: usize = 256;
/// Up to so many bytes all labels of an object that is not read are kept: they say which Services select a
/// pod.
const MOST_OF_LABELS: usize = 8 * 1024;

/// Objects of which a part is kept.
pub trait Trim {
    /// Takes out what zen-lead does not use; nothing, where a kind does not say otherwise.
    ///
    /// # Errors
    /// What is too large, and how large it may be: the object counts as one that cannot be read.
    fn trim(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl<K: Trim + kube_core::Resource> Decoded<K> {
    /// The object without what zen-lead does not use; only its metadata where the rest is too large.
    #[must_use]
    pub fn trimmed(self) -> Self {
        match self {
            Self::Object(mut object) => match object.trim() {
                Ok(()) => Self::Object(object),
                Err(error) => {
                    let metadata = std::mem::take(object.meta_mut());
                    Self::unreadable(metadata, error).trimmed()
                }
            },
            Self::Unreadable(mut found) => {
                let labels = |meta: &ObjectMeta| meta.labels.as_ref().map(BTreeMap::len);
                let before = labels(&found.metadata);
                found.metadata = identity(&mut found.metadata);
                found.without_labels |= before != labels(&found.metadata);
                Self::Unreadable(found)
            }
        }
    }
}

impl Trim for Service {
    fn trim(&mut self) -> Result<(), String> {
        let conditions = self.status.as_ref().and_then(|s| s.conditions.as_ref());
        let has_conditions = conditions.is_some_and(|all| !all.is_empty());
        let is_labelled = source_label(self).is_some();
        let meta = &mut self.metadata;
        let annotations = meta.annotations.get_or_insert_default();
        if ours(annotations).next().is_none() && !is_labelled && !has_conditions {
            // Only that it exists matters.
            meta.labels = None;
            *self = Self { metadata: identity(meta), ..Self::default() };
            return Ok(());
        }
        few_annotations(annotations)?;
        few_pairs(self.spec.as_ref())?;
        let copied = listed(annotations, [setting::COPY_ANNOTATIONS, status::COPIED]);
        let copied_labels = listed(annotations, [setting::COPY_LABELS, status::COPIED_LABELS]);
        for (key, value) in annotations.iter_mut() {
            // The name alone says that a provider is steered.
            if !key.starts_with(keys::PREFIX) && !copied.contains(key) {
                *value = String::new();
            }
        }
        if let Some(labels) = &mut meta.labels {
            labels.retain(|key, _| is_read_label(key) || copied_labels.contains(key));
        }
        within_bound(self)
    }
}

impl Trim for Pod {
    fn trim(&mut self) -> Result<(), String> {
        self.metadata.annotations = None;
        self.metadata.finalizers = None;
        let count = self.labels().len();
        if count > MOST_LABELS {
            return Err(format!(
                "it has {count} labels, and zen-lead reads at most {MOST_LABELS}; remove some"
            ));
        }
        within_bound(self)
    }
}

impl Trim for EndpointSlice {
    fn trim(&mut self) -> Result<(), String> {
        let manager = self.labels().get(kubernetes::SLICE_MANAGED_BY);
        let is_ours = manager.is_some_and(|manager| manager == keys::MANAGER)
            || ours(self.annotations()).next().is_some();
        // Those of others have up to a thousand endpoints, and are not kept.
        if is_ours { within_bound(self) } else { Ok(()) }
    }
}

/// Why a Service with settings cannot be read, where it is too large for that.
pub fn too_large(service: &Service) -> Option<String> {
    // Asked first, because a copy of tens of thousands of annotations takes megabytes.
    too_many(service).or_else(|| service.clone().trim().err())
}

/// Why a Service with settings cannot be read, where it has too many annotations, or pairs in its selector.
/// Counts only, and looks at none of them.
pub fn too_many(service: &Service) -> Option<String> {
    let counted = few_annotations(service.annotations());
    counted.and_then(|()| few_pairs(service.spec.as_ref())).err()
}

fn few_pairs(spec: Option<&ServiceSpec>) -> Result<(), String> {
    let count = spec.and_then(|spec| spec.selector.as_ref()).map_or(0, BTreeMap::len);
    if count <= MOST_PAIRS {
        return Ok(());
    }
    Err(format!(
        "its selector has {count} pairs, and zen-lead reads at most {MOST_PAIRS}; remove some"
    ))
}

fn few_annotations(annotations: &BTreeMap<String, String>) -> Result<(), String> {
    let count = annotations.len();
    if count <= MOST_ANNOTATIONS {
        return Ok(());
    }
    Err(format!(
        "it has {count} annotations, and zen-lead reads at most {MOST_ANNOTATIONS}; remove some"
    ))
}

// Read one at a time, by name.
impl Trim for Endpoints {}
impl Trim for Secret {}
impl Trim for ValidatingWebhookConfiguration {}
impl Trim for MutatingWebhookConfiguration {}

/// Which object it is, and whose: all that is known of one that is not read.
fn identity(meta: &mut ObjectMeta) -> ObjectMeta {
    let mut meta = std::mem::take(meta);
    let is_short = |value: &str| value.len() <= MOST_OF_A_VALUE;
    if let Some(all) = &mut meta.annotations {
        let is_read = |key: &str| key == setting::ENABLED || status::ALL.contains(&key);
        all.retain(|key, value| is_read(key) && is_short(value));
    }
    if let Some(all) = &mut meta.labels
        && all.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MOST_OF_LABELS
    {
        all.retain(|key, value| SIGNS.contains(&&**key) && is_short(value));
    }
    if let Some(owners) = &mut meta.owner_references {
        owners.retain(|owner| owner.controller == Some(true));
        owners.truncate(1);
    }
    if let Some(all) = &mut meta.finalizers {
        all.retain(|name| name == kubernetes::ORPHAN);
    }
    meta
}

/// Labels that say whose an object is.
const SIGNS: [&str; 4] = [
    status::SOURCE_SERVICE,
    kubernetes::MANAGED_BY,
    kubernetes::SERVICE_NAME,
    kubernetes::SLICE_MANAGED_BY,
];

/// Keys of zen-lead and of Kubernetes itself.
fn is_read_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    key.starts_with(keys::PREFIX) || domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// The keys that these annotations list.
fn listed(annotations: &BTreeMap<String, String>, lists: [&str; 2]) -> Vec<String> {
    let texts = lists.into_iter().filter_map(|list| annotations.get(list));
    let keys = texts.flat_map(|text| text.split(',')).take(MOST_ANNOTATIONS);
    keys.map(|key| key.trim().trim_start_matches('-').to_owned()).collect()
}

fn within_bound(object: &impl Serialize) -> Result<(), String> {
    let mut count = Count(0);
    // A number cannot fail to be written; what cannot be written as JSON was not read from it.
    let _ = serde_json::to_writer(&mut count, object);
    let Count(bytes) = count;
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(format!(
        "its labels, zen-lead annotations and specification have {bytes} bytes of JSON, and zen-lead reads at \
         most {MOST_BYTES}; make them shorter"
    ))
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
