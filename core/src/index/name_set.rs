//! A set of names that takes little memory while it is small: nearly all sets of the index have up to three
//! names, and a `BTreeSet` takes 200 bytes for the first of them.

use std::sync::Arc;

/// Room for so many names is added one by one.
const FEW: usize = 8;

/// A set of names, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct NameSet(Vec<Arc<str>>);

impl NameSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, name: Arc<str>) {
        if let Err(place) = self.place(&name) {
            if self.0.len() < FEW {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(place) = self.place(name) {
            self.0.remove(place);
            if self.0.len() < self.0.capacity() / 4 {
                self.0.shrink_to_fit();
            }
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| (**known).cmp(name))
    }
}

impl FromIterator<Arc<str>> for NameSet {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        let mut names: Vec<Arc<str>> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        names.shrink_to_fit();
        Self(names)
    }
}

impl<'a> IntoIterator for &'a NameSet {
    type Item = &'a Arc<str>;
    type IntoIter = std::slice::Iter<'a, Arc<str>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: &NameSet) -> Vec<&str> {
        set.into_iter().map(|name| &**name).collect()
    }

    #[test]
    fn names_are_sorted_each_of_them_once_and_room_comes_and_goes_with_them() {
        let mut set: NameSet = ["c", "a", "c"].map(Arc::from).into_iter().collect();
        set.insert("b".into());
        set.insert("a".into());
        assert_eq!(names(&set), ["a", "b", "c"]);
        assert_eq!((set.0.len(), set.0.capacity()), (3, 3));
        for n in 0..1000 {
            set.insert(format!("n{n:04}").into());
        }
        for n in 0..1000 {
            set.remove(&format!("n{n:04}"));
            assert!(set.0.capacity() <= 5 * set.0.len().max(FEW));
        }
        set.remove("b");
        set.remove("b");
        assert_eq!(names(&set), ["a", "c"]);
        set.remove("a");
        set.remove("c");
        assert!(set.is_empty());
    }
}
