//! Consistent reads: everything a decision about a namespace needs, straight from the API server.
//!
//! Shared per namespace in a burst: callers that ask while a read is under way wait for the next
//! one and take it together. No decisions, no writes.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::index::{Index, Limits};
use crate::keys::kubernetes;
use crate::names::{NameRule, ServiceKey};
use crate::retry::{self, CallError, Caller, Operation, Target};
use crate::version::Rv;

/// The last read of a namespace and when it began.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Arc<Index>)>>>;

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
        let asked = clock::monotonic();
        let slot = self.slots.lock().entry(key.namespace.clone()).or_default().clone();
        let read = self.shared(&slot, key, asked).await;
        // The map and this call hold it: nobody waits, so nobody needs what was read.
        let mut slots = self.slots.lock();
        if Arc::strong_count(&slot) == 2 {
            slots.remove(&key.namespace);
        }
        read
    }

    /// What a slot holds, if it was read after `asked`; otherwise it is read now.
    async fn shared(
        &self,
        slot: &Slot,
        key: &ServiceKey,
        asked: Instant,
    ) -> Result<Arc<Index>, CallError> {
        let mut last = slot.lock().await;
        if let Some((began, index)) = &*last
            && *began >= asked
        {
            return Ok(index.clone());
        }
        let began = clock::monotonic();
        let index = Arc::new(self.read_now(key).await?);
        *last = Some((began, index.clone()));
        Ok(index)
    }

    /// Namespaces that are being read.
    pub fn reading(&self) -> usize {
        self.slots.lock().len()
    }

    /// Lists without a resourceVersion are quorum reads (Kubernetes API concepts, "Semantics for
    /// get and list").
    async fn read_now(&self, key: &ServiceKey) -> Result<Index, CallError> {
        let ns = &key.namespace;
        let about = Target::of(key, ns);
        let all = ListParams::default();
        let selector =
            format!("{}!={}", kubernetes::SLICE_MANAGED_BY, kubernetes::SLICE_CONTROLLER);
        let not_built_in = ListParams::default().labels(&selector);
        let services: Api<Service> = Api::namespaced(self.client.clone(), ns);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), ns);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), ns);
        // The slices first: a mark written while the rest is read must not lie above it, or it
        // would look like one of another history.
        let slices =
            retry::call(&self.caller, Operation::ListSlices, about, || slices.list(&not_built_in))
                .await?;
        let (services, pods) = tokio::try_join!(
            retry::call(&self.caller, Operation::ListServices, about, || services.list(&all)),
            retry::call(&self.caller, Operation::ListPods, about, || pods.list(&all)),
        )?;
        let version = |v: &Option<String>| v.as_deref().and_then(Rv::parse).unwrap_or_default();
        let mut index = Index::new(self.names, self.limits);
        index.reset_services(services.items, version(&services.metadata.resource_version));
        let seen = version(&pods.metadata.resource_version);
        index.reset_pods(Some(ns), &pods.items, seen);
        index.reset_slices(slices.items, version(&slices.metadata.resource_version));
        Ok(index)
    }
}
