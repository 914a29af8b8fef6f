//! Stability, counted in the audit log of the real API server: the number of writes of a switch; and that
//! soon after the last disturbance the state is right and nothing is written, in every state that a
//! Service can have.
//!
//! `ZEN_LEAD_REST_SECONDS` sets how long the rest is watched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::case::{Case, Routed};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{annotations, foreign_slice, hollow, source, source_set};
use crate::support::waiting::{check, until};

/// How long nothing may be written.
const REST: u64 = 20;
/// The time after the last disturbance until all its consequences are written.
const CALM: Duration = Duration::from_secs(5);
/// Longer than the other replica waits before it takes over unfinished work.
const MOMENT: Duration = Duration::from_secs(2);
/// The number of switches that are counted.
const SWITCHES: usize = 4;

pub fn tests() -> Vec<Test> {
    let switch = Test::new(
        module_path!(),
        "a_switch_costs_at_most_three_writes",
        a_switch_costs_at_most_three_writes,
    );
    let rested = Test::new(
        module_path!(),
        "all_kinds_of_states_come_to_rest_and_then_nothing_is_written",
        all_kinds_of_states_come_to_rest_and_then_nothing_is_written,
    );
    let deadline = Duration::from_secs(240 + rest());
    vec![switch.within(deadline), rested.within(deadline)]
}

fn rest() -> u64 {
    std::env::var("ZEN_LEAD_REST_SECONDS").map_or(REST, |n| n.parse().unwrap())
}

