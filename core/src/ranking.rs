//! What a replica needs to know of the others: its rank for a Service, and how long it waits.
//!
//! Ranks only avoid needless conflicts; the slice is the lock, so a wrong rank costs a conflict or
//! a delay, never correctness. Pure: hashes and numbers.

use std::time::Duration;

use crate::names::ServiceKey;

/// Version of the decision rules. A replica of a lower version may take an endpoint out but not
/// otherwise rewrite what a higher one wrote while that one may live: raise it with every change of
/// what `decide` writes.
pub const DECISION_VERSION: u32 = 1;

/// How long the replicas that wrote a newer version must be gone before a lower one takes over:
/// longer than a rolling restart leaves a pod of the newer version out of the list.
pub const TAKEOVER: Duration = Duration::from_secs(10);

/// How much later each further rank promotes.
pub const STAGGER: Duration = Duration::from_millis(250);

/// The same for copies of what the slices say. Longer than the replica that moves leaders leaves its copies
/// waiting: they need no takeover in a blink.
pub const STAGGER_OF_COPIES: Duration = Duration::from_secs(6);

/// The same for a leader Service that is made. No traffic is lost meanwhile, and where many are made at once
/// a replica has most of its own behind it before it helps the other ones.
pub const STAGGER_OF_CREATIONS: Duration = Duration::from_secs(1);

/// Rank after which replicas no longer wait longer.
const LAST_RANK: u32 = 2;

/// Rank of `me` among `replicas` for a Service, by rendezvous hashing: 0 acts at once.
///
/// Rank 0 as well when no replica is listed; the last one when others are and `me` is not (it is
/// starting or stopping).
pub fn rank(me: &str, replicas: &[String], key: &ServiceKey) -> usize {
    if !replicas.iter().any(|r| r == me) {
        return replicas.len();
    }
    let own = weight(me, key);
    replicas.iter().filter(|r| (weight(r, key), r.as_str()) > (own, me)).count()
}

/// Whether a change of the list of ready replicas may show `me` that a newer version is gone: one that
/// was listed is not any more, or `me` is listed anew and may judge the others at last.
pub fn may_show_others_gone(me: &str, before: &[String], now: &[String]) -> bool {
    let listed = |names: &[String]| names.iter().any(|r| r == me);
    before.iter().any(|r| !now.contains(r)) || (listed(now) && !listed(before))
}

/// How long a replica of this rank waits, if each further rank waits this much longer.
pub fn by_rank(wait: Duration, rank: usize) -> Duration {
    wait * u32::try_from(rank).unwrap_or(LAST_RANK).min(LAST_RANK)
}

fn weight(replica: &str, key: &ServiceKey) -> u64 {
    hash(&[replica, &key.namespace, &key.name])
}

/// FNV-1a (64 bit) with a final mix: replicas of different builds must agree on it, which the
/// standard library's hasher does not promise.
pub fn hash(parts: &[&str]) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            h = (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// The epoch of the next switch: it only grows, also when slices were deleted by hand. One that
/// a user set to the last number stays there: back at the time of day it would be written without end.
pub fn next_epoch(previous: u64, now: jiff::Timestamp) -> u64 {
    previous.saturating_add(1).max(u64::try_from(now.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("zen-lead-{i}")).collect()
    }

    #[test]
    fn ranks_are_a_permutation_for_every_service() {
        let replicas = names(3);
        for i in 0..200 {
            let key = ServiceKey::new("ns", format!("svc-{i}"));
            let mut ranks: Vec<_> = replicas.iter().map(|r| rank(r, &replicas, &key)).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2]);
        }
    }

    // Computed apart from this code, in another language.
    #[test]
    fn the_hash_is_the_same_in_every_build() {
        assert_eq!(hash(&["zen-lead-0", "ns", "web"]), 0x8c49_ec57_08a5_6eda);
        assert_eq!(hash(&["ab", "c"]), 0x2f3c_b174_e5ae_d850);
        assert_eq!(hash(&["a", "bc"]), 0xfdef_b95a_439d_deb6);
    }

    // As above: highest hash first.
    #[test]
    fn the_order_of_replicas_is_the_same_in_every_build() {
        let replicas = names(3);
        for (service, order) in [("web", [2, 1, 0]), ("api", [2, 0, 1]), ("db", [0, 2, 1])] {
            let key = ServiceKey::new("ns", service);
            assert_eq!(order.map(|i| rank(&replicas[i], &replicas, &key)), [0, 1, 2], "{service}");
        }
    }

    #[test]
    fn work_is_shared() {
        let replicas = names(3);
        let first = (0..3000)
            .filter(|i| rank(&replicas[0], &replicas, &ServiceKey::new("ns", format!("s{i}"))) == 0)
            .count();
        assert!((800..1200).contains(&first), "one of three replicas is first for {first} of 3000");
    }

    #[test]
    fn losing_a_replica_moves_only_its_services() {
        let (three, two) = (names(3), names(2));
        for i in 0..200 {
            let key = ServiceKey::new("ns", format!("svc-{i}"));
            let before = three.iter().find(|r| rank(r, &three, &key) == 0).unwrap();
            let after = two.iter().find(|r| rank(r, &two, &key) == 0).unwrap();
            assert!(before == after || *before == three[2]);
        }
    }

    #[test]
    fn a_replica_that_is_not_listed_comes_last_and_alone_it_is_first() {
        for i in 0..20 {
            assert_eq!(rank("stranger", &names(2), &ServiceKey::new("ns", format!("s{i}"))), 2);
        }
        assert_eq!(rank("any", &[], &ServiceKey::new("ns", "svc")), 0);
    }

    #[test]
    fn others_may_be_gone_when_one_leaves_the_list_or_this_one_enters_it() {
        let (me, all) = ("zen-lead-0", names(3));
        let shows = |before: &[String], now: &[String]| may_show_others_gone(me, before, now);
        assert!(shows(&all, &all[..2]), "the third left");
        assert!(shows(&[], &all[..1]), "this one came");
        assert!(shows(&all[1..], &all), "this one came to others");
        assert!(!shows(&all[..1], &all), "others came");
        assert!(!shows(&all, &all), "nothing changed");
        assert!(!shows(&[], &all[1..]), "others came, and this one cannot judge them");
    }

    #[test]
    fn later_ranks_wait_longer_up_to_a_bound() {
        let ranks = [0, 1, 2, 9];
        assert_eq!(ranks.map(|r| by_rank(STAGGER, r).as_millis()), [0, 250, 500, 500]);
        assert_eq!(ranks.map(|r| by_rank(STAGGER_OF_COPIES, r).as_secs()), [0, 6, 12, 12]);
    }

    #[test]
    fn epochs_grow_from_the_clock_and_from_the_past() {
        let now = jiff::Timestamp::from_millisecond(5000).unwrap();
        assert_eq!(next_epoch(0, now), 5000);
        assert_eq!(next_epoch(9000, now), 9001);
        assert_eq!(next_epoch(u64::MAX, now), u64::MAX);
    }
}
