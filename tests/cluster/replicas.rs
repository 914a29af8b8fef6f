//! Three replicas that are killed and stopped in the middle of switches, one after the other, and
//! replicas whose watches are far behind: one leader all along, told once, nothing made twice.
//!
//! `ZEN_LEAD_KILLS` says how many rounds there are, `ZEN_LEAD_LAG_SECONDS` how far behind the
//! watches are (make soak: many, and a minute).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::objects::hollow;
use crate::support::proxy::{Done, Proxy};
use crate::support::together::{SIX, Together};
use crate::support::waiting::DEADLINE;

const ROUNDS: usize = 9;
const LAG: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    let module = module_path!();
    let kills = Duration::from_mins(2) + Duration::from_secs(10) * u32::try_from(rounds()).unwrap();
    vec![
        Test::new(module, "three_killed_and_stopped_in_turn", killed_in_turn).within(kills),
        Test::new(module, "far_behind_nothing_is_doubled_and_nothing_flaps", far_behind)
            .within(Duration::from_mins(3) + 10 * lag()),
    ]
}

fn rounds() -> usize {
    std::env::var("ZEN_LEAD_KILLS").map_or(ROUNDS, |n| n.parse().unwrap())
}

fn lag() -> Duration {
    let seconds = std::env::var("ZEN_LEAD_LAG_SECONDS");
    seconds.map_or(LAG, |s| Duration::from_secs(s.parse().unwrap()))
}

async fn killed_in_turn(t: Arc<Case>) {
    let product = t.world.product.of(3);
    t.world.list_replicas(3).await;
    product.ensure_started().await;
    let t = t.outside().await;
    let services = Together::led(&t, &SIX, &["a", "b"], DEADLINE).await;
    let recorder = t.record().await;
    let mut order = vec!["a"];
    for round in 0..rounds() {
        let (leader, next) = if order.last() == Some(&"a") { ("a", "b") } else { ("b", "a") };
        let victim = round % 3;
        t.set_ready(leader, false).await;
        // At another moment of the switch each time.
        sleep(Duration::from_millis(7 * (round as u64 % 5))).await;
        if round % 2 == 0 {
            product.kill(victim);
        } else {
            product.signal(victim, "STOP");
        }
        services.until_led_by(next, DEADLINE).await;
        t.set_ready(leader, true).await;
        order.push(next);
        if round % 2 == 1 {
            product.signal(victim, "CONT");
        }
        product.ensure_started().await;
    }
    let history = recorder.finish().await;
    services.were_led_by(&history, &order).await;
    services.were_never_empty(&history);
    product.end_all().await;
    println!("{} switches of 6 Services, a replica of 3 killed or stopped in each", rounds());
}

async fn far_behind(t: Arc<Case>) {
    let product = &t.world.product;
    let (by, limit) = (lag(), 3 * lag() + DEADLINE);
    let proxy = Proxy::start(product.kubeconfig()).await;
    for resource in ["services", "pods", "endpointslices"] {
        proxy.lag().set(resource, by);
    }
    let path = t.world.dir.join("kubeconfig-lag");
    proxy.write_kubeconfig(product.kubeconfig(), &path);
    product.spawn_with(0, &path, &[], &[]);
    product.until_ready(0).await;
    let t = t.outside().await;
    for pod in ["a", "b", "c"] {
        t.pod(hollow(pod, "web").dual()).await;
    }

    // Alone: what it has written comes back to it long after, and it knows.
    let recorder = t.record().await;
    let services = Together::create(&t, &SIX).await;
    services.until_led_by("a", limit).await;
    t.set_ready("a", false).await;
    services.until_led_by("b", limit).await;
    t.set_ready("a", true).await;
    made_once(&t, &proxy);

    // Beside one that sees everything at once, which has moved on long before.
    product.spawn(1, &[]);
    product.until_ready(1).await;
    let mut order = vec!["a", "b"];
    for (gone, new, next) in [("b", "d", "a"), ("a", "e", "c"), ("c", "f", "d"), ("d", "g", "e")] {
        t.pod(hollow(new, "web").dual()).await;
        t.vanish(gone).await;
        services.until_led_by(next, DEADLINE).await;
        order.push(next);
    }
    // All of it has reached the one that is behind, and it had time to do wrong.
    sleep(by + Duration::from_secs(2)).await;
    services.until_led_by("e", DEADLINE).await;
    made_once(&t, &proxy);
    let history = recorder.finish().await;
    // Another order would be a pod that is gone, or a flap.
    services.were_led_by(&history, &order).await;
    let scrape = product.scrape(0).await.unwrap();
    let read = scrape.value("zen_lead_cache_misses_total", &[]).unwrap_or(0.0);
    assert!(read > 0.0, "decisions that read first are counted");
    println!("watches {by:?} behind: nothing made twice, no flap, {read} decisions by reading");
}

/// Nothing of ours was created twice: each name was asked for once, and got.
fn made_once(t: &Case, proxy: &Proxy) {
    let path = format!("/namespaces/{}/", t.ns);
    let mut made: BTreeMap<(String, String), Vec<Done>> = BTreeMap::new();
    for seen in proxy.seen() {
        if seen.verb == "POST" && seen.path.contains(&path) && !seen.path.ends_with("/events") {
            made.entry((seen.path, seen.name)).or_default().push(seen.done);
        }
    }
    assert_eq!(made.len(), 3 * SIX.len(), "a Service and two slices each: {made:?}");
    for (what, answers) in made {
        assert_eq!(answers, [Done::Passed(201)], "{what:?}");
    }
}
