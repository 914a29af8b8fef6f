//! Creates many Services and hollow pods quickly, and removes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::raw::{self, OURS};
use crate::support::names;
use crate::support::objects::{hollow, source_json, status};
use crate::support::world::{RUN_LABEL, World};

/// Writes under way at the same time.
pub const WRITERS: usize = 32;
/// The longest time until all Services have a leader. Thousands take long: a kube-apiserver that has 9,000 Services
/// already makes about five more in a second on two cores.
const PATIENCE: Duration = Duration::from_mins(30);

/// A leader Service: namespace and name.
pub type Led = (String, String);

/// The created objects.
pub struct Fill {
    world: Arc<World>,
    prefix: String,
    namespaces: Vec<String>,
    /// Namespace, name and number of pods of each source.
    services: Vec<(String, String, usize)>,
}

impl Fill {
    pub fn new(world: Arc<World>, name: &str) -> Self {
        let prefix = format!("{name}-{}", world.run);
        Self { world, prefix, namespaces: Vec::new(), services: Vec::new() }
    }

    pub fn services(&self) -> usize {
        self.services.len()
    }

    pub fn pods(&self) -> usize {
        self.services.iter().map(|s| s.2).sum()
    }

    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// Adds what is missing to this many Services with this many pods each, the new ones spread over this
    /// many namespaces. Returns how many writes a second the API server accepted.
    pub async fn grow(&mut self, services: usize, pods: usize, namespaces: usize) -> f64 {
        let client = &self.world.admin;
        while self.namespaces.len() < namespaces {
            let name = format!("{}-{}", self.prefix, self.namespaces.len());
            make_namespace(client, &name, &self.world.run).await;
            self.namespaces.push(name);
        }
        let mut work: Vec<Work> = Vec::new();
        for n in self.services.len()..services {
            let ns = self.namespaces[n % self.namespaces.len()].clone();
            let name = format!("app-{n}");
            work.push(Work::Service(ns.clone(), name.clone()));
            self.services.push((ns, name, 0));
        }
        for (ns, name, have) in &mut self.services {
            for n in *have..pods {
                let (v4, _) = self.world.next_addresses();
                work.push(Work::Pod(ns.clone(), name.clone(), n, v4));
            }
            *have = pods.max(*have);
        }
        let began = Instant::now();
        let writes: usize = work.iter().map(Work::writes).sum();
        let work = futures::stream::iter(work.into_iter().map(|w| w.run(client.clone())));
        let done: Vec<Result<(), String>> = work
            .map(|w| async { tokio::spawn(w).await.unwrap() })
            .buffer_unordered(WRITERS)
            .collect()
            .await;
        done.into_iter().collect::<Result<(), _>>().unwrap();
        #[allow(clippy::cast_precision_loss)]
        let rate = writes as f64 / began.elapsed().as_secs_f64();
        self.until_led().await;
        rate
    }

    /// Waits until every source has a leader; returns the leaders.
    pub async fn until_led(&self) -> HashMap<Led, String> {
        let began = Instant::now();
        loop {
            let leaders = self.leaders().await;
            if leaders.len() == self.services.len() {
                return leaders;
            }
            let (have, want) = (leaders.len(), self.services.len());
            assert!(began.elapsed() < PATIENCE, "{have} of {want} Services have a leader");
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn leaders(&self) -> HashMap<Led, String> {
        let mut leaders = HashMap::new();
        for slice in raw::slices(&self.world.admin, OURS).await {
            if slice.namespace.starts_with(&self.prefix)
                && let [pod] = &slice.ready[..]
            {
                leaders.insert((slice.namespace, slice.service), pod.clone());
            }
        }
        leaders
    }
}

enum Work {
    Service(String, String),
    Pod(String, String, usize, String),
}

impl Work {
    fn writes(&self) -> usize {
        match self {
            Self::Service(..) => 1,
            Self::Pod(..) => 2,
        }
    }

    async fn run(self, client: Client) -> Result<(), String> {
        match self {
            Self::Service(ns, name) => {
                let path = format!("/api/v1/namespaces/{ns}/services");
                raw::post(&client, &path, &source_json(&name, &json!({}))).await?;
            }
            Self::Pod(ns, app, n, address) => {
                let name = format!("{app}-{n}");
                let pod = serde_json::to_value(hollow(&name, &app).pod()).unwrap();
                let path = format!("/api/v1/namespaces/{ns}/pods");
                raw::post(&client, &path, &pod).await?;
                let status = status(true, &[address]);
                raw::merge(&client, &format!("{path}/{name}/status"), &status).await?;
            }
        }
        Ok(())
    }
}

async fn make_namespace(client: &Client, name: &str, run: &str) {
    let labels = BTreeMap::from([(RUN_LABEL, run)]);
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    raw::post(client, "/api/v1/namespaces", &namespace).await.unwrap();
    // Pods are refused until it exists; the controller creates it too, a moment later.
    let account = json!({"metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
    let _ = raw::post(client, &path, &account).await;
}

/// Removes every namespace of the run with its objects, pods first: no kubelet ends hollow pods.
pub async fn clear(world: &World) {
    let client = &world.admin;
    let path = format!("/api/v1/namespaces?labelSelector={RUN_LABEL}%3D{}", world.run);
    let Ok(list) = raw::get(client, &path).await else { return };
    let list: Value = serde_json::from_str(&list).unwrap_or_default();
    for namespace in list["items"].as_array().into_iter().flatten() {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        if namespace["metadata"].get("deletionTimestamp").is_some() {
            continue;
        }
        let path = format!("/api/v1/namespaces/{name}");
        let at_once = json!({"gracePeriodSeconds": 0});
        // Sources first: otherwise zen-lead and the built-in controllers follow each pod's end.
        for kind in ["services", "pods"] {
            if let Err(why) = raw::delete(client, &format!("{path}/{kind}"), &at_once).await {
                println!("clearing {kind} of {name}: {why}");
            }
        }
        let _ = raw::delete(client, &path, &Value::Null).await;
    }
}

/// The annotation that changes what zen-lead does with a Service, as a merge patch.
pub fn annotate(key: &str, value: &str) -> Value {
    debug_assert!(key.starts_with(names::PREFIX) || key.starts_with("example.com/"));
    json!({"metadata": {"annotations": {key: value}}})
}
