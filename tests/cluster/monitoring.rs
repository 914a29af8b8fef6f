//! The dashboard and rules with a real Prometheus that scrapes both replicas at work: every query and
//! every rule finds series, and the alerts for the events of this test are seen.
//!
//! With `ZEN_LEAD_RECORDING=FILE` it works for minutes instead of seconds and writes what the
//! dashboard's queries found, from which scripts/dashboard_picture.py draws (make
//! monitoring-picture). tests/monitoring checks when an alert fires.

#[path = "../monitoring/dashboard.rs"]
mod dashboard;
#[path = "../monitoring/rules.rs"]
mod rules;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use kube::api::PostParams;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::case::{Case, refusal, routed};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{annotations, hollow, source, source_set};
use crate::support::product::Product;
use crate::support::prometheus::{self, Prometheus};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::waiting::{check, until, within};

/// How long a recording for the picture lasts.
const RECORDING: Duration = Duration::from_mins(5);
const DEADLINE: Duration = Duration::from_mins(6);

pub fn tests() -> Vec<Test> {
    let deadline = if recording().is_some() { DEADLINE + RECORDING } else { DEADLINE };
    let test = Test::new(module_path!(), "every_query_and_rule_finds_series", every_query);
    vec![test.needs(prometheus::program()).within(deadline)]
}

fn recording() -> Option<PathBuf> {
    std::env::var_os("ZEN_LEAD_RECORDING").map(PathBuf::from)
}

/// How long zen-lead tries an API call.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Sources with three pods each; all are led.
const APPS: [&str; 6] = ["billing", "cart", "mail", "orders", "search", "stock"];
/// This source changes its leader all the time.
const RESTLESS: &str = "cart";
/// This source has no pod.
const EMPTY: &str = "backup";
/// The leader of this source has no port of the requested name.
const PORTLESS: &str = "legacy";

async fn every_query(t: Arc<Case>) {
    let kubeconfig = t.world.dir.join("kubeconfig");
    let (proxy, kubeconfig) = TcpProxy::before(&kubeconfig).await;
    let product = t.world.product.through(&kubeconfig);
    product.ensure_started().await;
    let ports = [("zl-0", product.admin_port(0)), ("zl-1", product.admin_port(1))];
    let server = Prometheus::start(&t.world.dir, &t.world.system, &rules::file(), &ports).await;
    let began = Instant::now();
    let start = now();
    let shop = Shop { t: &t, product: &product, proxy: &proxy };

    shop.open().await;
    if let Some(path) = recording() {
        let mut round = 0;
        while began.elapsed() < RECORDING {
            shop.round(round).await;
            if round == 12 {
                shop.stumble().await;
            }
            round += 1;
            sleep(Duration::from_secs(3)).await;
        }
        record(&server, (start, now()), &path).await;
        return;
    }
    shop.stumble().await;
    for round in 0..8 {
        shop.round(round).await;
    }
    let seen = || (start, now());
    all_queries_find_something(&server, seen).await;
    all_rules_are_sound(&server, seen).await;
    alerts_are_seen(&server, &t.ns).await;
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64().floor()
}

/// The rate interval that Grafana uses for a scrape every second; no longer time is shown.
fn filled(query: &dashboard::Query) -> String {
    dashboard::filled_in(&query.expr, "4s", "10m")
}

async fn all_queries_find_something(server: &Prometheus, seen: impl Fn() -> (f64, f64)) {
    let queries = dashboard::queries();
    assert!(queries.len() > 50, "the dashboard is read: {} queries", queries.len());
    until("every query of the dashboard finds a series", || async {
        let mut empty = Vec::new();
        for query in &queries {
            let expr = filled(query);
            let found = if query.instant {
                server.now(&expr).await?
            } else {
                server.range(&expr, seen(), 1.0).await?
            };
            if found.is_empty() {
                empty.push(format!("{} {}: {expr}", query.title, query.letter));
            }
        }
        check(empty.is_empty(), format!("\n{}\nfound nothing", empty.join("\n")))
    })
    .await;
    println!("{} queries of the dashboard find series", queries.len());
}

