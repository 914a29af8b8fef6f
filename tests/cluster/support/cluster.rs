//! The cluster as `target/cluster/env` describes it, and the clients for it.

use std::env;
use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// What e2e/cluster.sh says about the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
    pub kubeconfig_user: PathBuf,
    pub kubectl: PathBuf,
    pub promtool: Option<PathBuf>,
    pub audit_log: PathBuf,
}

impl Cluster {
    /// Reads the environment; the error says why the tests cannot run.
    pub fn from_env() -> Result<Self, String> {
        let var = |name: &str| {
            env::var(name).ok().filter(|v| !v.is_empty()).ok_or_else(|| {
                format!("{name} is not set; run e2e/cluster.sh up and source target/cluster/env")
            })
        };
        let kind = var("CLUSTER_KIND")?;
        if kind == "kind" {
            return Err("kind's API server cannot call a webhook on this machine; use \
                        ZEN_LEAD_CLUSTER=local"
                .to_owned());
        }
        let cluster = Self {
            kubeconfig: var("KUBECONFIG")?.into(),
            kubeconfig_user: var("KUBECONFIG_USER")?.into(),
            kubectl: var("KUBECTL_BIN")?.into(),
            promtool: env::var_os("PROMTOOL").filter(|p| !p.is_empty()).map(PathBuf::from),
            audit_log: var("AUDIT_LOG")?.into(),
        };
        if !cluster.kubeconfig.exists() {
            return Err(format!(
                "{} does not exist; run e2e/cluster.sh up",
                cluster.kubeconfig.display()
            ));
        }
        Ok(cluster)
    }

    /// The admin's client.
    pub async fn admin(&self) -> Client {
        client(&self.kubeconfig).await
    }

    /// The client of alice: she may do what the built-in role `edit` allows.
    pub async fn user(&self) -> Client {
        client(&self.kubeconfig_user).await
    }
}

/// A client as a kubeconfig says.
pub async fn client(path: &PathBuf) -> Client {
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

/// True when CI runs the tests: there, a missing cluster is a failure.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|v| v == "true")
}

/// A program that a variable of target/cluster/env names, when `e2e/cluster.sh build NAME` has built it.
pub fn program(variable: &str, name: &str) -> Result<PathBuf, String> {
    let path = env::var_os(variable).map(PathBuf::from).unwrap_or_default();
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no {name}; run e2e/cluster.sh build {name}"))
}
