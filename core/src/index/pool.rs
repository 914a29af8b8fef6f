//! Equal values are kept once: what the pods of one template have in common, and the names of nodes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::pod::{Pod, Template};

/// Values that are looked through for unused ones when they have become twice as many.
const LEAST: usize = 64;

/// The pools of an index.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    templates: Pool<Template>,
    nodes: Pool<str>,
}

impl Pools {
    /// Has the pod share with others what they have in common.
    pub(super) fn share(&mut self, pod: &mut Pod) {
        pod.template = self.templates.share(pod.template.clone());
        pod.node = pod.node.take().map(|node| self.nodes.share(node));
    }

    /// Removes what no pod uses.
    pub(super) fn prune(&mut self) {
        self.templates.prune();
        self.nodes.prune();
    }
}

/// Values in use, each of them once.
#[derive(Debug)]
struct Pool<T: ?Sized> {
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
    fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        if self.known.len() >= self.full {
            self.prune();
        }
        self.known.insert(value.clone());
        value
    }

    fn prune(&mut self) {
        self.known.retain(|known| Arc::strong_count(known) > 1);
        self.full = (self.known.len() * 2).max(LEAST);
        self.known.shrink_to(self.full);
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
