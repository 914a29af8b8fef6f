//! How soon a slice follows a pod's status, for zen-lead and, in the same rounds, for the cluster's
//! own EndpointSlice controller. Pods are hollow, so that no kubelet or probe is part of the times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::measure::{Sample, ms, n, row, setting, table};
use super::raw::{BUILT_IN, OURS, SliceWatch, write_ready};
use crate::installed::replicas;
use crate::support::case::Case;
use crate::support::objects::{hollow, source};

/// The pause between two changes: both controllers are at rest again, and the built-in one stays below its
/// limit of 20 calls a second.
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than zen-lead (60 s) and the API server (90 s) keep idle connections.
const QUIET: Duration = Duration::from_secs(95);

/// Leaders lost one after the other (ZEN_LEAD_BENCH_ROUNDS).
pub async fn failover(t: Arc<Case>) {
    let rounds = setting("ROUNDS", 200);
    let before = processor(&t).await;
    let (times, began) = (rounds_of(&t, rounds, PAUSE).await, before);
    report(&format!("failover: {rounds} lost leaders, one every 0.2 s"), &times);
    let spent = processor(&t).await - began;
    #[allow(clippy::cast_precision_loss)]
    let each = spent / (2 * rounds) as f64;
    println!("processor time of both replicas together: {each:.2} ms for each change of a pod");
}

/// The same after a silence in which idle connections are closed (ZEN_LEAD_BENCH_QUIET_ROUNDS).
pub async fn quiet(t: Arc<Case>) {
    let rounds = setting("QUIET_ROUNDS", 5);
    let times = rounds_of(&t, rounds, QUIET).await;
    report(&format!("quiet: {rounds} lost leaders, each after {QUIET:?} of silence"), &times);
}

async fn processor(t: &Case) -> f64 {
    replicas(&t.world).await.iter().map(crate::installed::Replica::processor_ms).sum()
}

#[derive(Default)]
struct Times {
    write: Vec<f64>,
    own: Vec<f64>,
    built_in: Vec<f64>,
}

async fn rounds_of(t: &Case, rounds: usize, pause: Duration) -> Times {
    for pod in ["a", "b"] {
        t.pod(hollow(&format!("app-{pod}"), "app")).await;
    }
    t.create(&source("app", &serde_json::json!({}))).await;
    let mut leader = t.until_leader("app-leader", "").await;
    let client = t.admin();
    let mut ours = SliceWatch::start(&client, OURS).await;
    let mut theirs = SliceWatch::start(&client, BUILT_IN).await;
    let mut times = Times::default();
    // One extra round: the first writes open connections.
    for round in 0..=rounds {
        sleep(pause).await;
        ours.drain();
        theirs.drain();
        let next = if leader == "app-a" { "app-b" } else { "app-a" }.to_owned();
        let (began, written) = write_ready(&client, &t.ns, &leader, false).await;
        let own = async {
            loop {
                let seen = ours.next().await;
                if seen.namespace == t.ns && seen.ready == [next.as_str()] {
                    return seen.at;
                }
            }
        };
        let built_in = async {
            loop {
                let seen = theirs.next().await;
                if seen.namespace == t.ns && !seen.ready.contains(&leader) {
                    return seen.at;
                }
            }
        };
        let both = async { futures::join!(own, built_in) };
        let (own, built_in) =
            timeout(Duration::from_secs(20), both).await.expect("both slices change within 20 s");
        if round > 0 {
            times.write.push(ms(written - began));
            times.own.push(since(written, own));
            times.built_in.push(since(written, built_in));
        }
        sleep(Duration::from_millis(50)).await;
        write_ready(&client, &t.ns, &leader, true).await;
        leader = next;
    }
    times
}

/// Negative if the slice arrived before the answer to the write.
fn since(written: Instant, at: Instant) -> f64 {
    if at >= written { ms(at - written) } else { -ms(written - at) }
}

fn report(title: &str, times: &Times) {
    let write = Sample::of(times.write.clone());
    let own = Sample::of(times.own.clone());
    let built_in = Sample::of(times.built_in.clone());
    let line = |name: &str, s: &Sample| {
        row(&[
            &name,
            &n(s.median(), 1),
            &n(s.quantile(0.95), 1),
            &n(s.quantile(0.99), 1),
            &n(s.max(), 1),
            &n(s.median() / built_in.median(), 2),
            &n(s.quantile(0.95) / built_in.quantile(0.95), 2),
        ])
    };
    table(
        &format!("{title}; ms from the answer to the status write until the slice was seen"),
        &["controller", "median", "p95", "p99", "max", "median / built-in", "p95 / built-in"],
        &[
            line("zen-lead", &own),
            line("built-in EndpointSlice controller", &built_in),
            line("(the status write itself)", &write),
        ],
    );
}
