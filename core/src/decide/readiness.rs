//! What is said of a leader Service in its condition: what its lock routes to on the server now, and what
//! prevents more.
//!
//! Nothing is chosen or written here (`leader_service`).

use std::sync::Arc;

use super::Blocked;
use super::elect::{Choice, Incumbent};
use super::mirror::{self, LeaderState};
use super::own_slices::OwnSlices;
use crate::index::Snapshot;
use crate::index::evidence::slice_names;
use crate::index::pod::{Known, Pod};
use crate::index::service::Leader;
use crate::index::slice::Slice;
use crate::keys;
use crate::reason::Reason;

/// The pod that the lock routes to on the server now.
pub(super) struct Routed {
    pub(super) uid: String,
    pub(super) name: String,
    /// It can take traffic, as far as is known.
    fit: bool,
    /// It cannot be read now.
    unreadable: bool,
}

pub(super) fn routed(snapshot: &Snapshot, own: &OwnSlices<'_>) -> Option<Routed> {
    let (uid, name) = own.routed()?;
    let pod = snapshot.pod(uid);
    let fit = pod.is_some_and(Pod::may_be_eligible);
    let unreadable = pod.is_some_and(Pod::unjudged);
    Some(Routed { uid: uid.to_owned(), name: name.to_owned(), fit, unreadable })
}

/// Slices beside ours that zen-lead did not write: endpoints are the union of all slices.
pub(super) struct Strangers {
    /// Those that add endpoints to the leader Service.
    tied: Vec<String>,
    /// Those that hold a name which a slice of ours has.
    holders: Vec<String>,
    /// One of these that zen-lead made for an earlier leader Service and that a finalizer keeps: its name,
    /// and the pod that it still routes to.
    held: Option<(String, Option<String>)>,
    /// That pod can take traffic.
    held_fit: bool,
}

impl Strangers {
    pub(super) fn beside(snapshot: &Snapshot, leader: &Leader) -> Self {
        let names = |which: &dyn Fn(&Slice) -> bool| {
            let slices = snapshot.slices.iter().filter(|s| which(s));
            let mut names: Vec<String> = slices.map(|s| s.name.to_string()).collect();
            names.sort();
            names.dedup();
            names
        };
        let here = |s: &Slice| *s.service == *leader.name();
        let stranger = |s: &Slice| s.unreadable.is_none() && !(here(s) && s.is_ours(leader));
        let ours = slice_names(leader.name());
        let kept = |s: &&Arc<Slice>| {
            s.deleting && s.managed && s.stamped && ours.iter().any(|name| *name == *s.name)
        };
        let held = snapshot.slices.iter().find(|s| kept(s) && stranger(s)).map(|slice| {
            let uid = slice.routed_pods().next().filter(|_| slice.tied);
            let pod = slice.named_pods().find(|(_, named)| Some(*named) == uid);
            let fit = uid.and_then(|uid| snapshot.pod(uid)).is_some_and(Pod::eligible);
            ((slice.name.to_string(), pod.map(|(name, _)| name.to_owned())), fit)
        });
        let (held, held_fit) = held.map_or((None, false), |(held, fit)| (Some(held), fit));
        Self {
            held,
            held_fit,
            tied: names(&|s| here(s) && s.tied && stranger(s) && !s.deleting),
            holders: names(&|s| stranger(s) && ours.iter().any(|name| *name == *s.name)),
        }
    }

    /// Whether a slice of an earlier leader Service still takes the traffic to a pod that can take it.
    pub(super) fn route(&self) -> bool {
        self.held_fit
    }

    pub(super) fn hold(&self, name: &str) -> bool {
        self.holders.iter().any(|held| held == name)
    }
}

/// Why the slices must stay as they are.
pub(super) enum Unreadable<'a> {
    /// One of them cannot be read.
    Slice { name: &'a str, error: &'a str },
    /// Nothing is known of the pod that leads.
    Leader(&'a Pod),
}

impl<'a> Unreadable<'a> {
    pub(super) fn of(
        snapshot: &'a Snapshot,
        leader: &Leader,
        incumbent: Option<&Incumbent>,
    ) -> Option<Self> {
        if let Some((slice, error)) = snapshot.unreadable_slice(leader) {
            return Some(Self::Slice { name: &slice.name, error });
        }
        // One that the selector has left by its labels is replaced as any other.
        let uid = &*incumbent?.uid;
        let left = snapshot.deselected.iter().any(|p| *p.uid == *uid && p.known != Known::Name);
        snapshot.pod(uid).filter(|pod| pod.unjudged() && !left).map(Self::Leader)
    }
}

