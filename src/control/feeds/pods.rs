//! The watches of pods: one a namespace that needs them, or one for all above a bound; and which
//! namespaces that no longer need theirs are kept a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Feed, Feeds};
use crate::control::watch::{Sink, WatchHandle, WatchState};
use crate::platform::clock;
use crate::platform::supervise::Passing;
use zen_lead_core::decode::Decoded;
use zen_lead_core::index::pod::NamespacedPod;
use zen_lead_core::index::{Dirty, Index};
use zen_lead_core::version::Rv;

/// How many watches run, and how much is kept of namespaces that need none.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdlePolicy {
    /// Namespaces watched one by one.
    pub(super) watches: usize,
    /// How long a namespace is kept that no enabled Service needs.
    pub(super) idle_for: Duration,
    /// How many of those are kept (0 is unbounded).
    pub(super) idle: usize,
}

/// The watches of pods that run.
#[derive(Default)]
pub(super) struct PodWatches {
    by_namespace: BTreeMap<Arc<str>, PodWatch>,
    /// Above the bound, one for all. It stays once it runs: going back and forth would read
    /// everything again each time.
    all: Option<PodWatch>,
    /// The first look at what is needed is over.
    sealed: bool,
}

struct PodWatch {
    handle: WatchHandle,
    /// Set when what it delivers is no longer wanted.
    ended: Arc<AtomicBool>,
    idle_since: Option<Instant>,
    _task: Passing,
}

impl PodWatches {
    /// Whether the pods of a namespace can be relied on.
    pub(super) fn state(&self, namespace: &str) -> WatchState {
        let all = self.all.as_ref().map(|watch| watch.handle.state());
        let own = self.by_namespace.get(namespace).map(|watch| watch.handle.state());
        match (all, own) {
            (Some(WatchState::Live), _) | (_, Some(WatchState::Live)) => WatchState::Live,
            (all, own) => own.or(all).unwrap_or(WatchState::Starting),
        }
    }

    /// Numbers of watches, and of namespaces among them that are kept without need.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let idle = self.by_namespace.values().filter(|watch| watch.idle_since.is_some());
        (self.by_namespace.len() + usize::from(self.all.is_some()), idle.count())
    }
}

impl Feeds {
    /// Starts and ends watches as the index needs them.
    pub(super) fn adjust(&self) {
        let wanted = self.feed.index.read().pod_namespaces();
        let mut pods = self.pods.lock();
        if let Some(all) = &pods.all {
            if all.handle.state() == WatchState::Live {
                let ended = std::mem::take(&mut pods.by_namespace);
                self.end(ended);
            }
            return;
        }
        if wanted.len() > self.kept.watches {
            info!(namespaces = wanted.len(), "more namespaces than watches: watching all pods");
            pods.all = Some(self.watch_pods(None));
        } else {
            for namespace in &wanted {
                if let Some(known) = pods.by_namespace.get_mut(namespace) {
                    known.idle_since = None;
                    continue;
                }
                pods.by_namespace
                    .insert(namespace.clone(), self.watch_pods(Some(namespace.clone())));
            }
            self.end_idle(&mut pods, &wanted);
        }
        if !pods.sealed {
            pods.sealed = true;
            drop(pods);
            self.groups[2].seal();
        }
    }

    /// Ends the watches of namespaces that were not needed for a while, or are too many.
    fn end_idle(&self, pods: &mut PodWatches, wanted: &BTreeSet<Arc<str>>) {
        let now = clock::monotonic();
        let mut idle = Vec::new();
        for (namespace, watch) in &mut pods.by_namespace {
            if !wanted.contains(namespace) {
                idle.push((*watch.idle_since.get_or_insert(now), namespace.clone()));
            }
        }
        let mut ended = BTreeMap::new();
        for (namespace, reason) in evicted(idle, now, self.kept) {
            debug!(%namespace, reason, "pods of an idle namespace dropped");
            self.feed.metrics.cache_eviction(reason);
            ended.extend(pods.by_namespace.remove_entry(&namespace));
        }
        self.end(ended);
    }

    /// Ends watches; the index forgets their pods, unless another watch has them.
    fn end(&self, watches: BTreeMap<Arc<str>, PodWatch>) {
        for (namespace, watch) in watches {
            // First: what the watch delivers from now on, while it is being ended, is not taken in.
            watch.ended.store(true, Ordering::SeqCst);
            self.feed.index.write().drop_pods(Some(&namespace));
        }
    }

    fn watch_pods(&self, namespace: Option<Arc<str>>) -> PodWatch {
        let api = match &namespace {
            Some(namespace) => Api::<Decoded<Pod>>::namespaced(self.client.clone(), namespace),
            None => Api::<Decoded<Pod>>::all(self.client.clone()),
        };
        let name = format!("pods watch of {}", namespace.as_deref().unwrap_or("all namespaces"));
        let ended = Arc::<AtomicBool>::default();
        let sink =
            Arc::new(PodSink { feed: self.feed.clone(), scope: namespace, ended: ended.clone() });
        let (handle, watch) = self.groups[2].watch(api, ListParams::default(), sink);
        let task = self.supervisor.spawn_passing(name, watch.run());
        PodWatch { handle, ended, idle_since: None, _task: task }
    }
}

