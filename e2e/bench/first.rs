//! First leaders: many sources enabled at once, beside a plain client that makes the same objects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::calls::{self, Call, Calls};
use super::fill::{Fill, Led, WRITERS, annotate, together};
use super::measure::{Sample, between, count, ms, n, ratio, row, setting, table};
use super::plain::{services, slices, template_of};
use super::raw::{self, OURS, SliceWatch};
use super::results::{Shape, draw};
use crate::support::case::Case;
use crate::support::names;

const NAMESPACES: usize = 10;
/// The longest time between two first leaders.
const PATIENCE: Duration = Duration::from_mins(2);

/// Leaders, or what stands for them.
struct Made {
    /// ms from the begin until each was there, in order.
    curve: Vec<f64>,
    /// ms that each took.
    each: Sample,
}

impl Made {
    fn per_second(&self) -> f64 {
        count(self.curve.len()) / self.curve.last().unwrap() * 1000.0
    }
}

/// ZEN_LEAD_BENCH_FIRST sources with a pod each.
pub async fn first(t: Arc<Case>) {
    let size = setting("FIRST", 500);
    let mut fill = Fill::unled(t.world.clone(), "first", true);
    fill.grow(size, 1, NAMESPACES).await;
    fill.until_at_rest().await;
    let mut log = Calls::follow(&t.world.cluster.audit_log);
    let (ours, last) = enable(&t, &fill).await;
    let calls = log.until_quiet().await;
    let plain = make_plain(&t, &fill).await;

    let lists = calls.iter().filter(|c| c.verb == "list" && c.at <= last).count();
    let until_last: Vec<Call> = calls.iter().filter(|call| call.at <= last).cloned().collect();
    let line = |name: &str, made: &Made, lists: f64, calls: f64| {
        row(&[
            &name,
            &made.curve.len(),
            &n(made.curve.last().unwrap() / 1000.0, 2),
            &n(made.per_second(), 1),
            &ratio(made.per_second(), plain.per_second()),
            &n(made.each.median(), 0),
            &n(made.each.quantile(0.99), 0),
            &n(lists / count(size), 2),
            &n(calls / count(size), 2),
        ])
    };
    table(
        &format!(
            "first: {size} sources in {NAMESPACES} namespaces enabled at once ({WRITERS} writers); the \
             plain client makes the same objects, {WRITERS} at the same time"
        ),
        &[
            "who",
            "leaders",
            "s until the last",
            "leaders a second",
            "rate / plain client",
            "ms for each: p50",
            "p99",
            "LISTs a leader",
            "calls a leader",
        ],
        &[
            line("zen-lead", &ours, count(lists), count(until_last.len())),
            line("plain client", &plain, 0.0, 3.0 * count(size)),
        ],
    );
    calls::print("first, until the last leader", &until_last, Some(("leader", size)));
    calls::print("first, until rest", &calls, Some(("leader", size)));
    let points = |made: &Made| {
        made.curve.iter().enumerate().map(|(before, ms)| (*ms, count(before + 1))).collect()
    };
    draw(
        "first",
        &format!("{size} sources enabled at once: first leaders"),
        Shape::Lines {
            across: "ms since the first was enabled".to_owned(),
            up: "leaders".to_owned(),
            lines: vec![
                ("zen-lead".to_owned(), points(&ours)),
                ("plain client".to_owned(), points(&plain)),
            ],
        },
    );
}

/// Enables all sources; each is done when its slice has a ready pod. Also the time of the last, by the
/// clock of the audit log.
async fn enable(t: &Case, fill: &Fill) -> (Made, jiff::Timestamp) {
    let client = t.admin();
    let mut watch = SliceWatch::start(&client, OURS).await;
    let began = Instant::now();
    let write = |(namespace, name): (String, String)| {
        let client = client.clone();
        async move {
            let path = format!("{}/{name}", services(&namespace));
            raw::merge(&client, &path, &annotate(names::ENABLED, "true")).await.unwrap();
            ((namespace, format!("{name}-leader")), Instant::now())
        }
    };
    let enabling = together(fill.sources().into_iter().map(write).collect());
    let leading = async {
        let mut led: HashMap<Led, Instant> = HashMap::new();
        while led.len() < fill.services() {
            let seen = timeout(PATIENCE, watch.next()).await.expect("all sources get a leader");
            if seen.ready.len() == 1 && fill.namespaces().contains(&seen.namespace) {
                led.entry((seen.namespace, seen.service)).or_insert(seen.at);
            }
        }
        led
    };
    let (enabled, led) = futures::join!(enabling, leading);
    let enabled: HashMap<Led, Instant> = enabled.into_iter().collect();
    let each = led.iter().map(|(key, at)| between(enabled[key], *at)).collect();
    let last = calls::clock(*led.values().max().unwrap());
    (made(began, led.into_values(), each), last)
}

/// For each source a Service, its slice and its status, one after the other, by one client.
async fn make_plain(t: &Case, fill: &Fill) -> Made {
    let (namespace, source) = fill.sources().swap_remove(0);
    let template = template_of(&t.admin(), &namespace, &format!("{source}-leader")).await;
    let template = Arc::new(template);
    let mut place = Fill::unled(t.world.clone(), "plain", false);
    place.grow(0, 0, NAMESPACES).await;
    let client = t.world.cluster.admin().await;
    let began = Instant::now();
    let make = |number: usize| {
        let namespace = place.namespaces()[number % NAMESPACES].clone();
        let (client, template) = (client.clone(), template.clone());
        async move {
            let started = Instant::now();
            let name = format!("app-{number}-leader");
            let path = services(&namespace);
            raw::post(&client, &path, &template.service(&name)).await.unwrap();
            let slice = template.slice(&name, &format!("app-{number}-0"));
            raw::post(&client, &slices(&namespace), &slice).await.unwrap();
            let status = format!("{path}/{name}/status");
            raw::merge(&client, &status, &template.mirror()).await.unwrap();
            (started, Instant::now())
        }
    };
    let times = together((0..fill.services()).map(make).collect()).await;
    let each = times.iter().map(|(started, ended)| ms(*ended - *started)).collect();
    made(began, times.into_iter().map(|(_, ended)| ended), each)
}

fn made(began: Instant, there: impl Iterator<Item = Instant>, each: Vec<f64>) -> Made {
    let mut curve: Vec<f64> = there.map(|at| between(began, at)).collect();
    curve.sort_by(f64::total_cmp);
    Made { curve, each: Sample::of(each) }
}
