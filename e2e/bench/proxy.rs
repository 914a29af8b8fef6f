//! kube-proxy's share: from the slice that names the next leader to its first answer, in a quiet and
//! in a busy cluster. The cluster sets mode and minSyncPeriod: ZEN_LEAD_PROXY_MODE and
//! ZEN_LEAD_PROXY_MIN_SYNC of e2e/cluster.sh.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::measure::{Sample, ms, n, row, setting, table};
use super::raw::{OURS, SliceWatch, write_ready};
use crate::support::case::Case;
use crate::support::objects::{hollow, source};
use crate::support::traffic::ask;

/// Between two requests of the one client.
const STEP: Duration = Duration::from_millis(2);

/// ZEN_LEAD_BENCH_PROXY_ROUNDS switches of a leader, each in a quiet cluster and while the slice of
/// another Service changes five times a second.
pub async fn proxy(t: Arc<Case>) {
    let rounds = setting("PROXY_ROUNDS", 20);
    t.app("web", 2, &[]).await;
    t.web(&[("zen-lead.io/enabled", "true")]).await;
    t.pod(hollow("other", "other")).await;
    t.create(&source("other", &serde_json::json!({"metadata": {"annotations": null}}))).await;
    let mut rows = Vec::new();
    for busy in [false, true] {
        let stop = Arc::new(AtomicBool::new(false));
        let noise = busy.then(|| tokio::spawn(disturb(t.clone(), stop.clone())));
        let (mut decided, mut served) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Not in step with the noise or with kube-proxy's pause.
            sleep(Duration::from_millis(2500 + 137 * (round % 7))).await;
            let (begun, slice, answer) = switch(&t).await;
            decided.push(ms(slice - begun));
            served.push(ms(answer.saturating_duration_since(slice)));
        }
        stop.store(true, Ordering::Relaxed);
        if let Some(noise) = noise {
            noise.await.unwrap();
        }
        let (decided, served) = (Sample::of(decided), Sample::of(served));
        rows.push(row(&[
            &if busy { "another slice changes 5 times a second" } else { "quiet" },
            &served.len(),
            &n(decided.median(), 0),
            &n(served.median(), 0),
            &n(served.quantile(0.95), 0),
            &n(served.max(), 0),
            &n(served.median() / decided.median(), 2),
        ]));
    }
    let known = |name: &str| env::var(name).unwrap_or_else(|_| "?".to_owned());
    table(
        &format!(
            "proxy: kube-proxy in mode {}, minSyncPeriod {}; ms",
            known("KUBE_PROXY_MODE"),
            known("KUBE_PROXY_MIN_SYNC")
        ),
        &[
            "cluster",
            "switches",
            "app says no to slice: median (probe every 1 s)",
            "slice to first answer: median",
            "p95",
            "max",
            "median / probe and decision",
        ],
        &rows,
    );
}

/// The times of one switch: leader made not ready, slice seen, first answer of the next leader.
async fn switch(t: &Case) -> (Instant, Instant, Instant) {
    let old = t.until_leader("web-leader", "").await;
    t.until_ready_pods("web", 2).await;
    let to = t.address("web-leader", false).await;
    let mut watch = SliceWatch::start(&t.admin(), OURS).await;
    let begun = Instant::now();
    t.set_ready_in_pod(&old, false).await;
    let asking = async {
        loop {
            if let Ok(pod) = ask(to, "GET", "/").await
                && pod != old
            {
                return Instant::now();
            }
            sleep(STEP).await;
        }
    };
    let writing = async {
        loop {
            let seen = watch.next().await;
            let ours = seen.namespace == t.ns && seen.service == "web-leader";
            if ours && seen.ready.len() == 1 && seen.ready[0] != old {
                return seen.at;
            }
        }
    };
    let both = async { futures::join!(writing, asking) };
    let (slice, answer) = timeout(Duration::from_secs(30), both).await.expect("a switch");
    t.set_ready_in_pod(&old, true).await;
    (begun, slice, answer)
}

/// Turns a pod of another Service ready and not, five times a second.
async fn disturb(t: Arc<Case>, stop: Arc<AtomicBool>) {
    let mut ready = false;
    while !stop.load(Ordering::Relaxed) {
        write_ready(&t.admin(), &t.ns, "other", ready).await;
        ready = !ready;
        sleep(Duration::from_millis(200)).await;
    }
}
