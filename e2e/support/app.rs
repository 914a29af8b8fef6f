//! An app of real pods, its Services, and changes of the readiness of its pods.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::case::{Case, routed};
use super::product::is_ready;
use super::traffic;
use super::waiting::{check, until, within};

/// The longest time until containers have started.
const START: Duration = Duration::from_mins(1);

impl Case {
    pub fn deployments(&self) -> Api<Deployment> {
        self.api()
    }

    /// Creates the app as alice and waits until its pods are ready. `args` set how the
    /// demo app ends (e2e/tools/demo-app).
    pub async fn app(&self, name: &str, replicas: usize, args: &[&str]) -> Vec<Pod> {
        let probe = json!({
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 1, "failureThreshold": 1,
            // A refusal comes at once; an error of a busy machine is retried.
            "timeoutSeconds": 10,
        });
        self.app_probed(name, replicas, args, &probe).await
    }

    /// As [`Case::app`], with this readiness probe.
    pub async fn app_probed(
        &self,
        name: &str,
        replicas: usize,
        args: &[&str],
        probe: &Value,
    ) -> Vec<Pod> {
        let image = std::env::var("DEMO_IMAGE").unwrap();
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "containers": [{
                            "name": "web", "image": image, "imagePullPolicy": "Never", "args": args,
                            "ports": [{"name": "http", "containerPort": 8080}],
                            // Without a CPU request the kernel serves all other processes first.
                            "resources": {"requests": {"cpu": "100m"}},
                            "readinessProbe": probe,
                        }],
                    },
                },
            },
        });
        let deployments: Api<Deployment> = Api::namespaced(self.world.user.clone(), &self.ns);
        let deployment = serde_json::from_value(deployment).unwrap();
        deployments.create(&PostParams::default(), &deployment).await.unwrap();
        self.until_ready_pods(name, replicas).await
    }

    /// Waits until an app has this many pods, all ready and none ending.
    pub async fn until_ready_pods(&self, app: &str, replicas: usize) -> Vec<Pod> {
        within(START, format!("{replicas} pods of {app} are ready"), || async {
            let pods = self.pods_of(app).await;
            check(
                pods.len() == replicas
                    && pods.iter().all(|p| is_ready(p) && p.metadata.deletion_timestamp.is_none()),
                format!(
                    "{} pods, {} ready",
                    pods.len(),
                    pods.iter().filter(|p| is_ready(p)).count()
                ),
            )?;
            Ok::<_, String>(pods)
        })
        .await
    }

    pub async fn pods_of(&self, app: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("app={app}"));
        self.pods().list(&params).await.unwrap().items
    }

    /// The pod that the IPv4 slice of a leader Service names as ready.
    pub async fn leader_now(&self, leader: &str) -> Result<String, String> {
        let slice = self.slice(leader, "IPv4").await?;
        let ready: Vec<_> = routed(&slice).into_iter().filter(|r| r.ready).collect();
        check(ready.len() == 1, format!("{:?}", routed(&slice)))?;
        Ok(ready[0].pod.clone())
    }

    /// Waits until a leader Service has a leader other than `not`; its name.
    #[track_caller]
    pub fn until_leader<'a>(
        &'a self,
        leader: &'a str,
        not: &'a str,
    ) -> impl Future<Output = String> + use<'a> {
        until(format!("{leader} has a leader other than {not:?}"), move || async move {
            let pod = self.leader_now(leader).await?;
            check(pod != not, format!("{pod} leads"))?;
            Ok::<_, String>(pod)
        })
    }

    /// The first port of a Service at its cluster IP of a family, `v6` or not.
    pub async fn address(&self, service: &str, v6: bool) -> SocketAddr {
        until(format!("{service} has an address"), || async move {
            let found = self.services().get(service).await.map_err(|e| e.to_string())?;
            address(&found, v6).ok_or_else(|| format!("{:?}", found.spec))
        })
        .await
    }

    /// Makes a pod of the demo app ready, or not.
    pub async fn set_ready_in_pod(&self, pod: &str, ready: bool) {
        let found = self.pods().get(pod).await.unwrap();
        let ip = found.status.unwrap().pod_ip.unwrap().parse().unwrap();
        let path = format!("/ready?value={ready}");
        until(format!("{pod} gets its readiness"), || async {
            let answer = traffic::ask(SocketAddr::new(ip, 8080), "POST", &path).await;
            answer.map_err(|failure| format!("{failure:?}"))
        })
        .await;
    }

    /// `kubectl delete pod`, with the pod's own grace period or the given one.
    pub async fn delete_pod(&self, pod: &str, grace: Option<u32>) {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods().delete(pod, &params).await.unwrap();
    }

    /// Names of pods.
    pub fn names(pods: &[Pod]) -> Vec<String> {
        pods.iter().map(ResourceExt::name_any).collect()
    }
}

fn address(service: &Service, v6: bool) -> Option<SocketAddr> {
    let spec = service.spec.as_ref()?;
    let port = u16::try_from(spec.ports.as_ref()?.first()?.port).ok()?;
    let ips = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
    ips.map(|ip| SocketAddr::new(ip, port)).find(|a| a.is_ipv6() == v6)
}
