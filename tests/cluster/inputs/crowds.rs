//! Input 7: many Services that cannot be made, and a namespace beside them.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Input, listed};
use crate::clumsy::calls::most_within;
use crate::clumsy::hooks::{Does, Hook};
use crate::clumsy::moves::Move;
use crate::support::case::{Case, Routed, routed};
use crate::support::harness::Test;

pub fn tests() -> Vec<Test> {
    listed![
        forty_that_cannot_be_made_hold_up_no_neighbour,
        six_that_cannot_be_made_keep_their_pauses
    ]
    .into_iter()
    .map(|test| test.within(Duration::from_mins(8)))
    .collect()
}

fn dead() -> Move {
    Move::Hook(Hook { resource: "services", operation: "CREATE", ours: true, does: Does::Gone })
}

/// How long a new Service of a new namespace takes to get its first leader.
async fn first_leader(t: &Case, suffix: &str) -> Duration {
    let other = t.outside_as(suffix).await;
    other.ready_pods("web", &["p1"]).await;
    sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    other.web(&[]).await;
    let limit = Duration::from_mins(3);
    loop {
        let slice = other.slice("web-leader", "IPv4").await;
        let led = slice.is_ok_and(|s| routed(&s) == [Routed::ready("p1")]);
        if led || began.elapsed() > limit {
            return began.elapsed();
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn forty_that_cannot_be_made_hold_up_no_neighbour(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    let mut input = Input::bare(&t).await;
    let mut usual = Duration::ZERO;
    for n in 0..3 {
        usual = usual.max(first_leader(&t, &format!("b{n}")).await);
    }
    input.ground.act(&dead()).await.unwrap();
    input.ground.act(&Move::Crowd(40)).await.unwrap();
    for n in 0..4 {
        sleep(Duration::from_secs(2)).await;
        let taken = first_leader(&t, &format!("c{n}")).await;
        let late = taken > usual + Duration::from_secs(1);
        input.unless(!late, format!("neighbour {n} waited {taken:.1?}, usually {usual:.1?}"));
    }
    input.passes().await;
}

async fn six_that_cannot_be_made_keep_their_pauses(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    let mut input = Input::bare(&t).await;
    input.ground.act(&dead()).await.unwrap();
    input.ground.act(&Move::Crowd(6)).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    let since = Timestamp::now();
    sleep(Duration::from_secs(10)).await;
    input.counted = input.calls.since(since);
    let tries: Vec<_> = input.counted.iter().filter(|c| c.verb == "create").cloned().collect();
    let most = most_within(&tries, SignedDuration::from_secs(5));
    // Each of two replicas may try each of the six once.
    input.unless(most <= 12, format!("six Services were tried {most} times in 5 s"));
    let most = most_within(&input.counted, SignedDuration::from_secs(5));
    input.unless(most < 6 * 20, format!("{most} calls in 5 s for six Services"));
    let events = input.ground.admin.list(crate::clumsy::raw::Kind::Event).await.unwrap();
    let count = events.iter().filter(|e| e["note"].to_string().contains("failed calling webhook"));
    let count = count.count();
    input
        .unless(count == 6, format!("{count} Events report six Services: {}", json!(events.len())));
    input.passes().await;
}
