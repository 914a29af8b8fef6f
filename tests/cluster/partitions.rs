//! Replicas that are cut off in three ways at once: packets dropped by a firewall, a connection that
//! swallows everything, a stopped process; each for longer than every timeout. The remaining replica goes
//! on, the returning ones change nothing, and a dead watch is noticed and reported.
//!
//! On a control plane of its own, because it mostly waits while other tests run.
//! `ZEN_LEAD_PARTITION_SECONDS` (make soak) makes it last longer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::case::Case;
use crate::support::control_plane::{self, Elsewhere};
use crate::support::firewall::Firewall;
use crate::support::harness::Test;
use crate::support::objects::hollow;
use crate::support::product::{Product, WATCHED};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::together::{SIX, Together};
use crate::support::waiting::DEADLINE;

/// This replica has no fault.
const WELL: usize = 0;
/// Its connections are acknowledged and never answered.
const SWALLOWED: usize = 1;
/// A firewall drops its packets.
const CUT_OFF: usize = 2;
/// SIGSTOP.
const STOPPED: usize = 3;

/// The promised 40 s until the second notices, with room for a busy machine.
const NOTICED: Duration = Duration::from_secs(80);
/// The longest time that a replica may stay unready after it is reachable again: a swallowed call takes
/// 10 s, and certificates are checked every 30 s.
const BACK: Duration = Duration::from_mins(1);
/// The address of the API server through the firewall.
const WALLED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 12);

pub fn tests() -> Vec<Test> {
    let name = "cut_off_silent_and_stopped_replicas_bring_no_leader_back";
    let test = Test::new(module_path!(), name, three_out_of_reach);
    let needs = control_plane::programs().and_then(|_| Firewall::usable());
    vec![test.needs(needs).within(Duration::from_mins(5) + at_least())]
}

/// The least time that the three are cut off.
fn at_least() -> Duration {
    let text = std::env::var("ZEN_LEAD_PARTITION_SECONDS");
    Duration::from_secs(text.map_or(0, |seconds| seconds.parse().unwrap()))
}

async fn three_out_of_reach(t: Arc<Case>) {
    let elsewhere = Elsewhere::open(&t, 1, 4).await;
    let t = &elsewhere.case;
    let product = &t.world.product;
    let (silent, swallowed) = TcpProxy::before(product.kubeconfig()).await;
    let (_kept, walled) = TcpProxy::before_on(WALLED, product.kubeconfig()).await;
    let firewall = Firewall::new(&format!("zen_lead_{}", t.world.run));
    product.spawn(WELL, &[]);
    product.spawn_with(SWALLOWED, &swallowed, &[], &[]);
    product.spawn_with(CUT_OFF, &walled, &[], &[]);
    product.spawn(STOPPED, &[]);
    for replica in product.replicas() {
        product.until_ready(replica).await;
    }
    let services = Together::led(t, &SIX, &["a", "b", "c"], DEADLINE).await;
    let recorder = t.record().await;

    let began = Instant::now();
    silent.swallow(true);
    firewall.cut(WALLED);
    product.signal(STOPPED, "STOP");
    let noticed = async {
        tokio::join!(
            lost(product, SWALLOWED, began),
            lost(product, CUT_OFF, began),
            sleep(at_least())
        )
    };
    let mut noticed = std::pin::pin!(noticed);
    let mut order = vec!["a"];
    let mut slowest = Duration::ZERO;
    let found = loop {
        let (leader, next) = if order.last() == Some(&"a") { ("a", "b") } else { ("b", "a") };
        slowest = slowest.max(fail_over(t, &services, leader, next).await);
        order.push(next);
        t.set_ready(leader, true).await;
        tokio::select! {
            found = &mut noticed => break found,
            () = sleep(Duration::from_secs(1)) => {}
        }
    };
    let rounds = order.len() - 1;
    // Everything that the three know is wrong now: another pod leads, and the pod that they would choose
    // next is gone.
    t.pod(hollow("d", "web").dual()).await;
    let leader = *order.last().unwrap();
    for gone in ["a", "b", "c"].into_iter().filter(|pod| *pod != leader) {
        t.vanish(gone).await;
    }
    t.vanish(leader).await;
    services.until_led_by("d", DEADLINE).await;
    order.push("d");

    silent.swallow(false);
    firewall.heal();
    product.signal(STOPPED, "CONT");
    let healed = Instant::now();
    for replica in product.replicas() {
        product.until_ready_within(replica, BACK).await;
    }
    let back = healed.elapsed();
    // They work again: without the replica that had no fault they move the leader.
    t.pod(hollow("e", "web").dual()).await;
    product.kill(WELL);
    fail_over(t, &services, "d", "e").await;
    order.push("e");
    let history = recorder.finish().await;
    services.were_led_by(&history, &order).await;
    services.were_never_empty(&history);
    for leader in services.leaders() {
        assert_eq!(history.versions(&leader), order.len(), "{leader}: one write a switch");
    }
    let (silent, cut) = (found.0, found.1);
    println!(
        "3 of 4 replicas out of reach: {rounds} failovers of {} Services, the slowest {slowest:?}; \
         noticed after {silent:?} (swallowed) and {cut:?} (cut off), all ready {back:?} after it ended",
        SIX.len(),
    );
    elsewhere.close().await;
}

/// Makes the leader of all Services NotReady; returns the time until the next pod led in all of them.
async fn fail_over(t: &Case, services: &Together<'_>, leader: &str, next: &str) -> Duration {
    t.set_ready(leader, false).await;
    let began = Instant::now();
    services.until_led_by(next, DEADLINE).await;
    began.elapsed()
}

/// Waits until a replica reports itself that its watches are lost; returns the time since `began`.
async fn lost(product: &Product, replica: usize, began: Instant) -> Duration {
    product.until_lost(replica, &WATCHED, NOTICED).await;
    began.elapsed()
}
