//! An API object as the index keeps it: its JSON text, which takes a quarter of the memory of the object
//! (docs/decisions/objects-as-text.md). A snapshot has the object.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an API object must be to be kept.
pub trait Keep: Serialize + DeserializeOwned + PartialEq + Default {}

impl<T: Serialize + DeserializeOwned + PartialEq + Default> Keep for T {}

/// An object, or its text. It is read as the object.
#[derive(Clone)]
pub struct Kept<T> {
    /// The JSON of a closed object.
    text: Option<Arc<[u8]>>,
    object: OnceLock<Arc<T>>,
}

impl<T: Keep> Kept<T> {
    /// The object, open.
    pub fn new(object: T) -> Self {
        Self { text: None, object: OnceLock::from(Arc::new(object)) }
    }

    /// Keeps the text instead of the object, if the object comes back from it as it is.
    pub fn close(&mut self) {
        if let Some(object) = self.object.get().filter(|_| self.text.is_none()) {
            let text = serde_json::to_vec(&**object).ok();
            let same = |text: &Vec<u8>| read::<T>(text).is_some_and(|o| o == **object);
            self.text = text.filter(same).map(Into::into);
        }
        if self.text.is_some() {
            self.object.take();
        }
    }

    /// Whether the object is there.
    pub fn is_open(&self) -> bool {
        self.object.get().is_some()
    }

    /// A copy that has the object. This one is left as it is.
    #[must_use]
    pub fn opened(&self) -> Self {
        let object = self.object.get().cloned().or_else(|| self.read().map(Arc::new));
        Self { text: None, object: object.map(OnceLock::from).unwrap_or_default() }
    }

    fn read(&self) -> Option<T> {
        read(self.text.as_ref()?)
    }
}

fn read<T: Keep>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

impl<T: Keep> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // `close` has read the text once, and without a text the object is there.
        self.object.get_or_init(|| Arc::new(self.read().unwrap_or_default()))
    }
}

impl<T: Keep> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.text, &other.text) {
            (Some(text), Some(others)) => text == others,
            // A copy, so that none of the two stays open for it.
            _ => *self.opened() == *other.opened(),
        }
    }
}

impl<T: Keep + fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_object_is_read_again_and_stays_closed_when_it_is_compared_or_a_copy_is_opened() {
        let open = |text: &str| Kept::new(vec![text.to_owned()]);
        let mut kept = open("a");
        kept.close();
        assert!(!kept.is_open() && kept.opened().is_open());
        assert_eq!(kept.opened()[0], "a");
        assert!(kept == open("a") && kept == kept.clone() && kept != open("b"));
        assert!(!kept.is_open());
        assert_eq!(format!("{kept:?}"), r#"["a"]"#);
        assert!(kept.is_open(), "it was read here");
        kept.close();
        assert!(!kept.is_open());
    }

    #[test]
    fn what_would_come_back_as_something_else_is_kept_as_it_is() {
        // JSON has no such number.
        let mut kept = Kept::new(f64::INFINITY);
        kept.close();
        assert!(kept.is_open() && kept.opened().is_infinite());
        assert_eq!(kept, kept.clone());
        assert_ne!(kept, Kept::new(1.0));
    }
}
