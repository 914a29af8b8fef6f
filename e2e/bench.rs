//! How soon a slice follows a pod's status, for zen-lead and, in the same rounds, for the cluster's
//! own EndpointSlice controller; and the memory of zen-lead. Measures and prints, judges nothing.
//!
//! Run it with `make bench`. Pods are hollow, so that no kubelet or probe is part of the times.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]

mod support;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use support::case::Case;
use support::cluster::Cluster;
use support::names;
use support::objects::source;
use support::world::{World, fresh, suited};

const ROUNDS: usize = 100;
const SERVICES: usize = 5;
/// Between two changes: both controllers are at rest again, and below the built-in one's limit of
/// 20 calls a second.
const PAUSE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    // cargo test --benches asks for a list of tests and a quick run.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return ExitCode::SUCCESS;
    }
    let cluster = match Cluster::from_env().and_then(suited) {
        Ok(cluster) => cluster,
        Err(why) => {
            println!("not run: {why}");
            return if support::cluster::in_ci() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let world = Arc::new(World::set_up(cluster, fresh()).await);
        let case = Arc::new(Case::open(world.clone(), "bench").await);
        let task = tokio::spawn(measure(case.clone()));
        let outcome = task.await;
        case.close().await;
        world.tear_down().await;
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    })
}

async fn measure(t: Arc<Case>) {
    for n in 1..=SERVICES {
        let app = format!("app-{n}");
        for pod in ["a", "b"] {
            t.pod(support::objects::hollow(&format!("{app}-{pod}"), &app)).await;
        }
        t.create(&source(&app, &json!({}))).await;
        t.until_leader(&format!("{app}-leader"), "").await;
    }
    t.world.figure(format!("memory at {SERVICES} Services"), memory(&t).await);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut slices = watch(t.slices()).await;
    let mut leader = t.until_leader("app-1-leader", "").await;
    for _ in 0..ROUNDS {
        sleep(PAUSE).await;
        while slices.try_recv().is_ok() {}
        let next = if leader == "app-1-a" { "app-1-b" } else { "app-1-a" }.to_owned();
        t.set_ready(&leader, false).await;
        let written = Instant::now();
        let (mut own, mut built_in) = (None, None);
        while own.is_none() || built_in.is_none() {
            let heard = timeout(Duration::from_secs(10), slices.recv()).await;
            let (at, slice) = heard.expect("both slices change within 10 s").unwrap();
            match slice.labels()[names::SERVICE_NAME].as_str() {
                "app-1-leader" if ready(&slice, &next) => own = own.or(Some(at)),
                "app-1" if !ready(&slice, &leader) => built_in = built_in.or(Some(at)),
                _ => {}
            }
        }
        let after = |at: Option<Instant>| {
            let at = at.unwrap();
            let after = |a: Instant, b: Instant| (b - a).as_secs_f64() * 1000.0;
            if at >= written { after(written, at) } else { -after(at, written) }
        };
        ours.push(after(own));
        theirs.push(after(built_in));
        t.set_ready(&leader, true).await;
        leader = next;
    }
    let (own, built_in) = (Summary::of(ours), Summary::of(theirs));
    t.world.figure(
        format!("{ROUNDS} lost leaders, from the end of the status write to the slice, ms"),
        format!(
            "zen-lead median {:.1}, p95 {:.1}; built-in EndpointSlice controller median {:.1}, p95 \
             {:.1}; ratio of medians {:.2}, of p95 {:.2}",
            own.median,
            own.p95,
            built_in.median,
            built_in.p95,
            own.median / built_in.median,
            own.p95 / built_in.p95
        ),
    );
    t.world.figure(format!("memory after {ROUNDS} switches"), memory(&t).await);
}

struct Summary {
    median: f64,
    p95: f64,
}

impl Summary {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self { median: all[all.len() / 2], p95: all[all.len() * 95 / 100] }
    }
}

fn ready(slice: &EndpointSlice, pod: &str) -> bool {
    slice.endpoints.iter().flatten().any(|e| {
        e.target_ref.as_ref().and_then(|r| r.name.as_deref()) == Some(pod)
            && e.conditions.as_ref().and_then(|c| c.ready) == Some(true)
    })
}

/// Every version of every slice with the time it was heard of.
async fn watch(api: Api<EndpointSlice>) -> UnboundedReceiver<(Instant, EndpointSlice)> {
    let (tell, told) = unbounded_channel();
    let list = api.list(&ListParams::default()).await.unwrap();
    let from = list.metadata.resource_version.unwrap();
    tokio::spawn(async move {
        let params = WatchParams::default().timeout(290);
        let stream = api.watch(&params, &from).await.unwrap();
        pin_mut!(stream);
        while let Some(Ok(event)) = stream.next().await {
            if let WatchEvent::Added(slice) | WatchEvent::Modified(slice) = event
                && tell.send((Instant::now(), slice)).is_err()
            {
                return;
            }
        }
    });
    told
}

/// Resident memory of each replica's process, found by the id of its container.
async fn memory(t: &Case) -> String {
    let mut text = String::new();
    for pod in t.world.product.pods().await {
        let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).unwrap();
        let id = status[0].container_id.clone().unwrap();
        let id = id.rsplit('/').next().unwrap();
        let rss =
            resident_kb(id).map_or_else(|| "?".to_owned(), |kb| format!("{:.1}", kb / 1024.0));
        let _ = write!(text, "{}{rss} MB", if text.is_empty() { "" } else { ", " });
    }
    text
}

fn resident_kb(container: &str) -> Option<f64> {
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let cgroup = std::fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        if !cgroup.contains(container) {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        return line.trim().trim_end_matches(" kB").parse().ok();
    }
    None
}
