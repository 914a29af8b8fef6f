//! Benefits and costs of zen-lead's settings: those of a Service, the number of replicas, the drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::fill::{Fill, annotate};
use super::installed::{Replica, replicas as running, restart_with};
use super::lost::{back, lose};
use super::measure::{Sample, ms, n, row, setting, settings as list, table};
use super::raw::{self, OURS, SliceWatch, write_ready};
use crate::support::case::Case;
use crate::support::names;
use crate::support::objects::{hollow, source, source_set};

/// One way to set a Service.
type Settings = &'static [(&'static str, &'static str)];

const VARIANTS: [Settings; 5] = [
    &[],
    &[(names::STICKY, "false")],
    &[(names::STICKY, "false"), (names::MIN_READY, "5s")],
    &[(names::FAILOVER_DELAY, "2s")],
    &[(names::FAILOVER_DELAY, "10s")],
];

/// The first pod turns NotReady ten times for 0.5 s, and at the end for good.
pub async fn settings(t: Arc<Case>) {
    let mut rows = Vec::new();
    for (number, variant) in VARIANTS.into_iter().enumerate() {
        let app = format!("app-{number}");
        let (first, second) = (format!("{app}-a"), format!("{app}-b"));
        t.pod(hollow(&first, &app)).await;
        // Younger by a second, which is the resolution of creation times.
        sleep(Duration::from_millis(1100)).await;
        t.pod(hollow(&second, &app)).await;
        t.create(&source_set(&app, &enabled(variant))).await;
        t.until_leader(&format!("{app}-leader"), "").await;
        // Old enough for min-ready-duration.
        sleep(Duration::from_secs(6)).await;
        let (switches, without, replaced) = flaps(&t, &app, &first).await;
        let words: Vec<String> = variant
            .iter()
            .map(|(k, v)| format!("{}={v}", k.trim_start_matches(names::PREFIX)))
            .collect();
        let words = if words.is_empty() { "(defaults)".to_owned() } else { words.join(", ") };
        rows.push(row(&[&words, &switches, &n(without, 0), &n(replaced, 0)]));
    }
    table(
        "settings: two pods; the first is NotReady ten times for 0.5 s, every 2 s, then the leader \
         is lost for good",
        &[
            "settings",
            "switches in ten flaps",
            "ms without a leader in them",
            "ms until the next leader",
        ],
        &rows,
    );
}

fn enabled(settings: Settings) -> Vec<(&'static str, &'static str)> {
    settings.to_vec()
}

async fn flaps(t: &Case, app: &str, first: &str) -> (usize, f64, f64) {
    let client = t.admin();
    let leader = format!("{app}-leader");
    let mut watch = SliceWatch::start(&client, OURS).await;
    let mut now = vec![t.leader_now(&leader).await.unwrap()];
    for _ in 0..10 {
        write_ready(&client, &t.ns, first, false).await;
        sleep(Duration::from_millis(500)).await;
        write_ready(&client, &t.ns, first, true).await;
        sleep(Duration::from_millis(1500)).await;
    }
    let (mut switches, mut without, mut since) = (0, 0.0, None::<Instant>);
    let mut last = now[0].clone();
    while let Ok(seen) = timeout(Duration::from_millis(300), watch.next()).await {
        if (&seen.namespace, &seen.service) != (&t.ns, &leader) || seen.ready == now {
            continue;
        }
        now.clone_from(&seen.ready);
        match &now[..] {
            [] => since = Some(seen.at),
            [pod, ..] => {
                without += since.take().map_or(0.0, |at| ms(seen.at - at));
                switches += usize::from(*pod != last);
                last.clone_from(pod);
            }
        }
    }
    let old = t.leader_now(&leader).await.unwrap();
    let (_, written) = write_ready(&client, &t.ns, &old, false).await;
    loop {
        let seen = timeout(Duration::from_secs(30), watch.next()).await.expect("a next leader");
        let ours = (&seen.namespace, &seen.service) == (&t.ns, &leader);
        if ours && seen.ready.len() == 1 && seen.ready[0] != old {
            return (switches, without, ms(seen.at.saturating_duration_since(written)));
        }
    }
}

