//! What an object says of who made it: the signs that zen-lead leaves on what it writes.
//!
//! Which signs together are a proof is said by `Leader::is_ours` and `Slice::is_ours`; the reasons are
//! in docs/decisions/evidence.md.

use super::pod::Family;
use crate::keys::kubernetes;
pub use crate::settings::owner::{controller, is_stamped};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether the garbage collector takes this object off its dependents as their owner. To put it back
/// there would be undone each time.
pub fn is_orphaning(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
        && meta.finalizers.iter().flatten().any(|f| f == kubernetes::ORPHAN)
}

/// Name of the slice of a family.
pub fn slice_name(leader: &str, family: Family) -> String {
    format!("{leader}{}", suffix(family))
}

/// The names that the slices of a leader Service have.
pub fn slice_names(leader: &str) -> [String; 2] {
    [Family::V4, Family::V6].map(|family| slice_name(leader, family))
}

/// The leader Service that the name of a slice is made of; `None` for other names.
pub fn leader_of_slice_name(slice: &str) -> Option<&str> {
    let stripped = [Family::V4, Family::V6].into_iter().find_map(|f| slice.strip_suffix(suffix(f)));
    stripped.filter(|leader| !leader.is_empty())
}

fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "-zen-lead-ipv4",
        Family::V6 => "-zen-lead-ipv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_slice_says_for_which_leader_service_it_is() {
        for family in [Family::V4, Family::V6] {
            assert_eq!(leader_of_slice_name(&slice_name("web", family)), Some("web"));
        }
        for other in ["web", "-zen-lead-ipv4", "web-zen-lead-ipv5", "web-zen-lead-ipv4-x", ""] {
            assert_eq!(leader_of_slice_name(other), None, "{other:?}");
        }
    }
}
