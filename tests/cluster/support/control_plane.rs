//! A test's own etcd and API servers, which it may end, restart and compact.
//!
//! Keys and identities are those of the running cluster (target/cluster), so its kubeconfigs work with
//! another address. There are no other components: no garbage collection, no built-in slices.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::case::Case;
use super::cluster::Cluster;
use super::http as plain;
use super::product::free_port;
use super::waiting::within;
use super::world::{self, World};

/// The longest time until a component is ready, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running control plane; it ends with its owner, and its data with it.
pub struct ControlPlane {
    cluster: Cluster,
    dir: PathBuf,
    pki: PathBuf,
    programs: Programs,
    etcd_port: u16,
    etcd: Mutex<Option<Child>>,
    servers: Vec<Server>,
}

struct Server {
    port: u16,
    running: Mutex<Option<Child>>,
}

/// The programs of e2e/cluster.sh.
#[derive(Clone)]
pub struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
}

/// The programs, or why a control plane cannot be started.
///
/// # Errors
/// The variable that is missing.
pub fn programs() -> Result<Programs, String> {
    let var = |name: &str| {
        let value = std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        value.filter(|p| p.exists()).ok_or_else(|| {
            format!("{name} names no program; run e2e/cluster.sh up and source target/cluster/env")
        })
    };
    Ok(Programs { etcd: var("ETCD")?, apiserver: var("KUBE_APISERVER")? })
}

impl ControlPlane {
    /// Starts etcd and this many API servers, and waits until they are ready. `of` is the cluster whose
    /// keys are used; all files are below `dir`.
    pub async fn start(of: &Cluster, dir: &Path, servers: usize) -> Self {
        let dir = dir.join("control-plane");
        std::fs::create_dir_all(&dir).unwrap();
        let (etcd_port, peer_port) = (free_port(), free_port());
        let servers =
            (0..servers).map(|_| Server { port: free_port(), running: Mutex::default() }).collect();
        let made = Self {
            cluster: of.clone(),
            pki: of.kubeconfig.with_file_name("pki"),
            dir,
            programs: programs().unwrap(),
            etcd_port,
            etcd: Mutex::default(),
            servers,
        };
        made.start_etcd(peer_port);
        for server in 0..made.servers.len() {
            made.launch(server, &[]);
        }
        for server in 0..made.servers.len() {
            made.until_ready(server).await;
        }
        made
    }

    /// The cluster through one of its API servers.
    pub fn cluster(&self, server: usize) -> Cluster {
        let kubeconfig = |from: &Path, name: &str| {
            let text = std::fs::read_to_string(from).unwrap();
            let mut config: Value = serde_saphyr::from_str(&text).unwrap();
            let address = format!("https://127.0.0.1:{}", self.servers[server].port);
            config["clusters"][0]["cluster"]["server"] = address.into();
            let path = self.dir.join(format!("kubeconfig-{name}-{server}"));
            std::fs::write(&path, config.to_string()).unwrap();
            path
        };
        Cluster {
            kubeconfig: kubeconfig(&self.cluster.kubeconfig, "admin"),
            // Other users have no rights here.
            kubeconfig_user: kubeconfig(&self.cluster.kubeconfig, "user"),
            audit_log: self.dir.join(format!("audit-{server}.log")),
            ..self.cluster.clone()
        }
    }

    /// Starts an API server, with further flags; it may not be ready yet.
    pub fn launch(&self, server: usize, more: &[&str]) {
        let Server { port, running } = &self.servers[server];
        let pki = |name: &str| self.pki.join(name).display().to_string();
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/manifests/audit-policy.yaml");
        let mut command = self.command(&self.programs.apiserver, &format!("apiserver-{server}"));
        command
            .args(["--etcd-servers", &format!("http://127.0.0.1:{}", self.etcd_port)])
            .args(["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"])
            .args(["--secure-port", &port.to_string()])
            .args(["--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/108"])
            .args(["--authorization-mode", "RBAC", "--endpoint-reconciler-type", "none"])
            .args(["--client-ca-file", &pki("ca.crt")])
            .args(["--tls-cert-file", &pki("apiserver.crt")])
            .args(["--tls-private-key-file", &pki("apiserver.key")])
            .args(["--service-account-issuer", "https://kubernetes.default.svc.cluster.local"])
            .args(["--service-account-key-file", &pki("service-account.pub")])
            .args(["--service-account-signing-key-file", &pki("service-account.key")])
            // No controller removes the taint of a node here.
            .args(["--disable-admission-plugins", "TaintNodesByCondition"])
            .args(["--audit-policy-file", &policy.display().to_string()])
            .args(["--audit-log-path", &self.cluster(server).audit_log.display().to_string()])
            .args(["--cert-dir", &self.dir.display().to_string(), "--profiling=false"])
            .args(more);
        let child = command.spawn().expect("setpriv (util-linux) starts the API server");
        let before = running.lock().unwrap().replace(child);
        assert!(before.is_none(), "API server {server} was started twice");
    }

