//! Which watches run, and where they deliver: into the index, and the touched keys into the queue.
//!
//! Services and EndpointSlices cluster-wide; pods by namespace, only where an enabled Service needs
//! them, or all of them above a bound. The list-and-watch loop itself is `watch`.

mod pace;
mod pods;
mod replicas;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Serve;
use crate::control::queue::Queue;
use crate::control::watch::{self, page};
use crate::control::watch::{Kind, Sink, WatchGroup, WatchHandle, WatchState};
use crate::platform::clock::{self, Clock};
use crate::platform::health::Gate;
use crate::platform::metrics::Metrics;
use crate::platform::runtime::Runtime;
use crate::platform::supervise::Supervisor;
use crate::shared::{Replicas, SharedIndex};
use zen_lead_core::decide::Trust;
use zen_lead_core::decode::Decoded;
use zen_lead_core::index::placed::{PlacedService, PlacedSlice};
use zen_lead_core::index::{Dirty, Index};
use zen_lead_core::keys::kubernetes;
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::ranking;
use zen_lead_core::version::Rv;

use pace::Pace;
use pods::PodWatches;
use replicas::ReplicaSink;

/// The running watches.
pub struct Feeds {
    client: Client,
    feed: Feed,
    supervisor: Supervisor,
    services: WatchHandle,
    slices: WatchHandle,
    groups: [WatchGroup; 3],
    pods: Mutex<PodWatches>,
    kept: pods::IdlePolicy,
    clean_up: Duration,
}

impl Feeds {
    /// Starts everything; what is not needed yet starts when it is.
    pub fn start(
        args: &Serve,
        runtime: &Runtime,
        index: SharedIndex,
        queue: Queue<ServiceKey>,
        replicas: Replicas,
        certificates_changed: Arc<Notify>,
    ) -> Arc<Self> {
        let Runtime { client, metrics, health, supervisor, .. } = runtime;
        let gate = |gate: Gate| {
            let health = health.clone();
            move |up| health.set(gate, up)
        };
        let service_group =
            WatchGroup::new(Kind::Services, metrics.clone(), gate(Gate::ServicesWatch));
        let slice_group = WatchGroup::new(Kind::Slices, metrics.clone(), gate(Gate::SlicesWatch));
        let pod_group = WatchGroup::new(Kind::Pods, metrics.clone(), gate(Gate::PodsWatches));

        let running = Arc::new(OnceLock::<Weak<Self>>::new());
        let watches = running.clone();
        let is_starting = move |namespace: &str| {
            let watches = watches.get().and_then(Weak::upgrade);
            watches.is_none_or(|watches| watches.trust(namespace) == Trust::Starting)
        };
        let feed = Feed {
            index,
            queue,
            metrics: metrics.clone(),
            scope: Arc::default(),
            is_starting: Arc::new(is_starting),
            put_off: Arc::default(),
            pace: Arc::default(),
        };
        let services = watch::start(
            supervisor,
            "services watch",
            &service_group,
            Api::<Decoded<Service>>::all(client.clone()),
            ListParams::default(),
            ServiceSink::new(&feed),
        );
        // The built-in controller's slices are not ours to judge, and there are many of them; those it
        // made for leader Services are watched by `leftovers`.
        let slices = watch::start(
            supervisor,
            "slices watch",
            &slice_group,
            Api::<Decoded<EndpointSlice>>::all(client.clone()),
            ListParams::default().labels(&page::not_built_in()),
            SliceSink(feed.clone()),
        );
        service_group.seal();
        slice_group.seal();

        let own = format!("{}={}", kubernetes::SERVICE_NAME, args.service_name);
        let own = ListParams::default().labels(&own);
        let own_slices = Api::<Decoded<EndpointSlice>>::namespaced(client.clone(), &args.namespace);
        let group = WatchGroup::new(Kind::Replicas, metrics.clone(), |_| {});
        let newer = feed.clone();
        let look_at_newer = move || {
            _ = newer.feed("services", |index| index.keys_of_newer(ranking::DECISION_VERSION));
        };
        let sink = ReplicaSink::new(&args.pod_name, replicas, Box::new(look_at_newer));
        watch::start(supervisor, "replicas watch", &group, own_slices, own, sink);
        group.seal();
        if args.cert_dir.is_none() {
            watch_certificates(args, runtime, certificates_changed);
        }

        let watches = Arc::new(Self {
            client: client.clone(),
            feed,
            supervisor: supervisor.clone(),
            services,
            slices,
            groups: [service_group, slice_group, pod_group],
            pods: Mutex::default(),
            kept: pods::IdlePolicy {
                watches: args.max_namespace_watches,
                idle_for: args.namespace_idle_ttl,
                idle: args.max_idle_namespaces,
            },
            clean_up: args.cleanup_interval,
        });
        // Set once: this function runs once.
        _ = running.set(Arc::downgrade(&watches));
        let kept = watches.clone();
        supervisor
            .spawn_until_stopping("pod watches", async move { kept.keep_pod_watches().await });
        watches
    }