/// Leaders lost while both replicas run, while one is frozen, and just after one was killed.
pub async fn replicas(t: Arc<Case>) {
    let size = setting("REPLICAS_SERVICES", 60);
    let mut fill = Fill::new(t.world.clone(), "replicas");
    fill.grow(size, 3, 3).await;
    sleep(Duration::from_secs(5)).await;
    let mut rows = Vec::new();
    for what in ["both run", "one is frozen (SIGSTOP)", "one was just killed (SIGKILL)"] {
        let replica = running(&t.world).await.remove(0);
        let frozen = match what {
            "both run" => None,
            text if text.contains("STOP") => {
                replica.signal("STOP");
                Some(Thaw(replica))
            }
            _ => {
                replica.signal("KILL");
                None
            }
        };
        let s = lose_all(&t, &fill).await;
        drop(frozen);
        rows.push(row(&[
            &what,
            &s.len(),
            &n(s.median(), 0),
            &n(s.quantile(0.99), 0),
            &n(100.0 * s.above(200.0), 0),
        ]));
        t.world.product.until_running().await;
        sleep(Duration::from_secs(5)).await;
    }
    table(
        &format!("replicas: {size} leaders turn NotReady at once; ms until their slices were seen"),
        &["replicas", "moved", "p50", "p99", "% later than 200 ms"],
        &rows,
    );
}

/// Lets a frozen replica go on, also after a panic.
struct Thaw(Replica);

impl Drop for Thaw {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

async fn lose_all(t: &Case, fill: &Fill) -> Sample {
    let leaders = fill.until_led().await;
    let client = t.admin();
    let mut watch = SliceWatch::start(&client, OURS).await;
    let burst = lose(&client, &leaders, &mut watch, None).await;
    back(&client, &leaders).await;
    burst.delays()
}

/// Writes that the webhook reviews, during a rolling restart, for each of
/// ZEN_LEAD_BENCH_DRAINS.
pub async fn drain(t: Arc<Case>) {
    t.create(&source("web", &json!({}))).await;
    let mut rows = Vec::new();
    for delay in list("DRAINS", &["0s", "1s", "3s", "10s"].map(str::to_owned)) {
        let flags = [format!("--drain-delay={delay}")];
        restart_with(&t.world, &flags).await;
        sleep(Duration::from_secs(5)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write_on(t.clone(), stop.clone()));
        let began = Instant::now();
        restart_with(&t.world, &flags).await;
        let took = began.elapsed();
        sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
        let (times, refused) = writing.await.unwrap();
        let s = Sample::of(times);
        rows.push(row(&[
            &delay,
            &n(took.as_secs_f64(), 0),
            &s.len(),
            &refused.len(),
            &n(s.median(), 1),
            &n(s.max(), 0),
            &refused.first().map_or("", |r| &r[..r.len().min(120)]),
        ]));
    }
    restart_with(&t.world, &[]).await;
    table(
        "drain: writes with a key of ours (dry run, one after the other) during a rolling restart of \
         both replicas",
        &[
            "drain-delay",
            "restart took s",
            "writes",
            "refused",
            "p50 ms",
            "slowest ms",
            "first refusal",
        ],
        &rows,
    );
}

async fn write_on(t: Arc<Case>, stop: Arc<AtomicBool>) -> (Vec<f64>, Vec<String>) {
    let path = format!("/api/v1/namespaces/{}/services/web?dryRun=All", t.ns);
    let (mut times, mut refused) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = raw::merge(&t.admin(), &path, &annotate(names::MIN_READY, "2s")).await;
        times.push(ms(began.elapsed()));
        refused.extend(answer.err());
        sleep(Duration::from_millis(20)).await;
    }
    (times, refused)
}
