//! Equal values are kept once: what the pods of one template have in common, and the names of nodes.
//!
//! Each namespace has pools of its own, so that they go with it.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values that are looked through for unused ones when they have become twice as many.
const LEAST: usize = 64;

/// Values in use, each of them once.
#[derive(Debug)]
pub(super) struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// When there are so many, those that are not used are removed first.
    full: usize,
}

// A derived one would ask for `T: Clone`.
impl<T: ?Sized> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), full: self.full }
    }
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), full: LEAST }
    }
}

impl<T: Hash + Eq + ?Sized> Pool<T> {
    /// The value that is known already and equal to this one; else this one, which is known from now on.
    pub(super) fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        if self.known.len() >= self.full {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.full = (self.known.len() * 2).max(LEAST);
            self.known.shrink_to(self.full);
        }
        self.known.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut pool = Pool::<str>::default();
        let kept: Vec<Arc<str>> = ["a", "b"].map(|name| pool.share(name.into())).into();
        assert!(Arc::ptr_eq(&kept[0], &pool.share("a".into())));
        for n in 0..100 * LEAST {
            drop(pool.share(format!("unused-{n}").into()));
        }
        assert!(pool.known.len() <= LEAST, "{}", pool.known.len());
        assert!(Arc::ptr_eq(&kept[1], &pool.share("b".into())), "what is used stays");
    }
}
