//! Three replicas that are killed and stopped in the middle of switches, one after the other, and
//! replicas whose watches are far behind or lost: always one leader, one Event for each switch, and no
//! object is created twice.
//!
//! `ZEN_LEAD_KILLS` sets the number of rounds, `ZEN_LEAD_LAG_SECONDS` the delay of the watches (make soak:
//! many, and a minute).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::hollow;
use crate::support::proxy::{Done, Fault, Proxy, Seen};
use crate::support::together::{SIX, Together};
use crate::support::waiting::{DEADLINE, check, until};

const ROUNDS: usize = 9;
const LAG: Duration = Duration::from_secs(5);
/// The promised 40 s until a lost watch is noticed, with room for a busy machine.
const LOST: Duration = Duration::from_secs(80);

pub fn tests() -> Vec<Test> {
    let module = module_path!();
    let kills = Duration::from_mins(2) + Duration::from_secs(10) * u32::try_from(rounds()).unwrap();
    vec![
        Test::new(module, "three_killed_and_stopped_in_turn", killed_in_turn).within(kills),
        Test::new(module, "far_behind_nothing_is_doubled_and_nothing_flaps", far_behind)
            .within(Duration::from_mins(3) + 20 * lag()),
        Test::new(module, "a_lost_watch_promotes_no_pod", lost_watch)
            .within(Duration::from_mins(4)),
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
    let (by, limit) = (lag(), 6 * lag() + DEADLINE);
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

    // Alone: its own writes come back much later, and it recognizes them.
    let recorder = t.record().await;
    let services = Together::create(&t, &SIX).await;
    services.until_led_by("a", limit).await;
    t.set_ready("a", false).await;
    services.until_led_by("b", limit).await;
    t.set_ready("a", true).await;
    made_once(&t, &proxy);

    // Beside a replica without delay, which has moved on long before.
    product.spawn(1, &[]);
    product.until_ready(1).await;
    let mut order = vec!["a", "b"];
    for (gone, new, next) in [("b", "d", "a"), ("a", "e", "c"), ("c", "f", "d"), ("d", "g", "e")] {
        t.pod(hollow(new, "web").dual()).await;
        t.vanish(gone).await;
        services.until_led_by(next, DEADLINE).await;
        order.push(next);
    }
    // Everything has reached the delayed replica, and it had time for a wrong write.
    sleep(by + Duration::from_secs(2)).await;
    services.until_led_by("e", DEADLINE).await;
    made_once(&t, &proxy);

    // The other replica dies after a switch that the delayed one has not seen yet, and the new leader is
    // lost at once. On a busy machine that takes longer than the usual delay. It learns of slices last: else
    // it waits a moment for them instead of reading.
    for (resource, more) in [("services", 10), ("pods", 10), ("endpointslices", 15)] {
        proxy.lag().set(resource, by + Duration::from_secs(more));
    }
    t.vanish("e").await;
    services.until_led_by("f", DEADLINE).await;
    product.kill(1);
    let before = proxy.seen().len();
    t.vanish("f").await;
    services.until_led_by("g", limit).await;
    order.extend(["f", "g"]);
    read_and_wrote_once(&t, &proxy.seen()[before..]);

    let history = recorder.finish().await;
    // Another order would be a pod that is gone, or a flap.
    services.were_led_by(&history, &order).await;
    services.were_never_empty(&history);
    for leader in services.leaders() {
        assert_eq!(history.versions(&leader), order.len(), "{leader}: one write a switch");
    }
    let scrape = product.scrape(0).await.unwrap();
    let read = scrape.value("zen_lead_cache_misses_total", &[]).unwrap_or(0.0);
    assert!(read > 0.0, "decisions that read first are counted");
    println!("watches {by:?} behind: nothing created twice, no flap, {read} decisions by reading");
}

/// A failover by a delayed replica: each kind is listed, and each slice is written once.
fn read_and_wrote_once(t: &Case, requests: &[Seen]) {
    let path = format!("/namespaces/{}/", t.ns);
    let ours = || requests.iter().filter(|seen| seen.path.contains(&path));
    for kind in ["services", "pods", "endpointslices"] {
        let lists = ours().filter(|seen| seen.verb == "GET" && seen.path.ends_with(kind)).count();
        assert!(lists > 0, "{kind} were not read");
    }
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in ours().filter(|seen| seen.verb == "PUT" && seen.done == Done::Passed(200)) {
        *written.entry(&seen.path).or_default() += 1;
    }
    assert_eq!(written.len(), 2 * SIX.len(), "{written:?}");
    assert!(written.values().all(|writes| *writes == 1), "{written:?}");
}

/// The watch of pods is lost, everything else works: by the last known state `a` should lead, but it is
/// gone.
async fn lost_watch(t: Arc<Case>) {
    let product = &t.world.product;
    product.spawn(0, &[]);
    product.until_ready(0).await;
    let t = t.outside().await;
    let services = Together::led(&t, &["s0"], &["a", "b", "c"], DEADLINE).await;
    let recorder = t.record().await;
    t.set_ready("a", false).await;
    services.until_led_by("b", DEADLINE).await;
    t.set_ready("a", true).await;
    product.stop(0).await;

    // Its list is answered, then it gets nothing more about pods: no event, no other watch.
    let proxy = Proxy::start(product.kubeconfig()).await;
    proxy.lag().set("pods", Duration::from_hours(1));
    let path = t.world.dir.join("kubeconfig-lost");
    proxy.write_kubeconfig(product.kubeconfig(), &path);
    // One watch over all pods: consistent reads are of one namespace, so the proxy lets them pass.
    product.spawn_with(0, &path, &["--max-namespace-watches=0"], &[]);
    product.until_ready(0).await;
    proxy.fail(usize::MAX, Fault::Stall, |seen| seen.path == "/api/v1/pods");
    product.until_lost(0, &["pods"], LOST).await;

    t.vanish("a").await;
    let reads = format!("/api/v1/namespaces/{}/pods", t.ns);
    let read = || proxy.seen().iter().filter(|seen| seen.path == reads).count();
    let before = read();
    t.patch_service("s0", &json!({"metadata": {"annotations": {names::STICKY: "false"}}})).await;
    until("it reads before it decides", || async { check(read() > before, "no read") }).await;
    sleep(Duration::from_secs(2)).await;
    services.until_led_by("b", DEADLINE).await;

    // The watch is back, and the replica works as before.
    proxy.lag().set("pods", Duration::ZERO);
    proxy.clear();
    product.until_ready(0).await;
    t.set_ready("b", false).await;
    services.until_led_by("c", DEADLINE).await;
    services.were_led_by(&recorder.finish().await, &["a", "b", "c"]).await;
}

/// No object of ours was created twice: each name was requested once, successfully.
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
