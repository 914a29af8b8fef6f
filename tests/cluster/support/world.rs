//! Set-up and removal of a run: a namespace for zen-lead itself, its rights, its webhook configurations
//! (all from deploy/manifests, under names of this run), and the replicas.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::audit::Audit;
use super::cluster::Cluster;
use super::product::{Ports, Product};
use super::webhook::Hook;

/// Label of every namespace of a run; the webhooks see only those with the run's value.
pub const RUN_LABEL: &str = "zen-lead-tests/run";

/// Replicas of a run, where a test does not ask for more.
const REPLICAS: usize = 2;
/// The slice that lists them.
const OWN_SLICE: &str = "zen-lead-replicas";

/// The longest time of a test.
pub const TEST_DEADLINE: Duration = Duration::from_mins(5);
/// The number of tests that run at the same time, unless --test-threads is given: two replicas and an API
/// server share the machine with them.
pub const THREADS: usize = 4;

/// These tests need an API server and nothing else.
pub fn suited(cluster: Cluster) -> Result<Cluster, String> {
    Ok(cluster)
}

/// What all tests of a run share.
pub struct World {
    pub cluster: Cluster,
    /// Name of the run, part of every name it makes: checkouts may share a cluster.
    pub run: String,
    /// Namespace of zen-lead itself; also the name of everything that has no namespace.
    pub system: String,
    /// The directory of logs and dumps.
    pub dir: PathBuf,
    pub admin: Client,
    pub user: Client,
    pub product: Product,
    /// When the run began.
    pub began: Timestamp,
    audit: Audit,
    addresses: AtomicU32,
    listed: AtomicUsize,
    patience: AtomicU32,
}

/// How many seconds the API server waits for our webhooks. The manifests say 1, which is too short for a
/// busy machine; tests check what is answered, not how fast.
const PATIENCE_OF_WEBHOOKS: u32 = 10;

impl World {
    /// The world of a run: two replicas, which are ready.
    pub async fn set_up(cluster: Cluster, run: String) -> Self {
        let world = Self::of(cluster, run, REPLICAS).await;
        world.stop_on_interrupt();
        world.product.ensure_started().await;
        world
    }

    /// A world for so many replicas, none of which is started.
    pub async fn of(cluster: Cluster, run: String, replicas: usize) -> Self {
        let began = Timestamp::now();
        let system = format!("{run}-system");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster-tests").join(&run);
        std::fs::create_dir_all(&dir).unwrap();
        let (admin, user) = (cluster.admin().await, cluster.user().await);
        let ports: Vec<Ports> = (0..replicas).map(|_| Ports::free()).collect();

        let namespaces: Api<Namespace> = Api::all(admin.clone());
        let own: Namespace = serde_json::from_value(
            json!({"metadata": {"name": system, "labels": {RUN_LABEL: "own"}}}),
        )
        .unwrap();
        let own = namespaces.create(&PostParams::default(), &own).await.unwrap();
        let made = Made {
            run: &run,
            system: &system,
            uid: own.uid().unwrap(),
            url_port: ports[0].webhook,
        };
        kubectl_create(
            &cluster,
            &json!({"kind": "List", "apiVersion": "v1", "items": made.objects()}),
        );

        let kubeconfig = dir.join("kubeconfig");
        std::fs::write(&kubeconfig, identity(&cluster, &admin, &system).await).unwrap();
        let product = Product::new(&dir, &system, &kubeconfig, &ports);
        let (addresses, listed) = (AtomicU32::new(0), AtomicUsize::new(0));
        let patience = AtomicU32::new(PATIENCE_OF_WEBHOOKS);
        let account = format!("system:serviceaccount:{system}:zen-lead");
        let audit = Audit::follow(&cluster.audit_log, &account);
        let world = Self {
            cluster,
            run,
            system,
            dir,
            admin,
            user,
            product,
            began,
            audit,
            addresses,
            listed,
            patience,
        };
        world.list_replicas(replicas).await;
        world
    }

