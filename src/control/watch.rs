//! The list-and-watch loop: keeps a [`Sink`] in step with the API server, for as long as it runs.
//!
//! Our own over kube's `list` and `watch`, because kube-runtime's watcher hides the versions of
//! lists and bookmarks, and those are how a replica proves how far it has seen. What is kept of an
//! object, and what follows from it, is the sink's business.

mod follow;
mod group;
mod handle;
mod list;
pub mod page;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use strum::{IntoStaticStr, VariantArray};

pub use group::WatchGroup;
pub use handle::{WatchHandle, WatchState};

use crate::platform::api::{Caller, Delays, Policy, whole_ms};
use crate::platform::metrics::Metrics;
use crate::platform::operation::Operation;
use crate::platform::supervise::Supervisor;
use follow::End;
use handle::Pulse;
use list::ListError;
use zen_lead_core::decode::{Decoded, Shape, Trim};
use zen_lead_core::version::Rv;

/// Where a watch delivers. All methods are called from the one task of the watch, in order, and
/// hold it up while they run.
pub trait Sink<K>: Send + Sync + 'static {
    /// What is kept of an object.
    type Kept: Send;

    /// Takes from an object what is to be kept. Called page by page while a list is read, so that
    /// a large list is never in memory untrimmed.
    fn trim(&self, object: K) -> Self::Kept;

    /// A list: these are all objects; whatever else was known has vanished.
    fn reset(&self, objects: Vec<Self::Kept>, version: Rv);

    /// An object was created or changed.
    fn apply(&self, object: Self::Kept, version: Rv);

    /// An object was deleted; `object` is its last state.
    fn delete(&self, object: Self::Kept, version: Rv);

    /// Everything up to `version` has been delivered (a bookmark).
    fn heard(&self, _version: Rv) {}

    /// What was delivered is up to date: after the first list, and again after the watch was lost.
    fn live(&self) {}
}

/// What is watched; a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// Services.
    Services,
    /// Pods.
    Pods,
    /// EndpointSlices.
    #[strum(serialize = "endpointslices")]
    Slices,
    /// EndpointSlices of zen-lead's own Service.
    Replicas,
    /// EndpointSlices that the built-in controller made for leader Services.
    #[strum(serialize = "built_in_endpointslices")]
    BuiltInSlices,
    /// Endpoints that the built-in controller made for leader Services.
    BuiltInEndpoints,
    /// Secrets: the one with the CA.
    Secrets,
    /// Webhook configurations.
    Webhooks,
}

impl Kind {
    /// The call that lists it.
    pub(crate) fn list(self) -> Operation {
        match self {
            Self::Services => Operation::ListServices,
            Self::Pods => Operation::ListPods,
            Self::Slices | Self::Replicas | Self::BuiltInSlices => Operation::ListSlices,
            Self::BuiltInEndpoints => Operation::ListEndpoints,
            Self::Secrets => Operation::ListSecrets,
            Self::Webhooks => Operation::ListWebhooks,
        }
    }

    /// The call that watches it.
    fn watch(self) -> Operation {
        match self {
            Self::Services => Operation::WatchServices,
            Self::Pods => Operation::WatchPods,
            Self::Slices | Self::Replicas | Self::BuiltInSlices => Operation::WatchSlices,
            Self::BuiltInEndpoints => Operation::WatchEndpoints,
            Self::Secrets => Operation::WatchSecrets,
            Self::Webhooks => Operation::WatchWebhooks,
        }
    }
}

/// Why a watch was started again; a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Restart {
    /// It came to its planned end.
    End,
    /// Its version is no longer kept (410): everything is listed again.
    Gone,
    /// Versions went backwards (a restored cluster): everything is listed again.
    History,
    /// Silent beyond its planned end: the connection is dead.
    Silent,
    /// The connection failed or broke.
    Connection,
    /// The server asked us to slow down (429).
    Throttled,
    /// The server failed (5xx).
    Server,
    /// The server refused (other 4xx, for example missing rights).
    Refused,
    /// A list failed.
    List,
}