/// What was found of a leader Service, for its condition.
pub(super) struct Findings<'a> {
    pub(super) choice: &'a Choice,
    pub(super) routed: Option<&'a Routed>,
    pub(super) strangers: &'a Strangers,
    pub(super) missing_ports: Option<&'a Vec<String>>,
    /// Why the write of a slice is kept back.
    pub(super) held_back: Option<&'a Blocked>,
    pub(super) valid: bool,
    pub(super) unreadable: Option<&'a Unreadable<'a>>,
}

impl Findings<'_> {
    /// The state. Replicas that knew an object before it became unreadable, and that did not, say the same.
    pub(super) fn state(&self) -> LeaderState {
        if let Some(Unreadable::Slice { name, error }) = self.unreadable {
            let message = format!(
                "EndpointSlice {name} cannot be read ({error}) and is left as it is; correct that field, \
                 or delete the EndpointSlice to have it made anew"
            );
            return LeaderState { ready: false, reason: Reason::Unreadable, message };
        }
        let state = self.readable_state();
        match self.routed.filter(|routed| routed.unreadable && state.ready) {
            Some(leader) => LeaderState {
                ready: true,
                reason: Reason::Unreadable,
                message: format!(
                    "the leading pod {} cannot be read, so it stays the leader; correct it, or delete it \
                     to have another one lead; {}",
                    leader.name, state.message
                ),
            },
            None => state,
        }
    }

    fn readable_state(&self) -> LeaderState {
        let Self { choice, routed, strangers, missing_ports, held_back, valid, unreadable } = *self;
        let leads = routed.filter(|r| r.fit);
        let mut pods = mirror::explain(choice, leads.map(|r| r.uid.as_str()));
        if let Some(gone) = routed.filter(|r| !r.fit) {
            pods =
                format!("the EndpointSlice still names {}, which cannot lead; {pods}", gone.name);
        }
        let not = |reason, message| LeaderState { ready: false, reason, message };
        // Where something else is reported first, a refusal is reported after it.
        let refused = held_back.map(|b| format!("; {}", b.message)).unwrap_or_default();
        if !strangers.tied.is_empty() {
            let names = strangers.tied.join(", ");
            return not(
                Reason::ForeignEndpoints,
                format!(
                    "EndpointSlices not written by zen-lead add endpoints to this Service: {names}; \
                     delete them; {pods}{refused}"
                ),
            );
        }
        if let (Some((name, pod)), None) = (&strangers.held, leads) {
            let pod = pod.as_deref().unwrap_or("no pod");
            return not(
                Reason::OwnershipConflict,
                format!(
                    "EndpointSlice {name} of an earlier leader Service is being deleted, a finalizer \
                     keeps it, and it routes {pod}; remove the finalizer; {pods}{refused}"
                ),
            );
        }
        if !strangers.holders.is_empty() && leads.is_none() {
            let names = strangers.holders.join(", ");
            return not(
                Reason::OwnershipConflict,
                format!(
                    "EndpointSlice {names} has the name that zen-lead needs and was not made by \
                     zen-lead; delete it; {pods}{refused}"
                ),
            );
        }
        if leads.is_some() {
            // What else is to be written changes nothing for those who send traffic.
            let message = format!("{pods}{refused}");
            return LeaderState { ready: true, reason: Reason::LeaderRoutingAvailable, message };
        }
        if let Some(blocked) = held_back {
            return not(blocked.reason, format!("{}; {pods}", blocked.message));
        }
        if let (Some(missing), Some((pod, _))) = (missing_ports, &choice.endpoint) {
            return not(
                Reason::PortResolutionFailed,
                format!(
                    "pod {} is to lead and has no container port named {}; add it to the pod or set \
                     {}: partial; {pods}",
                    pod.name,
                    missing.join(", "),
                    keys::setting::PORTS_MODE
                ),
            );
        }
        if choice.standings.is_empty() {
            return not(Reason::NoPodsFound, pods);
        }
        let message = if !valid {
            format!("no new leader while the source is invalid; {pods}")
        } else if let (Some(Unreadable::Leader(pod)), true) = (unreadable, choice.available > 0) {
            let last = &pod.name;
            return not(
                Reason::Unreadable,
                format!(
                    "the last leader {last} cannot be read, so no other pod is chosen; correct it, or \
                     delete it to have another one lead; {pods}"
                ),
            );
        } else if choice.available > 0 {
            format!("waiting for failover-min-delay or min-ready-duration; {pods}")
        } else {
            pods
        };
        not(Reason::NoReadyPods, message)
    }
}
