//! Many leaders lost at once: when the last one is replaced, with different numbers of workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::fill::{Fill, Led, WRITERS};
use super::installed::{Replica, restart_with};
use super::measure::{Sample, ms, n, row, setting, settings, table};
use super::raw::{self, BUILT_IN, OURS, SliceWatch, write_ready};
use crate::support::case::Case;

/// The longest time until zen-lead has moved all.
const PATIENCE: Duration = Duration::from_mins(2);
/// The same for the built-in controller, whose calls are limited to 20 a second.
const PATIENCE_BUILT_IN: Duration = Duration::from_mins(3);

/// ZEN_LEAD_BENCH_BURST leaders, for each of ZEN_LEAD_BENCH_WORKERS, ZEN_LEAD_BENCH_BURST_ROUNDS
/// times.
pub async fn burst(t: Arc<Case>) {
    let size: usize = setting("BURST", 500);
    let mut fill = Fill::new(t.world.clone(), "burst");
    fill.grow(size, 3, 10).await;
    let mut rows = Vec::new();
    for workers in settings("WORKERS", &[1, 4, 16, 64]) {
        let flags = [format!("--workers={workers}")];
        let replicas = restart_with(&t.world, &flags).await;
        for _ in 0..setting("BURST_ROUNDS", 2) {
            at_rest(&t, &fill).await;
            rows.push(once(&t, &fill, workers, &replicas).await);
        }
    }
    restart_with(&t.world, &[]).await;
    table(
        &format!(
            "burst: {size} leaders turn NotReady at once ({WRITERS} writers); ms from each pod's \
             write until its slice was seen"
        ),
        &[
            "workers",
            "burst took",
            "moved",
            "p50",
            "p99",
            "max",
            "last after the burst's end",
            "conflicts",
            "processor ms each",
            "built-in: moved",
            "built-in p50",
            "built-in last after the end",
        ],
        &rows,
    );
}

async fn once(t: &Case, fill: &Fill, workers: usize, replicas: &[Replica]) -> Vec<String> {
    let leaders = fill.until_led().await;
    let client = t.admin();
    let mut ours = SliceWatch::start(&client, OURS).await;
    let mut theirs = SliceWatch::start(&client, BUILT_IN).await;
    let processor = || replicas.iter().map(Replica::processor_ms).sum::<f64>();
    let (used, conflicts) = (processor(), conflicts(replicas).await);

    let began = Instant::now();
    let writes = leaders.clone().into_iter().map(|(key, pod)| {
        let client = client.clone();
        async move {
            let task = tokio::spawn(async move {
                let (_, written) = write_ready(&client, &key.0, &pod, false).await;
                (key, written)
            });
            task.await.unwrap()
        }
    });
    let writing = futures::stream::iter(writes).buffer_unordered(WRITERS);
    let writing = writing.collect::<HashMap<Led, Instant>>();
    let moving = async {
        let mut moved: HashMap<Led, Instant> = HashMap::new();
        while moved.len() < leaders.len() {
            let Ok(seen) = timeout(PATIENCE, ours.next()).await else { break };
            let key = (seen.namespace, seen.service);
            if leaders.get(&key).is_some_and(|old| seen.ready.len() == 1 && seen.ready[0] != *old) {
                moved.entry(key).or_insert(seen.at);
            }
        }
        moved
    };
    let (written, moved) = futures::join!(writing, moving);
    let used = processor() - used;
    let end = *written.values().max().unwrap();
    assert_eq!(moved.len(), leaders.len(), "leaders that were moved");

    let patience = Instant::now();
    let mut followed: HashMap<Led, Instant> = HashMap::new();
    while followed.len() < leaders.len() && patience.elapsed() < PATIENCE_BUILT_IN {
        let Ok(seen) = timeout(Duration::from_secs(10), theirs.next()).await else { break };
        let key = (seen.namespace, format!("{}-leader", seen.service));
        if leaders.get(&key).is_some_and(|old| !seen.ready.contains(old)) {
            followed.entry(key).or_insert(seen.at);
        }
    }
    let own = Sample::of(moved.iter().map(|(k, at)| between(written[k], *at)).collect());
    let built_in = Sample::of(followed.iter().map(|(k, at)| between(written[k], *at)).collect());
    let last = |all: &HashMap<Led, Instant>| between(end, *all.values().max().unwrap());
    #[allow(clippy::cast_precision_loss)]
    let each = used / leaders.len() as f64;
    let after = conflicts_since(replicas, conflicts).await;

    // Everything back to ready.
    let back = leaders.into_iter().map(|(key, pod)| {
        let client = client.clone();
        async move { write_ready(&client, &key.0, &pod, true).await }
    });
    futures::stream::iter(back).buffer_unordered(WRITERS).collect::<Vec<_>>().await;
    row(&[
        &workers,
        &n(ms(end - began), 0),
        &moved.len(),
        &n(own.median(), 0),
        &n(own.quantile(0.99), 0),
        &n(own.max(), 0),
        &n(last(&moved), 0),
        &n(after, 0),
        &n(each, 1),
        &followed.len(),
        &n(built_in.median(), 0),
        &n(last(&followed), 0),
    ])
}

fn between(from: Instant, to: Instant) -> f64 {
    if to >= from { ms(to - from) } else { -ms(from - to) }
}

/// Slice writes of all replicas that were refused because of a newer version.
async fn conflicts(replicas: &[Replica]) -> f64 {
    let mut sum = 0.0;
    for replica in replicas {
        let text = replica.metrics().await;
        let lines =
            text.lines().filter(|l| l.starts_with("zen_lead_endpoint_write_conflicts_total{"));
        sum += lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

async fn conflicts_since(replicas: &[Replica], before: f64) -> f64 {
    conflicts(replicas).await - before
}

/// The built-in controller has caught up: every pod is in its slices again.
async fn at_rest(t: &Case, fill: &Fill) {
    let began = Instant::now();
    loop {
        let slices = raw::slices(&t.admin(), BUILT_IN).await;
        let ready: usize = slices
            .iter()
            .filter(|s| s.namespace.starts_with("burst-"))
            .map(|s| s.ready.len())
            .sum();
        if ready == fill.pods() {
            break;
        }
        assert!(began.elapsed() < PATIENCE_BUILT_IN, "{ready} of {} pods in slices", fill.pods());
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(2)).await;
}
