//! A webhook that does not answer: connections are not accepted, a replica hangs, packets are dropped.
//! Writes are still answered, with the cause; writes of Services without our keys are not affected.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::case::{Case, annotation, refusal};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{annotations, source};
use crate::support::waiting::{check, until};
use crate::support::webhook::Hook;

/// The API server waits for two webhooks, one second each. A larger bound would be another promise.
const BOUND: Duration = Duration::from_secs(20);
/// A write without any wait would prove nothing.
const AT_LEAST: Duration = Duration::from_millis(900);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("unreachable", "connections_are_not_accepted", connections_are_not_accepted),
        Test::new("unreachable", "replica_hangs", replica_hangs),
        Test::new("unreachable", "packets_are_dropped", packets_are_dropped).needs(own_network()),
    ]
}

/// Tests must not change the firewall of the machine itself: only that of the network that the cluster's
/// `CLUSTER_EXEC` enters.
fn own_network() -> Result<(), String> {
    let exec = std::env::var("CLUSTER_EXEC").unwrap_or_default();
    let clusters = exec.split(' ').find_map(|word| word.strip_prefix("--net="));
    let clusters = clusters.ok_or("the cluster has no network of its own (kind local has)")?;
    let inode =
        |path: &str| std::fs::metadata(path).map(|m| m.ino()).map_err(|e| format!("{path}: {e}"));
    if inode("/proc/self/ns/net")? != inode(clusters)? {
        return Err("this is not the cluster's network; run it by $CLUSTER_EXEC".to_owned());
    }
    let found = Command::new("nft").arg("--version").output();
    found.map(|_| ()).map_err(|e| format!("nft (package nftables): {e}"))
}

/// An annotated Service that is new.
fn enabled(n: usize) -> Service {
    source(&format!("web{n}"), &json!({}))
}

/// Writes while the webhook does not answer, and the errors they get.
async fn swallowed(t: &Case, how: &str) {
    let (admin, system) = (t.admin(), &t.world.system);
    let services = t.user_services();
    let create = PostParams::default();

    let missed = missed_calls(t).await;
    let began = Instant::now();
    let status = refusal(services.create(&create, &enabled(0)).await);
    let refused = began.elapsed();
    assert_eq!(status.code, 500, "{status:?}");
    let cause = "failed calling webhook \"validate.zen-lead.io\"";
    assert!(status.message.contains(cause), "{}", status.message);
    assert!(status.message.contains("context deadline exceeded"), "{}", status.message);
    assert!((AT_LEAST..BOUND).contains(&refused), "{how}: answered after {refused:?}");
    // The mutating webhook was called first, and its failure was ignored.
    assert!(
        missed_calls(t).await > missed,
        "{how}: no failure of the mutating webhook was ignored"
    );

    let plain = source("plain", &json!({"metadata": {"annotations": {names::ENABLED: null}}}));
    let began = Instant::now();
    t.create(&plain).await;
    t.patch_service("plain", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    t.patch_service("there", &annotations(&[("example.com/note", how)])).await;
    t.patch_service("there", &json!({"metadata": {"annotations": {names::STICKY: null}}})).await;
    t.delete_service("plain").await;
    let five = began.elapsed();
    assert!(five < BOUND, "{how}: five writes that are not reviewed took {five:?}");

    // The other choice of a cluster's owner (Ignore): nothing is refused while the webhook is down.
    Hook::Validating.set(&admin, system, "failurePolicy", &json!("Ignore")).await;
    let mut began = Instant::now();
    let ignored = source("ignored", &json!({}));
    let written = until("with Ignore the write passes", || {
        began = Instant::now();
        services.create(&create, &ignored)
    })
    .await;
    let passed = began.elapsed();
    Hook::Validating.set(&admin, system, "failurePolicy", &json!("Fail")).await;
    assert_eq!(annotation(&written, names::LEADER_NAME), "", "no webhook was there to add it");
    assert!((AT_LEAST..BOUND).contains(&passed), "{how}: passed after {passed:?}");
    t.delete_service("ignored").await;
    println!(
        "unreachable: {how}: refused after {refused:?}, passed with Ignore after {passed:?}; five \
         writes that are not reviewed took {five:?}"
    );
}

/// Then the webhook answers again.
async fn answered_again(t: &Case) {
    let services = t.user_services();
    let began = Instant::now();
    until("annotated writes are reviewed again", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let written = services.create(&dry, &enabled(1)).await.map_err(|e| e.to_string())?;
        check(
            !annotation(&written, names::LEADER_NAME).is_empty(),
            "the mutating webhook was not called",
        )
    })
    .await;
    until("and mistakes refused", || async {
        let bad = Patch::Merge(annotations(&[(names::STICKY, "perhaps")]));
        let changed = services.patch("there", &PatchParams::default(), &bad).await;
        check(changed.is_err(), "it was taken")
    })
    .await;
    println!("unreachable: reviewed again after {:?}", began.elapsed());
}