zen_lead_core::texts!(all Kind, Restart);

/// The times of the loop. A connection that dies silently is noticed when its watch has not ended
/// `grace` after its planned end: 25 to 35 s after it began.
mod times {
    use super::Duration;

    /// Planned length of a watch, jittered so that watches do not all start again together.
    pub(super) const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 25..=30;
    /// How long after its planned end a watch is given up.
    pub(super) const GRACE: Duration = Duration::from_secs(5);
    /// For the answer to a watch request; the server sends its headers at once.
    pub(super) const OPEN: Duration = Duration::from_secs(10);
    /// For one page of a list, repetitions included.
    pub(super) const PAGE: Duration = Duration::from_secs(30);
    /// For a whole list. The token that asks for the next page is good for about five minutes (until
    /// etcd is compacted), so a slower list could not be finished anyway.
    pub(super) const LIST: Duration = Duration::from_mins(4);
    /// A watch without news that has stayed open this long is taken to have sent what was due: the
    /// server starts with the backlog.
    pub(super) const SETTLED: Duration = Duration::from_secs(1);
    /// Lost when not heard from for this long, whatever the reason: 40 s are promised until it shows.
    pub(super) const SILENT: Duration = Duration::from_secs(38);
    /// Lost when starting again has failed for this long. An API server that restarts behind its
    /// load balancer is back sooner, and while it is away nothing can be written anyway; longer
    /// than this, other replicas may well see what we do not.
    pub(super) const FAILING: Duration = Duration::from_secs(15);
    pub(super) const FIRST_DELAY: Duration = Duration::from_millis(50);
    pub(super) const MAX_DELAY: Duration = Duration::from_secs(5);
    /// The longest pause taken on a server's word: a watch must come back by itself.
    pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
}

/// What can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// The object without what is not needed of it, as soon as it is read.
    fn trimmed(self) -> Self {
        self
    }

    /// What is wrong with an object that is there and cannot be read.
    fn unreadable(&self) -> Option<String> {
        None
    }
}

impl<K> Watched for Decoded<K>
where
    K: Resource<DynamicType = ()> + Shape + Trim + Clone + Debug + Send + 'static,
{
    fn trimmed(self) -> Self {
        Self::trimmed(self)
    }

    fn unreadable(&self) -> Option<String> {
        let Self::Unreadable(found) = self else { return None };
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let meta = &found.metadata;
        Some(format!("{}/{}: {}", name(&meta.namespace), name(&meta.name), found.error))
    }
}

/// One watch; it does nothing until [`Watch::run`] is polled and ends when that is dropped.
pub struct Watch<K, S> {
    api: Api<K>,
    kind: Kind,
    /// Labels and fields of the objects that are watched.
    selector: ListParams,
    sink: Arc<S>,
    pulse: Pulse,
    caller: Caller,
    delays: Delays,
    /// Openings in a row that failed for a passing reason.
    failed: u32,
    /// Waits before a list that follows one from which nothing could be watched.
    relists: Option<Delays>,
}

/// How the pages of a list are called.
fn caller(metrics: Arc<Metrics>) -> Caller {
    let policy = Policy {
        deadline: times::PAGE,
        attempt: times::PAGE,
        first_delay: times::FIRST_DELAY,
        max_delay: times::MAX_DELAY,
    };
    Caller { policy, ..Caller::new(metrics) }
}

impl<K: Watched, S: Sink<K>> Watch<K, S> {
    /// Lists and watches without end. Dropping the future ends the watch; its handle then says `Lost`.
    pub async fn run(mut self) {
        loop {
            let version = self.list().await;
            self.follow(version).await;
        }
    }

