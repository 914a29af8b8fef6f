//! What must hold after every write. Independent of the code under test: it reads the
//! objects themselves and the history of the API server, and applies rules of its own.

#![allow(clippy::unused_self, reason = "the checks are methods of one family")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::Step;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::index::Snapshot;
use zen_lead_core::index::snapshot::SourceState;
use zen_lead_core::keys::{kubernetes, setting, status};
use zen_lead_core::version::Marks;

use crate::clumsy::unreadable;
use crate::describe::describe;
use crate::facts::{
    Asks, asks, has_address, healthy, is_leader_of, is_slice_of, label, leader_name, named, number,
    ready_since, routed, seconds, selected, siblings, sticky, text, was_made_for,
};
use crate::kept::{fully, kept, leader_of, readable_pods};
use zen_lead_core::fixtures::api::{Server, Stored};

/// A property that does not hold: its name, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub property: &'static str,
    pub found: String,
}

pub fn bad<T>(property: &'static str, found: String) -> Result<T, Bad> {
    Err(Bad { property, found })
}

/// The objects as they were before a write.
pub struct Before {
    services: Arc<BTreeMap<String, Service>>,
    slices: Arc<BTreeMap<String, EndpointSlice>>,
}

impl Before {
    pub fn of(server: &Server) -> Self {
        Self { services: server.services.now.clone(), slices: server.slices.now.clone() }
    }
}

/// What is remembered of all writes.
#[derive(Clone, Default)]
pub struct Ledger {
    pub writes: usize,
    pub switches: usize,
    /// How far the last writer of a slice had really seen, by uid of the slice.
    pub reach: HashMap<String, Marks>,
    /// Leader Services that a user removed by hand, or whose slice a user removed: what the two
    /// families say about each other is not certain until each of them was written again.
    by_hand: HashMap<String, BTreeSet<String>>,
    /// The cluster was restored: a mark above the present version has no meaning.
    pub restored: bool,
    /// A user changed marks by hand.
    pub altered: bool,
    /// How far the fastest clock of a replica is ahead, in milliseconds.
    pub most_ahead: i64,
    /// A decision from older data is not a failure by itself; only its effect on users is.
    pub harm_only: bool,
    /// How far the clocks of the replicas are apart, in milliseconds.
    pub clocks_apart: i64,
    /// The writer of the present write holds back a write of a slice, because it was refused or undone.
    pub held_back: bool,
}

/// Checks the data behind a decision to write a slice: `unsure` means that a watch was lost and no
/// read replaced it.
pub fn sure(step: &Step, unsure: bool) -> Result<(), Bad> {
    match step {
        Step::Slice(_) if unsure => bad("invariant 4", describe(step)),
        _ => Ok(()),
    }
}

impl Ledger {
    /// Everything after a version was lost.
    pub fn restored(&mut self) {
        self.restored = true;
        self.reach.clear();
    }

    /// A user changed what a slice says about its last write: nothing can be compared with it.
    pub fn edited(&mut self, service: &str, slice: &str) {
        self.altered = true;
        self.reach.remove(slice);
        self.by_hand(service);
    }

    /// A user removed this leader Service, or a slice of it, by hand.
    pub fn by_hand(&mut self, service: &str) {
        self.by_hand.insert(service.to_owned(), BTreeSet::new());
    }

    /// A slice of this leader Service was written. It may be the last one that was missing.
    fn written(&mut self, server: &Server, service: &str, family: &str) {
        let spec = server.services.now.get(service).and_then(|s| s.spec.as_ref());
        let families = spec.and_then(|s| s.ip_families.clone()).unwrap_or_default();
        if let Some(written) = self.by_hand.get_mut(service) {
            written.insert(family.to_owned());
            if families.iter().all(|f| written.contains(f)) {
                self.by_hand.remove(service);
            }
        }
    }

    /// A write from data that the restore of the cluster removed: the replica could not know.
    pub fn wrote_from_other_history(&mut self, step: &Step) {
        self.writes += 1;
        // It may have moved one of two families, or the mirror, under a write that compares with another.
        match step {
            Step::Slice(next) => {
                if let SliceWrite::Create(s) | SliceWrite::Replace(s) = &next.write {
                    self.reach.remove(s.metadata.uid.as_deref().unwrap_or_default());
                    self.by_hand(&label(&s.metadata, kubernetes::SERVICE_NAME));
                }
            }
            Step::Mirror(target, ..) => self.by_hand(&target.name),
            _ => {}
        }
    }

