//! Creates many Services and hollow pods quickly, and removes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::raw::{self, BUILT_IN, OURS};
use crate::support::names;
use crate::support::objects::{hollow, source_json, status};
use crate::support::world::{RUN_LABEL, World};

/// Writes under way at the same time.
pub const WRITERS: usize = 32;
/// The longest time until all Services have a leader. Thousands take long: a kube-apiserver that has 9,000 Services
/// already makes about five more in a second on two cores.
const PATIENCE: Duration = Duration::from_mins(30);

/// The longest time until the built-in controller, whose calls are limited to 20 a second, has caught up.
pub const PATIENCE_BUILT_IN: Duration = Duration::from_mins(3);

/// A leader Service: namespace and name.
pub type Led = (String, String);

/// The created objects.
pub struct Fill {
    world: Arc<World>,
    prefix: String,
    /// Merged into each source.
    patch: Value,
    /// The sources are enabled: they get leaders.
    led: bool,
    namespaces: Vec<String>,
    /// Namespace, name and number of pods of each source.
    services: Vec<(String, String, usize)>,
}

impl Fill {
    pub fn new(world: Arc<World>, name: &str) -> Self {
        Self::make(world, name, json!({}), true)
    }

    /// With Services that are not enabled; without selectors no controller has work with them.
    pub fn unled(world: Arc<World>, name: &str, selectors: bool) -> Self {
        // A null removes, so only one merge takes it: this patch is that of each source.
        let mut patch = json!({"metadata": {"annotations": null}});
        if !selectors {
            patch["spec"] = json!({"selector": null});
        }
        Self::make(world, name, patch, false)
    }

    fn make(world: Arc<World>, name: &str, patch: Value, led: bool) -> Self {
        let prefix = format!("{name}-{}", world.run);
        Self { world, prefix, patch, led, namespaces: Vec::new(), services: Vec::new() }
    }

    pub fn services(&self) -> usize {
        self.services.len()
    }

    pub fn pods(&self) -> usize {
        self.services.iter().map(|s| s.2).sum()
    }

    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// Namespace and name of each Service.
    pub fn sources(&self) -> Vec<(String, String)> {
        self.services.iter().map(|(ns, name, _)| (ns.clone(), name.clone())).collect()
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
            work.push(Work::Service(ns.clone(), source_json(&name, &self.patch)));
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
        let work = work.into_iter().map(|w| w.run(client.clone())).collect();
        together(work).await.into_iter().collect::<Result<(), _>>().unwrap();
        #[allow(clippy::cast_precision_loss)]
        let rate = writes as f64 / began.elapsed().as_secs_f64();
        if self.led {
            self.until_led().await;
        }
        rate
    }

    /// Waits until the built-in controller has every pod in a slice, and two seconds more.
    pub async fn until_at_rest(&self) {
        let began = Instant::now();
        loop {
            let slices = raw::slices(&self.world.admin, BUILT_IN).await;
            let own = slices.iter().filter(|s| s.namespace.starts_with(&self.prefix));
            let ready: usize = own.map(|s| s.ready.len()).sum();
            if ready == self.pods() {
                break;
            }
            let all = self.pods();
            assert!(began.elapsed() < PATIENCE_BUILT_IN, "{ready} of {all} pods are in slices");
            sleep(Duration::from_secs(1)).await;
        }
        sleep(Duration::from_secs(2)).await;
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

/// Runs all, [`WRITERS`] at the same time, each as a task of its own; the results in the order of their ends.
pub async fn together<F>(work: Vec<F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks = work.into_iter().map(|one| async { tokio::spawn(one).await.unwrap() });
    futures::stream::iter(tasks).buffer_unordered(WRITERS).collect().await
}

enum Work {
    Service(String, Value),
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
            Self::Service(ns, source) => {
                raw::post(&client, &format!("/api/v1/namespaces/{ns}/services"), &source).await?;
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
async fn clear(world: &World) {
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

/// As [`clear`], and waits until the namespaces are gone: what comes next is not measured beside their end.
pub async fn clear_all(world: &World) -> Result<(), String> {
    clear(world).await;
    let began = Instant::now();
    let path = format!("/api/v1/namespaces?labelSelector={RUN_LABEL}%3D{}", world.run);
    loop {
        let list = raw::get(&world.admin, &path).await?;
        let list: Value = serde_json::from_str(&list).map_err(|e| e.to_string())?;
        match list["items"].as_array().map_or(0, Vec::len) {
            0 => return Ok(()),
            left if began.elapsed() > PATIENCE => return Err(format!("{left} namespaces stay")),
            _ => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The annotation that changes what zen-lead does with a Service, as a merge patch.
pub fn annotate(key: &str, value: &str) -> Value {
    debug_assert!(key.starts_with(names::PREFIX) || key.starts_with("example.com/"));
    json!({"metadata": {"annotations": {key: value}}})
}
