//! What must hold after every write, and in the end. Independent of the code under test: it reads the
//! objects themselves and the history of the API server, and decides by rules of its own.

#![allow(clippy::unused_self, reason = "the checks are methods of one family")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zen_lead::decide::Step;
use zen_lead::decide::slices::SliceWrite;
use zen_lead::index::Snapshot;
use zen_lead::index::slice::controller_uid;
use zen_lead::index::snapshot::SourceState;
use zen_lead::keys::{kubernetes, setting, status};
use zen_lead::version::Marks;

use crate::fixtures::api::{Server, Stored};
use crate::tell::describe;

/// A property that does not hold: its name, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub property: &'static str,
    pub found: String,
}

fn bad<T>(property: &'static str, found: String) -> Result<T, Bad> {
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
    /// Somebody removed one of our slices by hand: what the families say of each other is not
    /// certain until both were written again.
    pub by_hand: bool,
    /// The cluster was restored: a mark above everything there is says nothing.
    pub restored: bool,
    /// How far the fastest clock of a replica is ahead, in milliseconds.
    pub most_ahead: i64,
}

// Reading objects.

pub fn text(meta: &ObjectMeta, key: &str) -> String {
    meta.annotations.as_ref().and_then(|a| a.get(key)).cloned().unwrap_or_default()
}

fn label(meta: &ObjectMeta, key: &str) -> String {
    meta.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default()
}

fn number(meta: &ObjectMeta, key: &str) -> u64 {
    text(meta, key).parse().unwrap_or(0)
}

/// Uids of the pods a slice names, and whether they are routed to.
fn named(slice: &EndpointSlice) -> Vec<(String, bool)> {
    let uid = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        e.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default()
    };
    let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        e.conditions.as_ref().and_then(|c| c.ready) != Some(false)
    };
    slice.endpoints.iter().flatten().map(|e| (uid(e), ready(e))).collect()
}

fn routed(slice: &EndpointSlice) -> Option<String> {
    named(slice).into_iter().find(|(_, ready)| *ready).map(|(uid, _)| uid)
}

fn healthy(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ready =
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !finished && pod.metadata.deletion_timestamp.is_none()
}

fn ready_since(pod: &Pod) -> Timestamp {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .find_map(|c| c.last_transition_time.as_ref().map(|t| t.0))
        .unwrap_or_default()
}

fn has_address(pod: &Pod, family: &str) -> bool {
    let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    ips.into_iter().any(|ip| ip.ip.contains(':') == (family == "IPv6"))
}

fn selected(pod: &Pod, source: &Service) -> bool {
    let selector = source.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    !selector.is_empty() && selector.iter().all(|(k, v)| label(&pod.metadata, k) == *v)
}

fn seconds(source: &Service, key: &str) -> SignedDuration {
    let value = text(&source.metadata, key);
    SignedDuration::from_secs(value.trim_end_matches('s').parse().unwrap_or(0))
}

/// What a source asks for, by the few values that the model writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    Invalid,
    Leader,
}

fn asks(source: &Service) -> Asks {
    let value = |key| text(&source.metadata, key);
    if value(setting::STICKY) == "perhaps" {
        Asks::Invalid
    } else if value(setting::ENABLED) == "true" {
        Asks::Leader
    } else {
        Asks::Nothing
    }
}

fn leader_name(source: &Service) -> String {
    let asked = text(&source.metadata, setting::LEADER_SERVICE_NAME);
    if asked.is_empty() { format!("{}-leader", source.name()) } else { asked }
}

fn sticky(source: &Service) -> bool {
    text(&source.metadata, setting::STICKY) != "false"
}

/// Label, source name and controller owner all say that it leads for this source.
fn is_leader_of(service: &Service, source: &str, uid: &str) -> bool {
    label(&service.metadata, kubernetes::MANAGED_BY) == "zen-lead"
        && label(&service.metadata, status::SOURCE_SERVICE) == source
        && controller_uid(&service.metadata) == Some(uid)
}

