//! Plain clients: they write what zen-lead writes and decide nothing. What they need is the part of a
//! measurement that no controller can avoid.
//! Their objects are those of `copies`.

use std::sync::Arc;

use futures::{AsyncBufReadExt, StreamExt, pin_mut};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::copies::{Template, route};
use super::raw;

/// Of a leader Service as it is now, with its slice.
pub async fn template_of(client: &Client, namespace: &str, leader: &str) -> Template {
    let service = raw::get(client, &format!("{}/{leader}", services(namespace))).await.unwrap();
    let query = format!("labelSelector=kubernetes.io/service-name%3D{leader}");
    let list = raw::get(client, &format!("{}?{query}", slices(namespace))).await.unwrap();
    let mut list: Value = serde_json::from_str(&list).unwrap();
    Template::new(serde_json::from_str(&service).unwrap(), list["items"][0].take())
}

pub fn services(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services")
}

pub fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

/// A slice that one client writes, each time on the version that it wrote last, as zen-lead does.
pub struct PlainSlice {
    client: Client,
    path: String,
    body: Value,
}

impl PlainSlice {
    /// Creates it.
    pub async fn create(client: Client, namespace: &str, body: &Value) -> Self {
        let answer = raw::post(&client, &slices(namespace), body).await.unwrap();
        let name = body["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}", slices(namespace));
        let mut slice = Self { client, path, body: body.clone() };
        slice.written(&answer);
        slice
    }

    /// Takes over what the next write has to name.
    fn written(&mut self, answer: &str) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        for key in ["uid", "resourceVersion"] {
            self.body["metadata"][key] = answer["metadata"][key].clone();
        }
    }

    /// Routes to another pod.
    pub async fn put(&mut self, pod: &str) {
        route(&mut self.body, pod);
        let answer = raw::put(&self.client, &self.path, &self.body).await.unwrap();
        self.written(&answer);
    }
}

/// A client that watches the pods of a namespace and, as soon as one of them is seen to lose its readiness,
/// writes the slice that is prepared for this. It ends when dropped.
pub struct Reflex {
    next: Arc<Mutex<(PlainSlice, Option<[String; 2]>)>>,
    task: JoinHandle<()>,
}

impl Drop for Reflex {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reflex {
    /// With a client of its own: its connections are as idle as those of zen-lead.
    pub async fn start(slice: PlainSlice, namespace: &str) -> Self {
        let client = slice.client.clone();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let list = raw::get(&client, &path).await.unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!("{path}?watch=true&timeoutSeconds=86400&resourceVersion={from}");
        let next = Arc::new(Mutex::new((slice, None::<[String; 2]>)));
        let shared = next.clone();
        let task = tokio::spawn(async move {
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            let lines = client.request_stream(request).await.unwrap().lines();
            pin_mut!(lines);
            while let Some(Ok(line)) = lines.next().await {
                let pod: Event = serde_json::from_str(&line).unwrap();
                let mut next = shared.lock().await;
                let (slice, prepared) = &mut *next;
                if let Some([_, to]) = prepared
                    .take_if(|[from, _]| *from == pod.object.metadata.name && !pod.object.ready())
                {
                    slice.put(&to).await;
                }
            }
        });
        Self { next, task }
    }

    /// Prepares the next write: if the first pod loses its readiness, the second is routed to.
    pub async fn prepare(&self, from: &str, to: &str) {
        self.next.lock().await.1 = Some([from.to_owned(), to.to_owned()]);
    }
}

#[derive(Deserialize)]
struct Event {
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Named,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    fn ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True")
    }
}
