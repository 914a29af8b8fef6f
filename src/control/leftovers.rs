//! Removes what the built-in controllers made for leader Services while a user had put a selector on one:
//! `EndpointSlices` and Endpoints. No controller removes them, and they would route to all pods.
//!
//! They are watched, not looked for once the selector is off: a controller that is behind, or whose
//! calls wait for their turn, makes them after that. That a leader Service has no selector is
//! `decide`'s business.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::control::apply::Applier;
use crate::control::pause::{LAST_WAIT, for_rank, next_wait};
use crate::control::reader::Reader;
use crate::control::watch::{self, Kind, Sink, WatchGroup, Watched};
use crate::platform::api::CallError;
use crate::platform::clock;
use crate::platform::metrics::Metrics;
use crate::platform::supervise::Supervisor;
use crate::shared::{Replicas, SharedIndex};
use zen_lead_core::decide::ObjectRef;
use zen_lead_core::decode::Decoded;
use zen_lead_core::index::service::selector;
use zen_lead_core::index::slice::controller_uid;
use zen_lead_core::index::{Snapshot, SourceState};
use zen_lead_core::keys::{kubernetes, status};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::ranking;
use zen_lead_core::version::Rv;

/// Between two looks while there is anything: what is not to be removed yet (the selector is still
/// on) may be at the next one, and no event of its own says so.
const LOOK: Duration = Duration::from_secs(1);

/// An object of a built-in controller that carries the label of a leader Service: they copy the
/// labels of the Service (kubernetes/endpointslice `setEndpointSliceLabels`, `endpoints_controller`).
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover {
    /// What it is.
    pub made: LeftoverKind,
    /// The object.
    pub target: ObjectRef,
    /// The Service it was made for.
    service: ServiceKey,
}

/// What a built-in controller makes of a Service with a selector.
#[derive(Clone, Debug, PartialEq)]
pub enum LeftoverKind {
    /// An `EndpointSlice`, of which the Service with this uid is the controller; it has no controller after
    /// an orphaning deletion of that Service.
    Slice(Option<String>),
    /// An Endpoints object; it has no owner, but the name of its Service.
    Endpoints,
}

impl Leftover {
    fn slice(meta: &ObjectMeta) -> Option<Self> {
        let made = LeftoverKind::Slice(controller_uid(meta).map(str::to_owned));
        let service = meta.labels.as_ref()?.get(kubernetes::SERVICE_NAME)?.clone();
        Self::read(meta.clone(), made, service)
    }

    fn endpoints(meta: &ObjectMeta) -> Option<Self> {
        Self::read(meta.clone(), LeftoverKind::Endpoints, meta.name.clone()?)
    }

    /// `None` where it is being deleted already.
    fn read(meta: ObjectMeta, made: LeftoverKind, service: String) -> Option<Self> {
        if meta.deletion_timestamp.is_some() {
            return None;
        }
        let service = ServiceKey::new(meta.namespace?, service);
        let target = ObjectRef { name: meta.name?, uid: meta.uid?, version: meta.resource_version };
        Some(Self { made, target, service })
    }

    /// Whether it was made for a leader Service of zen-lead that has no selector (any longer).
    fn is_left_over(&self, snapshot: &Snapshot) -> bool {
        let (SourceState::Plain { uid } | SourceState::Judged { uid, .. }) = &snapshot.source
        else {
            return false;
        };
        snapshot.leaders.iter().any(|leader| {
            leader.unreadable.is_none()
                && snapshot.owns(leader, uid)
                && *leader.name() == *self.service.name
                && selector(&leader.object).next().is_none()
                && match &self.made {
                    LeftoverKind::Slice(owner) => {
                        owner.as_deref().is_none_or(|owner| owner == leader.uid())
                    }
                    LeftoverKind::Endpoints => true,
                }
        })
    }
}

/// What was found, and a bell for changes.
#[derive(Default)]
struct FoundLeftovers {
    slices: ByName,
    endpoints: ByName,
    changed: Notify,
}

/// Namespace and name.
type ObjectName = (String, String);
type ByName = Mutex<BTreeMap<ObjectName, Leftover>>;

impl FoundLeftovers {
    fn all(&self) -> Vec<Leftover> {
        let piles = [&self.slices, &self.endpoints];
        piles.iter().flat_map(|pile| pile.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// With the sources of their Services. The label with the name of the source does not count: a webhook may
/// have changed it.
fn by_source(index: &SharedIndex, all: Vec<Leftover>) -> BTreeMap<ServiceKey, Vec<Leftover>> {
    let index = index.read();
    let mut sources: BTreeMap<ServiceKey, Vec<Leftover>> = BTreeMap::new();
    for left in all {
        if let Some(source) = index.source_of(&left.service) {
            sources.entry(source).or_default().push(left);
        }
    }
    sources
}

/// Delivers the objects of one kind.
struct FoundSink {
    found: Arc<FoundLeftovers>,
    pile: fn(&FoundLeftovers) -> &ByName,
    read: fn(&ObjectMeta) -> Option<Leftover>,
}

impl FoundSink {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<ObjectName, Leftover>)) {
        change(&mut (self.pile)(&self.found).lock());
        self.found.changed.notify_one();
    }
}

impl<K: Watched> Sink<K> for FoundSink {
    /// Where it is, and what is left over there.
    type Kept = (ObjectName, Option<Leftover>);

    fn trim(&self, object: K) -> Self::Kept {
        let place = (object.namespace().unwrap_or_default(), object.name_any());
        (place, (self.read)(object.meta()))
    }