    /// Whether all Services were seen and are up to date: admission judges collisions only then.
    pub fn services_live(&self) -> bool {
        self.services.state() == WatchState::Live
    }
}

fn trust(states: [WatchState; 3]) -> Trust {
    if states.contains(&WatchState::Starting) {
        Trust::Starting
    } else if states.contains(&WatchState::Lost) {
        Trust::Lost
    } else {
        Trust::Live
    }
}

impl Feeds {
    /// Whether everything a decision about a namespace rests on can be trusted.
    pub fn trust(&self, namespace: &str) -> Trust {
        // No pods are asked about where no valid source is: only its problem is to be reported.
        let pods = if self.feed.index.read().needs_pods(namespace) {
            self.pods.lock().state(namespace)
        } else {
            WatchState::Live
        };
        trust([self.services.state(), self.slices.state(), pods])
    }

    /// Starts and ends the pod watches as the index needs them, until the process ends.
    async fn keep_pod_watches(&self) {
        // Which namespaces are needed is known only once the Services are.
        self.services.synced().await;
        loop {
            self.adjust();
            self.feed.look_at_put_off();
            self.publish();
            tokio::select! {
                () = self.feed.scope.notified() => {}
                () = tokio::time::sleep(self.clean_up) => {}
            }
        }
    }

    fn publish(&self) {
        for group in &self.groups {
            group.publish(&Clock::system());
        }
        let sizes = self.feed.index.read().sizes();
        let [waiting, held, failing] = self.feed.queue.sizes();
        let (watches, idle) = self.pods.lock().sizes();
        for (resource, size) in [
            ("idle_namespaces", idle),
            ("pod_watches", watches),
            ("queued_services", waiting + held),
            ("failing_services", failing),
            ("services", sizes.services),
            ("sources", sizes.sources),
            ("pods", sizes.pods),
            ("endpointslices", sizes.slices),
            ("namespaces", sizes.namespaces),
        ] {
            self.feed.metrics.set_cache_size(resource, size);
        }
    }
}

fn watch_certificates(args: &Serve, runtime: &Runtime, changed: Arc<Notify>) {
    let Runtime { client, metrics, supervisor, .. } = runtime;
    let named = |name: &str| ListParams::default().fields(&format!("metadata.name={name}"));
    let secrets = WatchGroup::new(Kind::Secrets, metrics.clone(), |_| {});
    let api = Api::<Decoded<Secret>>::namespaced(client.clone(), &args.namespace);
    let bell = Bell(changed.clone());
    watch::start(supervisor, "CA watch", &secrets, api, named(&args.ca_secret), bell);
    secrets.seal();
    let webhooks = WatchGroup::new(Kind::Webhooks, metrics.clone(), |_| {});
    let api = Api::<Decoded<ValidatingWebhookConfiguration>>::all(client.clone());
    let selector = named(&args.validating_webhook);
    let bell = Bell(changed.clone());
    watch::start(supervisor, "validating webhook watch", &webhooks, api, selector, bell);
    let api = Api::<Decoded<MutatingWebhookConfiguration>>::all(client.clone());
    let selector = named(&args.mutating_webhook);
    watch::start(supervisor, "mutating webhook watch", &webhooks, api, selector, Bell(changed));
    webhooks.seal();
}

/// Where changes go.
#[derive(Clone)]
struct Feed {
    index: SharedIndex,
    queue: Queue<ServiceKey>,
    metrics: Arc<Metrics>,
    /// Rung when the set of namespaces whose pods are needed may have changed.
    scope: Arc<Notify>,
    /// Whether nothing can be decided in a namespace yet.
    is_starting: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Namespaces of which something was not queued for that.
    put_off: Arc<Mutex<BTreeSet<Arc<str>>>>,
    /// When Services were made due by pods that do not lead.
    pace: Arc<Mutex<Pace>>,
}

impl Feed {
    /// Changes the index under its lock and queues what it touched, where something can be decided.
    fn feed(&self, resource: &'static str, change: impl FnOnce(&mut Index) -> Dirty) -> bool {
        let (dirty, began) = self.change(resource, change);
        let touched = !dirty.is_empty();
        self.enqueue(dirty, |_| began);
        touched
    }

    /// The same for a pod: sources that are routed to another one, which can take the traffic, are decided
    /// at most once in a pause.
    fn feed_pod(&self, pod: &str, change: impl FnOnce(&mut Index) -> Dirty) {
        let ((dirty, calm), began) = self.change("pods", |index| {
            let dirty = change(index);
            let calm = index.led_elsewhere(&dirty, pod);
            (dirty, calm)
        });
        let due = |key: &ServiceKey| {
            if calm.contains(key) { self.pace.lock().due(key, began) } else { began }
        };
        self.enqueue(dirty, due);
    }

    /// Changes the index under its lock; also returns when that began.
    fn change<T>(
        &self,
        resource: &'static str,
        change: impl FnOnce(&mut Index) -> T,
    ) -> (T, Instant) {
        let began = clock::monotonic();
        let changed = change(&mut self.index.write());
        self.metrics.cache_update(resource, clock::monotonic() - began);
        (changed, began)
    }

