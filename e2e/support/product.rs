//! zen-lead as users run it: installed by kubectl from deploy/, running as pods.

use std::env;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::cluster::Cluster;
use super::logs::Logs;
use super::names::LEADER_NAME;
use super::objects::source;
use super::waiting::{check, within};

/// Namespace of zen-lead.
pub const SYSTEM: &str = "zen-lead-system";
/// The group that the protecting policies let through.
pub const BREAK_GLASS: &str = "zen-lead:break-glass";

const PODS: &str = "app.kubernetes.io/name=zen-lead,app.kubernetes.io/component=server";
const REPLICAS: usize = 2;
/// The longest time until pods start or drain.
const PATIENCE: Duration = Duration::from_secs(90);

/// The installed zen-lead.
pub struct Product {
    cluster: Cluster,
    admin: Client,
    pub logs: Logs,
}

impl Product {
    pub fn new(cluster: Cluster, admin: Client, dir: &Path) -> Self {
        let logs = Logs::follow(Api::namespaced(admin.clone(), SYSTEM), PODS, dir);
        Self { cluster, admin, logs }
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.admin.clone(), SYSTEM)
    }

    /// kubectl as the admin; its output, or its error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        kubectl(&self.cluster, args).await
    }

    /// `kubectl apply -k deploy`, and until two replicas are ready and the API server can call them.
    pub async fn install(&self) {
        // An interrupted run may have left it: its pods may have another binary with the same tag.
        let before = self.deployments().get_opt("zen-lead").await.unwrap();
        within(PATIENCE, "kubectl apply -k deploy", || async {
            self.kubectl(&["apply", "-k", "deploy"]).await
        })
        .await;
        // The manifests say 1 s, which is too short for a busy machine; tests check what is answered,
        // not how fast.
        let patch = r#"[{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":10}]"#;
        for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
            let args = ["patch", kind, "zen-lead", "--type=json", "-p", patch];
            within(PATIENCE, "the webhooks are given time", || self.kubectl(&args)).await;
        }
        if before.is_some() {
            self.restart().await;
        }
        self.until_running().await;
    }

    pub async fn uninstall(&self) {
        if let Err(why) = uninstall(&self.cluster).await {
            eprintln!("tear-down: {why}");
        }
    }

    /// Installs it if a test has removed it, and waits until it runs.
    pub async fn ensure_running(&self) {
        let found = self.deployments().get_opt("zen-lead").await.unwrap();
        if found.is_some_and(|d| d.spec.replicas == Some(2)) {
            self.until_running().await;
        } else {
            self.install().await;
        }
    }

    /// Waits until the rollout is over and both webhooks have a caBundle.
    pub async fn until_running(&self) {
        within(PATIENCE, "two replicas of zen-lead are ready", || async {
            let found = self.deployments().get("zen-lead").await.map_err(|e| e.to_string())?;
            let (meta, status) = (found.metadata, found.status.unwrap_or_default());
            let two = Some(i32::try_from(REPLICAS).unwrap());
            check(
                status.observed_generation == meta.generation
                    && status.updated_replicas == two
                    && status.ready_replicas == two
                    && status.replicas == two,
                format!("{status:?}; no image? run make image"),
            )?;
            let pods = self.pods().await;
            check(pods.len() == REPLICAS && pods.iter().all(is_ready), "the pods are not ready")
        })
        .await;
        within(PATIENCE, "the webhooks have a caBundle", || async {
            let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.admin.clone());
            let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.admin.clone());
            let (v, m) = (validating.get("zen-lead").await, mutating.get("zen-lead").await);
            let v = v.map_err(|e| e.to_string())?.webhooks.unwrap_or_default();
            let m = m.map_err(|e| e.to_string())?.webhooks.unwrap_or_default();
            let mut configs =
                v.iter().map(|w| &w.client_config).chain(m.iter().map(|w| &w.client_config));
            check(configs.all(|c| c.ca_bundle.is_some()), "one has none")
        })
        .await;
        // Ready pods can be reached after kube-proxy has seen them.
        within(PATIENCE, "the API server reaches the webhooks", || async {
            let services: Api<Service> = Api::namespaced(self.admin.clone(), "default");
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let probe = services.create(&dry, &source("zen-lead-e2e-probe", &json!({}))).await;
            let probe = probe.map_err(|e| e.to_string())?;
            check(probe.annotations().contains_key(LEADER_NAME), "the mutating one was missed")
        })
        .await;
    }

    /// The pods that are not being deleted.
    pub async fn pods(&self) -> Vec<Pod> {
        let mut pods = self.all_pods().await;
        pods.retain(|p| p.metadata.deletion_timestamp.is_none());
        pods
    }

    async fn all_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), SYSTEM);
        pods.list(&ListParams::default().labels(PODS)).await.unwrap().items
    }

    /// Numbers of the logs that a report shows, the newest first.
    pub fn replicas(&self) -> Range<usize> {
        0..self.logs.files().len().min(REPLICAS)
    }

    /// Sets the number of replicas; waits for the end of the pods where it is zero.
    pub async fn scale(&self, replicas: usize) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.deployments().patch_scale("zen-lead", &PatchParams::default(), &patch).await.unwrap();
        if replicas == 0 {
            within(PATIENCE, "no pod of zen-lead is left", || async {
                let left = self.all_pods().await;
                check(left.is_empty(), format!("{} are", left.len()))
            })
            .await;
        }
    }

    /// `kubectl rollout restart`; does not wait.
    pub async fn restart(&self) {
        self.kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment/zen-lead"]).await.unwrap();
    }

    /// kill -9 of the container's process through the node's containerd; if that cannot be reached, the
    /// pod is deleted without grace. Returns which.
    pub async fn kill(&self, pod: &Pod) -> &'static str {
        let set = |name| env::var(name).ok().filter(|v| !v.is_empty());
        let (ctr, address, space) =
            (set("CTR"), set("CONTAINERD_ADDRESS"), set("CONTAINERD_NAMESPACE"));
        if let (Some(ctr), Some(address), Some(space)) = (ctr, address, space) {
            let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).unwrap();
            let id = statuses[0].container_id.as_ref().unwrap();
            let id = id.strip_prefix("containerd://").unwrap();
            let mut command = Command::new(ctr);
            command.env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1");
            command.args(["--address", &address, "--namespace", &space]);
            command.args(["tasks", "kill", "--signal", "SIGKILL", id]);
            run(command).await.unwrap();
            "kill -9"
        } else {
            let pods: Api<Pod> = Api::namespaced(self.admin.clone(), SYSTEM);
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
            "delete --force"
        }
    }

    /// The removal by an admin that only knows the namespace.
    pub async fn delete_namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        namespaces.delete(name, &DeleteParams::default()).await.unwrap();
        within(PATIENCE, format!("{name} is gone"), || async {
            let found = namespaces.get_opt(name).await.map_err(|e| e.to_string())?;
            check(found.is_none(), format!("{:?}", found.and_then(|n| n.status)))
        })
        .await;
    }

    /// The last lines of a pod's log that mention `text`; pods are counted from the newest log.
    pub fn lines_about(&self, pod: usize, text: &str, lines: usize) -> String {
        let files = self.logs.files();
        let log = files.get(pod).map(|f| std::fs::read_to_string(f).unwrap_or_default());
        let log = log.unwrap_or_default();
        let found: Vec<&str> = log.lines().filter(|l| l.contains(text)).collect();
        found[found.len().saturating_sub(lines)..].join("\n")
    }

    pub fn tail(&self, pod: usize, lines: usize) -> String {
        self.lines_about(pod, "", lines)
    }
}

async fn kubectl(cluster: &Cluster, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(&cluster.kubectl);
    command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(args);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    run(command).await
}

/// `kubectl delete -k deploy`.
pub async fn uninstall(cluster: &Cluster) -> Result<String, String> {
    let args = ["delete", "-k", "deploy", "--ignore-not-found", "--timeout=90s"];
    kubectl(cluster, &args).await
}

/// The Ready condition of a pod.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Runs a program to its end; its output, or its error.
pub async fn run(mut command: Command) -> Result<String, String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
