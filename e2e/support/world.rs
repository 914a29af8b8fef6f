//! Set-up and removal of a run: zen-lead installed from deploy/, as a user installs it.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

use super::cluster::Cluster;
use super::product::{self, Product};

/// Label of every namespace of a run.
pub const RUN_LABEL: &str = "zen-lead-tests/run";
/// The longest time of a test: containers start and drain in it.
pub const TEST_DEADLINE: Duration = Duration::from_mins(4);
/// The number of tests at the same time, unless --test-threads is given.
pub const THREADS: usize = 2;

/// The end-to-end tests need a node for pods.
pub fn suited(cluster: Cluster) -> Result<Cluster, String> {
    if env::var("CLUSTER_NODE").as_deref() == Ok("yes") {
        Ok(cluster)
    } else {
        Err("this cluster has no node to run pods on; unset KUBEBUILDER_ASSETS and run \
             e2e/cluster.sh up"
            .to_owned())
    }
}

/// A name for a run.
pub fn fresh() -> String {
    format!("e{:05x}", Timestamp::now().as_millisecond() & 0xf_ffff)
}

/// What all tests of a run share.
pub struct World {
    pub cluster: Cluster,
    /// Name of the run, part of every namespace it makes.
    pub run: String,
    /// The directory of logs and dumps.
    pub dir: PathBuf,
    pub admin: Client,
    pub user: Client,
    pub product: Product,
    /// When the run began.
    pub began: Timestamp,
    figures: Mutex<BTreeMap<String, String>>,
    addresses: AtomicU32,
}

impl World {
    pub async fn set_up(cluster: Cluster, run: String) -> Self {
        let began = Timestamp::now();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e").join(&run);
        std::fs::create_dir_all(&dir).unwrap();
        let (admin, user) = (cluster.admin().await, cluster.user().await);
        let product = Product::new(cluster.clone(), admin.clone(), &dir);
        product.install().await;
        let (figures, addresses) = (Mutex::default(), AtomicU32::new(0));
        Self { cluster, run, dir, admin, user, product, began, figures, addresses }
    }

    /// Before each test: two ready replicas, installed again if a test removed them.
    pub async fn prepare(&self, _alone: bool) {
        self.product.ensure_running().await;
    }

    /// Addresses for a hollow pod that no other pod of the run has: IPv4 and IPv6.
    pub fn next_addresses(&self) -> (String, String) {
        let n = self.addresses.fetch_add(1, Ordering::Relaxed);
        (format!("10.200.{}.{}", n / 250, n % 250 + 1), format!("fd00:200::{:x}", n + 1))
    }

    /// Keeps a measured value for the end of the report. It does not decide a test.
    pub fn figure(&self, what: impl Into<String>, value: impl Into<String>) {
        self.figures.lock().unwrap().insert(what.into(), value.into());
    }

    /// Removes what a failed set-up has made.
    pub async fn abandon(cluster: Cluster, _run: String) {
        if let Err(why) = product::uninstall(&cluster).await {
            eprintln!("tear-down: {why}");
        }
    }

    pub async fn tear_down(self: Arc<Self>) {
        {
            let figures = self.figures.lock().unwrap();
            if !figures.is_empty() {
                println!("figures of this run (one run on a shared machine, no benchmark):");
            }
            for (what, value) in figures.iter() {
                println!("  {what}: {value}");
            }
        }
        self.product.uninstall().await;
        println!("logs of the replicas: {}", self.dir.display());
    }
}
