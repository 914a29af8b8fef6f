//! The time that admission adds to a write: through the real API server, and by direct calls.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::fill::annotate;
use super::installed::replicas;
use super::measure::{Sample, ms, n, row, setting, settings, table};
use super::raw;
use crate::support::case::Case;
use crate::support::names;
use crate::support::objects::{source, source_json};

/// The pause between two rounds, so that the consequences of a write are over.
const PAUSE: Duration = Duration::from_millis(40);

/// One kind of write.
struct Arm {
    what: &'static str,
    path: String,
    key: &'static str,
    times: Vec<f64>,
}

/// ZEN_LEAD_BENCH_WRITES rounds, each with one write of every kind; one connection that is kept.
pub async fn admission(t: Arc<Case>) {
    let rounds = setting("WRITES", 500);
    t.create(&source("enabled", &json!({}))).await;
    t.create(&source("plain", &json!({"metadata": {"annotations": null}}))).await;
    let exempt = format!("bench-{}", t.world.run);
    let system = "/api/v1/namespaces/kube-system/services";
    let object = source_json(&exempt, &json!({"metadata": {"annotations": null}}));
    raw::post(&t.admin(), system, &object).await.unwrap();

    let own = format!("/api/v1/namespaces/{}/services", t.ns);
    let arms = |query: &str| {
        let arm = |what, path: String, key| Arm { what, path, key, times: Vec::new() };
        let (other, ours) = ("example.com/n", names::MIN_READY);
        vec![
            arm("namespace without the webhooks", format!("{system}/{exempt}{query}"), other),
            arm("Service without our keys", format!("{own}/plain{query}"), other),
            arm("enabled Service, another key", format!("{own}/enabled{query}"), other),
            arm("enabled Service, a key of ours", format!("{own}/enabled{query}"), ours),
        ]
    };
    for (query, how) in [("?dryRun=All", " (dry run: all but etcd)"), ("", "")] {
        let mut arms = arms(query);
        let before = reviews(&t).await;
        write(&t, rounds, &mut arms).await;
        let asked = reviews(&t).await - before;
        print_table(how, rounds, asked, arms);
    }
    // No replica runs: writes without our keys must not be slower.
    t.world.product.scale(0).await;
    let mut arms = arms("");
    arms.pop();
    write(&t, rounds, &mut arms).await;
    print_table(" (every process of zen-lead is dead)", rounds, 0.0, arms);
    t.world.product.scale(2).await;
    t.world.product.until_running().await;
    raw::delete(&t.admin(), &format!("{system}/{exempt}"), &serde_json::Value::Null).await.unwrap();
}

async fn write(t: &Case, rounds: usize, arms: &mut [Arm]) {
    for round in 0..rounds + 5 {
        let places = arms.len();
        // Another kind begins each time: no kind always follows the pause.
        for place in 0..places {
            let arm = &mut arms[(place + round) % places];
            let value = format!("{}s", 1 + round % 2);
            let body = annotate(arm.key, &value);
            let began = Instant::now();
            raw::merge(&t.admin(), &arm.path, &body).await.unwrap();
            if round >= 5 {
                arm.times.push(ms(began.elapsed()));
            }
        }
        sleep(PAUSE).await;
    }
}

fn print_table(how: &str, rounds: usize, asked: f64, arms: Vec<Arm>) {
    let samples: Vec<_> = arms.into_iter().map(|arm| (arm.what, Sample::of(arm.times))).collect();
    let plain = &samples[1].1;
    let rows = samples.iter().map(|(what, s)| {
        row(&[
            what,
            &n(s.median(), 2),
            &n(s.quantile(0.99), 2),
            &n(s.median() - plain.median(), 2),
            &n(s.quantile(0.99) - plain.quantile(0.99), 2),
            &n(s.median() / plain.median(), 2),
        ])
    });
    table(
        &format!(
            "admission: {rounds} writes of each kind{how}, ms; the webhooks were asked {asked} times"
        ),
        &["write", "p50", "p99", "p50 more", "p99 more", "p50 / without our keys"],
        &rows.collect::<Vec<_>>(),
    );
}