fn is_slice_of(slice: &EndpointSlice, leader: &Service) -> bool {
    label(&slice.metadata, kubernetes::SLICE_MANAGED_BY) == "zen-lead"
        && label(&slice.metadata, kubernetes::SERVICE_NAME) == leader.name()
        && controller_uid(&slice.metadata) == Some(&*leader.id())
}

impl Ledger {
    /// Everything after a version was lost.
    pub fn restored(&mut self) {
        self.restored = true;
        self.reach.clear();
    }

    /// A write that rests on what was lost when the cluster was restored: nobody could know.
    pub fn wrote_from_other_history(&mut self, step: &Step) {
        self.writes += 1;
        if let Step::Slice(next) = step
            && let SliceWrite::Create(s) | SliceWrite::Replace(s) = &next.write
        {
            self.reach.remove(s.metadata.uid.as_deref().unwrap_or_default());
        }
    }

    /// Judges a write that the server has just accepted.
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
            SourceState::Plain { uid } => (uid.to_string(), None),
            SourceState::Judged { uid, source } => (uid.to_string(), Some(&source.object)),
        };
        let key = &*view.key.name;
        match step {
            Step::CreateLeader(made) => {
                let asked = source
                    .is_some_and(|s| asks(s) == Asks::Leader && leader_name(s) == made.name());
                if !asked || !is_leader_of(made, key, &uid) {
                    return bad("only what is asked for is made", describe(step));
                }
                Ok(())
            }
            Step::PatchLeader(target, _)
            | Step::DeleteLeader(target)
            | Step::ClearBuiltIn(target)
            | Step::Mirror(target, ..) => {
                let known = &before.services[&target.name];
                // A label of ours that was taken off may be put back by the owner alone.
                if !is_leader_of(known, key, &uid) {
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
                SliceWrite::Delete { name, .. } => self.ours(&before.slices[name], view, step),
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
        let owner = controller_uid(&old.metadata).unwrap_or_default();
        let right = label(&old.metadata, kubernetes::SLICE_MANAGED_BY) == "zen-lead"
            && label(&old.metadata, status::SOURCE_SERVICE) == *view.key.name
            && view.leaders.iter().any(|l| l.uid() == owner);
        if right { Ok(()) } else { bad("invariant 3", format!("{} over {old:?}", describe(step))) }
    }

    #[allow(clippy::too_many_arguments, reason = "everything a write can be judged by")]
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
        let told = || format!("{} (was {:?})", describe(step), old.map(named));
        if named(new).len() > 1 {
            return bad("invariant 1", told());
        }
        let pods = server.pods.at(reach.pods.0);
        let by_uid = |uid: &str| pods.values().find(|p| p.id() == uid);
        let seen = |uid: &str| view.pods.iter().any(|p| *p.uid == *uid);
        let family = new.address_type.as_str();
        let eligible = |uid: &str| {
            seen(uid) && by_uid(uid).is_some_and(|p| healthy(p) && has_address(p, family))
        };
        if let Some(uid) = routed(new)
            && !eligible(&uid)
        {
            return bad("invariant 1: nobody that its writer saw unfit is made ready", told());
        }
        let id = new.id();
        if let Some(last) = self.reach.get(&id)
            && reach.behind(last)
        {
            return bad(
                "no decision from older data than the last",
                format!("{last} -> {reach}: {}", told()),
            );
        }
        self.reach.insert(id, reach);
        let (lock, follower) = siblings(server, new);
        let is_lock = lock.is_some_and(|l| l.name() == new.name());
        let leader = |s: &EndpointSlice| text(&s.metadata, status::LEADER_POD_UID);
        let epoch = |s: &EndpointSlice| number(&s.metadata, status::LEADER_EPOCH);
        if let Some(old) = old {
            if epoch(new) < epoch(old) {
                return bad("epochs only grow", told());
            }
            if is_lock && leader(new) != leader(old) {
                if epoch(new) <= epoch(old) {
                    return bad("a switch has an epoch of its own", told());
                }
                self.switches += 1;
            }
            let marks = |s: &EndpointSlice| Marks::parse(&text(&s.metadata, status::DECIDED_AT));
            let void = self.restored && reach.behind(&marks(old));
            if marks(new).behind(&marks(old)) && !void {
                return bad("marks never go back", told());
            }
        } else if is_lock && !self.by_hand {
            // A slice made after one was removed by hand cannot be compared and swapped with it; the
            // next decision sees the mirror ahead of it and renews its epoch.
            let service = label(&new.metadata, kubernetes::SERVICE_NAME);
            let mirrored =
                before.services.get(&service).map(|s| number(&s.metadata, status::LEADER_EPOCH));
            if mirrored.is_some_and(|m| epoch(new) < m) {
                return bad("epochs only grow", told());
            }
        }
        if is_lock && let Some(old) = old {
            self.lock(server, old, new, view, &pods, now, step)?;
        }
        // The two families, by what the writers had seen (design, 3a.5).
        let fit = |uid: &str| by_uid(uid).is_some_and(healthy);
        if is_lock && old.is_none_or(|o| leader(o) != leader(new)) && !self.by_hand {
            let other = follower.and_then(|f| named(f).into_iter().next()).map(|(uid, _)| uid);
            if let (Some(uid), Some(other)) = (routed(new), other)
                && uid != other
                && fit(&other)
            {
                return bad(
                    "the lock is not switched beside a follower that names a healthy pod",
                    told(),
                );
            }
        }
        if !is_lock
            && let Some(lock) = lock
            && let Some(uid) = routed(new)
            && !self.by_hand
        {
            let at = Marks::parse(&text(&lock.metadata, status::DECIDED_AT)).pods.0;
            let judged = server.pods.at(at);
            let fit = judged.values().any(|p| p.id() == uid && healthy(p));
            let elsewhere = named(lock).first().is_some_and(|(l, _)| *l != uid);
            let before = old.is_some_and(|o| named(o).iter().any(|(u, _)| *u == uid));
            if elsewhere && fit && !before && epoch(lock) >= epoch(new) {
                return bad("a follower names no healthy pod that the lock has left", told());
            }
        }
        Ok(())
    }

    /// A lock written over a lock: never through empty, and a sticky leader stays.
    #[allow(clippy::too_many_arguments, reason = "everything a write can be judged by")]
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
        let ours = |name: &str| {
            view.leaders.iter().any(|l| l.name() == name && l.is_ours(&view.key.name, source_uid))
        };
        let source = &source.object;
        let holder_is_ours = ours(&leader_name(source));
        let free = matches!(view.holder, zen_lead::index::snapshot::Holder::Free);
        if asks(source) != Asks::Leader || !ours(&service) || !(holder_is_ours || free) {
            return Ok(());
        }
        if view.older_rival.is_some() && free {
            return Ok(());
        }
        let family = new.address_type.as_str();
        let find = |uid: &str| pods.values().find(|p| p.id() == uid);
        let fit = |p: &Pod| healthy(p) && selected(p, source) && has_address(p, family);
        let told = || format!("{} (was {:?})", describe(step), named(old));
        let was = routed(old).filter(|uid| !uid.is_empty());
        let long_enough = |p: &&Pod| {
            let since = seconds(source, setting::MIN_READY_DURATION);
            fit(p) && (since.is_zero() || ready_since(p) + since <= now)
        };
        // Rule 7: over what a newer version wrote, an older one takes out and leaves the rest to it.
        let author = format!("{}-", text(&new.metadata, status::WRITER));
        let outranked = !text(&new.metadata, status::WRITE_ID).starts_with(&author);
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
            if !delayed && let Some(successor) = pods.values().find(long_enough) {
                return bad("invariant 2", format!("{} was at hand: {}", successor.name(), told()));
            }
        }
        let last = text(&old.metadata, status::LEADER_POD_UID);
        let next = text(&new.metadata, status::LEADER_POD_UID);
        if last != next && sticky(source) && find(&last).is_some_and(fit) {
            return bad("a sticky leader stays while it is fit", told());
        }
        // By the clock that is furthest ahead: replicas follow it.
        let latest = now.max(server.now + SignedDuration::from_millis(self.most_ahead));
        let early = |p: &Pod| {
            let asked = seconds(source, setting::MIN_READY_DURATION);
            !asked.is_zero() && ready_since(p) + asked > latest
        };
        if last != next && find(&next).is_some_and(|p| !fit(p) || early(p)) {
            return bad("nobody leads before min-ready-duration", told());
        }
        Ok(())
    }
}

