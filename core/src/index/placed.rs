//! What is kept of a Service or of a slice, with its place: an object of a list or of a watch becomes this as
//! soon as it is read, so that a list never holds objects. What a pod becomes is `pod`'s.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_core::Resource;

use super::names_of;
use super::service::Entry;
use super::slice::Slice;
use crate::decode::Decoded;
use crate::names::NameRule;
use crate::version::Rv;

/// What is kept of an object, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Rv,
    /// What is kept of it.
    pub kept: T,
}

/// A Service.
pub type PlacedService = Placed<Entry>;

/// A slice; nothing is kept of one that belongs to no Service.
pub type PlacedSlice = Placed<Option<Slice>>;

impl Placed<()> {
    /// Where an object is; `None` for one without a namespace or a name, which no API server sends.
    pub(super) fn of(object: &impl Resource) -> Option<Self> {
        let (namespace, name) = names_of(object.meta())?;
        Some(Self { namespace, name, version: Rv::of(object.meta()), kept: () })
    }

    fn with<T>(self, kept: T) -> Placed<T> {
        Placed { namespace: self.namespace, name: self.name, version: self.version, kept }
    }
}

impl PlacedService {
    /// Trims and classifies a Service, also one that cannot be read; `None` when it has no namespace, name or
    /// uid, which no API server sends.
    pub fn trim(object: Decoded<Service>, names: NameRule) -> Option<Decoded<Self>> {
        object.try_map(|object| {
            let place = Placed::of(&object)?;
            Some(place.with(Entry::trim(object, names)?))
        })
    }

    /// The same with the text of the object instead of the object.
    pub fn trim_to_text(object: Decoded<Service>, names: NameRule) -> Option<Decoded<Self>> {
        Self::trim(object, names)?.try_map(|mut placed| {
            placed.kept.close();
            Some(placed)
        })
    }
}

impl PlacedSlice {
    /// Trims a slice, also one that cannot be read; `None` when it has no namespace or name, which no API
    /// server sends.
    pub fn trim(object: Decoded<EndpointSlice>) -> Option<Decoded<Self>> {
        object.try_map(|object| {
            let place = Placed::of(&object)?;
            Some(place.with(Slice::trim(object)))
        })
    }

    /// The same with the text of the object instead of the object.
    pub fn trim_to_text(object: Decoded<EndpointSlice>) -> Option<Decoded<Self>> {
        Self::trim(object)?.try_map(|mut placed| {
            placed.kept.iter_mut().for_each(Slice::close);
            Some(placed)
        })
    }
}

impl<T> Decoded<Placed<T>> {
    /// Namespace, name and version; `None` where they cannot be read.
    pub(super) fn place(&self) -> Option<(Arc<str>, Arc<str>, Rv)> {
        match self {
            Self::Object(placed) => {
                Some((placed.namespace.clone(), placed.name.clone(), placed.version))
            }
            Self::Unreadable(found) => {
                let (namespace, name) = names_of(&found.metadata)?;
                Some((namespace, name, Rv::of(&found.metadata)))
            }
        }
    }
}