    fn reset(&self, objects: Vec<Self::Kept>, _: Rv) {
        let some = |(place, left): Self::Kept| left.map(|left| (place, left));
        self.change(|pile| *pile = objects.into_iter().filter_map(some).collect());
    }

    fn apply(&self, (place, left): Self::Kept, _: Rv) {
        self.change(|pile| {
            // An object that another owner has taken, or that is being deleted, is no leftover any longer.
            _ = match left {
                Some(left) => pile.insert(place, left),
                None => pile.remove(&place),
            };
        });
    }

    fn delete(&self, (place, _): Self::Kept, _: Rv) {
        self.change(|pile| _ = pile.remove(&place));
    }
}

/// What they are removed with.
pub struct Remover {
    /// Says where to look.
    pub index: SharedIndex,
    /// Consistent reads.
    pub reader: Arc<Reader>,
    /// Deletions.
    pub applier: Arc<Applier>,
    /// Name of this replica's pod.
    pub me: String,
    /// Ready replicas.
    pub replicas: Replicas,
}

/// Watches for them and removes them, until the process ends.
pub fn start(client: &Client, remover: Remover, metrics: &Arc<Metrics>, supervisor: &Supervisor) {
    let found = Arc::new(FoundLeftovers::default());
    let labels = |key: &str, controller: &str| {
        ListParams::default().labels(&format!("{key}={controller},{}", status::SOURCE_SERVICE))
    };
    let slices = WatchGroup::new(Kind::BuiltInSlices, metrics.clone(), |_| {});
    watch::start(
        supervisor,
        "built-in slices watch",
        &slices,
        Api::<Decoded<EndpointSlice>>::all(client.clone()),
        labels(kubernetes::SLICE_MANAGED_BY, kubernetes::SLICE_CONTROLLER),
        FoundSink { found: found.clone(), pile: |f| &f.slices, read: Leftover::slice },
    );
    slices.seal();
    let endpoints = WatchGroup::new(Kind::BuiltInEndpoints, metrics.clone(), |_| {});
    watch::start(
        supervisor,
        "built-in Endpoints watch",
        &endpoints,
        Api::<Decoded<Endpoints>>::all(client.clone()),
        labels(kubernetes::ENDPOINTS_MANAGED_BY, kubernetes::ENDPOINTS_CONTROLLER),
        FoundSink { found: found.clone(), pile: |f| &f.endpoints, read: Leftover::endpoints },
    );
    endpoints.seal();
    let metrics = metrics.clone();
    supervisor.spawn_until_stopping("leftovers", async move {
        keep_removing(&remover, &found, &metrics).await;
    });
}

/// When each is tried again, by uid, and the wait before that.
type Tried = HashMap<String, (Instant, Duration)>;

async fn keep_removing(on: &Remover, found: &FoundLeftovers, metrics: &Metrics) {
    let mut tried = Tried::new();
    loop {
        let all = found.all();
        metrics.set_cache_size("leftovers", all.len());
        let there: HashSet<&str> = all.iter().map(|l| &*l.target.uid).collect();
        tried.retain(|uid, _| there.contains(&**uid));
        if all.is_empty() {
            found.changed.notified().await;
            continue;
        }
        remove(on, by_source(&on.index, all), &mut tried).await;
        sleep(LOOK).await;
    }
}

/// Removes what is left over by a read of its namespace; without one, the cache only says where to
/// look. Each is tried by itself, with growing pauses: what cannot be removed holds up nothing else, and
/// makes no calls without end, whatever the answer is.
async fn remove(on: &Remover, all: BTreeMap<ServiceKey, Vec<Leftover>>, tried: &mut Tried) {
    for (source, mut some) in all {
        let cached = on.index.read().snapshot(&source);
        let now = clock::monotonic();
        some.retain(|left| {
            let held = tried.get(&left.target.uid).is_some_and(|(until, _)| *until > now);
            !held && left.is_left_over(&cached)
        });
        if some.is_empty() {
            continue;
        }
        let rank = ranking::rank(&on.me, &on.replicas.read(), &source);
        for left in &some {
            let last = tried.get(&left.target.uid).map(|(_, wait)| *wait);
            let wait = next_wait(last);
            tried.insert(left.target.uid.clone(), (now + for_rank(wait, rank), wait));
        }
        let outcome = match on.reader.read(&source).await {
            Ok(read) => {
                let read = read.snapshot(&source);
                some.retain(|left| left.is_left_over(&read));
                remove_all(on, &source, &some).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            warn!(
                key = %source,
                "what a built-in controller left behind a leader Service is not removed: {error}; \
                 tried again with pauses that grow to {LAST_WAIT:?}"
            );
        }
    }
}

/// The others are tried although one failed; the last error is reported.
async fn remove_all(on: &Remover, source: &ServiceKey, some: &[Leftover]) -> Result<(), CallError> {
    let mut result = Ok(());
    for left in some {
        let done = match left.made {
            LeftoverKind::Slice(_) => on.applier.delete_slice(source, &left.target).await,
            LeftoverKind::Endpoints => on.applier.delete_endpoints(source, &left.target).await,
        };
        match done {
            Ok(()) => info!(
                key = %source, leader_service = %left.service.name, name = %left.target.name,
                "removed what a built-in controller left behind a leader Service"
            ),
            Err(error) => result = Err(error),
        }
    }
    result
}

#[cfg(test)]
mod tests;
