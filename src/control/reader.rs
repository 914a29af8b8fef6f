//! Consistent reads: everything a decision about a namespace needs, straight from the API server.
//!
//! Shared per namespace in a burst: callers that ask while a read is under way wait for the next
//! one and take it together. No decisions, no writes.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, Request};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::control::watch::page;
use crate::control::watch::{Kind, Watched};
use crate::platform::api::{self, CallError, Caller};
use crate::platform::clock;
use crate::platform::operation::{Operation, Target};
use zen_lead_core::decide::Inputs;
use zen_lead_core::decode::Decoded;
use zen_lead_core::index::placed::{PlacedService, PlacedSlice};
use zen_lead_core::index::pod::NamespacedPod;
use zen_lead_core::index::{Index, Limits};
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::version::Rv;

/// The outcome of the last read of a namespace and when it began.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Result<Arc<Index>, CallError>)>>>;

/// For a whole read, the waiting for the one under way included: two lists after each other, each a
/// call with its own deadline.
const DEADLINE: Duration = Duration::from_secs(20);

/// Reads namespaces consistently.
pub struct Reader {
    client: Client,
    caller: Caller,
    names: NameRule,
    limits: Limits,
    slots: Mutex<HashMap<Arc<str>, Slot>>,
}

impl Reader {
    /// A reader that classifies what it reads as the index does.
    pub fn new(client: Client, caller: Caller, names: NameRule, limits: Limits) -> Self {
        Self { client, caller, names, limits, slots: Mutex::default() }
    }

    /// An index of one namespace that was read after this call began.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense.
    pub async fn read(&self, key: &ServiceKey) -> Result<Arc<Index>, CallError> {
        let slot = self.slots.lock().entry(key.namespace.clone()).or_default().clone();
        let (operation, about) = (Operation::ReadNamespace, Target::of(key, ""));
        let shared = self.shared(key, &slot);
        let read = api::collection(&self.caller.metrics, operation, about, DEADLINE, shared).await;
        // The map and this call hold it: no other call waits, so none needs what was read.
        let mut slots = self.slots.lock();
        if Arc::strong_count(&slot) == 2 {
            slots.remove(&key.namespace);
        }
        read
    }

    /// Reads these objects by name. A GET without a resourceVersion is a quorum read, of one key.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense.
    pub async fn present(&self, key: &ServiceKey, inputs: &Inputs) -> Result<Present, CallError> {
        let (services, slices, pods) = tokio::try_join!(
            self.versions::<Service>(key, Operation::GetService, &inputs.services),
            self.versions::<EndpointSlice>(key, Operation::GetSlice, &inputs.slices),
            self.versions::<Pod>(key, Operation::GetPod, &inputs.pods),
        )?;
        Ok(Present { namespace: key.namespace.clone(), services, slices, pods })
    }

    /// The present versions of objects; none of those that are not there.
    async fn versions<K>(
        &self,
        key: &ServiceKey,
        operation: Operation,
        names: &BTreeSet<String>,
    ) -> Result<Vec<(String, Option<Rv>)>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let each = names.iter().map(|name| async {
            let call = || api.get_metadata_opt(name);
            let found = api::call(&self.caller, operation, Target::of(key, name), call).await?;
            Ok((name.clone(), found.map(|object| Rv::of(&object.metadata))))
        });
        futures::future::try_join_all(each).await
    }

    /// Takes part in a read that begins from now on. Its failure is shared too: the next in line
    /// would only meet it again, one deadline later than the one before.
    async fn shared(&self, key: &ServiceKey, slot: &Slot) -> Result<Arc<Index>, CallError> {
        let asked = clock::monotonic();
        let mut last = slot.lock().await;
        match &*last {
            Some((began, read)) if *began >= asked => read.clone(),
            _ => {
                let began = clock::monotonic();
                let read = self.read_now(key).await.map(Arc::new);
                *last = Some((began, read.clone()));
                read
            }
        }
    }

    /// Namespaces that are being read.
    #[cfg(test)]
    pub fn reading(&self) -> usize {
        self.slots.lock().len()
    }

    /// Lists without a resourceVersion are quorum reads (Kubernetes API concepts, "Semantics for
    /// get and list").
    async fn read_now(&self, key: &ServiceKey) -> Result<Index, CallError> {
        let ns = &key.namespace;
        let all = ListParams::default();
        let not_built_in = ListParams::default().labels(&page::not_built_in());
        let services: Api<Decoded<Service>> = Api::namespaced(self.client.clone(), ns);
        let pods: Api<Decoded<Pod>> = Api::namespaced(self.client.clone(), ns);
        let slices: Api<Decoded<EndpointSlice>> = Api::namespaced(self.client.clone(), ns);
        // The slices first: a mark written while the rest is read must not lie above it, or it
        // would look like one of another history.
        let slices =
            self.list(key, Kind::Slices, &slices, &not_built_in, PlacedSlice::trim).await?;
        let (services, pods) = tokio::try_join!(
            self.list(key, Kind::Services, &services, &all, |s| PlacedService::trim(s, self.names)),
            self.list(key, Kind::Pods, &pods, &all, NamespacedPod::trim_decoded),
        )?;
        let mut index = Index::new(self.names, self.limits);
        index.reset_placed_services(services.objects, services.version);
        index.reset_trimmed_pods(Some(ns), pods.objects, pods.version);
        index.reset_placed_slices(slices.objects, slices.version);
        Ok(index)
    }

    /// A whole list; what cannot be read in it is counted, as the watches do.
    async fn list<K: Watched, T>(
        &self,
        key: &ServiceKey,
        kind: Kind,
        api: &Api<K>,
        params: &ListParams,
        trim: impl Fn(K) -> Option<T>,
    ) -> Result<Listed<T>, CallError> {
        let request = Request::new(api.resource_url());
        let (objects, page) = api::call(&self.caller, kind.list(), Target::of(key, ""), || {
            page::page(&self.client, &request, params, &trim)
        })
        .await?;
        for error in page.malformed {
            self.caller.metrics.watch_malformed(kind.as_str());
            let kind = kind.as_str();
            tracing::error!(kind, "an object cannot be read, what exists for it stays: {error}");
        }
        Ok(Listed { objects, version: Rv::parse(&page.version).unwrap_or_default() })
    }
}

/// Versions of objects as they were read by name; none of those that are not there.
pub struct Present {
    namespace: Arc<str>,
    services: Vec<(String, Option<Rv>)>,
    slices: Vec<(String, Option<Rv>)>,
    pods: Vec<(String, Option<Rv>)>,
}

impl Present {
    /// Whether the index knows all of these as they were read, or as they are since then.
    pub fn is_known(&self, index: &Index) -> bool {
        let ns = &*self.namespace;
        let all = |read: &[(String, Option<Rv>)], known: &dyn Fn(&str) -> Option<Rv>| {
            read.iter().all(|(name, now)| {
                let known = known(name);
                known.is_some() == now.is_some() && known >= *now
            })
        };
        all(&self.services, &|name| index.service_version(ns, name))
            && all(&self.slices, &|name| index.slice_version(ns, name))
            && all(&self.pods, &|name| index.pod_version(ns, name))
    }
}

/// A list as it was read.
struct Listed<T> {
    objects: Vec<T>,
    version: Rv,
}
