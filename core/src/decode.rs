//! Objects of the API server, read only as far as zen-lead needs them.
//!
//! What it does not need cannot spoil an object, and an object that cannot be read all the same is
//! known by its name: unreadable is not absent. What follows from that is `index`'s and `decide`'s.

mod kinds;
mod shape;
#[cfg(test)]
mod tests;
mod trim;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use shape::Field;
pub use shape::Shape;
pub use trim::{Trim, too_large, too_many};

/// An object as the API server sent it: read, or known by its metadata only.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<K> {
    /// The fields that are needed.
    Object(K),
    /// One of those fields cannot be read.
    Unreadable(Box<Unreadable>),
}

/// What is known of an object that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Its metadata, as far as they can be read.
    pub metadata: ObjectMeta,
    /// The first field that cannot be read, and why.
    pub error: String,
    /// Some of its labels were left out, because they are too large.
    pub without_labels: bool,
}

impl Unreadable {
    /// Uid, labels and owner are all known: what cannot be read is elsewhere.
    pub fn knows_metadata(&self) -> bool {
        let wrong = self.without_labels || self.error.starts_with("metadata");
        self.metadata.uid.is_some() && !wrong
    }
}

impl<K> Decoded<K> {
    /// An object that cannot be read.
    pub fn unreadable(metadata: ObjectMeta, error: String) -> Self {
        Self::Unreadable(Box::new(Unreadable { metadata, error, without_labels: false }))
    }

    /// The object, where it could be read.
    pub fn object(self) -> Option<K> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// What `map` makes of the object, where it could be read.
    pub fn try_map<T>(self, map: impl FnOnce(K) -> Option<T>) -> Option<Decoded<T>> {
        match self {
            Self::Object(object) => map(object).map(Decoded::Object),
            Self::Unreadable(found) => Some(Decoded::Unreadable(found)),
        }
    }
}

impl<K> From<K> for Decoded<K> {
    fn from(object: K) -> Self {
        Self::Object(object)
    }
}

impl<'de, K: Shape + Resource> Deserialize<'de> for Decoded<K> {
    /// Fails only for what is no object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Field { value, wrong } = Field::<K>::deserialize(deserializer)?;
        match (value, wrong) {
            (Some(object), None) => Ok(Self::Object(object)),
            (Some(mut object), Some(wrong)) => {
                let metadata = std::mem::take(object.meta_mut());
                Ok(Self::unreadable(metadata, wrong.to_string()))
            }
            (None, Some(wrong)) => Err(D::Error::custom(wrong)),
            (None, None) => Err(D::Error::custom("expected an object, found null")),
        }
    }
}

impl<K: Serialize> Serialize for Decoded<K> {
    /// Only what could be read is ever written.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(object) => object.serialize(serializer),
            Self::Unreadable(unreadable) => Err(S::Error::custom(&unreadable.error)),
        }
    }
}

impl<K: Resource> Resource for Decoded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Object(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Object(object) => object.meta_mut(),
            Self::Unreadable(unreadable) => &mut unreadable.metadata,
        }
    }
}