async fn all_rules_are_sound(server: &Prometheus, seen: impl Fn() -> (f64, f64)) {
    let rules = rules::rules();
    until("every rule is evaluated, every recorded series is there", || async {
        let states = server.rules().await?;
        check(states.len() == rules.len(), format!("{} rules are loaded", states.len()))?;
        for state in &states {
            check(state["health"] == "ok", format!("{}: {state}", state["name"]))?;
        }
        for rule in rules.iter().filter(|r| !r.alert) {
            // The recorded series, and the result of the expression.
            for expr in [&rule.name, &rule.expr] {
                let found = server.range(expr, seen(), 1.0).await?;
                check(!found.is_empty(), format!("{} gives nothing: {expr}", rule.name))?;
            }
        }
        // A comparison finds nothing without a problem; its left side must find series.
        for rule in rules.iter().filter(|r| r.alert && !r.expr.starts_with("absent(")) {
            let watched = compared(&rule.expr);
            let rare = ["ForeignEndpoints", "limit_refusals", "rejected_bodies"];
            if rare.iter().any(|r| watched.contains(r)) {
                continue;
            }
            let found = server.range(watched, seen(), 1.0).await?;
            check(!found.is_empty(), format!("{} watches nothing: {watched}", rule.name))?;
        }
        Ok::<_, String>(())
    })
    .await;
    let alerts = rules.iter().filter(|r| r.alert).count();
    println!("{} recording rules give series, {alerts} alerts are evaluated", rules.len() - alerts);
}

/// What an alert compares with its threshold: all before the first comparison outside of braces.
fn compared(expr: &str) -> &str {
    let mut depth = 0;
    for (at, c) in expr.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            '<' | '>' | '=' if depth == 0 => return &expr[..at],
            _ => {}
        }
    }
    panic!("an alert without a threshold: {expr}");
}

/// The alert of the restless Service fires, the one of the Service without pods is pending, and no other
/// Service has either.
async fn alerts_are_seen(server: &Prometheus, ns: &str) {
    let services = |alert: &'static str, state: &'static str| async move {
        let expr =
            format!("ALERTS{{alertname=\"{alert}\",alertstate=~\"{state}\",namespace=\"{ns}\"}}");
        let found = server.now(&expr).await?;
        let names = found.iter().map(|s| s["metric"]["service"].as_str().unwrap().to_owned());
        Ok::<BTreeSet<String>, String>(names.collect())
    };
    // On a busy machine others may have switched as often, but not a Service without a leader.
    until("the alert of the restless Service fires", || async {
        let flaps = services("ZenLeadLeaderFlaps", "firing").await?;
        let led = flaps.iter().all(|s| APPS.contains(&s.as_str()));
        check(led && flaps.contains(RESTLESS), format!("{flaps:?}"))
    })
    .await;
    let without = BTreeSet::from([EMPTY.to_owned(), PORTLESS.to_owned()]);
    within(
        Duration::from_secs(90),
        "the alert of a Service without a leader fires after a minute",
        || async {
            let leaderless = services("ZenLeadNobodyLeads", "firing").await?;
            check(leaderless == without, format!("{leaderless:?}"))
        },
    )
    .await;
    let firing = server.now("ALERTS{alertstate=\"firing\"}").await.unwrap();
    let mut firing: BTreeSet<&str> =
        firing.iter().map(|s| s["metric"]["alertname"].as_str().unwrap()).collect();
    // The failovers during which the API server was out of reach were slow indeed.
    firing.remove("ZenLeadFailoverSlow");
    let expected = BTreeSet::from(["ZenLeadLeaderFlaps", "ZenLeadNobodyLeads"]);
    assert_eq!(firing, expected, "no other alert fires");
    println!("firing: {firing:?}");
}

/// A few apps and their leaders, and what happens to them.
struct Shop<'a> {
    t: &'a Case,
    product: &'a Product,
    proxy: &'a TcpProxy,
}