    /// Lists until it succeeds, and returns the version of the list.
    async fn list(&mut self) -> Rv {
        loop {
            let trim = |object| self.sink.trim(object);
            let list = list::all(&self.api, &self.caller, self.kind.list(), &self.selector, trim);
            match self.pulse.or_lose(list).await {
                Ok(listed) => {
                    for error in listed.malformed {
                        self.malformed(&error);
                    }
                    let objects = listed.objects.len();
                    self.sink.reset(listed.objects, listed.version);
                    self.pulse.reset(listed.version);
                    self.heard(listed.version);
                    tracing::debug!(kind = self.kind.as_str(), objects, %listed.version, "listed");
                    return listed.version;
                }
                Err(error) => self.pause(Restart::List, &error, error.retry_after()).await,
            }
        }
    }

    /// Watches from `version`, again and again, until everything has to be listed again: at once, but
    /// where that was so right after the last list as well.
    async fn follow(&mut self, mut version: Rv) {
        loop {
            match self.watch_once(&mut version).await {
                End::Planned => self.count(Restart::End),
                End::Relist(reason) => {
                    self.count(reason);
                    // What is known is out of date until the list is in.
                    self.pulse.failing();
                    let (kind, reason) = (self.kind.as_str(), reason.as_str());
                    tracing::info!(kind, %version, reason, "watch cannot go on, listing again");
                    if let Some(delays) = &mut self.relists {
                        let wait = tokio::time::sleep(delays.next_delay());
                        self.pulse.or_lose(wait).await;
                    } else {
                        self.relists = Some(Delays::new(times::FIRST_DELAY, times::MAX_DELAY));
                    }
                    return;
                }
                End::Failed { reason, message, retry_after } => {
                    self.pause(reason, &message, retry_after).await;
                }
            }
        }
    }

    /// The server has been heard from and nothing is outstanding up to `version`.
    fn heard(&mut self, version: Rv) {
        self.delays.reset();
        if self.pulse.heard(version) {
            self.sink.live();
            tracing::info!(kind = self.kind.as_str(), %version, "watch is live");
        }
    }

    /// A watch has been heard from: the list it goes on from was of use.
    fn watched(&mut self, version: Rv) {
        self.relists = None;
        self.heard(version);
    }

    /// Counts and logs a failure and waits before the next attempt.
    async fn pause(
        &mut self,
        reason: Restart,
        message: &(dyn std::fmt::Display + Send + Sync),
        retry_after: Option<Duration>,
    ) {
        self.count(reason);
        let first = self.pulse.failing();
        let asked = retry_after.unwrap_or_default().min(times::MAX_RETRY_AFTER);
        let wait = asked + self.delays.next_delay();
        let (kind, reason) = (self.kind.as_str(), reason.as_str());
        let again = whole_ms(wait);
        if first {
            tracing::warn!(kind, reason, "{message}; tried again in {again:?}");
        } else {
            tracing::debug!(kind, reason, "{message}; tried again in {again:?}");
        }
        self.pulse.or_lose(tokio::time::sleep(wait)).await;
    }

    fn count(&self, reason: Restart) {
        self.caller.metrics.watch_restart(self.kind.as_str(), reason.as_str());
    }

    /// Counts an object that cannot be read; the rest goes on.
    fn malformed(&self, error: &str) {
        self.caller.metrics.watch_malformed(self.kind.as_str());
        tracing::error!(
            kind = self.kind.as_str(),
            "an object cannot be read, what is known of it stays: {error}"
        );
    }
}

impl ListError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call(error) => error.retry_after,
            Self::Version { .. } => None,
        }
    }
}

/// Starts a watch of a group as a task of its own.
pub fn start<K: Watched, S: Sink<K>>(
    supervisor: &Supervisor,
    name: &'static str,
    group: &WatchGroup,
    api: Api<K>,
    selector: ListParams,
    sink: S,
) -> WatchHandle {
    let (handle, watch) = group.watch(api, selector, Arc::new(sink));
    supervisor.spawn_until_stopping(name, watch.run());
    handle
}