    /// Checks a write that the server has just accepted.
    pub fn wrote(
        &mut self,
        server: &Server,
        before: &Before,
        step: &Step,
        view: &Snapshot,
        reach: Marks,
        now: Timestamp,
    ) -> Result<(), Bad> {
        self.writes += 1;
        let (uid, source) = match &view.source {
            SourceState::Absent => (String::new(), None),
            SourceState::Plain { uid } | SourceState::Unreadable { uid, .. } => {
                (uid.to_string(), None)
            }
            SourceState::Judged { uid, source } => (uid.to_string(), Some(&*source.object)),
        };
        let key = &*view.key.name;
        let wanted = source.map_or_else(|| format!("{key}-leader"), leader_name);
        match step {
            Step::CreateLeader(made) => {
                let asked = source
                    .is_some_and(|s| asks(s) == Asks::Leader && leader_name(s) == made.name());
                if !asked || !is_leader_of(made, &before.slices, key, &uid, &wanted) {
                    return bad("only what is asked for is made", describe(step));
                }
                Ok(())
            }
            Step::PatchLeader(target, _)
            | Step::DeleteLeader(target)
            | Step::Mirror(target, ..) => {
                let known = &before.services[&target.name];
                let ours = is_leader_of(known, &before.slices, key, &uid, &wanted);
                // That a leader Service of an earlier source routes to none is still said there.
                let past = matches!(step, Step::Mirror(..)) && was_made_for(known, key);
                if !ours && !past {
                    return bad("invariant 3", format!("{} on {known:?}", describe(step)));
                }
                if let Step::Mirror(..) = step {
                    let new = &server.services.now[&target.name];
                    let (was, is) = (
                        number(&known.metadata, status::LEADER_EPOCH),
                        number(&new.metadata, status::LEADER_EPOCH),
                    );
                    if is < was {
                        return bad(
                            "epochs only grow",
                            format!("mirror of {}: {was} -> {is}", target.name),
                        );
                    }
                }
                Ok(())
            }
            Step::SourceConditions(target, ..) => {
                if target.name != key {
                    return bad("invariant 3", format!("conditions on {} for {key}", target.name));
                }
                Ok(())
            }
            Step::Slice(next) => match &next.write {
                SliceWrite::Delete { name, .. } => {
                    self.ours(&before.slices[name], view, step)?;
                    fully(&before.slices[name], view, step)
                }
                SliceWrite::Create(slice) | SliceWrite::Replace(slice) => {
                    let name = slice.name();
                    let (old, new) = (before.slices.get(&name), &server.slices.now[&name]);
                    if let Some(old) = old {
                        self.ours(old, view, step)?;
                    }
                    self.slice(server, before, old, new, view, reach, now, step)
                }
            },
        }
    }

    /// A slice is changed or removed only where it says that we made it.
    fn ours(&self, old: &EndpointSlice, view: &Snapshot, step: &Step) -> Result<(), Bad> {
        let right = view.leaders.iter().any(|l| is_slice_of(old, &l.object));
        if right { Ok(()) } else { bad("invariant 3", format!("{} over {old:?}", describe(step))) }
    }

