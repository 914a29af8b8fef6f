//! The installed zen-lead from outside: its flags, and the resources that its processes use.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::product::SYSTEM;
use crate::support::traffic::ask;
use crate::support::waiting::{check, within};
use crate::support::world::World;

/// One running replica.
#[derive(Clone, Debug)]
pub struct Replica {
    pub pod: String,
    pub address: String,
    /// In the machine's own process ids.
    pub pid: u32,
}

/// Memory of a process in MB (2^20 bytes).
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its own pages: RssAnon.
    pub own: f64,
    /// Pages of files, of which the system can take back most: RssFile.
    pub files: f64,
    /// The most of both since the start: VmHWM.
    pub peak: f64,
}

/// Restarts zen-lead with these flags; waits until the new replicas work and the old are gone.
pub async fn restart_with(world: &World, flags: &[String]) -> Vec<Replica> {
    let mut args = vec!["serve".to_owned()];
    args.extend_from_slice(flags);
    restart(world, json!({"name": "zen-lead", "args": args})).await
}

/// As [`restart_with`], without flags and from another image.
pub async fn restart_from(world: &World, image: &str) -> Vec<Replica> {
    restart(world, json!({"name": "zen-lead", "args": ["serve"], "image": image})).await
}

/// Puts a static binary on the node as an image.
pub async fn load_image(image: &str, binary: &Path) -> Result<(), String> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/load_image.sh"));
    command.arg(image).arg(binary);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.map_err(|e| e.to_string())?;
    let words = || String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or_else(words)
}

async fn restart(world: &World, container: Value) -> Vec<Replica> {
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"spec": {"template": {
        // A rollout even if nothing else changes.
        "metadata": {"annotations": {"zen-lead-bench/restarted": now}},
        "spec": {"containers": [container]},
    }}});
    let deployments = world.product.deployments();
    deployments.patch("zen-lead", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    world.product.until_running().await;
    let pods = || async { pods(world).await };
    within(Duration::from_mins(1), "the old replicas are gone", || async {
        let all = pods().await;
        check(all.len() == 2, format!("{} pods", all.len()))
    })
    .await;
    replicas(world).await
}

async fn pods(world: &World) -> Vec<Pod> {
    let api: kube::Api<Pod> = kube::Api::namespaced(world.admin.clone(), SYSTEM);
    let params = kube::api::ListParams::default().labels("app.kubernetes.io/name=zen-lead");
    api.list(&params).await.unwrap().items
}

/// The replicas that run now.
pub async fn replicas(world: &World) -> Vec<Replica> {
    let found = world.product.pods().await;
    found
        .iter()
        .map(|pod| {
            let status = pod.status.as_ref().unwrap();
            let pid = pid(pod).unwrap_or_else(|| panic!("no process of {} found", pod.name_any()));
            Replica { pod: pod.name_any(), address: status.pod_ip.clone().unwrap(), pid }
        })
        .collect()
}

/// The process of a pod's first container, found by the container's id in its cgroup.
pub fn pid(pod: &Pod) -> Option<u32> {
    let id = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.container_id.as_ref()?;
    let id = id.rsplit('/').next()?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let cgroup = std::fs::read_to_string(process.path().join("cgroup")).ok()?;
        cgroup.contains(id).then_some(pid)
    })
}

impl Replica {
    /// As the kernel says, without asking the process.
    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let kb = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        Memory { own: kb("RssAnon:"), files: kb("RssFile:"), peak: kb("VmHWM:") }
    }

    /// Established connections to the API server, by its Service's port.
    pub fn connections(&self) -> usize {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid)).unwrap();
        let to_api = |line: &&str| {
            let mut words = line.split_whitespace().skip(2);
            words.next().is_some_and(|remote| remote.ends_with(":01BB"))
                && words.next() == Some("01")
        };
        table.lines().filter(to_api).count()
    }

    /// Processor time used since the start, in ms.
    pub fn processor_ms(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().split(' ');
        // utime and stime, in hundredths of a second on every Linux.
        fields.skip(11).take(2).map(|f| f.parse::<f64>().unwrap() * 10.0).sum()
    }

    /// The text of /metrics.
    pub async fn metrics(&self) -> String {
        let to = SocketAddr::new(self.address.parse().unwrap(), 8080);
        ask(to, "GET", "/metrics").await.unwrap()
    }

    /// A metric without labels, or with these as they are written.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        value(&text, name).unwrap_or_else(|| panic!("no {name} in the metrics of {}", self.pod))
    }

    /// Sends a signal by name, as STOP or CONT.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }
}

/// Sends a signal to a process by its id.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.unwrap().success(), "kill -s {name} {pid}");
}

/// The value of a series in a text of metrics.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
