//! Calls that read the clock before they parse the answer, so that they measure the server and not this
//! program. A watch of slices does the same.

use futures::{AsyncBufReadExt, StreamExt, pin_mut};
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::objects;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

async fn call(
    client: &Client,
    verb: &str,
    path: &str,
    kind: &str,
    body: &Value,
) -> Result<String, String> {
    let request = Request::builder().method(verb).uri(path).header("Content-Type", kind);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    client.request_text(request.body(body).unwrap()).await.map_err(|e| e.to_string())
}

pub async fn get(client: &Client, path: &str) -> Result<String, String> {
    call(client, "GET", path, JSON, &Value::Null).await
}

pub async fn post(client: &Client, path: &str, body: &Value) -> Result<String, String> {
    call(client, "POST", path, JSON, body).await
}

pub async fn put(client: &Client, path: &str, body: &Value) -> Result<String, String> {
    call(client, "PUT", path, JSON, body).await
}

pub async fn merge(client: &Client, path: &str, body: &Value) -> Result<String, String> {
    call(client, "PATCH", path, MERGE, body).await
}

pub async fn delete(client: &Client, path: &str, body: &Value) -> Result<String, String> {
    call(client, "DELETE", path, JSON, body).await
}

/// Writes a pod's readiness; returns when the write began and when its answer arrived.
pub async fn write_ready(
    client: &Client,
    namespace: &str,
    pod: &str,
    ready: bool,
) -> (Instant, Instant) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/status");
    let body = objects::status(ready, &[]);
    let began = Instant::now();
    merge(client, &path, &body).await.unwrap();
    (began, Instant::now())
}

/// A version of a slice.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The time of arrival, before parsing.
    pub at: Instant,
    pub namespace: String,
    /// The Service it belongs to.
    pub service: String,
    /// Its ready pods.
    pub ready: Vec<String>,
}

/// Follows slices until dropped.
pub struct SliceWatch {
    seen: UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for SliceWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const OURS: &str = "zen-lead";
pub const BUILT_IN: &str = "endpointslice-controller.k8s.io";

impl SliceWatch {
    /// All slices of the cluster that this controller manages, from now on.
    pub async fn start(client: &Client, managed_by: &str) -> Self {
        let selector =
            format!("labelSelector=endpointslice.kubernetes.io/managed-by%3D{managed_by}");
        let list = get(client, &format!("{SLICES}?limit=1&{selector}")).await.unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path =
            // A day: longer than any measurement.
            format!("{SLICES}?watch=true&timeoutSeconds=86400&resourceVersion={from}&{selector}");
        let (send, seen) = unbounded_channel();
        let client = client.clone();
        let task = tokio::spawn(async move {
            let request = Request::get(path).body(Vec::new()).unwrap();
            let lines = client.request_stream(request).await.unwrap().lines();
            pin_mut!(lines);
            while let Some(Ok(line)) = lines.next().await {
                let at = Instant::now();
                let event: Event = serde_json::from_str(&line).unwrap();
                if event.kind != "DELETED" && send.send(event.object.seen(at)).is_err() {
                    return;
                }
            }
        });
        Self { seen, task }
    }

    /// The next version, in the order they came.
    pub async fn next(&mut self) -> Seen {
        self.seen.recv().await.expect("the watch of slices does not end")
    }

    /// Forgets all versions so far.
    pub fn drain(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }
}

/// All slices of a controller as they are now.
pub async fn slices(client: &Client, managed_by: &str) -> Vec<Seen> {
    let selector = format!("labelSelector=endpointslice.kubernetes.io/managed-by%3D{managed_by}");
    let list = get(client, &format!("{SLICES}?{selector}")).await.unwrap();
    let list: List = serde_json::from_str(&list).unwrap();
    let at = Instant::now();
    list.items.into_iter().map(|slice| slice.seen(at)).collect()
}

#[derive(Deserialize)]
struct List {
    items: Vec<Slice>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Slice,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    conditions: Conditions,
    #[serde(rename = "targetRef")]
    target: Option<Target>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Slice {
    fn seen(mut self, at: Instant) -> Seen {
        let ready =
            self.endpoints.into_iter().flatten().filter(|e| e.conditions.ready == Some(true));
        Seen {
            at,
            namespace: self.metadata.namespace,
            service: self.metadata.labels.remove("kubernetes.io/service-name").unwrap_or_default(),
            ready: ready.filter_map(|e| e.target).map(|t| t.name).collect(),
        }
    }
}
