//! Whether pods demand a step, or only settings: changed settings may wait a moment, a lost leader may not.
//!
//! Which steps there are is decided elsewhere. How long settings wait is the worker's business.

use super::Step;
use super::hold::lags;
use super::slices::SliceWrite;
use crate::index::evidence::slice_names;
use crate::index::service::Leader;
use crate::index::slice::Slice;
use crate::index::{LabelPairs, Snapshot};

/// Whether a step may not wait for settings to come to rest. The first row that applies:
///
/// | step | it may not wait |
/// |---|---|
/// | no write of a slice | it may |
/// | gives a pod to a slice that routes none | right: a first leader, or one that is back |
/// | any | a slice of ours lags behind the pod that it names |
/// | any | its pod has left the selector of the settings that were acted on last, too |
/// | any | a switch of two families was begun |
/// | any | it may: the leader is as fit as before, and only settings move it |
///
/// `selector` is that of the settings that were acted on last.
pub fn is_demanded_by_pods(step: &Step, snapshot: &Snapshot, selector: &LabelPairs) -> bool {
    let Step::Slice(next) = step else { return false };
    let routes_none = |name: &str| {
        let mut known = snapshot.slices.iter().filter(|slice| *slice.name == *name);
        known.all(|slice| slice.routed_pods().next().is_none())
    };
    let fills = match &next.write {
        SliceWrite::Create(slice) | SliceWrite::Replace(slice) => {
            let mut endpoints = slice.endpoints.iter().flatten();
            let ready =
                endpoints.any(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
            ready && routes_none(slice.metadata.name.as_deref().unwrap_or_default())
        }
        SliceWrite::Delete { .. } => false,
    };
    fills || snapshot.leaders.iter().any(|leader| lost(snapshot, leader, selector))
}

/// Whether what the slices of a leader Service route to was lost, or a switch between them was begun.
fn lost(snapshot: &Snapshot, leader: &Leader, selector: &LabelPairs) -> bool {
    let slices: Vec<&Slice> = snapshot.slices_of(leader).collect();
    let truth = slices.iter().map(|slice| slice.truth()).max_by_key(|truth| truth.epoch);
    let Some(truth) = truth else { return false };
    let left = |uid: &str| {
        let mut deselected = snapshot.deselected.iter().filter(|pod| *pod.uid == *uid);
        deselected.any(|pod| selector.iter().any(|(key, value)| pod.label(key) != Some(value)))
    };
    let begun = || {
        let named = slice_names(leader.name());
        let mut pair = slices.iter().filter(|slice| named.iter().any(|n| **n == *slice.name));
        let ahead = pair.clone().find(|slice| slice.truth().epoch == truth.epoch);
        ahead.is_some_and(|slice| slice.named_pods().next().is_none())
            && pair.any(|slice| slice.truth().epoch < truth.epoch)
    };
    slices.iter().any(|slice| lags(slice, &truth, snapshot) || slice.routed_pods().any(left))
        || begun()
}
