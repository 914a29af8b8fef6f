//! All watches of one kind: together they open a gate and make up the metrics of the kind.
//!
//! Who starts and ends them is the caller's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;

use super::handle::{Pulse, WatchHandle, WatchState};
use super::{Kind, Sink, Watch, Watched, times};
use crate::platform::api::Delays;
use crate::platform::clock::{Clock, monotonic};
use crate::platform::metrics::Metrics;

/// The watches of one kind; clones share them.
#[derive(Clone)]
pub struct WatchGroup {
    inner: Arc<GroupInner>,
}

struct GroupInner {
    kind: Kind,
    metrics: Arc<Metrics>,
    on_change: Box<dyn Fn(bool) + Send + Sync>,
    state: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    handles: BTreeMap<u64, WatchHandle>,
    next: u64,
    /// No more watches are needed for the start.
    sealed: bool,
    /// Every watch needed for the start has had its first list.
    started: bool,
    up: bool,
}

impl WatchGroup {
    /// A group without watches. `on_change` is told when the group comes up (all that were needed
    /// at the start are synced, none is lost) and when it goes down; it must not call the group.
    pub fn new(
        kind: Kind,
        metrics: Arc<Metrics>,
        on_change: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        metrics.set_watch_up(kind.as_str(), false);
        let on_change = Box::new(on_change);
        let state = Mutex::default();
        Self { inner: Arc::new(GroupInner { kind, metrics, on_change, state }) }
    }

    /// Makes a watch of this kind. It counts from now on, and until its future is dropped.
    pub fn watch<K: Watched, S: Sink<K>>(
        &self,
        api: Api<K>,
        selector: ListParams,
        sink: Arc<S>,
    ) -> (WatchHandle, Watch<K, S>) {
        let pulse = Pulse::new(|handle| self.join(handle));
        let handle = pulse.handle();
        let watch = Watch {
            api,
            kind: self.inner.kind,
            selector,
            sink,
            pulse,
            caller: super::caller(Arc::clone(&self.inner.metrics)),
            delays: Delays::new(times::FIRST_DELAY, times::MAX_DELAY),
            relists: None,
            failed: 0,
        };
        (handle, watch)
    }

    /// Says that every watch needed at the start has been made. Those made later do not keep the
    /// group from being up while they start.
    pub fn seal(&self) {
        self.inner.state.lock().sealed = true;
        self.inner.changed();
    }

    /// Whether all that were needed at the start are synced, and none is lost.
    #[cfg(test)]
    pub fn is_up(&self) -> bool {
        self.inner.state.lock().up
    }

    /// Publishes when the quietest watch was last heard from; to be called before a scrape.
    pub fn publish(&self, clock: &Clock) {
        let quietest = {
            let members = self.inner.state.lock();
            members.handles.values().filter_map(WatchHandle::last_heard).min()
        };
        if let Some(heard) = quietest {
            let now = clock.now().as_duration().as_secs_f64();
            let ago = monotonic().duration_since(heard).as_secs_f64();
            self.inner.metrics.set_watch_last_heard(self.inner.kind.as_str(), now - ago);
        }
    }

    fn join(&self, handle: WatchHandle) -> Member {
        let id = {
            let mut members = self.inner.state.lock();
            let id = members.next;
            members.next += 1;
            members.handles.insert(id, handle);
            id
        };
        Member { group: Arc::clone(&self.inner), id }
    }
}

impl GroupInner {
    fn changed(&self) {
        // Held while the change is told, so that two changes cannot be told in the wrong order.
        let mut members = self.state.lock();
        let started = members.started
            || (members.sealed && members.handles.values().all(WatchHandle::synced_once));
        let lost = members.handles.values().any(|h| h.state() == WatchState::Lost);
        members.started = started;
        let up = started && !lost;
        if up != members.up {
            members.up = up;
            self.metrics.set_watch_up(self.kind.as_str(), up);
            (self.on_change)(up);
        }
    }
}

/// The place of a watch in its group; left when dropped.
pub(super) struct Member {
    group: Arc<GroupInner>,
    id: u64,
}

impl Member {
    pub(super) fn kind(&self) -> Kind {
        self.group.kind
    }

    /// The state of the watch has changed.
    pub(super) fn changed(&self) {
        self.group.changed();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.group.state.lock().handles.remove(&self.id);
        self.group.changed();
    }
}
