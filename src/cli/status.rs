//! `zen-lead status`: the leader Services of the cluster, as a table or as JSON, and the sources that
//! ask for one and have none.
//!
//! The leader shown is the pod that the EndpointSlices route to, not the one that annotations name.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, ResourceExt};
use serde::Serialize;

use super::key_of;
use super::routed::{self, Endpoint};
use crate::config::Output;
use crate::control::watch::Watched;
use crate::control::watch::page;
use crate::platform::api::{self, Caller};
use crate::platform::operation::{Operation, Target};
use zen_lead_core::decide::mirror;
use zen_lead_core::decode::Decoded;
use zen_lead_core::index;
use zen_lead_core::index::service::own_conditions;
use zen_lead_core::keys::status::LAST_SWITCH_TIME;
use zen_lead_core::keys::{kubernetes, setting};
use zen_lead_core::names::NameRule;
use zen_lead_core::reason::Reason;
use zen_lead_core::settings::{self, Intent, owner};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// Namespaces whose pods are read one by one; above this number, all pods of the cluster are read.
const NAMESPACES: usize = 20;

/// A leader Service, or a source that has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Namespace.
    pub namespace: String,
    /// Source Service.
    pub service: String,
    /// Leader Service, empty if there is none.
    pub leader_service: String,
    /// Pod that is routed, empty if none is; several are separated by commas.
    pub leader: String,
    /// Whether exactly one pod is routed, and that one exists and is Ready.
    pub ready: bool,
    /// Time of the last switch (RFC 3339), empty if there was none.
    pub since: String,
    /// Reason of the condition, or what is wrong with the condition.
    pub reason: String,
}

/// What `status` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// The table or the JSON.
    pub text: String,
    /// Objects that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// Reads the leader Services, their slices and the pods in them, and formats the result.
///
/// # Errors
/// If the API server cannot be read.
pub async fn run(
    client: Client,
    caller: &Caller,
    namespace: Option<&str>,
    output: Output,
) -> anyhow::Result<StatusReport> {
    let mut reading = StatusReading { client, caller, unreadable: Vec::new() };
    let rows = reading.rows(namespace).await.context(
        "cannot read the cluster with the rights of your kubeconfig; status needs get and list on \
         services, endpointslices and pods, in all namespaces or in that of --namespace",
    )?;
    let text = match output {
        Output::Table => table(&rows),
        Output::Json => serde_json::to_string_pretty(&rows)? + "\n",
    };
    Ok(StatusReport { text, unreadable: reading.unreadable })
}

struct StatusReading<'a> {
    client: Client,
    caller: &'a Caller,
    unreadable: Vec<String>,
}