    /// Lists the replicas: `zl-0`, `zl-1`, … as the ready endpoints of zen-lead's own
    /// Service, by which they rank themselves. They are processes here, not pods, so the addresses
    /// are of a network that does not exist.
    pub async fn list_replicas(&self, n: usize) {
        if self.listed.swap(n, Ordering::Relaxed) == n {
            return;
        }
        let endpoint = |replica: usize| {
            json!({
                "addresses": [format!("192.0.2.{}", replica + 1)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {
                    "kind": "Pod", "name": format!("zl-{replica}"), "namespace": self.system,
                },
            })
        };
        let patch = json!({"endpoints": (0..n).map(endpoint).collect::<Vec<_>>()});
        let slices: Api<EndpointSlice> = Api::namespaced(self.admin.clone(), &self.system);
        let params = PatchParams::default();
        slices.patch(OWN_SLICE, &params, &Patch::Merge(patch)).await.unwrap();
    }

    /// Before each test: both replicas run, or none where the test is alone with them.
    pub async fn prepare(&self, alone: bool) {
        self.list_replicas(REPLICAS).await;
        self.patience_of_webhooks(PATIENCE_OF_WEBHOOKS).await;
        if alone {
            self.product.stop_all().await;
        } else {
            self.product.ensure_started().await;
        }
    }

    /// User name of zen-lead, as its writes are audited.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:zen-lead", self.system)
    }

    /// Sets how many seconds the API server waits for our webhooks, until the next test.
    pub async fn patience_of_webhooks(&self, seconds: u32) {
        if self.patience.swap(seconds, Ordering::Relaxed) == seconds {
            return;
        }
        for hook in Hook::BOTH {
            hook.set(&self.admin, &self.system, "timeoutSeconds", &json!(seconds)).await;
        }
    }

    /// Addresses for a pod that no other pod of the run has: IPv4 and IPv6.
    pub fn next_addresses(&self) -> (String, String) {
        let n = self.addresses.fetch_add(1, Ordering::Relaxed);
        (format!("10.200.{}.{}", n / 250, n % 250 + 1), format!("fd00:200::{:x}", n + 1))
    }

    /// Removes what an incomplete set-up has made.
    pub async fn abandon(cluster: Cluster, run: String) {
        let admin = cluster.admin().await;
        remove(&admin, &cluster, &run, &format!("{run}-system")).await;
    }

    pub async fn tear_down(self: Arc<Self>) {
        // Not killed: counters of `make coverage` are written at the end of a process.
        self.product.end_all().await;
        remove(&self.admin, &self.cluster, &self.run, &self.system).await;
        println!("logs of the replicas: {}", self.dir.display());
    }

    /// Cleans up when the run is interrupted.
    fn stop_on_interrupt(&self) {
        let (admin, cluster) = (self.admin.clone(), self.cluster.clone());
        let (run, system) = (self.run.clone(), self.system.clone());
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("interrupted, removing what was made");
                remove(&admin, &cluster, &run, &system).await;
                // The replicas end with this process.
                std::process::exit(130);
            }
        });
    }
}

/// Deletes everything of a run; the namespace controller finishes it.
async fn remove(admin: &Client, cluster: &Cluster, run: &str, system: &str) {
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles,\
                 clusterrolebindings,flowschemas";
    let output = Command::new(&cluster.kubectl)
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig)
        .args(["delete", kinds, "--ignore-not-found", "--wait=false"])
        .args(["--field-selector", &format!("metadata.name={system}")])
        .output();
    if let Ok(output) = output.as_ref().map(|o| String::from_utf8_lossy(&o.stderr))
        && !output.is_empty()
    {
        eprintln!("tear-down: {output}");
    }
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let ours = ListParams::default().labels(&format!("{RUN_LABEL}={run}"));
    for namespace in namespaces.list(&ours).await.map(|l| l.items).unwrap_or_default() {
        let _ = namespaces.delete(&namespace.name_any(), &DeleteParams::default()).await;
    }
    let _ = namespaces.delete(system, &DeleteParams::default()).await;
}

/// A name for a run that no other run has.
pub fn fresh() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let n = since.subsec_nanos() ^ std::process::id().rotate_left(12);
    format!("zl{:05x}", n & 0xf_ffff)
}