/// Lock and follower of the leader Service a slice belongs to.
fn siblings<'a>(
    server: &'a Server,
    slice: &EndpointSlice,
) -> (Option<&'a EndpointSlice>, Option<&'a EndpointSlice>) {
    let service = label(&slice.metadata, kubernetes::SERVICE_NAME);
    let find = |family: &str| {
        let name = format!("{service}-zen-lead-{family}");
        server
            .slices
            .now
            .get(&name)
            .filter(|s| controller_uid(&s.metadata) == controller_uid(&slice.metadata))
    };
    (find("ipv4"), find("ipv6"))
}

/// Judges the world at rest.
///
/// `version` is the highest decision version alive: from 2 on the youngest pod comes first.
pub fn at_rest(server: &Server, sources: &[&str], version: u32) -> Result<(), Bad> {
    for name in sources {
        let source = server.services.now.get(*name);
        let uid = source.map(Stored::id).unwrap_or_default();
        let own: Vec<&Service> =
            server.services.now.values().filter(|s| is_leader_of(s, name, &uid)).collect();
        let Some(source) = source.filter(|s| asks(s) != Asks::Nothing) else {
            if !own.is_empty() {
                let names: Vec<_> = own.iter().map(|s| s.name()).collect();
                return bad("at rest: nobody asks for it", format!("{names:?} of {name}"));
            }
            continue;
        };
        let wanted = leader_name(source);
        let holder = server.services.now.get(&wanted);
        let mine = holder.filter(|h| is_leader_of(h, name, &uid));
        let valid = asks(source) == Asks::Leader;
        if valid && holder.is_none() {
            return bad("at rest: the leader Service is missing", wanted);
        }
        if valid && mine.is_some() && own.len() > 1 {
            let names: Vec<_> = own.iter().map(|s| s.name()).collect();
            return bad("at rest: one leader Service", format!("{names:?} of {name}"));
        }
        let problem = !valid || mine.is_none();
        if problem != (condition(source) == "False") {
            return bad(
                "at rest: the source says whether it is served",
                format!("{name}: problem {problem}, {source:?}"),
            );
        }
        for leader in &own {
            served(server, source, leader, valid && mine.is_some(), version)?;
        }
    }
    for slice in server.slices.now.values() {
        let service = label(&slice.metadata, kubernetes::SERVICE_NAME);
        let ours = label(&slice.metadata, kubernetes::SLICE_MANAGED_BY) == "zen-lead";
        if ours && !server.services.now.contains_key(&service) {
            return bad("at rest: no slice without its Service", slice.name());
        }
    }
    Ok(())
}

