//! How soon a slice follows a pod's status, in the same rounds for zen-lead, for the cluster's own EndpointSlice
//! controller, and for clients that decide nothing. Pods are hollow, so that no kubelet or probe is part of
//! the times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::calls::{self, Calls};
use super::copies::{PLAIN, Template};
use super::measure::{Sample, between, count, ms, n, ratio, row, setting, table};
use super::plain::{PlainSlice, Reflex, services, template_of};
use super::raw::{self, BUILT_IN, OURS, SliceWatch, write_ready};
use super::results::{Shape, draw};
use crate::installed::replicas;
use crate::support::case::Case;
use crate::support::objects::{hollow, source};

/// The pause between two changes: all controllers are at rest again, and the built-in one stays below its
/// limit of 20 calls a second.
const PAUSE: Duration = Duration::from_millis(200);

/// Leaders lost one after the other (ZEN_LEAD_BENCH_ROUNDS).
pub async fn failover(t: Arc<Case>) {
    let rounds = setting("ROUNDS", 200);
    let before = processor(&t).await;
    let times = rounds_of(&t, "failover", rounds, PAUSE).await;
    let each = (processor(&t).await - before) / count(2 * rounds);
    report("failover", &format!("{rounds} lost leaders, one every 0.2 s"), &times);
    println!("processor time of both replicas together: {each:.2} ms for each change of a pod");
}

/// The same after a silence of ZEN_LEAD_BENCH_QUIET_SECONDS (ZEN_LEAD_BENCH_QUIET_ROUNDS). The default is
/// longer than the API server (90 s) keeps a connection without requests.
pub async fn quiet(t: Arc<Case>) {
    let rounds = setting("QUIET_ROUNDS", 5);
    let silence = Duration::from_secs(setting("QUIET_SECONDS", 95));
    let times = rounds_of(&t, "quiet", rounds, silence).await;
    report("quiet", &format!("{rounds} lost leaders, each after {silence:?} of silence"), &times);
}

async fn processor(t: &Case) -> f64 {
    replicas(&t.world).await.iter().map(crate::installed::Replica::processor_ms).sum()
}

#[derive(Default)]
struct Times {
    write: Vec<f64>,
    own: Vec<f64>,
    built_in: Vec<f64>,
    reflex: Vec<f64>,
    bare: Vec<f64>,
}

async fn rounds_of(t: &Case, name: &str, rounds: usize, pause: Duration) -> Times {
    for pod in ["a", "b"] {
        t.pod(hollow(&format!("app-{pod}"), "app")).await;
    }
    t.create(&source("app", &serde_json::json!({}))).await;
    let mut leader = t.until_leader("app-leader", "").await;
    let client = t.admin();
    let template = template_of(&client, &t.ns, "app-leader").await;
    let reflex = Reflex::start(plain(t, &template, "reflex", &leader).await, &t.ns).await;
    let mut bare = plain(t, &template, "bare", &leader).await;
    let mut ours = SliceWatch::start(&client, OURS).await;
    let mut theirs = SliceWatch::start(&client, BUILT_IN).await;
    let mut plains = SliceWatch::start(&client, PLAIN).await;
    let mut calls = Calls::follow(&t.world.cluster.audit_log);
    let mut times = Times::default();
    // One extra round: the first writes open connections.
    for round in 0..=rounds {
        let next = if leader == "app-a" { "app-b" } else { "app-a" }.to_owned();
        reflex.prepare(&leader, &next).await;
        sleep(pause).await;
        for watch in [&mut ours, &mut theirs, &mut plains] {
            watch.drain();
        }
        let (began, written) = write_ready(&client, &t.ns, &leader, false).await;
        let own = until(&mut ours, |seen| seen.namespace == t.ns && seen.ready == [next.as_str()]);
        let built_in =
            until(&mut theirs, |seen| seen.namespace == t.ns && !seen.ready.contains(&leader));
        let reflexes = until(&mut plains, |s| s.service == "reflex" && s.ready == [next.as_str()]);
        let (own, built_in, reflexes) = futures::join!(own, built_in, reflexes);
        // All are at rest, and this client's connection has been as silent as those of the others.
        sleep(Duration::from_millis(50)).await;
        let sent = Instant::now();
        bare.put(&next).await;
        let put = until(&mut plains, |s| s.service == "bare" && s.ready == [next.as_str()]).await;
        if round > 0 {
            times.write.push(ms(written - began));
            times.own.push(between(written, own));
            times.built_in.push(between(written, built_in));
            times.reflex.push(between(written, reflexes));
            times.bare.push(between(sent, put));
        }
        sleep(Duration::from_millis(50)).await;
        write_ready(&client, &t.ns, &leader, true).await;
        leader = next;
    }
    calls::print(name, &calls.until_quiet().await, Some(("lost leader", rounds + 1)));
    times
}

/// A copy of the leader Service and of its slice, and a client of its own that writes it.
async fn plain(t: &Case, template: &Template, name: &str, pod: &str) -> PlainSlice {
    raw::post(&t.admin(), &services(&t.ns), &template.service(name)).await.unwrap();
    let client = t.world.cluster.admin().await;
    PlainSlice::create(client, &t.ns, &template.slice(name, pod)).await
}

/// The arrival of the first version that is meant.
async fn until(watch: &mut SliceWatch, is_it: impl Fn(&raw::Seen) -> bool) -> Instant {
    let seen = async {
        loop {
            let seen = watch.next().await;
            if is_it(&seen) {
                return seen.at;
            }
        }
    };
    timeout(Duration::from_secs(20), seen).await.expect("each slice changes within 20 s")
}

fn report(name: &str, what: &str, times: &Times) {
    let samples = [
        ("zen-lead", &times.own),
        ("built-in EndpointSlice controller", &times.built_in),
        ("reflex: a client that PUTs a prepared slice on the pod's event", &times.reflex),
        ("bare PUT: from sending it until it was seen", &times.bare),
        ("(the status write itself)", &times.write),
    ]
    .map(|(name, all)| (name, Sample::of(all.clone())));
    let [_, (_, built_in), (_, reflex), ..] = &samples;
    let rows = samples.iter().map(|(name, s)| {
        let mut cells = row(&[name]);
        cells.extend([0.5, 0.95, 0.99, 1.0].map(|share| n(s.quantile(share), 1)));
        for other in [built_in, reflex] {
            cells.extend([0.5, 0.95].map(|share| ratio(s.quantile(share), other.quantile(share))));
        }
        cells
    });
    table(
        &format!("{name}: {what}; ms from the answer to the status write until the slice was seen"),
        &[
            "who",
            "median",
            "p95",
            "p99",
            "max",
            "median / built-in",
            "p95 / built-in",
            "median / reflex",
            "p95 / reflex",
        ],
        &rows.collect::<Vec<_>>(),
    );
    let values =
        samples.iter().map(|(name, s)| ((*name).to_owned(), vec![s.median(), s.quantile(0.95)]));
    draw(
        name,
        &format!("{name}: {what}; from the status write to the slice"),
        Shape::Bars {
            unit: "ms".to_owned(),
            parts: vec!["median".to_owned(), "p95".to_owned()],
            values: values.collect(),
        },
    );
}