impl StatusReading<'_> {
    async fn rows(&mut self, namespace: Option<&str>) -> anyhow::Result<Vec<Row>> {
        // As `control::reader` does: every slice that may add endpoints to a leader Service.
        let mut slices = Slices::default();
        let params = ListParams::default().labels(&page::not_built_in());
        let keep = |slice: Decoded<EndpointSlice>| {
            slice.object().iter().for_each(|slice| slices.add(slice));
        };
        self.list(Operation::ListSlices, namespace, &params, keep).await?;
        let mut services = Vec::new();
        let mut unread = BTreeSet::new();
        let keep = |service: Decoded<Service>| match service {
            Decoded::Object(service) => services.extend(concerns_us(service)),
            // Its metadata name the source; its slices show whether a pod is routed.
            Decoded::Unreadable(found) => {
                let service = Service { metadata: found.metadata, ..Service::default() };
                if let Some(service) = concerns_us(service) {
                    unread.insert(key_of(&service));
                    services.push(service);
                }
            }
        };
        let all = ListParams::default();
        self.list(Operation::ListServices, namespace, &all, keep).await?;

        let leaders = services.iter().filter(|s| source_names(s).next().is_some());
        let routing: BTreeSet<String> = leaders
            .filter(|s| slices.of(s).iter().any(|e| e.ready))
            .filter_map(|s| s.metadata.namespace.clone())
            .collect();
        let scopes: Vec<Option<&str>> = match namespace {
            None if routing.len() > NAMESPACES => vec![None],
            _ => routing.iter().map(|n| Some(n.as_str())).collect(),
        };
        let mut fit = HashSet::new();
        for scope in scopes {
            let keep = |pod: Decoded<Pod>| fit.extend(pod.object().as_ref().and_then(fit_uid));
            self.list(Operation::ListPods, scope, &all, keep).await?;
        }
        let mut rows = rows(&services, &slices, &fit);
        for row in &mut rows {
            let keys = [&row.leader_service, &row.service]
                .map(|name| (row.namespace.clone(), name.clone()));
            if keys.iter().any(|key| unread.contains(key)) {
                Reason::Unreadable.as_str().clone_into(&mut row.reason);
            }
        }
        Ok(rows)
    }

    /// Lists page by page, so that only what `keep` takes stays in memory.
    async fn list<K: Watched>(
        &mut self,
        operation: Operation,
        namespace: Option<&str>,
        params: &ListParams,
        mut keep: impl FnMut(K),
    ) -> anyhow::Result<()> {
        let request = Request::new(K::url_path(&K::DynamicType::default(), namespace));
        let about = Target::own(namespace.unwrap_or("of all namespaces"));
        let mut params = params.clone().limit(PAGE);
        loop {
            let page = api::call(self.caller, operation, about, || {
                page::page(&self.client, &request, &params, Some)
            });
            let (objects, page) = page.await?;
            self.unreadable.extend(page.malformed);
            objects.into_iter().for_each(&mut keep);
            match page.next {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

/// Endpoints and times by namespace and Service.
#[derive(Default)]
struct Slices(BTreeMap<(String, String), Routes>);

#[derive(Default)]
struct Routes {
    endpoints: Vec<Endpoint>,
    since: Option<String>,
}

impl Slices {
    fn add(&mut self, slice: &EndpointSlice) {
        let Some(service) = slice.labels().get(kubernetes::SERVICE_NAME).cloned() else { return };
        let key = (slice.namespace().unwrap_or_default(), service);
        let routes = self.0.entry(key).or_default();
        routes.endpoints.extend(routed::endpoints(slice));
        let switched = slice.annotations().get(LAST_SWITCH_TIME).cloned();
        routes.since = routes.since.take().max(switched);
    }

    fn routes(&self, service: &Service) -> Option<&Routes> {
        self.0.get(&key_of(service))
    }

    fn of(&self, service: &Service) -> &[Endpoint] {
        self.routes(service).map_or(&[], |r| &r.endpoints)
    }
}

/// The sources that a leader Service may belong to: by its owner reference, and by its label.
fn source_names(service: &Service) -> impl Iterator<Item = &String> {
    let meta = &service.metadata;
    let label = settings::source_label(service);
    let owner = owner::controller(meta).filter(|o| owner::is_service(o));
    let owner = owner.filter(|_| label.is_some() || owner::is_stamped(meta)).map(|o| &o.name);
    owner.into_iter().chain(label)
}

/// The source of a leader Service: the one that owns it by uid, or else the one its label names.
fn source_name<'a>(leader: &'a Service, sources: &Sources<'_>) -> Option<&'a String> {
    let uid = owner::controller(&leader.metadata).map(|o| &o.uid);
    let owns = |name: &&String| {
        let source = sources.get(&(key_of(leader).0, (*name).clone()));
        source.is_some_and(|s| s.metadata.uid.as_ref() == uid)
    };
    source_names(leader).find(owns).or_else(|| source_names(leader).last())
}

/// Services that are not leader Services, by namespace and name.
type Sources<'a> = BTreeMap<(String, String), &'a Service>;

/// Keeps leader Services and sources.
fn concerns_us(mut service: Service) -> Option<Service> {
    service.metadata.managed_fields = None;
    let enabled = service.annotations().contains_key(setting::ENABLED);
    let leads = source_names(&service).next().is_some();
    (leads || enabled).then_some(service)
}

/// The uid of a pod that may take traffic.
fn fit_uid(pod: &Pod) -> Option<Arc<str>> {
    index::pod::Pod::trim(pod).filter(index::pod::Pod::eligible).map(|pod| pod.uid)
}

/// `fit` has the uids of the pods that may take traffic.
fn rows(services: &[Service], slices: &Slices, fit: &HashSet<Arc<str>>) -> Vec<Row> {
    let leads = |service: &&Service| source_names(service).next().is_some();
    let sources: Sources<'_> =
        services.iter().filter(|s| !leads(s)).map(|service| (key_of(service), service)).collect();
    let mut led = BTreeSet::new();
    let mut rows: Vec<Row> = Vec::new();
    for leader in services.iter().filter(leads) {
        let Some(name) = source_name(leader, &sources) else { continue };
        let of = (key_of(leader).0, name.clone());
        rows.push(row(leader, name, sources.get(&of).copied(), slices, fit));
        led.insert(of);
    }
    let unled = sources.iter().filter(|(key, source)| !led.contains(*key) && asks(source));
    rows.extend(unled.map(|(_, source)| unled_row(source)));
    rows.sort();
    rows
}

/// Whether a source asks for a leader, with valid settings or not. Names follow the rule of Kubernetes
/// 1.36; the version of the server does not matter here.
fn asks(source: &Service) -> bool {
    let enabled = source.annotations().get(setting::ENABLED);
    match settings::read(source, NameRule::Dns1123) {
        Ok(intent) => matches!(intent, Intent::On(_)),
        Err(_) => enabled.is_some_and(|value| value != "false"),
    }
}

/// The reason of zen-lead's condition.
fn reason_on(service: &Service) -> Option<String> {
    own_conditions(service).next().map(|c| c.reason.clone())
}

fn unled_row(source: &Service) -> Row {
    let (namespace, service) = key_of(source);
    let reason = reason_on(source).unwrap_or_else(|| "NoLeaderService".to_owned());
    Row { namespace, service, reason, ..Row::default() }
}

fn row(
    leader: &Service,
    name: &str,
    source: Option<&Service>,
    slices: &Slices,
    fit: &HashSet<Arc<str>>,
) -> Row {
    let (namespace, leader_service) = key_of(leader);
    let endpoints = slices.of(leader);
    let names = routed::routed(endpoints);
    let is_fit = |e: &Endpoint| e.uid.as_deref().is_some_and(|uid| fit.contains(uid));
    let all_fit = endpoints.iter().filter(|e| e.ready).all(is_fit);
    let since = slices.routes(leader).and_then(|r| r.since.clone());
    let since = since.or_else(|| mirror::read(leader).switched_at.map(|t| t.to_string()));
    let stale = routed::contradiction(leader, &names);
    let reason = match (names.len(), routed::leader_ready(leader)) {
        (2.., _) => "SeveralPods".to_owned(),
        (1, _) if !all_fit => "StaleEndpoint".to_owned(),
        (_, None) => "NoCondition".to_owned(),
        _ if stale.is_some() => "StaleCondition".to_owned(),
        (_, Some(condition)) => source
            .and_then(reason_on)
            .filter(|_| condition.status == "True")
            .unwrap_or_else(|| condition.reason.clone()),
    };
    Row {
        namespace,
        service: name.to_owned(),
        leader_service,
        leader: names.join(","),
        ready: names.len() == 1 && all_fit,
        since: since.unwrap_or_default(),
        reason,
    }
}

fn table(rows: &[Row]) -> String {
    let header = ["NAMESPACE", "SERVICE", "LEADER SERVICE", "LEADER", "READY", "SINCE", "REASON"];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.iter().map(|r| {
        let ready = r.ready.to_string();
        let row =
            [&r.namespace, &r.service, &r.leader_service, &r.leader, &ready, &r.since, &r.reason];
        row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.clone() })
    }));
    let width = |column: usize| lines.iter().map(|l| l[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let pad = |line: &[String; 7]| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(pad).collect()
}

#[cfg(test)]
mod tests;
