//! A tenant changes settings ten times a second: what it costs, and that a lost leader is followed meanwhile.
//! How soon, the unit tests with a paused clock say (src/control/reconcile/tests/flipped.rs).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};

use super::{FOLLOWED, Input, listed};
use crate::clumsy::calls::summary;
use crate::clumsy::raw::{Hand, WEB};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;

/// The most calls of both replicas during a storm. Without a pause there were several hundred.
const MOST: usize = 30;
/// The same for a leader Service that is made and deleted again and again, with the reads before each of these.
const MOST_OF_CREATIONS: usize = 200;
/// How long it flips.
const STORM: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    listed![
        a_setting_that_flips_costs_few_calls_and_delays_no_loss,
        a_port_that_flips_costs_few_calls_and_delays_no_loss,
        a_selector_that_flips_costs_few_calls,
        a_source_that_is_enabled_and_disabled_costs_few_calls,
    ]
}

/// Applies these ten times a second, one after the other, and ends with the first.
async fn flip(t: &Case, values: [Value; 2]) {
    let alice = Hand::alice(t);
    let (mut clock, began) = (interval(Duration::from_millis(100)), Instant::now());
    let mut changes = 0;
    while began.elapsed() < STORM || changes % 2 == 0 {
        clock.tick().await;
        changes += 1;
        alice.merge(WEB, &values[changes % 2]).await.unwrap();
    }
    alice.merge(WEB, &values[0]).await.unwrap();
    println!("{changes} changes in {:?}", began.elapsed());
}

/// The calls of a storm are fewer than this. If a pod is to be lost, p1 is, in the middle, and p2 follows.
async fn storm(t: Arc<Case>, values: [Value; 2], loses: bool, most: usize) {
    let mut input = Input::led(&t, &json!({})).await;
    let began = Timestamp::now();
    let lost = async {
        sleep(STORM / 2).await;
        if loses {
            let at = Instant::now();
            input.follows_a_loss().await;
            println!("followed after {:?}, looked at every 100 ms", at.elapsed());
        }
    };
    tokio::join!(flip(&t, values), lost);
    let leader = if loses { "p2" } else { "p1" };
    input.is_led_by(leader, FOLLOWED).await;
    let calls = input.calls.since(began);
    let made = format!("{} calls: {}", calls.len(), summary(&calls));
    println!("{made}");
    input.unless(calls.len() < most, made);
    input.reports_agree().await;
    input.is_quiet().await;
    input.passes().await;
}

fn settings(name: &str, values: [&str; 2]) -> [Value; 2] {
    values.map(|value| json!({"metadata": {"annotations": {name: value}}}))
}

async fn a_setting_that_flips_costs_few_calls_and_delays_no_loss(t: Arc<Case>) {
    storm(t, settings(names::STICKY, ["true", "false"]), true, MOST).await;
}

async fn a_port_that_flips_costs_few_calls_and_delays_no_loss(t: Arc<Case>) {
    let port = |port| json!([{"name": "http", "port": port, "targetPort": 8080}]);
    storm(t, [80, 81].map(|n| json!({"spec": {"ports": port(n)}})), true, MOST).await;
}

async fn a_selector_that_flips_costs_few_calls(t: Arc<Case>) {
    let selectors = ["web", "none"].map(|app| json!({"spec": {"selector": {"app": app}}}));
    storm(t, selectors, false, MOST).await;
}

async fn a_source_that_is_enabled_and_disabled_costs_few_calls(t: Arc<Case>) {
    storm(t, settings(names::ENABLED, ["true", "false"]), false, MOST_OF_CREATIONS).await;
}
