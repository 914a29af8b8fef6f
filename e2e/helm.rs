//! The life of a Helm release, by Helm 3 and by Helm 4, while requests run: install, upgrade, rollback, uninstall.
//! There is no earlier release to upgrade from yet: the upgrade changes the pods of the same version.
//!
//! scripts/test_chart.sh tests what the chart renders, without a cluster.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::install::{is_writable, left};
use crate::support::case::Case;
use crate::support::cluster;
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::source;
use crate::support::product::{SYSTEM, run, uninstall};
use crate::support::traffic::{Load, until_answered};
use crate::support::waiting::{check, until, within};

const RATE: u32 = 50;
const DEADLINE: Duration = Duration::from_mins(6);

pub fn tests() -> Vec<Test> {
    let helm_3 = Test::new(module_path!(), "helm_3_keeps_traffic_and_ca", helm_3);
    let helm_4 = Test::new(module_path!(), "helm_4_in_another_namespace", helm_4);
    vec![
        helm_3.needs(cluster::program("HELM3", "helm3")).within(DEADLINE),
        helm_4.needs(cluster::program("HELM4", "helm4")).within(DEADLINE),
    ]
}

async fn helm_3(t: Arc<Case>) {
    story(
        &t,
        Helm {
            program: cluster::program("HELM3", "helm3").unwrap(),
            namespace: SYSTEM,
            account: "zen-lead",
        },
    )
    .await;
}

async fn helm_4(t: Arc<Case>) {
    let helm = Helm {
        program: cluster::program("HELM4", "helm4").unwrap(),
        namespace: "routing-system",
        account: "leaders",
    };
    story(&t, helm).await;
}

struct Helm {
    program: PathBuf,
    namespace: &'static str,
    account: &'static str,
}

impl Helm {
    /// `helm ARGS` for the release; its output.
    async fn run(&self, t: &Case, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(args).args(["--namespace", self.namespace, "--timeout", "120s"]);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("KUBECONFIG", &t.world.cluster.kubeconfig);
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, t.world.dir.join("helm"));
        }
        let started = Instant::now();
        let said = run(command).await;
        let what = args[0];
        t.world.figure(
            format!("helm {what} in {}", self.namespace),
            format!("{:.1} s", started.elapsed().as_secs_f64()),
        );
        said.unwrap_or_else(|why| panic!("helm {what}: {why}"))
    }

    /// `helm install` or `helm upgrade`, with a label that makes the pods new ones; its output.
    async fn release(&self, t: &Case, command: &[&str], round: &str) -> String {
        let account = format!("serviceAccount.name={}", self.account);
        let round = format!("podLabels.round={round}");
        // The default of 1 s is too short for a busy machine; this tests what is answered, not how fast.
        let values = "image.tag=dev,webhook.timeoutSeconds=10";
        let sets = ["--set", values, "--set", &account, "--set", &round];
        let args = [command, &["zen-lead", "deploy/chart", "--wait"], &sets].concat();
        self.run(t, &args).await
    }

    /// The CA of the Secret, and what both webhook configurations trust.
    async fn trust(&self, t: &Case) -> Vec<Vec<u8>> {
        let secrets: Api<Secret> = Api::namespaced(t.admin(), self.namespace);
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(t.admin());
        let data = secrets.get("zen-lead-ca").await.unwrap().data.unwrap();
        let validating = validating.get("zen-lead").await.unwrap().webhooks.unwrap();
        let mutating = mutating.get("zen-lead").await.unwrap().webhooks.unwrap();
        let clients = validating.iter().map(|w| &w.client_config);
        let clients = clients.chain(mutating.iter().map(|w| &w.client_config));
        let bundles = clients.map(|c| c.ca_bundle.clone().expect("a caBundle").0);
        data.into_values().map(|value| value.0).chain(bundles).collect()
    }
}

