//! One test: its namespace, and the actions and questions in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::names;
use super::objects::{self, Hollow};
use super::recorder::Recorder;
use super::waiting::{check, until, within};
use super::world::{RUN_LABEL, World};

/// A test with a namespace of its own.
pub struct Case {
    pub world: Arc<World>,
    pub ns: String,
    more: Mutex<Vec<String>>,
}

/// What a slice routes to, for comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    pub pod: String,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Routed {
    pub fn ready(pod: &str) -> Self {
        Self { pod: pod.to_owned(), ready: true, serving: true, terminating: false }
    }

    pub fn not_ready(pod: &str) -> Self {
        Self { pod: pod.to_owned(), ready: false, serving: false, terminating: false }
    }

    pub fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        Self {
            pod: endpoint.target_ref.as_ref().and_then(|t| t.name.clone()).unwrap_or_default(),
            ready: conditions.ready.expect("ready is explicit"),
            serving: conditions.serving.expect("serving is explicit"),
            terminating: conditions.terminating.expect("terminating is explicit"),
        }
    }
}

/// The endpoints of a slice.
pub fn routed(slice: &EndpointSlice) -> Vec<Routed> {
    slice.endpoints.iter().flatten().map(Routed::of).collect()
}

/// The value of an annotation, empty where there is none.
pub fn annotation(object: &impl ResourceExt, key: &str) -> String {
    object.annotations().get(key).cloned().unwrap_or_default()
}

/// The epoch a slice or leader Service carries.
pub fn epoch(object: &impl ResourceExt) -> u64 {
    annotation(object, names::EPOCH).parse().unwrap_or(0)
}

/// The notes that the Event of a switch may have after a pod stopped being ready: a replica that sends
/// it later than the writer of the switch may not know the old leader
/// (docs/decisions/event-of-a-switch.md).
pub fn switch_notes(from: &str, to: &str, epoch: u64) -> [String; 2] {
    [format!("leader changed from {from} to {to}"), format!("{to} leads")]
        .map(|what| format!("{what} (pod_not_ready), epoch {epoch}"))
}

/// The API server's refusal in an error.
pub fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

impl Case {
    pub async fn open(world: Arc<World>, test: &str) -> Self {
        let plain = test.rsplit("::").next().unwrap_or(test).replace('_', "-");
        let short: String = plain.chars().take(48).collect();
        let ns = format!("{}-{}", short.trim_end_matches('-'), world.run);
        let case = Self { world, ns: ns.clone(), more: Mutex::default() };
        let run = case.world.run.clone();
        case.make_namespace(&ns, &[(RUN_LABEL, &run)]).await;
        case
    }

    /// A namespace that the webhooks do not see: objects that admission would refuse are stored there.
    pub async fn outside(&self) -> Self {
        self.outside_as("out").await
    }

    /// As [`Self::outside`], one of several: the names end in `suffix`.
    pub async fn outside_as(&self, suffix: &str) -> Self {
        let short: String = self.ns.chars().take(62 - suffix.len()).collect();
        let ns = format!("{}-{suffix}", short.trim_end_matches('-'));
        self.make_namespace(&ns, &[]).await;
        self.more.lock().unwrap().push(ns.clone());
        Self { world: self.world.clone(), ns, more: Mutex::default() }
    }

