//! Executes one decided step against the API server: the only place that writes Services and slices.
//!
//! Every write names what it expects to meet (uid, resourceVersion). No choosing here; what a
//! refusal means for the next decision is `reconcile`'s.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::platform::api::{self, CallError, Caller, ErrorKind};
use crate::platform::operation::{self, Operation};
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::decide::{ObjectRef, Step};
use zen_lead_core::decode::{Decoded, Shape};
use zen_lead_core::keys::{self, status};
use zen_lead_core::names::ServiceKey;

/// What a step left behind: the object as the API server answered, to be folded into the index.
#[derive(Clone, Debug)]
pub enum Applied {
    /// A Service was written.
    Service(Box<Decoded<Service>>),
    /// A slice was written.
    Slice(Box<Decoded<EndpointSlice>>),
    /// A leader Service is gone (or being deleted).
    ServiceGone(ObjectRef),
    /// A slice is gone.
    SliceGone(ObjectRef),
}

/// Writes for one process.
pub struct Applier {
    client: Client,
    caller: Caller,
    writer: String,
    writes: AtomicU64,
}

impl Applier {
    /// `writer` is this replica's pod name; `started` makes write ids unique across restarts.
    pub fn new(client: Client, caller: Caller, writer: &str, started: jiff::Timestamp) -> Self {
        let writer = format!("{writer}-{:x}", started.as_millisecond());
        Self { client, caller, writer, writes: AtomicU64::new(0) }
    }

    /// Executes a step.
    ///
    /// # Errors
    /// What the API server answered, after the retries that make sense. A slice write whose answer
    /// was lost is settled by reading first: an error then means that it did not happen.
    pub async fn apply(&self, key: &ServiceKey, step: Step) -> Result<Applied, CallError> {
        match step {
            Step::CreateLeader(service) => self.create_service(key, *service).await,
            Step::PatchLeader(target, patch) => self.patch_service(key, &target, patch).await,
            Step::DeleteLeader(target) => {
                self.delete::<Service>(Operation::DeleteService, key, &target).await?;
                Ok(Applied::ServiceGone(target))
            }
            Step::Slice(next) => match next.write {
                SliceWrite::Create(slice) => self.write_slice(key, *slice, true).await,
                SliceWrite::Replace(slice) => self.write_slice(key, *slice, false).await,
                SliceWrite::Delete { name, uid, version } => {
                    let target = ObjectRef { name, uid, version: Some(version) };
                    self.delete_slice(key, &target).await?;
                    Ok(Applied::SliceGone(target))
                }
            },
            Step::Mirror(target, mirror, _) => {
                let annotations = json!(mirror.annotations);
                let body = status_body(key, &target, Some(annotations), &mirror.conditions);
                self.apply_status(key, &target, body, keys::FIELD_MANAGER).await
            }
            Step::SourceConditions(target, conditions, _) => {
                let body = status_body(key, &target, None, &conditions);
                self.apply_status(key, &target, body, keys::FIELD_MANAGER_SOURCE).await
            }
        }
    }

    async fn call<T, F, Fut>(
        &self,
        operation: Operation,
        key: &ServiceKey,
        object: &str,
        call: F,
    ) -> Result<T, CallError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = kube::Result<T>>,
    {
        api::call(&self.caller, operation, operation::Target::of(key, object), call).await
    }

    fn api<K>(&self, key: &ServiceKey) -> Api<Decoded<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn create_service(&self, key: &ServiceKey, s: Service) -> Result<Applied, CallError> {
        let api = self.api::<Service>(key);
        let params = PostParams { field_manager: Some(manager()), ..PostParams::default() };
        let name = s.metadata.name.clone().unwrap_or_default();
        let s = Decoded::Object(s);
        let call = || api.create(&params, &s);
        let made = self.call(Operation::CreateService, key, &name, call).await?;
        Ok(Applied::Service(Box::new(made.trimmed())))
    }

    async fn patch_service(
        &self,
        key: &ServiceKey,
        target: &ObjectRef,
        mut patch: Value,
    ) -> Result<Applied, CallError> {
        // In the body they are preconditions: a mismatch is a 409.
        patch["metadata"]["uid"] = json!(target.uid);
        if let Some(version) = &target.version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let api = self.api::<Service>(key);
        let params = PatchParams { field_manager: Some(manager()), ..PatchParams::default() };
        let patch = Patch::Merge(&patch);
        let call = || api.patch(&target.name, &params, &patch);
        let made = self.call(Operation::ApplyService, key, &target.name, call).await?;
        Ok(Applied::Service(Box::new(made.trimmed())))
    }