/// How often the API server has ignored a failure of the mutating webhook.
async fn missed_calls(t: &Case) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = t.admin().request_text(request).await.unwrap();
    text.lines()
        .filter(|l| l.starts_with("apiserver_admission_webhook_fail_open_count{"))
        .filter(|l| l.contains("name=\"mutate.zen-lead.io\""))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// One replica that reviews, and a Service it knows; the API server has connections to it.
async fn reviewed_so_far(t: &Case) {
    t.world.patience_of_webhooks(1).await;
    t.world.product.spawn(0, &[]);
    t.world.product.until_ready(0).await;
    let services = t.user_services();
    until("the webhook is called", || async {
        let made = services.create(&PostParams::default(), &source("there", &json!({}))).await;
        made.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
    until("and reviews the next one", || async {
        let change = Patch::Merge(annotations(&[(names::STICKY, "false")]));
        services.patch("there", &PatchParams::default(), &change).await
    })
    .await;
}

/// A socket that is bound and accepts nothing: once its queue is full, the kernel drops what comes.
async fn connections_are_not_accepted(t: Arc<Case>) {
    reviewed_so_far(&t).await;
    t.world.product.stop(0).await;
    let address: SocketAddr = ([127, 0, 0, 1], t.world.product.webhook_port(0)).into();
    let full = Full::at(address).await;
    swallowed(&t, "connections are not accepted").await;
    drop(full);
    t.world.product.spawn(0, &[]);
    answered_again(&t).await;
}

/// A listening socket with a full queue.
struct Full {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Full {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            queue.push(stream.unwrap());
            assert!(queue.len() < 100, "the queue does not get full");
        }
        Self { _listener: listener, _queue: queue }
    }
}

/// The kernel accepts connections, but no process reads from them.
async fn replica_hangs(t: Arc<Case>) {
    reviewed_so_far(&t).await;
    t.world.product.signal(0, "STOP");
    swallowed(&t, "the replica hangs").await;
    t.world.product.signal(0, "CONT");
    answered_again(&t).await;
}

/// A firewall rule in the cluster's network, gone with this value.
struct Dropped {
    table: String,
}

impl Dropped {
    fn to(port: u16, run: &str) -> Self {
        let dropped = Self { table: format!("zen_lead_{run}") };
        let table = &dropped.table;
        nft(&format!("add table inet {table}"));
        nft(&format!("add chain inet {table} out {{ type filter hook output priority 0; }}"));
        for direction in ["dport", "sport"] {
            nft(&format!("add rule inet {table} out tcp {direction} {port} drop"));
        }
        dropped
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.table]).status();
    }
}

fn nft(command: &str) {
    let output = Command::new("nft").arg(command).output().unwrap();
    assert!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Also on the connections that the API server has kept open.
async fn packets_are_dropped(t: Arc<Case>) {
    reviewed_so_far(&t).await;
    let dropped = Dropped::to(t.world.product.webhook_port(0), &t.world.run);
    swallowed(&t, "packets are dropped").await;
    drop(dropped);
    answered_again(&t).await;
}