impl Shop<'_> {
    async fn open(&self) {
        let t = self.t;
        for app in APPS {
            let pods = [0, 1, 2].map(|n| format!("{app}-{n}"));
            t.ready_pods(app, &pods.each_ref().map(String::as_str)).await;
            t.create(&source(app, &json!({}))).await;
        }
        t.create(&source(EMPTY, &json!({}))).await;
        t.ready_pods(PORTLESS, &["legacy-0"]).await;
        let named =
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "none"}]}});
        t.create(&source(PORTLESS, &named)).await;
        for app in APPS {
            self.leader(app, "").await;
        }
        t.until_condition("backup-leader", "False", "NoPodsFound").await;
        t.until_condition("legacy-leader", "False", "PortResolutionFailed").await;
    }

    /// The pod that leads an app and is another than this.
    async fn leader(&self, app: &str, other_than: &str) -> String {
        let leader = format!("{app}-leader");
        until(format!("{app} has a leader other than {other_than:?}"), || async {
            let slice = self.t.slice(&leader, "IPv4").await?;
            let pods: Vec<String> =
                routed(&slice).into_iter().filter(|r| r.ready).map(|r| r.pod).collect();
            check(pods.len() == 1 && pods[0] != other_than, format!("{pods:?}"))?;
            Ok::<_, String>(pods.into_iter().next().unwrap())
        })
        .await
    }

    /// One leader is lost in one of several ways. The leader of the restless app stops being ready and
    /// recovers. Then invalid and valid changes are written.
    async fn round(&self, round: usize) {
        let t = self.t;
        let old = self.leader(RESTLESS, "").await;
        t.set_ready(&old, false).await;
        self.leader(RESTLESS, &old).await;
        t.set_ready(&old, true).await;

        let app = calm().nth(round % calm().count()).unwrap();
        let old = self.leader(app, "").await;
        if round.is_multiple_of(2) {
            t.vanish(&old).await;
        } else {
            t.terminate(&old).await;
        }
        self.leader(app, &old).await;
        if !round.is_multiple_of(2) {
            t.vanish(&old).await;
        }
        t.pod(hollow(&format!("{app}-r{round}"), app)).await;

        let value = if round.is_multiple_of(2) { "true" } else { "false" };
        t.patch_service(app, &annotations(&[(names::STICKY, value)])).await;
        let mistakes: [&[(&str, &str)]; 3] = [
            &[(names::STICKY, "maybe")],
            &[(names::MIN_READY, "5 minutes"), (names::FAILOVER_DELAY, "2h")],
            &[("zen-lead.io/stiky", "true")],
        ];
        let wrong = source_set("wrong", mistakes[round % mistakes.len()]);
        let refused = t.user_services().create(&PostParams::default(), &wrong).await;
        assert_eq!(refusal(refused).code, 422);
        self.scan().await;
    }

    /// What a port scanner does to the webhook's port.
    async fn scan(&self) {
        let address = ("127.0.0.1", self.product.webhook_port(0));
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
    }

    /// Connections to the API server break while leaders change: first for a moment, so that retried
    /// calls succeed, then for longer than any call is retried.
    async fn stumble(&self) {
        let tolerable = "zen_lead_retry_success_after_retry_total{";
        self.change_leaders_until(tolerable, || async { self.proxy.cut() }).await;
        let hopeless = "zen_lead_reconciliation_errors_total{";
        let closed_for_a_while = || async {
            self.proxy.close(true);
            sleep(CALL_DEADLINE + Duration::from_secs(1)).await;
            self.proxy.close(false);
        };
        self.change_leaders_until(hopeless, closed_for_a_while).await;
    }

    /// All calm apps lose their leaders, then `then` runs, until a replica has a series of this name.
    async fn change_leaders_until<F: Future<Output = ()>>(
        &self,
        metric: &str,
        then: impl Fn() -> F,
    ) {
        within(Duration::from_mins(1), format!("there is a {metric}..."), || async {
            let mut old = Vec::new();
            for app in calm() {
                old.push((app, self.leader(app, "").await));
            }
            join_all(old.iter().map(|(_, pod)| self.t.set_ready(pod, false))).await;
            then().await;
            for (app, pod) in old {
                self.leader(app, &pod).await;
                self.t.set_ready(&pod, true).await;
            }
            for replica in [0, 1] {
                if self.product.metrics(replica).await?.contains(metric) {
                    return Ok(());
                }
            }
            Err("nothing is counted".to_owned())
        })
        .await;
    }
}

fn calm() -> impl Iterator<Item = &'static str> {
    APPS.into_iter().filter(|a| *a != RESTLESS)
}

/// Writes what every query of the dashboard found over the time.
async fn record(server: &Prometheus, (start, end): (f64, f64), path: &PathBuf) {
    let step = 2.0;
    let range = format!("{}s", end - start);
    let mut queries = Vec::new();
    for query in dashboard::queries() {
        let expr = dashboard::filled_in(&query.expr, "15s", &range);
        let series = if query.instant {
            server.now(&expr).await.unwrap()
        } else {
            server.range(&expr, (start, end), step).await.unwrap()
        };
        queries.push(json!({"panel": query.panel, "letter": query.letter, "series": series}));
    }
    let text = json!({"start": start, "end": end, "step": step, "queries": queries});
    std::fs::write(path, serde_json::to_vec(&text).unwrap()).unwrap();
    println!("recorded {} s into {}", end - start, path.display());
}
