//! A Service as the index keeps it: whole where it concerns zen-lead, a name and a uid elsewhere.
//!
//! What its annotations ask for is read here once (`settings::read`); nothing is decided.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_core::ResourceExt;

use super::LabelPairs;
use super::evidence::{self, controller};
use super::kept::Kept;
use super::slice::parsed;
use crate::decode::Unreadable;
use crate::keys::{self, status};
use crate::names::NameRule;
use crate::settings::owner::is_service;
use crate::settings::provider::LAST_APPLIED;
use crate::settings::{self, Intent, LeaderSpec, Violation, source_label};
use crate::version::Rv;

/// A Service and what it is to zen-lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Uid of the Service.
    pub uid: Arc<str>,
    /// Version of the object this was trimmed from.
    pub version: Rv,
    /// What it is to zen-lead.
    pub role: Role,
    /// Why it cannot be read any longer, where that is so: the rest is what was known before.
    pub unreadable: Option<Arc<str>>,
}

/// What a Service is to zen-lead.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Nothing: no key of ours, or never read. Only its name is taken.
    Plain,
    /// It carries our annotations, or a condition of ours that may have to go.
    Source(Arc<Source>),
    /// It carries the label of a leader Service, or our annotations and a Service as owner. Whether
    /// it really is ours, [`Leader::is_ours`] says.
    Leader(Arc<Leader>),
}

/// A Service that carries our annotations.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The trimmed object.
    pub object: Kept<core::Service>,
    /// creationTimestamp.
    pub created: Option<Timestamp>,
    /// The labels that it selects pods by.
    pub selector: Box<LabelPairs>,
    /// What it asks for.
    pub intent: Result<Intent, Vec<Violation>>,
}

/// A Service that may be a leader Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Leader {
    /// The trimmed object.
    pub object: Kept<core::Service>,
    /// Name of the source that its label names.
    pub label: Option<Arc<str>>,
    /// Its controller owner, where that is a Service.
    pub owner: Option<Owner>,
    /// It has a controller owner of another kind.
    pub owned_by_others: bool,
    /// It carries an annotation that only zen-lead writes.
    pub stamped: bool,
    /// Why it cannot be read any longer, where that is so.
    pub unreadable: Option<Arc<str>>,
}

/// The Service that is the controller owner of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
}

impl Source {
    /// The settings, where it is enabled and valid.
    pub fn spec(&self) -> Option<&LeaderSpec> {
        if let Ok(Intent::On(spec)) = &self.intent { Some(spec) } else { None }
    }
}

impl Entry {
    /// Trims and classifies a Service; `None` when it has no uid, which no API server sends.
    pub fn trim(mut object: core::Service, names: NameRule) -> Option<Self> {
        let uid: Arc<str> = object.metadata.uid.as_deref()?.into();
        let version = Rv::of(&object.metadata);
        object.metadata.managed_fields = None;
        if let Some(annotations) = &mut object.metadata.annotations {
            // Large, and never read.
            annotations.remove(LAST_APPLIED);
        }
        let role = classify(object, names);
        Some(Self { uid, version, role, unreadable: None })
    }

    /// What is known of a Service that cannot be read: what was known before, where it is the same
    /// object; else what its metadata say. A uid that cannot be read is taken to be the known one. Whose
    /// leader Service it is, its metadata say in both cases, so that all replicas find the same.
    pub fn unreadable(known: Option<&Self>, found: &Unreadable, names: NameRule) -> Self {
        let meta = &found.metadata;
        let version = Rv::of(meta);
        let same = known.filter(|k| meta.uid.as_deref().is_none_or(|uid| *k.uid == *uid));
        let (uid, mut role) = if let Some(known) = same {
            let role = match &known.role {
                Role::Leader(leader) if found.knows_metadata() => {
                    let object = (*leader.object).clone();
                    let object = core::Service { metadata: meta.clone(), ..object };
                    leader_or_plain(classify(object, names))
                }
                role => role.clone(),
            };
            (known.uid.clone(), role)
        } else {
            let object = core::Service { metadata: meta.clone(), ..core::Service::default() };
            let role = leader_or_plain(classify(object, names));
            (meta.uid.as_deref().unwrap_or_default().into(), role)
        };
        let error = Some(Arc::from(&*found.error));
        if let Role::Leader(leader) = &mut role {
            Arc::make_mut(leader).unreadable.clone_from(&error);
        }
        Self { uid, version, role, unreadable: error }
    }

    /// Keeps the text of the object instead of the object.
    pub(super) fn close(&mut self) {
        match &mut self.role {
            Role::Plain => {}
            Role::Source(source) => Arc::make_mut(source).object.close(),
            Role::Leader(leader) => Arc::make_mut(leader).object.close(),
        }
    }

    /// The settings, where this is an enabled, valid source.
    pub fn spec(&self) -> Option<&LeaderSpec> {
        self.source()?.spec()
    }