/// The reviews that all replicas have answered so far.
async fn reviews(t: &Case) -> f64 {
    let mut sum = 0.0;
    for replica in replicas(&t.world).await {
        let text = replica.metrics().await;
        let lines = text.lines().filter(|l| l.starts_with("zen_lead_webhook_requests_total{"));
        sum += lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

/// Directly to one replica's webhook over TLS, at ZEN_LEAD_BENCH_RATES reviews a second.
pub async fn reviews_at_rates(t: Arc<Case>) {
    let seconds: u32 = setting("REVIEW_SECONDS", 10);
    let program = std::env::var("REVIEW_LOAD").unwrap();
    let body = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reviews/update-add-key.json");
    let mut rows = Vec::new();
    for rate in settings("RATES", &[500_u32, 1000, 2000, 5000]) {
        let replica = replicas(&t.world).await.remove(0);
        let used = replica.processor_ms();
        let before = Reviews::read(&replica.metrics().await);
        let mut command = std::process::Command::new(&program);
        command.args(["-url", &format!("https://{}:9443/validate?timeout=1s", replica.address)]);
        command.args(["-body", body, "-rate", &rate.to_string()]);
        command.args(["-seconds", &seconds.to_string()]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let used = replica.processor_ms() - used;
        let after = Reviews::read(&replica.metrics().await);
        let number = |key: &str| said[key].as_f64().unwrap();
        let counted = after.count - before.count;
        assert!(counted >= number("sent"), "the webhook counted {counted} reviews: {said}");
        rows.push(row(&[
            &rate,
            &n(number("sent") / number("seconds"), 0),
            &number("failed"),
            &n(number("p50_us"), 0),
            &n(number("p99_us"), 0),
            &n((after.seconds - before.seconds) / (after.count - before.count) * 1e6, 0),
            &after.bound(&before, 0.99),
            &n(used / number("sent") * 1000.0, 0),
        ]));
    }
    table(
        &format!(
            "reviews: {seconds} s each, loopback TLS, kept connections, load from this machine"
        ),
        &[
            "wanted/s",
            "sent/s",
            "failed",
            "client p50 µs",
            "client p99 µs",
            "in the process, mean µs",
            "in the process, 99 % within",
            "processor µs each",
        ],
        &rows,
    );
}

/// The histogram of the webhook's own durations for /validate.
struct Reviews {
    count: f64,
    seconds: f64,
    buckets: Vec<(String, f64)>,
}

impl Reviews {
    fn read(text: &str) -> Self {
        let name = "zen_lead_webhook_duration_seconds";
        let of = |kind: &str| format!("{name}_{kind}{{path=\"validate\"");
        let one = |kind: &str| {
            let line = text.lines().find(|l| l.starts_with(&of(kind)));
            line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
        };
        let buckets = text.lines().filter(|l| l.starts_with(&of("bucket"))).filter_map(|l| {
            let le = l.split("le=\"").nth(1)?.split('"').next()?;
            Some((le.to_owned(), l.rsplit(' ').next()?.parse().ok()?))
        });
        Self { count: one("count"), seconds: one("sum"), buckets: buckets.collect() }
    }

    /// The smallest bucket that holds this share of what came since `before`.
    fn bound(&self, before: &Self, share: f64) -> String {
        let wanted = share * (self.count - before.count);
        let earlier = |le: &str| before.buckets.iter().find(|b| b.0 == le).map_or(0.0, |b| b.1);
        let bucket = self.buckets.iter().find(|(le, n)| n - earlier(le) >= wanted);
        let Some((le, _)) = bucket else { return "?".to_owned() };
        le.parse::<f64>().map_or_else(|_| le.clone(), |s| format!("{:.0} µs", s * 1e6))
    }
}