/// Which idle namespaces are not kept any longer, and why: a metric label.
fn evicted(
    mut idle: Vec<(Instant, Arc<str>)>,
    now: Instant,
    kept: IdlePolicy,
) -> Vec<(Arc<str>, &'static str)> {
    idle.sort();
    let bound = if kept.idle == 0 { usize::MAX } else { kept.idle };
    let too_many = idle.len().saturating_sub(bound);
    let judged = idle.into_iter().enumerate().map(|(place, (since, namespace))| {
        let reason = if now - since >= kept.idle_for {
            Some("idle_ttl")
        } else {
            (place < too_many).then_some("idle_limit")
        };
        (namespace, reason)
    });
    judged.filter_map(|(namespace, reason)| Some((namespace, reason?))).collect()
}

/// The name of a pod that can be read.
fn name_of(pod: Option<&Decoded<NamespacedPod>>) -> Option<Arc<str>> {
    match pod? {
        Decoded::Object(placed) => Some(placed.pod.name.clone()),
        Decoded::Unreadable(_) => None,
    }
}

/// Brings the pods of a scope into the index.
pub(super) struct PodSink {
    pub(super) feed: Feed,
    pub(super) scope: Option<Arc<str>>,
    pub(super) ended: Arc<AtomicBool>,
}

impl PodSink {
    /// Changes the index, unless the watch is at its end: then no later event would take out again
    /// what comes in.
    fn feed(&self, pod: Option<&str>, change: impl FnOnce(&mut Index) -> Dirty) {
        let change = |index: &mut Index| {
            if self.ended.load(Ordering::SeqCst) { Dirty::new() } else { change(index) }
        };
        match pod {
            Some(pod) => self.feed.feed_pod(pod, change),
            None => _ = self.feed.feed("pods", change),
        }
    }
}

impl Sink<Decoded<Pod>> for PodSink {
    type Kept = Option<Decoded<NamespacedPod>>;

    fn trim(&self, object: Decoded<Pod>) -> Self::Kept {
        NamespacedPod::trim_decoded(object)
    }

    fn reset(&self, objects: Vec<Self::Kept>, version: Rv) {
        let pods = objects.into_iter().flatten().collect();
        let scope = self.scope.as_deref();
        self.feed(None, |index| index.reset_trimmed_pods(scope, pods, version));
        // With all pods known, the watches by namespace can end.
        self.feed.scope.notify_one();
    }

    fn apply(&self, object: Self::Kept, version: Rv) {
        self.feed(name_of(object.as_ref()).as_deref(), |index| {
            index.pods_heard(self.scope.as_deref(), version);
            object.map(|pod| index.apply_trimmed_pod(pod)).unwrap_or_default()
        });
    }

    fn delete(&self, object: Self::Kept, version: Rv) {
        self.feed(name_of(object.as_ref()).as_deref(), |index| {
            index.pods_heard(self.scope.as_deref(), version);
            object.map(|pod| index.delete_trimmed_pod(&pod)).unwrap_or_default()
        });
    }

    fn heard(&self, version: Rv) {
        let mut index = self.feed.index.write();
        if !self.ended.load(Ordering::SeqCst) {
            index.pods_heard(self.scope.as_deref(), version);
        }
    }

    fn live(&self) {
        self.feed.look_again(self.scope.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first_and_the_old_in_any_case() {
        let (second, start) = (Duration::from_secs(1), clock::monotonic());
        let now = start + 100 * second;
        let idle = |since: &[(&str, u32)]| {
            let since = since.iter().map(|(name, at)| (start + *at * second, Arc::from(*name)));
            since.collect::<Vec<(Instant, Arc<str>)>>()
        };
        let kept = |idle, idle_for| IdlePolicy { watches: 9, idle, idle_for: idle_for * second };
        let all = [("a", 70), ("b", 50), ("c", 90), ("d", 10)];
        for (bound, idle_for, gone) in [
            (0, 1000, &[][..]),
            (4, 1000, &[]),
            (3, 1000, &[("d", "idle_limit")]),
            (1, 1000, &[("d", "idle_limit"), ("b", "idle_limit"), ("a", "idle_limit")]),
            (0, 50, &[("d", "idle_ttl"), ("b", "idle_ttl")]),
            (1, 60, &[("d", "idle_ttl"), ("b", "idle_limit"), ("a", "idle_limit")]),
            (3, 0, &[("d", "idle_ttl"), ("b", "idle_ttl"), ("a", "idle_ttl"), ("c", "idle_ttl")]),
        ] {
            let found = evicted(idle(&all), now, kept(bound, idle_for));
            let found: Vec<(&str, &str)> = found.iter().map(|(n, why)| (&**n, *why)).collect();
            assert_eq!(found, gone, "bound {bound}, kept for {idle_for} s");
        }
    }
}