    /// From now on the webhooks see this namespace too.
    pub async fn show_to_webhooks(&self) {
        let namespaces: Api<Namespace> = Api::all(self.admin());
        let patch = Patch::Merge(json!({"metadata": {"labels": {RUN_LABEL: self.world.run}}}));
        namespaces.patch(&self.ns, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn make_namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let namespaces: Api<Namespace> = Api::all(self.admin());
        let made = serde_json::from_value(object).unwrap();
        namespaces.create(&PostParams::default(), &made).await.unwrap();
        // Pods are refused until it exists; the controller creates it too, a moment later.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), name);
        let default = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        let _ = accounts.create(&PostParams::default(), &default).await;
    }

    /// Ends the test's pods and starts the deletion of its namespaces.
    pub async fn close(&self) {
        let more = std::mem::take(&mut *self.more.lock().unwrap());
        for ns in more.iter().chain([&self.ns]) {
            // These first, so that no controller creates new pods for the deleted ones; then all pods
            // with grace period 0, because no kubelet confirms their end.
            let namespaces: Api<Namespace> = Api::all(self.admin());
            let _ = namespaces.delete(ns, &DeleteParams::default()).await;
            let pods: Api<Pod> = Api::namespaced(self.admin(), ns);
            for _ in 0..50 {
                let left = pods.list(&ListParams::default()).await.map(|l| l.items);
                let left = left.unwrap_or_default();
                if left.is_empty() {
                    break;
                }
                for pod in left {
                    let name = pod.name_any();
                    if !pod.finalizers().is_empty() {
                        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                        let _ = pods.patch(&name, &PatchParams::default(), &patch).await;
                    }
                    let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub fn admin(&self) -> Client {
        self.world.admin.clone()
    }

    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.admin(), &self.ns)
    }

    /// Services as alice sees and writes them.
    pub fn user_services(&self) -> Api<Service> {
        Api::namespaced(self.world.user.clone(), &self.ns)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin(), &self.ns)
    }

    pub fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.admin(), &self.ns)
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.admin(), &self.ns)
    }

    /// Lets the namespace have one Service, by the ResourceQuota `few`, once that is in force.
    pub async fn one_service_quota(&self) -> Api<ResourceQuota> {
        let quotas: Api<ResourceQuota> = self.api();
        let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"services": "1"}}});
        let quota = serde_json::from_value(quota).unwrap();
        quotas.create(&PostParams::default(), &quota).await.unwrap();
        until("the quota is in force", || async {
            let now = quotas.get("few").await.map_err(|e| e.to_string())?;
            check(now.status.is_some_and(|s| s.hard.is_some()), "no status yet")
        })
        .await;
        quotas
    }

    /// Watches every version of every slice of the namespace from now on.
    pub async fn record(&self) -> Recorder {
        Recorder::start(self.slices()).await
    }

    // What users do.

    /// Creates a Service as alice.
    pub async fn create(&self, service: &Service) -> Service {
        self.user_services().create(&PostParams::default(), service).await.unwrap()
    }

    /// Creates the source `web` with these settings as alice.
    pub async fn web(&self, settings: &[(&str, &str)]) -> Service {
        self.create(&objects::source_set("web", settings)).await
    }

    /// Merges a patch into a Service as alice.
    pub async fn patch_service(&self, name: &str, patch: &Value) -> Service {
        let services = self.user_services();
        services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub async fn delete_service(&self, name: &str) {
        self.user_services().delete(name, &DeleteParams::default()).await.unwrap();
    }

    // What the kubelet and workloads do.

    /// Creates a hollow pod and writes its status.
    pub async fn pod(&self, hollow: Hollow) -> Pod {
        let pods = self.pods();
        let object = hollow.pod();
        let name = object.name_any();
        until("the pod is created", || async {
            pods.create(&PostParams::default(), &object).await
        })
        .await;
        let (v4, v6) = self.world.next_addresses();
        let addresses = if hollow.dual { vec![v4, v6] } else { vec![v4] };
        self.write_status(&name, &objects::status(hollow.ready, &addresses)).await
    }

    /// Ready pods of these names, in this order of age.
    pub async fn ready_pods(&self, app: &str, names: &[&str]) -> Vec<Pod> {
        let mut pods = Vec::new();
        for name in names {
            pods.push(self.pod(objects::hollow(name, app)).await);
        }
        pods
    }

    pub async fn write_status(&self, name: &str, patch: &Value) -> Pod {
        let patch = Patch::Merge(patch);
        self.pods().patch_status(name, &PatchParams::default(), &patch).await.unwrap()
    }

    pub async fn set_ready(&self, name: &str, ready: bool) -> Pod {
        self.write_status(name, &objects::status(ready, &[])).await
    }

    pub async fn set_phase(&self, name: &str, phase: &str) -> Pod {
        self.write_status(name, &json!({"status": {"phase": phase}})).await
    }

    /// Gone at once, as after `kubectl delete --force`.
    pub async fn vanish(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// Terminating from now on: no kubelet will end it.
    pub async fn terminate(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    // What is seen.

    /// The slice of a leader Service that zen-lead wrote for a family.
    pub async fn slice(&self, leader: &str, family: &str) -> Result<EndpointSlice, String> {
        let ours = format!("{}={leader},{}=zen-lead", names::SERVICE_NAME, names::SLICE_MANAGED_BY);
        let ours = ListParams::default().labels(&ours);
        let list = self.slices().list(&ours).await;
        let mut found = list.map_err(|e| e.to_string())?.items;
        found.retain(|s| s.address_type == family);
        check(found.len() < 2, format!("several slices of {leader} for {family}"))?;
        found.pop().ok_or_else(|| format!("no slice of {leader} for {family}"))
    }

    /// Waits until the IPv4 slice of a leader Service says exactly this, and returns it.
    #[track_caller]
    pub fn until_routed<'a>(
        &'a self,
        leader: &'a str,
        wanted: &[Routed],
    ) -> impl Future<Output = EndpointSlice> + use<'a> {
        self.until_family(leader, "IPv4", wanted)
    }

    #[track_caller]
    pub fn until_family<'a>(
        &'a self,
        leader: &'a str,
        family: &'a str,
        wanted: &[Routed],
    ) -> impl Future<Output = EndpointSlice> + use<'a> {
        let what = format!("{leader} ({family}) routes to {wanted:?}");
        let wanted = wanted.to_vec();
        until(what, move || {
            let wanted = wanted.clone();
            async move {
                let slice = self.slice(leader, family).await?;
                check(routed(&slice) == wanted, format!("{:?}", routed(&slice)))?;
                Ok::<_, String>(slice)
            }
        })
    }

    /// Waits until the IPv4 slice names this pod as ready.
    #[track_caller]
    pub fn until_led_by<'a>(
        &'a self,
        leader: &'a str,
        pod: &str,
    ) -> impl Future<Output = EndpointSlice> + use<'a> {
        self.until_routed(leader, &[Routed::ready(pod)])
    }

    /// Waits until the slices of both families name this pod as ready, and the leader Service says
    /// so.
    #[track_caller]
    pub fn until_both_led_by(
        &self,
        leader: &str,
        pod: &str,
        limit: Duration,
    ) -> impl Future<Output = ()> {
        within(limit, format!("{pod} leads for {leader} in both families"), move || async move {
            for family in ["IPv4", "IPv6"] {
                let now = routed(&self.slice(leader, family).await?);
                check(now == [Routed::ready(pod)], format!("{family}: {now:?}"))?;
            }
            let condition = self.condition(leader).await?;
            let says = condition.message.starts_with(&format!("{pod} leads"));
            check(condition.status == "True" && says, format!("{condition:?}"))
        })
    }

    /// The condition of ours on a Service.
    pub async fn condition(&self, service: &str) -> Result<Condition, String> {
        let service = self.services().get(service).await.map_err(|e| e.to_string())?;
        let conditions = service.status.unwrap_or_default().conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == names::READY);
        found.ok_or_else(|| "no condition zen-lead.io/LeaderReady".to_owned())
    }

    /// Waits for a status and reason of LeaderReady on a Service; returns its message.
    #[track_caller]
    pub fn until_condition(
        &self,
        service: &str,
        status: &str,
        reason: &str,
    ) -> impl Future<Output = String> {
        until(format!("{service} has LeaderReady={status} ({reason})"), move || async move {
            let c = self.condition(service).await?;
            check(c.status == status && c.reason == reason, format!("{c:?}"))?;
            Ok::<_, String>(c.message)
        })
    }

    /// Waits until the message of LeaderReady on a Service is this.
    #[track_caller]
    pub fn until_message(&self, service: &str, message: &str) -> impl Future<Output = ()> {
        until(format!("LeaderReady of {service} says {message:?}"), move || async move {
            let c = self.condition(service).await?;
            check(c.message == message, format!("{c:?}"))
        })
    }

    /// Waits until a Service is gone.
    #[track_caller]
    pub fn until_gone(&self, service: &str) -> impl Future<Output = ()> {
        until(format!("Service {service} is gone"), move || async move {
            let found = self.services().get_opt(service).await.map_err(|e| e.to_string())?;
            check(found.is_none(), "it is there")
        })
    }

    /// Events about a Service with a reason: their notes.
    pub async fn events(&self, service: &str, reason: &str) -> Vec<String> {
        let events = until("events are listed", || async {
            self.api::<Event>().list(&ListParams::default()).await
        })
        .await;
        events
            .items
            .into_iter()
            .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(service))
            .filter(|e| e.reason.as_deref() == Some(reason))
            .map(|e| e.note.unwrap_or_default())
            .collect()
    }

    /// Waits until this many switches of a leader Service have an Event, one each.
    #[track_caller]
    pub fn until_reported(&self, leader: &str, switches: usize) -> impl Future<Output = ()> {
        until(format!("{switches} switches of {leader} have Events"), move || async move {
            let notes = self.events(leader, "LeaderChanged").await;
            let different: BTreeSet<&String> = notes.iter().collect();
            assert_eq!(different.len(), notes.len(), "two Events for one switch: {notes:?}");
            check(notes.len() == switches, format!("{notes:?}"))
        })
    }

    /// Waits for an event; returns the note of the first.
    #[track_caller]
    pub fn until_event(&self, service: &str, reason: &str) -> impl Future<Output = String> {
        until(format!("an event {reason} about {service}"), move || async move {
            self.events(service, reason).await.into_iter().next().ok_or("there is none")
        })
    }
}
