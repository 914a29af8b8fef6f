//! Memory, connections and the time to be ready, by the number of Services and pods.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fill::{Fill, clear_all};
use super::installed::{Memory, Replica, restart_with};
use super::measure::{Sample, count, ms, n, row, setting, settings, table};
use super::raw;
use super::standby::first_failovers;
use crate::support::case::Case;

/// The pause after a start: the first lists are taken in, and their memory is freed.
const SETTLE: Duration = Duration::from_secs(10);

/// ZEN_LEAD_BENCH_SIZES: Services x pods of each x namespaces.
pub async fn memory(t: Arc<Case>) {
    let defaults = ["1x1x1", "500x3x10", "500x12x10", "2000x12x40"].map(str::to_owned);
    let mut fill = Fill::new(t.world.clone(), "memory");
    let (mut rows, mut points, mut replicas) = (Vec::new(), Vec::new(), Vec::new());
    for size in settings("SIZES", &defaults) {
        let [services, pods, namespaces] = parse(&size);
        let rate = fill.grow(services, pods, namespaces).await;
        println!("{size}: {rate:.0} writes a second");
        // The default last: what is left of it is measured at the end.
        for most in [0, 50] {
            replicas = restart_with(&t.world, &[format!("--max-namespace-watches={most}")]).await;
            fill.until_led().await;
            sleep(SETTLE).await;
            let watches = if most == 0 { "one cluster-wide" } else { "one a namespace" };
            // Nothing was scraped so far: the memory of the answers is not part of it.
            rows.push(memory_of(&size, watches, "none", &replicas));
            if most == 0 {
                let own = largest(&replicas);
                points.push((count(fill.services()), count(fill.pods()), own.own + own.files));
            }
            scrape(&replicas).await;
            rows.push(memory_of(&size, watches, "20", &replicas));
            for replica in &replicas {
                let led = replica.metric("zen_lead_leader_services").await;
                assert!(led >= count(services), "{led} leader Services of {services}");
            }
        }
    }
    clear_all(&t.world).await.unwrap();
    sleep(SETTLE).await;
    rows.push(memory_of("all deleted", "one a namespace", "20", &replicas));
    scrape(&replicas).await;
    rows.push(memory_of("all deleted", "one a namespace", "40", &replicas));
    restart_with(&t.world, &[]).await;
    table(
        &format!("memory of the larger of two replicas, MB, {SETTLE:?} after a restart or the end"),
        &[
            "Services x pods of each x namespaces",
            "pod watches",
            "scrapes before",
            "RssAnon",
            "RssFile",
            "both",
            "VmHWM",
            "connections",
        ],
        &rows,
    );
    if let Some([base, service, pod]) = fit(&points) {
        println!(
            "least squares over the cluster-wide rows: {base:.1} MB + {:.2} KB a Service + {:.2} KB \
             a pod; carried on to 10,000 Services with 100,000 pods: {:.0} MB (extrapolated, not \
             measured)",
            service * 1024.0,
            pod * 1024.0,
            base + 10_000.0 * service + 100_000.0 * pod
        );
    }
}