fn condition(service: &Service) -> String {
    let all = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut ours = all.filter(|c| c.type_ == zen_lead::keys::CONDITION_LEADER_READY);
    ours.next().map(|c| c.status.clone()).unwrap_or_default()
}

fn served(
    server: &Server,
    source: &Service,
    leader: &Service,
    promotes: bool,
    version: u32,
) -> Result<(), Bad> {
    let families = leader.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    let lock_name = format!("{}-zen-lead-ipv4", leader.name());
    let taken = |name: &str| server.slices.now.get(name).is_some_and(|s| !is_slice_of(s, leader));
    if taken(&lock_name) {
        let follower = server.slices.now.get(&format!("{}-zen-lead-ipv6", leader.name()));
        return match follower.filter(|s| is_slice_of(s, leader)).and_then(routed) {
            None => Ok(()),
            Some(uid) => bad("at rest: without a lock nobody leads", uid),
        };
    }
    let Some(lock) = server.slices.now.get(&lock_name) else {
        return bad("at rest: the lock is missing", lock_name);
    };
    let fit = |p: &Pod| healthy(p) && selected(p, source) && has_address(p, "IPv4");
    let long_enough =
        |p: &Pod| ready_since(p) + seconds(source, setting::MIN_READY_DURATION) <= server.now;
    let last = text(&lock.metadata, status::LEADER_POD_UID);
    let is = routed(lock);
    let told = || {
        let pods: Vec<_> = server
            .pods
            .now
            .values()
            .map(|p| format!("{}={} fit {} since {}", p.name(), p.id(), fit(p), ready_since(p)))
            .collect();
        format!("{}: routed {is:?}, last {last}, pods {pods:?}, now {}", lock.name(), server.now)
    };
    let incumbent = server.pods.now.values().find(|p| p.id() == last).filter(|p| fit(p));
    let mut fit_pods: Vec<&Pod> = server.pods.now.values().filter(|p| fit(p)).collect();
    fit_pods.retain(|p| long_enough(p) || p.id() == last);
    let age = |p: &Pod| {
        let created = p.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_millisecond());
        if version > 1 { -created } else { created }
    };
    fit_pods.sort_by_key(|p| (age(p), p.name()));
    let right = match (&is, promotes) {
        (Some(uid), false) => incumbent.is_some_and(|p| p.id() == *uid),
        (None, false) => incumbent.is_none(),
        (Some(uid), true) if sticky(source) => {
            *uid == last && fit_pods.iter().any(|p| p.id() == *uid)
        }
        (Some(uid), true) => fit_pods.first().is_some_and(|p| p.id() == *uid),
        (None, true) => fit_pods.is_empty(),
    };
    if !right {
        return bad("at rest: the right pod leads", told());
    }
    let follower_name = format!("{}-zen-lead-ipv6", leader.name());
    let follower = server.slices.now.get(&follower_name).filter(|s| is_slice_of(s, leader));
    if families.len() > 1 && !taken(&follower_name) {
        let same =
            |key| follower.map(|f| text(&f.metadata, key)) == Some(text(&lock.metadata, key));
        let routes = follower.is_some_and(|f| routed(f) == is);
        if !routes || !same(status::LEADER_EPOCH) || !same(status::LEADER_POD_UID) {
            return bad(
                "at rest: the families agree",
                format!("{:?} beside {:?}", follower.map(|f| &f.metadata), lock.metadata),
            );
        }
    } else if families.len() == 1 && follower.is_some() {
        return bad("at rest: one slice a family", follower_name);
    }
    for key in [status::LEADER_EPOCH, status::LEADER_POD_UID, status::LEADER_POD_NAME] {
        // A slice that never had a leader says epoch 0, its mirror nothing.
        let says = |meta| Some(text(meta, key)).filter(|v| v != "0").unwrap_or_default();
        if says(&leader.metadata) != says(&lock.metadata) {
            return bad("at rest: the mirror is true", format!("{key}: {:?}", leader.metadata));
        }
    }
    let foreign = server.slices.now.values().any(|s| {
        label(&s.metadata, kubernetes::SERVICE_NAME) == leader.name() && !is_slice_of(s, leader)
    });
    let ready = if is.is_some() && !foreign { "True" } else { "False" };
    if condition(leader) != ready {
        return bad(
            "at rest: LeaderReady is true",
            format!("{ready} expected: {:?}", leader.status),
        );
    }
    let spec = leader.spec.clone().unwrap_or_default();
    let wanted = source.spec.clone().unwrap_or_default();
    if promotes
        && (spec.selector.is_some()
            || spec.ports != wanted.ports
            || spec.ip_families != wanted.ip_families)
    {
        return bad("at rest: the leader Service is as asked", format!("{spec:?}"));
    }
    Ok(())
}