    /// Queues every Service of a namespace, or all: what came before the watch was live waits for this,
    /// and nothing else may ever come.
    fn look_again(&self, namespace: Option<&str>) {
        match namespace {
            Some(namespace) => _ = self.put_off.lock().remove(namespace),
            None => self.put_off.lock().clear(),
        }
        let keys = self.index.read().keys_in(namespace);
        let now = clock::monotonic();
        self.enqueue(keys, |_| now);
    }

    /// Queues Services, except in namespaces that are starting: all of them are queued when the last watch
    /// that a decision needs is live.
    fn enqueue(&self, keys: Dirty, due: impl Fn(&ServiceKey) -> Instant) {
        let mut starting: BTreeSet<Arc<str>> = keys.iter().map(|k| k.namespace.clone()).collect();
        starting.retain(|namespace| self.puts_off(namespace));
        for key in keys.into_iter().filter(|key| !starting.contains(&key.namespace)) {
            let due = due(&key);
            self.queue.add(key, due);
        }
    }

    /// Whether a namespace is starting; that is noted.
    fn puts_off(&self, namespace: &Arc<str>) -> bool {
        // Again with the note: what ends the start after that finds the note.
        (self.is_starting)(namespace) && {
            self.put_off.lock().insert(namespace.clone());
            (self.is_starting)(namespace)
        }
    }

    /// Looks again where something was put off and can be decided by now: no pods are needed any more.
    fn look_at_put_off(&self) {
        let put_off = std::mem::take(&mut *self.put_off.lock());
        for namespace in &put_off {
            self.look_again(Some(namespace));
        }
    }
}

struct ServiceSink {
    feed: Feed,
    /// Those of the index.
    names: NameRule,
}

impl ServiceSink {
    fn new(feed: &Feed) -> Self {
        Self { feed: feed.clone(), names: feed.index.read().names() }
    }

    fn feed(&self, change: impl FnOnce(&mut Index) -> Dirty) {
        if self.feed.feed("services", change) {
            self.feed.scope.notify_one();
        }
    }
}

impl Sink<Decoded<Service>> for ServiceSink {
    type Kept = Option<Decoded<PlacedService>>;

    fn trim(&self, object: Decoded<Service>) -> Self::Kept {
        PlacedService::trim_to_text(object, self.names)
    }

    fn reset(&self, objects: Vec<Self::Kept>, version: Rv) {
        let services = objects.into_iter().flatten().collect();
        self.feed.feed("services", |index| {
            index.reset_placed_services(services, version);
            // Leftovers of sources that vanished meanwhile are found only by looking at everything.
            index.all_keys()
        });
        self.feed.scope.notify_one();
    }

    fn apply(&self, object: Self::Kept, version: Rv) {
        self.feed(|index| {
            index.services_heard(version);
            object.map(|service| index.apply_placed_service(service)).unwrap_or_default()
        });
    }

    fn delete(&self, object: Self::Kept, version: Rv) {
        self.feed(|index| {
            index.services_heard(version);
            object.map(|service| index.delete_placed_service(&service)).unwrap_or_default()
        });
    }

    fn heard(&self, version: Rv) {
        self.feed.index.write().services_heard(version);
    }

    fn live(&self) {
        self.feed.look_again(None);
    }
}

struct SliceSink(Feed);

impl Sink<Decoded<EndpointSlice>> for SliceSink {
    type Kept = Option<Decoded<PlacedSlice>>;

    fn trim(&self, object: Decoded<EndpointSlice>) -> Self::Kept {
        PlacedSlice::trim_to_text(object)
    }

    fn reset(&self, objects: Vec<Self::Kept>, version: Rv) {
        let slices = objects.into_iter().flatten().collect();
        self.0.feed("endpointslices", |index| index.reset_placed_slices(slices, version));
    }

    fn apply(&self, object: Self::Kept, version: Rv) {
        self.0.feed("endpointslices", |index| {
            index.slices_heard(version);
            object.map(|slice| index.apply_placed_slice(slice)).unwrap_or_default()
        });
    }

    fn delete(&self, object: Self::Kept, version: Rv) {
        self.0.feed("endpointslices", |index| {
            index.slices_heard(version);
            object.map(|slice| index.delete_placed_slice(&slice)).unwrap_or_default()
        });
    }

    fn heard(&self, version: Rv) {
        self.0.index.write().slices_heard(version);
    }

    fn live(&self) {
        self.0.look_again(None);
    }
}

/// Rings on every change, and when the server is heard again; keeps nothing.
struct Bell(Arc<Notify>);

impl<K: Send + 'static> Sink<K> for Bell {
    type Kept = ();

    fn trim(&self, _: K) {}

    fn reset(&self, _: Vec<()>, _: Rv) {
        self.0.notify_one();
    }

    fn apply(&self, (): (), _: Rv) {
        self.0.notify_one();
    }

    fn delete(&self, (): (), _: Rv) {
        self.0.notify_one();
    }

    fn live(&self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests;
