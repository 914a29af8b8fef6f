//! Real pods and requests: how long no pod answers when a leader hangs, is deleted or evicted, and which
//! component needs that time.

use std::sync::Arc;
use std::time::Duration;

use kube::api::EvictParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::installed::{pid, signal};
use super::measure::{Sample, ms, n, row, setting, table};
use super::raw::{OURS, SliceWatch};
use crate::support::case::Case;
use crate::support::names;
use crate::support::traffic::{Answers, Failure, Load};
use crate::support::waiting::{check, within};

const RATE: u32 = 50;

/// A readiness probe: period, failure threshold, timeout, in seconds.
const PROBES: [[u32; 3]; 4] = [[1, 1, 1], [1, 3, 1], [5, 3, 1], [10, 3, 1]];

/// The leader's process is stopped (SIGSTOP): it accepts connections and answers none.
pub async fn probes(t: Arc<Case>) {
    let rounds = setting("PROBE_ROUNDS", 3);
    let mut rows = Vec::new();
    for (number, [period, threshold, limit]) in PROBES.into_iter().enumerate() {
        let app = format!("probe-{number}");
        let probe = json!({
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": period, "failureThreshold": threshold, "timeoutSeconds": limit,
        });
        t.app_probed(&app, 2, &[], &probe).await;
        enable(&t, &app).await;
        let (mut noticed, mut served, mut lost) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            let (slice, answer, failed) = hang(&t, &app).await;
            noticed.push(slice);
            served.push(answer);
            lost += failed;
            let patience = Duration::from_mins(1);
            within(patience, "both pods are ready again", || async {
                let pods = t.pods_of(&app).await;
                check(pods.iter().all(crate::support::product::is_ready), "one is not")
            })
            .await;
        }
        let (noticed, served) = (Sample::of(noticed), Sample::of(served));
        rows.push(row(&[
            &format!("{period} s x {threshold}, timeout {limit} s"),
            &n(noticed.median(), 0),
            &n(noticed.max(), 0),
            &n(served.median(), 0),
            &n(served.max(), 0),
            &n(served.median() - noticed.median(), 0),
            &lost,
        ]));
        t.delete_service(&app).await;
    }
    table(
        &format!(
            "probes: the leader's process hangs; ms since then, {rounds} times each, {RATE} requests/s"
        ),
        &[
            "readinessProbe",
            "slice names the next: median",
            "max",
            "first answer of the next: median",
            "max",
            "from slice to answer",
            "requests without an answer",
        ],
        &rows,
    );
}

async fn enable(t: &Case, app: &str) {
    let service: Value = json!({
        "metadata": {"name": app, "annotations": {names::ENABLED: "true"}},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    t.create(&serde_json::from_value(service).unwrap()).await;
}

struct Go(u32);

impl Drop for Go {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

async fn hang(t: &Case, app: &str) -> (f64, f64, usize) {
    let leader = format!("{app}-leader");
    let old = t.until_leader(&leader, "").await;
    let to = t.address(&leader, false).await;
    let load = Load::start(to, RATE);
    load.more(RATE as usize).await;
    let pod = t.pods().get(&old).await.unwrap();
    let pid = pid(&pod).expect("the process of the leader");
    let mut watch = SliceWatch::start(&t.admin(), OURS).await;
    let stopped = Instant::now();
    signal(pid, "STOP");
    let frozen = Go(pid);
    let next = loop {
        let seen = timeout(Duration::from_secs(90), watch.next()).await.expect("a next leader");
        let ours = seen.namespace == t.ns && seen.service == leader;
        if ours && seen.ready.len() == 1 && seen.ready[0] != old {
            break seen;
        }
    };
    load.more(RATE as usize * 2).await;
    drop(frozen);
    let answers = load.finish().await;
    let first = answers.0.iter().filter(|r| r.answer.as_deref() == Ok(&next.ready[0]));
    let first = first.map(|r| r.ended).min().expect("the next leader answers");
    (ms(next.at - stopped), ms(first - stopped), answers.failures().len())
}

/// The leader is deleted in different ways while a successor is at hand.
pub async fn deletions(t: Arc<Case>) {
    let rounds = setting("DELETION_ROUNDS", 3);
    let mut rows = Vec::new();
    for (number, (what, args)) in [
        ("deleted, app serves 1 s after SIGTERM", &[][..]),
        ("deleted, app exits with SIGTERM", &["-exit-at-once"][..]),
        ("deleted by force (grace 0)", &[][..]),
        ("evicted, as by kubectl drain", &[][..]),
    ]
    .into_iter()
    .enumerate()
    {
        let app = format!("del-{number}");
        t.app(&app, 3, args).await;
        enable(&t, &app).await;
        let (mut gaps, mut refused, mut broken, mut all) = (Vec::new(), 0, 0, 0);
        for _ in 0..rounds {
            let (gap, answers) = delete(&t, &app, what).await;
            gaps.push(gap);
            all += answers.0.len();
            for failure in answers.failures() {
                match failure {
                    Failure::Connect(_) | Failure::Late => refused += 1,
                    Failure::Broken(_) | Failure::Status(_) => broken += 1,
                }
            }
            t.until_ready_pods(&app, 3).await;
            sleep(Duration::from_secs(2)).await;
        }
        let gaps = Sample::of(gaps);
        rows.push(row(&[&what, &all, &refused, &broken, &n(gaps.median(), 0), &n(gaps.max(), 0)]));
        t.delete_service(&app).await;
        t.deployments().delete(&app, &kube::api::DeleteParams::default()).await.unwrap();
    }
    table(
        &format!("deletions: {rounds} times each, 150 requests/s, a new connection each"),
        &[
            "the leader is",
            "requests",
            "connections that failed",
            "connections that broke",
            "last answer of the old to first of the next: median ms",
            "max ms",
        ],
        &rows,
    );
}

async fn delete(t: &Case, app: &str, what: &str) -> (f64, Answers) {
    let leader = format!("{app}-leader");
    let old = t.until_leader(&leader, "").await;
    let to = t.address(&leader, false).await;
    let load = Load::start(to, 150);
    load.more(150).await;
    if what.starts_with("evicted") {
        t.pods().evict(&old, &EvictParams::default()).await.unwrap();
    } else {
        t.delete_pod(&old, what.contains("force").then_some(0)).await;
    }
    let next = t.until_leader(&leader, &old).await;
    load.more(450).await;
    let answers = load.finish().await;
    (answers.gap_ms(&old, &next), answers)
}