/// A write for people: verb, resource, name and answer.
fn line(write: &Value) -> String {
    let at = &write["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let below = at["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
    let (verb, resource) = (text(&write["verb"]), text(&at["resource"]));
    let (namespace, name) = (text(&at["namespace"]), text(&at["name"]));
    let code = &write["responseStatus"]["code"];
    format!("{verb} {resource}{below} {namespace}/{name}: {code}")
}

/// The writes since this number of writes that took effect.
fn since(t: &Case, before: usize) -> Vec<Value> {
    let mut writes = t.world.writes(&t.ns).split_off(before);
    writes.retain(|w| w["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300));
    writes
}

/// Waits until nothing has been written for a moment, and says how many writes there are.
async fn settled(t: &Case) -> usize {
    let last = std::sync::Mutex::new((0, Instant::now()));
    until("nothing is written for a moment", || {
        let now = t.world.writes(&t.ns).len();
        let mut last = last.lock().unwrap();
        if last.0 != now {
            *last = (now, Instant::now());
        }
        let quiet = last.1.elapsed();
        async move { check(quiet > MOMENT, "writes go on").map(|()| now) }
    })
    .await
}

/// Makes the leaders fail in turn, and returns the most writes of one switch.
async fn most_writes(t: &Case, leader: &str, families: &[&str]) -> (usize, Vec<String>) {
    let (mut most, mut shown) = (0, Vec::new());
    for n in 0..SWITCHES {
        let (down, up) = [("a", "b"), ("b", "a")][n % 2];
        let before = settled(t).await;
        let events_before = t.events(leader, "LeaderChanged").await.len();
        t.set_ready(down, false).await;
        for family in families {
            t.until_family(leader, family, &[Routed::ready(up)]).await;
        }
        t.until_message(leader, &format!("{up} leads; {down}: not Ready")).await;
        t.until_reported(leader, events_before + 1).await;
        settled(t).await;
        let writes = since(t, before);
        let events = writes.iter().filter(|w| w["objectRef"]["resource"] == "events").count();
        assert_eq!(events, 1, "each switch has one Event: {writes:#?}");
        if writes.len() > most {
            (most, shown) = (writes.len(), writes.iter().map(line).collect());
        }
        t.set_ready(down, true).await;
        t.until_message(leader, &format!("{up} leads; {down}: standby")).await;
    }
    (most, shown)
}

async fn a_switch_costs_at_most_three_writes(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    for name in ["a", "b"] {
        t.pod(hollow(name, "web").dual()).await;
    }
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_message("web-leader", "a leads; b: standby").await;
    t.until_reported("web-leader", 1).await;
    let (most, shown) = most_writes(&t, "web-leader", &["IPv4"]).await;
    println!("most writes of {SWITCHES} switches: {most} {shown:?}");
    assert!(most <= 3, "slice, mirror and Event, and nothing else: {shown:#?}");

    // The second family has a slice of its own.
    let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    t.patch_service("web", &dual).await;
    t.until_family("web-leader", "IPv6", &[Routed::ready("a")]).await;
    let (most, shown) = most_writes(&t, "web-leader", &["IPv4", "IPv6"]).await;
    println!("most writes of {SWITCHES} switches of two families: {most} {shown:?}");
    assert!(most <= 4, "two slices, mirror and Event, and nothing else: {shown:#?}");
}

/// Services in every lasting state, in a namespace that admission sees.
async fn reviewed(t: &Case) -> BTreeMap<&'static str, &'static str> {
    for name in ["a", "b"] {
        t.pod(hollow(name, "web").dual()).await;
    }
    t.pod(hollow("n", "idle").not_ready()).await;
    t.pod(hollow("h", "held")).await;
    t.pod(hollow("h2", "held")).await;
    t.pod(hollow("x", "ends")).await;
    let of = |app: &str| json!({"spec": {"selector": {"app": app}}});
    let mixed = |mut one: Value, other: &Value| {
        json_patch::merge(&mut one, other);
        one
    };
    let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let named = json!({"spec": {"ports": [{"name": "g", "port": 90, "targetPort": "grpc"}]}});
    let node_port = mixed(
        annotations(&[(names::LEADER_TYPE, "mirror")]),
        &json!({"spec": {"type": "NodePort"}}),
    );
    let set = |key, value| annotations(&[(key, value)]);
    for (name, app, more) in [
        ("web", "web", json!({})),
        ("dual", "web", dual),
        ("fickle", "web", set(names::STICKY, "false")),
        ("headless", "web", json!({"spec": {"clusterIP": "None"}})),
        ("mirror", "web", node_port),
        ("ports", "web", named),
        ("timed", "web", mixed(set(names::MIN_READY, "1s"), &set(names::FAILOVER_DELAY, "1s"))),
        ("young", "web", set(names::MIN_READY, "24h")),
        ("foreign", "web", json!({})),
        ("none", "absent", json!({})),
        ("idle", "idle", json!({})),
        ("held", "held", set(names::FAILOVER_DELAY, "1h")),
        ("ends", "ends", json!({})),
    ] {
        t.create(&source(name, &mixed(of(app), &more))).await;
    }
    t.create(&source("off", &json!({"metadata": {"annotations": {names::ENABLED: "false"}}})))
        .await;
    t.slices().create(&PostParams::default(), &foreign_slice("foreign-leader")).await.unwrap();
    t.until_led_by("held-leader", "h").await;
    t.until_led_by("ends-leader", "x").await;
    let led = [("web", "True LeaderRoutingAvailable"), ("dual", "True LeaderRoutingAvailable")];
    let led = led.into_iter().chain([
        ("fickle", "True LeaderRoutingAvailable"),
        ("headless", "True LeaderRoutingAvailable"),
        ("mirror", "True LeaderRoutingAvailable"),
        ("timed", "True LeaderRoutingAvailable"),
        ("ports", "False PortResolutionFailed"),
        ("young", "False NoReadyPods"),
        ("foreign", "False ForeignEndpoints"),
        ("none", "False NoPodsFound"),
        ("idle", "False NoReadyPods"),
        ("held", "False NoReadyPods"),
        ("ends", "False NoReadyPods"),
    ]);
    led.collect()
}

/// An invalid Service, and one whose leader name is taken, in a namespace that admission does not see.
async fn unreviewed(t: &Case) {
    t.create(&source_set("wrong", &[(names::MIN_READY, "soon")])).await;
    t.create(&source("taken-leader", &json!({"metadata": {"annotations": null}}))).await;
    t.create(&source("taken", &json!({}))).await;
    t.until_condition("wrong", "False", "InvalidService").await;
    t.until_condition("taken", "False", "OwnershipConflict").await;
}

/// What LeaderReady says of every leader Service.
async fn conditions(t: &Case, of: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in of.keys() {
        let said = t.condition(&format!("{name}-leader")).await;
        let said = said.map_or_else(|e| e, |c| format!("{} {}", c.status, c.reason));
        found.insert((*name).to_owned(), said);
    }
    found
}

async fn all_kinds_of_states_come_to_rest_and_then_nothing_is_written(t: Arc<Case>) {
    let product = &t.world.product;
    product.ensure_started().await;
    let outside = t.outside().await;
    let wanted = reviewed(&t).await;
    unreviewed(&outside).await;
    // The last disturbances: leaders are lost, and a replica dies and comes back.
    t.set_ready("h", false).await;
    t.terminate("x").await;
    t.set_ready("x", false).await;
    product.kill(1);
    t.set_ready("a", false).await;
    product.ensure_started().await;
    let disturbed = Instant::now();
    let all = wanted.iter().map(|(name, said)| ((*name).to_owned(), (*said).to_owned()));
    let all: BTreeMap<String, String> = all.collect();
    until("every leader Service says how it is", || async {
        let now = conditions(&t, &wanted).await;
        check(now == all, format!("{now:#?}"))
    })
    .await;
    for name in ["web", "dual", "fickle", "headless", "mirror"] {
        t.until_led_by(&format!("{name}-leader"), "b").await;
    }
    println!("right {:.1} s after the last disturbance", disturbed.elapsed().as_secs_f64());
    // The time passes on purpose: "nothing happens" needs a period.
    sleep(CALM.saturating_sub(disturbed.elapsed())).await;
    settled(&t).await;
    let before = t.world.all_writes().len();
    assert!(before > 3 * all.len(), "the audit log is read: {before} writes");
    sleep(Duration::from_secs(rest())).await;
    let written: Vec<String> = t.world.all_writes()[before..].iter().map(line).collect();
    println!("{} Services, {} writes in {} s at rest", all.len() + 2, written.len(), rest());
    assert_eq!(written, [""; 0], "written although everything was right");
    assert_eq!(conditions(&t, &wanted).await, all);
    // This proves that zen-lead was at rest and not dead.
    t.set_ready("b", false).await;
    t.set_ready("a", true).await;
    t.until_led_by("web-leader", "a").await;
}
