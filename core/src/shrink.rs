//! Gives memory back from maps and queues that have become mostly empty.
//!
//! The collections of the standard library keep the room of their largest size. Called
//! after removals; the cost is constant on average, because the room halves each time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Room that is never given back: not worth it.
const LEAST: usize = 64;

/// Shrinks a map of which less than a quarter is used.
pub fn map<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if let Some(room) = room(map.len(), map.capacity()) {
        map.shrink_to(room);
    }
}

/// Shrinks a queue of which less than a quarter is used.
pub fn queue<T>(queue: &mut VecDeque<T>) {
    if let Some(room) = room(queue.len(), queue.capacity()) {
        queue.shrink_to(room);
    }
}

/// The room to leave, where there is too much.
fn room(used: usize, room: usize) -> Option<usize> {
    (room > LEAST && used < room / 4).then_some(used * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mostly_empty_is_given_back_and_nothing_is_lost() {
        let mut known: HashMap<usize, bool> = (0..10_000).map(|n| (n, true)).collect();
        let mut waiting: VecDeque<usize> = (0..10_000).collect();
        for n in 10..10_000 {
            known.remove(&n);
            map(&mut known);
            waiting.pop_back();
            queue(&mut waiting);
        }
        assert!(known.capacity() <= LEAST && waiting.capacity() <= LEAST);
        assert_eq!((known.len(), waiting.len()), (10, 10));
        assert_eq!(room(0, LEAST), None, "a small map keeps its room");
    }
}
