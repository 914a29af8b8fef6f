//! Many leaders lost at once: when the last one is replaced, with different numbers of workers, beside the
//! built-in controller and beside the `floor`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::calls::{self, Call, Calls};
use super::fill::{Fill, Led, PATIENCE_BUILT_IN, WRITERS};
use super::floor::Floor;
use super::installed::{Replica, restart_with};
use super::lost::{Burst, back, lose};
use super::measure::{Sample, between, count, ms, n, ratio, row, setting, settings, table};
use super::plain::template_of;
use super::raw::{BUILT_IN, OURS, SliceWatch};
use super::results::{Shape, draw};
use crate::support::case::Case;

const NAMESPACES: usize = 10;

/// What a round measured.
struct Round {
    ours: Burst,
    built_in: HashMap<Led, Instant>,
    floor: Burst,
    conflicts: f64,
    processor_ms: f64,
    calls: Vec<Call>,
}

/// ZEN_LEAD_BENCH_BURST leaders, for each of ZEN_LEAD_BENCH_WORKERS, ZEN_LEAD_BENCH_BURST_ROUNDS
/// times.
pub async fn burst(t: Arc<Case>) {
    let size: usize = setting("BURST", 500);
    let rounds = setting("BURST_ROUNDS", 2);
    let mut fill = Fill::new(t.world.clone(), "burst");
    fill.grow(size, 3, NAMESPACES).await;
    let (namespace, source) = fill.sources().swap_remove(0);
    let template = template_of(&t.admin(), &namespace, &format!("{source}-leader")).await;
    let floor = Floor::make(&t, &template, size, NAMESPACES).await;
    let (mut times, mut beside, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for workers in settings("WORKERS", &[1, 4, 16, 64]) {
        let replicas = restart_with(&t.world, &[format!("--workers={workers}")]).await;
        for _ in 0..rounds {
            let round = once(&t, &fill, &floor, &replicas).await;
            times.push(row_of_times(workers, &round));
            beside.push(row_beside(workers, &round));
            picture(workers, size, &round);
            all.extend(round.calls);
        }
    }
    restart_with(&t.world, &[]).await;
    let burst = format!("{size} leaders turn NotReady at once ({WRITERS} writers)");
    table(
        &format!("burst: {burst}; ms from each pod's write until its slice was seen"),
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
        &times,
    );
    table(
        &format!(
            "burst beside the floor: {burst}, then the same by plain clients ({WRITERS} for statuses, \
             {WRITERS} for slices); ms"
        ),
        &[
            "workers",
            "start to last",
            "floor: start to last",
            "start to last / floor",
            "status writes p50",
            "status writes p99",
            "p99 / status writes p99",
            "floor: status writes p99",
            "status patches before the last switch %",
            "Events before it %",
            "both, of all writes before it %",
        ],
        &beside,
    );
    calls::print("burst", &all, Some(("lost leader", size * beside.len())));
}

async fn once(t: &Case, fill: &Fill, floor: &Floor, replicas: &[Replica]) -> Round {
    fill.until_at_rest().await;
    let leaders = fill.until_led().await;
    let client = t.admin();
    let mut slices = SliceWatch::start(&client, OURS).await;
    let mut theirs = SliceWatch::start(&client, BUILT_IN).await;
    let mut calls = Calls::follow(&t.world.cluster.audit_log);
    let processor = || replicas.iter().map(Replica::processor_ms).sum::<f64>();
    let (used, refused) = (processor(), conflicts(replicas).await);
    let ours = lose(&client, &leaders, &mut slices, None).await;
    let processor_ms = processor() - used;

    let patience = Instant::now();
    let mut built_in: HashMap<Led, Instant> = HashMap::new();
    while built_in.len() < leaders.len() && patience.elapsed() < PATIENCE_BUILT_IN {
        let Ok(seen) = timeout(Duration::from_secs(10), theirs.next()).await else { break };
        let key = (seen.namespace, format!("{}-leader", seen.service));
        if leaders.get(&key).is_some_and(|old| !seen.ready.contains(old)) {
            built_in.entry(key).or_insert(seen.at);
        }
    }
    let calls = calls.until_quiet().await;
    let conflicts = conflicts(replicas).await - refused;
    back(&client, &leaders).await;
    fill.until_at_rest().await;
    let floor = floor.burst(t).await;
    Round { ours, built_in, floor, conflicts, processor_ms, calls }
}

fn row_of_times(workers: usize, round: &Round) -> Vec<String> {
    let (own, end) = (round.ours.delays(), round.ours.end());
    let built_in: Sample = round.ours.delays_of(&round.built_in);
    let last = round.built_in.values().max().map_or(f64::NAN, |at| between(end, *at));
    row(&[
        &workers,
        &n(ms(end - round.ours.began), 0),
        &own.len(),
        &n(own.median(), 0),
        &n(own.quantile(0.99), 0),
        &n(own.max(), 0),
        &n(between(end, round.ours.last()), 0),
        &n(round.conflicts, 0),
        &n(round.processor_ms / count(own.len()), 1),
        &built_in.len(),
        &n(built_in.median(), 0),
        &n(last, 0),
    ])
}

fn row_beside(workers: usize, round: &Round) -> Vec<String> {
    let (ours, floor) = (&round.ours, &round.floor);
    let (writes, late) = (ours.writes(), ours.delays().quantile(0.99));
    let last = calls::clock(ours.last());
    let before = |kind: fn(&Call) -> bool| {
        let all = round.calls.iter().filter(|call| kind(call));
        let (before, all): (Vec<_>, Vec<_>) = all.partition(|call| call.at <= last);
        (count(before.len()), count(before.len() + all.len()))
    };
    let percent = |(part, all): (f64, f64)| n(100.0 * part / all, 0);
    let (mirrors, events) = (before(Call::mirrors), before(Call::writes_event));
    let writes_before = before(Call::writes).0;
    row(&[
        &workers,
        &n(ours.start_to_last(), 0),
        &n(floor.start_to_last(), 0),
        &ratio(ours.start_to_last(), floor.start_to_last()),
        &n(writes.median(), 0),
        &n(writes.quantile(0.99), 0),
        &ratio(late, writes.quantile(0.99)),
        &n(floor.writes().quantile(0.99), 0),
        &percent(mirrors),
        &percent(events),
        &percent((mirrors.0 + events.0, writes_before)),
    ])
}

/// Slices moved over time. The built-in controller's line ends where zen-lead is long done.
fn picture(workers: usize, size: usize, round: &Round) {
    let (ours, floor) = (&round.ours, &round.floor);
    let end = 1.5 * ours.start_to_last().max(floor.start_to_last());
    let mut built_in = ours.curve_of(round.built_in.values());
    built_in.retain(|(ms, _)| *ms <= end);
    let lines = [
        ("zen-lead", ours.curve()),
        ("floor: plain clients", floor.curve()),
        ("built-in", built_in),
    ];
    draw(
        &format!("burst-{workers}"),
        &format!(
            "{size} leaders lost at once, {workers} workers: slices that route to another pod"
        ),
        Shape::Lines {
            across: "ms since the first status write".to_owned(),
            up: "slices".to_owned(),
            lines: lines.map(|(name, points)| (name.to_owned(), points)).into(),
        },
    );
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