    /// The source behind the entry.
    pub fn source(&self) -> Option<&Arc<Source>> {
        if let Role::Source(source) = &self.role { Some(source) } else { None }
    }

    /// The leader Service behind the entry.
    pub fn leader(&self) -> Option<&Arc<Leader>> {
        if let Role::Leader(leader) = &self.role { Some(leader) } else { None }
    }
}

/// What a Service asks for that cannot be read is not known.
fn leader_or_plain(role: Role) -> Role {
    if matches!(role, Role::Leader(_)) { role } else { Role::Plain }
}

fn classify(object: core::Service, names: NameRule) -> Role {
    let object = match Leader::read(object) {
        Ok(leader) => return Role::Leader(Arc::new(leader)),
        Err(object) => *object,
    };
    if settings::ours(object.annotations()).next().is_none()
        && own_conditions(&object).next().is_none()
    {
        return Role::Plain;
    }
    let intent = settings::read(&object, names);
    let created = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let selector = selector(&object).map(|(key, value)| (key.into(), value.into())).collect();
    Role::Source(Arc::new(Source { object: Kept::new(object), created, selector, intent }))
}

/// The conditions on a Service whose type is ours.
pub fn own_conditions(service: &core::Service) -> impl Iterator<Item = &Condition> {
    service
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .filter(|c| c.type_.starts_with(keys::PREFIX))
}

impl Source {
    /// The same with its object.
    pub(super) fn opened(self: &Arc<Self>) -> Arc<Self> {
        let open = || Arc::new(Self { object: self.object.opened(), ..(**self).clone() });
        if self.object.is_open() { self.clone() } else { open() }
    }
}

impl Leader {
    /// The same with its object.
    pub(super) fn opened(self: &Arc<Self>) -> Arc<Self> {
        let open = || Arc::new(Self { object: self.object.opened(), ..(**self).clone() });
        if self.object.is_open() { self.clone() } else { open() }
    }

    /// Reads a Service as a leader Service; gives it back where nothing says that it is one.
    fn read(object: core::Service) -> Result<Self, Box<core::Service>> {
        let meta = &object.metadata;
        let label = source_label(&object).map(|label| Arc::from(&**label));
        let stamped = evidence::is_stamped(meta);
        let controller = controller(meta);
        let owner = controller.filter(|o| is_service(o));
        let owner =
            owner.map(|o| Owner { name: o.name.as_str().into(), uid: o.uid.as_str().into() });
        if label.is_none() && !(stamped && owner.is_some()) {
            return Err(Box::new(object));
        }
        let owned_by_others = controller.is_some() && owner.is_none();
        let object = Kept::new(object);
        Ok(Self { object, label, owner, owned_by_others, stamped, unreadable: None })
    }

    /// True when zen-lead provably made it for this source (docs/decisions/evidence.md): the controller
    /// owner says so together with the label or an annotation of ours; without any controller owner
    /// (a user took it off) label and annotation both have to. Other labels count for nothing.
    pub fn is_ours(&self, source_name: &str, source_uid: &str) -> bool {
        let labelled = self.label.as_deref() == Some(source_name);
        match &self.owner {
            _ if self.owned_by_others => false,
            // The uid is the proof; the name in the reference may have been changed.
            Some(owner) => {
                &*owner.uid == source_uid
                    && (labelled || (self.stamped && &*owner.name == source_name))
            }
            None => labelled && self.stamped,
        }
    }

    /// True when it was made for an earlier Service of this name, or for one that is gone. Where label
    /// and owner name different Services, one of them was changed: then neither may empty its slices.
    pub fn was_made_for(&self, source_name: &str) -> bool {
        let labelled = self.label.as_deref() == Some(source_name);
        match &self.owner {
            _ if self.owned_by_others => false,
            Some(owner) => {
                &*owner.name == source_name && (labelled || (self.stamped && self.label.is_none()))
            }
            None => labelled && self.stamped,
        }
    }

    /// Names of the sources that it may belong to, by its label and by its owner.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<str>> {
        let owner =
            self.owner.as_ref().map(|o| &o.name).filter(|o| Some(*o) != self.label.as_ref());
        self.label.iter().chain(owner)
    }

    /// Uid of the controller owner, where that is a Service.
    pub fn owner_uid(&self) -> Option<&str> {
        self.owner.as_ref().map(|o| &*o.uid)
    }

    /// Version of the decision rules that its slices are written by, as it says; 0 where it says none.
    pub fn decision_version(&self) -> u32 {
        parsed(self.object.annotations(), status::DECISION_VERSION).unwrap_or_default()
    }

    /// Name of the leader Service.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Uid of the leader Service.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Being deleted.
    pub fn deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }
}

/// The selector of a Service, empty when it has none.
pub fn selector(service: &core::Service) -> impl Iterator<Item = (&str, &str)> {
    service
        .spec
        .iter()
        .flat_map(|s| s.selector.iter().flatten())
        .map(|(k, v)| (k.as_str(), v.as_str()))
}