    /// Deletes an object as it was seen; one that is gone needs nothing.
    async fn delete<K>(
        &self,
        operation: Operation,
        key: &ServiceKey,
        target: &ObjectRef,
    ) -> Result<(), CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Shape + Clone + Debug,
    {
        let api = self.api::<K>(key);
        let seen = Preconditions {
            uid: Some(target.uid.clone()),
            resource_version: target.version.clone(),
        };
        let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::background() };
        let call = || api.delete(&target.name, &params);
        match self.call(operation, key, &target.name, call).await {
            Ok(_) | Err(CallError { kind: ErrorKind::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a slice, as it was seen.
    ///
    /// # Errors
    /// What the API server answered; a conflict where the object has changed since.
    pub async fn delete_slice(&self, key: &ServiceKey, t: &ObjectRef) -> Result<(), CallError> {
        self.delete::<EndpointSlice>(Operation::DeleteSlice, key, t).await
    }

    /// Deletes the Endpoints of a Service, as they were seen.
    ///
    /// # Errors
    /// As [`Applier::delete_slice`].
    pub async fn delete_endpoints(&self, key: &ServiceKey, t: &ObjectRef) -> Result<(), CallError> {
        self.delete::<Endpoints>(Operation::DeleteEndpoints, key, t).await
    }

    async fn write_slice(
        &self,
        key: &ServiceKey,
        mut slice: EndpointSlice,
        create: bool,
    ) -> Result<Applied, CallError> {
        let id = format!("{}-{}", self.writer, self.writes.fetch_add(1, Ordering::Relaxed));
        let annotations = slice.metadata.annotations.get_or_insert_default();
        annotations.insert(status::WRITE_ID.to_owned(), id.clone());
        let name = slice.metadata.name.clone().unwrap_or_default();
        let slice = Decoded::Object(slice);
        let api = self.api::<EndpointSlice>(key);
        let params = PostParams { field_manager: Some(manager()), ..PostParams::default() };
        let written = if create {
            let call = || api.create(&params, &slice);
            self.call(Operation::CreateSlice, key, &name, call).await
        } else {
            let call = || api.replace(&name, &params, &slice);
            self.call(Operation::ReplaceSlice, key, &name, call).await
        };
        match written {
            Ok(slice) => Ok(Applied::Slice(Box::new(slice.trimmed()))),
            Err(error) if error.maybe_applied => {
                let call = || api.get(&name);
                let failed = error.to_string();
                let (found, outcome) = match self.call(Operation::GetSlice, key, &name, call).await
                {
                    // Our write id on it: we won.
                    Ok(now) if carries(&now, &id) => {
                        ("it took effect", Ok(Applied::Slice(Box::new(now.trimmed()))))
                    }
                    // No slice: our write did not happen, and no other replica was faster.
                    Ok(_) | Err(CallError { kind: ErrorKind::NotFound, .. }) => {
                        ("it did not take effect", Err(error))
                    }
                    Err(unknown) => ("it could not be read either", Err(unknown)),
                };
                tracing::info!(%key, "{failed}; settled by reading the slice: {found}");
                outcome
            }
            Err(error) => Err(error),
        }
    }

    async fn apply_status(
        &self,
        key: &ServiceKey,
        target: &ObjectRef,
        body: Value,
        manager: &str,
    ) -> Result<Applied, CallError> {
        let api = self.api::<Service>(key);
        let params = PatchParams::apply(manager).force();
        let patch = Patch::Apply(&body);
        let call = || api.patch_status(&target.name, &params, &patch);
        let made = self.call(Operation::ApplyServiceStatus, key, &target.name, call).await?;
        Ok(Applied::Service(Box::new(made.trimmed())))
    }
}

fn carries(slice: &Decoded<EndpointSlice>, write_id: &str) -> bool {
    slice.annotations().get(status::WRITE_ID).is_some_and(|found| found == write_id)
}

fn manager() -> String {
    keys::FIELD_MANAGER.to_owned()
}

fn status_body(
    key: &ServiceKey,
    target: &ObjectRef,
    annotations: Option<Value>,
    conditions: &[Condition],
) -> Value {
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": target.name, "namespace": &*key.namespace, "uid": target.uid},
        "status": {"conditions": conditions},
    });
    // As a precondition: a late copy of an older truth must not overwrite a newer one.
    if let Some(version) = &target.version {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    if let Some(annotations) = annotations {
        body["metadata"]["annotations"] = annotations;
    }
    body
}