    #[allow(clippy::too_many_arguments, reason = "everything that a check of a write needs")]
    fn slice(
        &mut self,
        server: &Server,
        before: &Before,
        old: Option<&EndpointSlice>,
        new: &EndpointSlice,
        view: &Snapshot,
        reach: Marks,
        now: Timestamp,
        step: &Step,
    ) -> Result<(), Bad> {
        let detail = || format!("{} (was {:?})", describe(step), old.map(named));
        if named(new).len() > 1 {
            return bad("invariant 1", detail());
        }
        // A pod that cannot be read keeps its last readable state, and is not a successor.
        let pods = readable_pods(server, reach.pods.0);
        let by_uid = |uid: &str| pods.values().find(|p| p.id() == uid);
        // While a source cannot be read its leader depends on readiness only. Where the source was read before,
        // a pod that its selector has left stays, and does not come back.
        let stays = |uid: &str| old.and_then(routed).as_deref() == Some(uid);
        let held = |uid: &str| match view.source {
            SourceState::Unreadable { selects, .. } => !selects || stays(uid),
            _ => false,
        };
        let deselected = view.deselected.iter().filter(|p| held(&p.uid));
        let candidates: Vec<_> = view.pods.iter().chain(deselected).collect();
        let seen = |uid: &str| candidates.iter().any(|p| *p.uid == *uid);
        let family = new.address_type.as_str();
        let eligible = |uid: &str| {
            seen(uid) && by_uid(uid).is_some_and(|p| healthy(p) && has_address(p, family))
        };
        if let Some(uid) = routed(new)
            && !eligible(&uid)
        {
            return bad("invariant 1: no pod that its writer saw unfit is made ready", detail());
        }
        let id = new.id();
        let (lock, follower) = siblings(server, new);
        if let Some(last) = self.reach.get(&id)
            && reach.behind(last)
        {
            let found = format!("{last} -> {reach}: {}", detail());
            self.harm(server, last, reach, old, new, &found)?;
            if !self.harm_only {
                return bad("no decision from older data than the last", found);
            }
        }
        self.reach.insert(id, reach);
        kept(server, old, new, view, reach, step)?;
        let service = label(&new.metadata, kubernetes::SERVICE_NAME);
        let by_hand = self.by_hand.contains_key(&service);
        let is_lock = lock.is_some_and(|l| l.name() == new.name());
        let leader = leader_of;
        let says = |s: &EndpointSlice| text(&s.metadata, status::LEADER_POD_UID);
        let epoch = |s: &EndpointSlice| number(&s.metadata, status::LEADER_EPOCH);
        if let Some(old) = old {
            if epoch(new) < epoch(old) {
                return bad("epochs only grow", detail());
            }
            // An emptied slice keeps its last leader, even if a user changed its annotations.
            let same = if named(new).is_empty() {
                says(new) == says(old) || says(new) == leader(old)
            } else {
                leader(new) == leader(old)
            };
            if is_lock && !same {
                if epoch(new) <= epoch(old) {
                    return bad("a switch has an epoch of its own", detail());
                }
                self.switches += 1;
            }
            let marks = |s: &EndpointSlice| Marks::parse(&text(&s.metadata, status::DECIDED_AT));
            let void = (self.restored || self.altered) && reach.behind(&marks(old));
            if marks(new).behind(&marks(old)) && !void && !self.harm_only {
                return bad("marks never go back", detail());
            }
        } else if is_lock && !by_hand {
            // A slice made after one was removed by hand cannot be compared and swapped with it; the
            // next decision sees the mirror ahead of it and renews its epoch.
            let owner = new.metadata.owner_references.iter().flatten().next().map(|o| &o.uid);
            let leader = before.services.get(&service).filter(|s| Some(&s.id()) == owner);
            let mirrored = leader.map(|s| number(&s.metadata, status::LEADER_EPOCH));
            if mirrored.is_some_and(|m| epoch(new) < m) {
                return bad("epochs only grow", detail());
            }
        }
        if is_lock && let Some(old) = old {
            self.lock(server, old, new, view, &pods, now, step)?;
        }
        // The two families, by what the writers had seen (design, 3a.5).
        let fit = |uid: &str| by_uid(uid).is_some_and(healthy);
        if is_lock && old.is_none_or(|o| leader(o) != leader(new)) && !by_hand {
            let other = follower.and_then(|f| named(f).into_iter().next()).map(|(uid, _)| uid);
            if let (Some(uid), Some(other)) = (routed(new), other)
                && uid != other
                && fit(&other)
            {
                return bad(
                    "the lock is not switched beside a follower that names a healthy pod",
                    detail(),
                );
            }
        }
        if !is_lock
            && let Some(lock) = lock
            && let Some(uid) = routed(new)
            && !by_hand
        {
            let at = Marks::parse(&text(&lock.metadata, status::DECIDED_AT)).pods.0;
            let pods = server.pods.at(at);
            let fit = pods.values().any(|p| p.id() == uid && healthy(p));
            let elsewhere = named(lock).first().is_some_and(|(l, _)| *l != uid);
            let before = old.is_some_and(|o| named(o).iter().any(|(u, _)| *u == uid));
            if elsewhere && fit && !before && epoch(lock) >= epoch(new) {
                return bad("a follower names no healthy pod that the lock has left", detail());
            }
        }
        self.written(server, &service, family);
        Ok(())
    }

    /// The effect on users of data that is older than the last writer's.
    fn harm(
        &self,
        server: &Server,
        last: &Marks,
        reach: Marks,
        old: Option<&EndpointSlice>,
        new: &EndpointSlice,
        found: &str,
    ) -> Result<(), Bad> {
        let is = routed(new);
        let was = old.and_then(routed);
        let (pods, source) =
            (server.pods.at(last.pods.0), label(&new.metadata, status::SOURCE_SERVICE));
        let fit = |uid: &str| pods.values().any(|p| p.id() == uid && healthy(p));
        if let Some(uid) = &is
            && reach.pods < last.pods
            && !fit(uid)
        {
            let property = "no pod that an earlier writer saw unfit is made ready";
            return bad(property, found.to_owned());
        }
        let sources = server.services.at(last.services.0);
        let stays = was.as_deref().is_some_and(|uid| {
            sources.get(&source).is_some_and(|s| {
                sticky(s) && pods.values().any(|p| p.id() == uid && healthy(p) && selected(p, s))
            })
        });
        if stays && is != was {
            let property = "a leader that an earlier writer saw fit and sticky stays";
            return bad(property, found.to_owned());
        }
        Ok(())
    }