    /// Waits until an API server says that it is ready.
    pub async fn until_ready(&self, server: usize) {
        let client = self.cluster(server).admin().await;
        within(PATIENCE, format!("API server {server} of the test is ready"), || async {
            assert!(self.runs(server), "it ended; its log is in {}", self.dir.display());
            readyz(&client).await
        })
        .await;
    }

    fn runs(&self, server: usize) -> bool {
        let mut running = self.servers[server].running.lock().unwrap();
        running.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// kill -9.
    pub fn kill(&self, server: usize) {
        end(&self.servers[server].running);
    }

    /// Compacts etcd to the present version. A watch from an older version that the API server does not
    /// have in memory gets 410.
    pub async fn compact(&self) {
        let key = BASE64.encode("zen-lead-tests");
        let now = self.etcd_call("/v3/kv/range", &json!({"key": key})).await;
        let revision = now["header"]["revision"].as_str().expect("a revision").to_owned();
        self.etcd_call("/v3/kv/compaction", &json!({"revision": revision, "physical": true})).await;
    }

    async fn etcd_call(&self, path: &str, body: &Value) -> Value {
        let answer = plain::post(self.etcd_port, path, &body.to_string()).await.unwrap();
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    fn start_etcd(&self, peer_port: u16) {
        let (url, peer) = (
            format!("http://127.0.0.1:{}", self.etcd_port),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let mut command = self.command(&self.programs.etcd, "etcd");
        command
            .args(["--data-dir", &self.dir.join("etcd").display().to_string()])
            .args(["--unsafe-no-fsync", "--log-level", "warn"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")]);
        let child = command.spawn().expect("setpriv (util-linux) starts etcd");
        *self.etcd.lock().unwrap() = Some(child);
    }

    /// The kernel ends it when this process ends, for whatever reason.
    fn command(&self, program: &Path, name: &str) -> Command {
        let path = self.dir.join(format!("{name}.log"));
        let log = || -> File { OpenOptions::new().create(true).append(true).open(&path).unwrap() };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        command
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for server in &self.servers {
            end(&server.running);
        }
        end(&self.etcd);
        // It is not needed any more, and it is large.
        let _ = std::fs::remove_dir_all(self.dir.join("etcd"));
    }
}

fn end(process: &Mutex<Option<Child>>) {
    if let Some(mut child) = process.lock().unwrap().take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A world on its own control plane, for a test that ends API servers or needs other replicas than the
/// tests that run beside it.
pub struct Elsewhere {
    pub case: Case,
    pub control: ControlPlane,
}

impl Elsewhere {
    /// This many API servers and this many replicas. The replicas are not started; they use the first
    /// API server, the test uses the last one.
    pub async fn open(t: &Case, servers: usize, replicas: usize) -> Self {
        let control =
            ControlPlane::start(&t.world.cluster, &t.world.dir.join(&t.ns), servers).await;
        let mut world = World::of(control.cluster(0), world::fresh(), replicas).await;
        let seen = control.cluster(servers - 1);
        (world.admin, world.user) = (seen.admin().await, seen.user().await);
        let case = Case::open(Arc::new(world), "elsewhere").await;
        Self { case, control }
    }

    /// The replicas end by themselves, so that their counters are written.
    pub async fn close(&self) {
        self.case.world.product.end_all().await;
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (world, control) = (self.case.world.dir.display(), self.control.dir.display());
            eprintln!("{}: logs are in {world} and {control}", self.case.ns);
        }
    }
}

async fn readyz(client: &Client) -> Result<(), String> {
    let request = Request::get("/readyz").body(Vec::new()).unwrap();
    client.request_text(request).await.map(|_| ()).map_err(|e| e.to_string())
}