fn kubectl_create(cluster: &Cluster, list: &Value) {
    let mut child = Command::new(&cluster.kubectl)
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig)
        .args(["create", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A kubeconfig for zen-lead's own service account, like the one a pod gets.
async fn identity(cluster: &Cluster, admin: &Client, system: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), system);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(86_400),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer =
        accounts.create_token_request("zen-lead", &PostParams::default(), &request).await.unwrap();
    let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    let user = config["users"][0]["name"].clone();
    config["users"] = json!([{"name": user, "user": {"token": answer.status.unwrap().token}}]);
    config.to_string()
}

/// The manifests of deploy/, renamed for this run.
struct Made<'a> {
    run: &'a str,
    system: &'a str,
    uid: String,
    url_port: u16,
}

impl Made<'_> {
    fn objects(&self) -> Vec<Value> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manifests");
        let files =
            ["10-rbac.yaml", "20-ca-secret.yaml", "60-webhooks.yaml", "75-own-account.yaml"];
        let mut objects: Vec<Value> = files
            .iter()
            .flat_map(|file| {
                let text = std::fs::read_to_string(dir.join(file)).unwrap();
                let text = text.replace("zen-lead-system", self.system);
                serde_saphyr::from_multiple::<Value>(&text).unwrap()
            })
            .map(|object| self.renamed(object))
            .collect();
        objects.extend(self.own_service());
        objects
    }

    fn renamed(&self, mut object: Value) -> Value {
        if object["metadata"].get("namespace").is_some() {
            return object;
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        // The only kinds of which there are several.
        let policy =
            object["apiVersion"] == "admissionregistration.k8s.io/v1" && object["spec"].is_object();
        object["metadata"]["name"] =
            json!(if policy { self.policy(&name) } else { self.system.into() });
        // If tear-down does not happen, objects without a namespace are deleted with zen-lead's.
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Namespace", "name": self.system, "uid": self.uid,
        }]);
        if object["kind"] == "ClusterRoleBinding" {
            object["roleRef"]["name"] = json!(self.system);
        }
        if let Some(policy) = object.pointer_mut("/spec/policyName") {
            *policy = json!(self.policy(policy.as_str().unwrap()));
        }
        let places = ["/rules", "/spec/matchConstraints/resourceRules"];
        let place = places.iter().find(|place| object.pointer(place).is_some());
        let rules = place.and_then(|place| object.pointer_mut(place)?.as_array_mut());
        for rule in rules.into_iter().flatten() {
            if rule.get("resourceNames") == Some(&json!(["zen-lead"])) {
                rule["resourceNames"] = json!([self.system]);
            }
        }
        for hook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            let path = hook["clientConfig"]["service"]["path"].as_str().unwrap().to_owned();
            let url = format!("https://127.0.0.1:{}{path}", self.url_port);
            hook["clientConfig"] = json!({"url": url});
            hook["timeoutSeconds"] = json!(PATIENCE_OF_WEBHOOKS);
            hook["namespaceSelector"] = json!({"matchLabels": {RUN_LABEL: self.run}});
        }
        object
    }

    fn policy(&self, name: &str) -> String {
        format!("{}-{name}", self.system)
    }

    /// zen-lead's own Service, and its slice without any endpoint.
    fn own_service(&self) -> [Value; 2] {
        let ports = json!([{"name": "webhook", "port": 443, "protocol": "TCP"}]);
        let labels = BTreeMap::from([
            ("kubernetes.io/service-name", "zen-lead"),
            ("endpointslice.kubernetes.io/managed-by", "zen-lead-tests"),
        ]);
        [
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "zen-lead", "namespace": self.system},
                "spec": {"ports": ports},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": OWN_SLICE, "namespace": self.system, "labels": labels},
                "addressType": "IPv4",
                "endpoints": [],
                "ports": [{"name": "webhook", "port": 9443, "protocol": "TCP"}],
            }),
        ]
    }
}

/// The longest time until zen-lead is ready, or has ended.
pub const START_AND_STOP: Duration = Duration::from_mins(1);

impl World {
    /// The audit log's lines about writes of zen-lead in a namespace.
    pub fn writes(&self, namespace: &str) -> Vec<Value> {
        let mut writes = self.all_writes();
        writes.retain(|line| line["objectRef"]["namespace"] == namespace);
        writes
    }

    /// The audit log's lines about writes of zen-lead in all namespaces.
    pub fn all_writes(&self) -> Vec<Value> {
        self.audit.writes()
    }
}