    /// A write of an existing lock: it is never empty in between, and a sticky leader stays.
    #[allow(clippy::too_many_arguments, reason = "everything that a check of a write needs")]
    fn lock(
        &self,
        server: &Server,
        old: &EndpointSlice,
        new: &EndpointSlice,
        view: &Snapshot,
        pods: &BTreeMap<String, Pod>,
        now: Timestamp,
        step: &Step,
    ) -> Result<(), Bad> {
        let SourceState::Judged { uid: source_uid, source } = &view.source else { return Ok(()) };
        let service = label(&new.metadata, kubernetes::SERVICE_NAME);
        let source = &source.object;
        let wanted = leader_name(source);
        let ours = |name: &str| {
            view.leaders.iter().any(|l| {
                l.name() == name
                    && is_leader_of(
                        &l.object,
                        &server.slices.now,
                        &view.key.name,
                        source_uid,
                        &wanted,
                    )
            })
        };
        let holder_is_ours = ours(&leader_name(source));
        let free = matches!(view.holder, zen_lead_core::index::snapshot::Holder::Free);
        if asks(source) != Asks::Leader || !ours(&service) || !(holder_is_ours || free) {
            return Ok(());
        }
        if view.older_rival.is_some() && free {
            return Ok(());
        }
        // After a rename the old leader Service ends once the new one serves.
        let mut renamed = view.slices.iter().filter(|s| *s.service == *wanted);
        if service != wanted && renamed.any(|s| s.routed_pods().next().is_some()) {
            return Ok(());
        }
        let family = new.address_type.as_str();
        let find = |uid: &str| pods.values().find(|p| p.id() == uid);
        let fit = |p: &Pod| healthy(p) && selected(p, source) && has_address(p, family);
        let detail = || format!("{} (was {:?})", describe(step), named(old));
        let was = routed(old).filter(|uid| !uid.is_empty());
        let long_enough = |p: &&Pod| {
            let since = seconds(source, setting::MIN_READY_DURATION);
            fit(p) && (since.is_zero() || ready_since(p) + since <= now)
        };
        // Rule 7: an older version may only take out an endpoint that a newer version wrote.
        let author = format!("{}-", text(&new.metadata, status::WRITER));
        let version = |meta| number(meta, status::DECISION_VERSION);
        let newer = |meta| version(meta) > version(&new.metadata);
        let outranked = !text(&new.metadata, status::WRITE_ID).starts_with(&author)
            || siblings(server, new).1.is_some_and(|follower| newer(&follower.metadata))
            || server.services.now.get(&service).is_some_and(|s| newer(&s.metadata));
        if let Some(was) = &was
            && routed(new).is_none()
            && !outranked
        {
            let delayed = seconds(source, setting::FAILOVER_MIN_DELAY) > SignedDuration::ZERO
                && find(was).is_some_and(|p| {
                    let finished =
                        p.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running");
                    selected(p, source) && !finished && p.metadata.deletion_timestamp.is_none()
                });
            let unknown =
                server.pods.at(Marks::parse(&text(&new.metadata, status::DECIDED_AT)).pods.0);
            let known = |p: &&Pod| unknown.get(&p.name()).is_none_or(|p| !unreadable(&p.metadata));
            let mut successors = pods.values().filter(long_enough).filter(known);
            // The write that has to come first (the follower is made or emptied) may be refused, and is held
            // back for a while after the cause has gone: then the pod that is lost is taken out all the same.
            if !delayed
                && !self.held_back
                && let Some(successor) = successors.next()
            {
                return bad(
                    "invariant 2",
                    format!("{} was at hand: {}", successor.name(), detail()),
                );
            }
        }
        let (last, next) = (leader_of(old), leader_of(new));
        if last != next && sticky(source) && find(&last).is_some_and(fit) {
            return bad("a sticky leader stays while it is fit", detail());
        }
        // The clock that is furthest ahead counts: replicas follow it.
        let latest = now.max(server.now + SignedDuration::from_millis(self.most_ahead));
        let early = |p: &Pod| {
            let asked = seconds(source, setting::MIN_READY_DURATION);
            !asked.is_zero() && ready_since(p) + asked > latest
        };
        if last != next && find(&next).is_some_and(|p| !fit(p) || early(p)) {
            return bad("no pod leads before min-ready-duration", detail());
        }
        Ok(())
    }
}