/// ZEN_LEAD_BENCH_STARTS: SERVICESxPODSxNAMESPACES. Starts, and the first failovers beside a dead replica.
pub async fn start(t: Arc<Case>) {
    let mut fill = Fill::new(t.world.clone(), "start");
    let rounds = setting("START_ROUNDS", 3);
    let (mut rows, mut failovers) = (Vec::new(), Vec::new());
    for size in settings("STARTS", &["100x2x1", "1000x2x10", "5000x2x40"].map(str::to_owned)) {
        let [services, pods, namespaces] = parse(&size);
        fill.grow(services, pods, namespaces).await;
        let (mut ready, mut lists) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let replicas = restart_with(&t.world, &[]).await;
            for replica in &replicas {
                ready.push(1000.0 * replica.metric("zen_lead_process_ready_seconds").await);
                let led = replica.metric("zen_lead_leader_services").await;
                assert!(led >= count(services), "{led} leader Services of {services}");
            }
            lists.push(plain_lists(&t, namespaces).await);
        }
        let (ready, lists) = (Sample::of(ready), Sample::of(lists));
        rows.push(row(&[
            &fill.services(),
            &fill.pods(),
            &fill.namespaces().len(),
            &ready.len(),
            &n(ready.median(), 0),
            &n(ready.max(), 0),
            &n(lists.median(), 0),
            &n(ready.median() - lists.median(), 0),
        ]));
        sleep(SETTLE).await;
        let [both, alone] = first_failovers(&t, &fill).await;
        println!("{size}: ready after {:.0} ms", ready.median());
        failovers.push(row(&[
            &fill.services(),
            &fill.pods(),
            &both.len(),
            &n(both.median(), 1),
            &n(both.max(), 1),
            &n(alone.median(), 1),
            &n(alone.max(), 1),
            &n(alone.max() / both.max(), 1),
        ]));
    }
    table(
        "start: ms from the start of a process until it is ready",
        &[
            "Services",
            "pods",
            "namespaces",
            "starts",
            "median",
            "max",
            "plain lists of the same, unread",
            "ready after them",
        ],
        &rows,
    );
    table(
        "failovers with two replicas, and the first ones after kill -9 of one; ms",
        &[
            "Services",
            "pods",
            "lost leaders",
            "both: median",
            "max",
            "one killed: median",
            "max",
            "max / max",
        ],
        &failovers,
    );
}

/// The lists at the start of zen-lead, one after the other, as bytes: no client can be faster.
async fn plain_lists(t: &Case, namespaces: usize) -> f64 {
    let others =
        "labelSelector=endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io";
    let began = Instant::now();
    let client = t.admin();
    let mut paths = vec![
        "/api/v1/services?resourceVersion=0".to_owned(),
        format!("/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=0&{others}"),
    ];
    paths.extend(
        (0..namespaces).map(|n| {
            format!("/api/v1/namespaces/start-{}-{n}/pods?resourceVersion=0", t.world.run)
        }),
    );
    for path in paths {
        raw::get(&client, &path).await.unwrap();
    }
    ms(began.elapsed())
}

fn parse(size: &str) -> [usize; 3] {
    let parts: Vec<usize> = size.split('x').filter_map(|p| p.parse().ok()).collect();
    parts.try_into().unwrap_or_else(|_| panic!("{size} is not SERVICESxPODSxNAMESPACES"))
}

/// Of the replica with more memory of its own.
fn largest(replicas: &[Replica]) -> Memory {
    replicas.iter().map(Replica::memory).max_by(|a, b| a.own.total_cmp(&b.own)).unwrap()
}

fn memory_of(size: &str, watches: &str, scrapes: &str, replicas: &[Replica]) -> Vec<String> {
    let Memory { own, files, peak } = largest(replicas);
    let connections = replicas.iter().map(Replica::connections).max().unwrap();
    let [own_text, files_text, both, peak] = [own, files, own + files, peak].map(|mb| n(mb, 1));
    row(&[&size, &watches, &scrapes, &own_text, &files_text, &both, &peak, &connections])
}

async fn scrape(replicas: &[Replica]) {
    for _ in 0..20 {
        for replica in replicas {
            replica.metrics().await;
        }
    }
}

/// MB at rest, for each Service and for each pod; none without three different sizes.
fn fit(points: &[(f64, f64, f64)]) -> Option<[f64; 3]> {
    let mut m = [[0.0; 4]; 3];
    for (services, pods, mb) in points {
        let x = [1.0, *services, *pods];
        for (i, line) in m.iter_mut().enumerate() {
            for j in 0..3 {
                line[j] += x[i] * x[j];
            }
            line[3] += x[i] * mb;
        }
    }
    for i in 0..3 {
        let pivot = (i..3).max_by(|a, b| m[*a][i].abs().total_cmp(&m[*b][i].abs()))?;
        m.swap(i, pivot);
        let own = m[i];
        if own[i].abs() < 1e-6 {
            return None;
        }
        for (k, line) in m.iter_mut().enumerate() {
            if k != i {
                let share = line[i] / own[i];
                for j in 0..4 {
                    line[j] -= share * own[j];
                }
            }
        }
    }
    Some([m[0][3] / m[0][0], m[1][3] / m[1][1], m[2][3] / m[2][2]])
}