/// Dry-run creations of an enabled Service, one after the other: none may fail while zen-lead is installed.
struct Writes {
    stop: oneshot::Sender<()>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Writes {
    fn start(t: &Case) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let services = t.user_services();
        let task = tokio::spawn(async move {
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let (mut all, mut failed) = (0, Vec::new());
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let made = services.create(&dry, &source("judged", &json!({}))).await;
                failed.extend(made.err().map(|e| e.to_string()));
                all += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (all, failed)
        });
        Self { stop, task }
    }

    async fn finish(self) -> (usize, Vec<String>) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

async fn story(t: &Case, helm: Helm) {
    uninstall(&t.world.cluster).await.unwrap();
    let namespace = ["delete", "namespace", helm.namespace, "--ignore-not-found", "--timeout=60s"];
    t.world.product.kubectl(&namespace).await.unwrap();
    until("nothing of an earlier installation is left", || async {
        let left = left(t).await;
        check(left.is_empty(), format!("{left:?}"))
    })
    .await;
    let notes = helm.release(t, &["install", "--create-namespace"], "r1").await;
    assert!(notes.contains(&format!("kubectl -n {} rollout status", helm.namespace)), "{notes}");
    within(Duration::from_mins(1), "the webhook judges", || async {
        let mistake = json!({"metadata": {"annotations": {names::ENABLED: "maybe"}}});
        let made = t.user_services().create(&PostParams::default(), &source("bad", &mistake)).await;
        let why = made.err().map(|e| e.to_string()).unwrap_or_default();
        check(why.contains(r#"Invalid value: "maybe": must be "true" or "false""#), why)
    })
    .await;
    t.app("web", 2, &[]).await;
    t.web(&[]).await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    until_answered(to).await;
    let trust = helm.trust(t).await;
    let (recorder, writes) = (t.record().await, Writes::start(t));

    let load = Load::start(to, RATE);
    helm.release(t, &["upgrade"], "r2").await;
    let first = load.finish().await;
    first.assert_only(&leader);
    assert_eq!(helm.trust(t).await, trust, "the upgrade changed the CA");

    let load = Load::start(to, RATE);
    helm.run(t, &["rollback", "zen-lead", "1", "--wait"]).await;
    load.more(RATE as usize).await;
    let second = load.finish().await;
    second.assert_only(&leader);
    assert_eq!(helm.trust(t).await, trust, "the rollback changed the CA");

    let (judged, failed) = writes.finish().await;
    assert!(failed.is_empty() && judged > 100, "{} of {judged} writes: {failed:#?}", failed.len());

    let load = Load::start(to, RATE);
    helm.run(t, &["uninstall", "zen-lead", "--wait"]).await;
    load.more(3 * RATE as usize).await;
    let third = load.finish().await;
    third.assert_only(&leader);
    let history = recorder.finish().await;
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), [leader]);
    t.world.figure(
        format!("requests during upgrade, rollback and uninstall in {}", helm.namespace),
        format!("{} + {} + {}, none failed", first.0.len(), second.0.len(), third.0.len()),
    );
    t.world.figure(
        format!("writes judged during upgrade and rollback in {}", helm.namespace),
        format!("{judged}, none failed"),
    );

    is_writable(t).await;
    // `helm install --create-namespace` made it, and Helm never deletes a namespace.
    let namespace = format!("namespace/{SYSTEM}");
    let expected: &[&str] = if helm.namespace == SYSTEM { &[&namespace] } else { &[] };
    assert_eq!(left(t).await, expected);
    let kinds = "deployments,pods,services,secrets,configmaps,serviceaccounts,roles,rolebindings,\
                 networkpolicies,poddisruptionbudgets,leases";
    let inside = ["-n", helm.namespace, "get", kinds, "-o", "name"];
    // The pods drain.
    within(Duration::from_mins(1), "its namespace is empty", || async {
        let inside = t.world.product.kubectl(&inside).await?;
        // What every namespace has.
        let usual = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
        let own: Vec<&str> = inside.lines().filter(|name| !usual.contains(name)).collect();
        check(own.is_empty(), format!("{own:?}"))
    })
    .await;
    t.world.product.delete_namespace(helm.namespace).await;
}
