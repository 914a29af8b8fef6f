//! An API server that ends and returns, after a short or a long time, with etcd compacted meanwhile: no
//! change is lost, there is no unnecessary switch, and zen-lead reports the watches that it lost.
//!
//! Both replicas use one API server. The test, and changes while that one is down, use another one with
//! the same etcd. `ZEN_LEAD_RESTARTS` sets the number of short outages, `ZEN_LEAD_COMPACTIONS` the number
//! with etcd compacted.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};

use crate::support::case::Case;
use crate::support::control_plane::{self, ControlPlane, Elsewhere};
use crate::support::harness::Test;
use crate::support::objects::hollow;
use crate::support::product::{Product, WATCHED};
use crate::support::together::Together;

const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
const RESTARTS: usize = 3;
/// The API server of the replicas.
const THEIRS: usize = 0;
/// The longest time until a watch counts as lost (15 s of refused connections), on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

pub fn tests() -> Vec<Test> {
    let name = "restarts_of_the_api_server_lose_no_change";
    let test = Test::new(module_path!(), name, restarts);
    let deadline = Duration::from_mins(4)
        + Duration::from_secs(20) * u32::try_from(rounds() + compactions()).unwrap();
    vec![test.needs(control_plane::programs()).within(deadline)]
}

fn rounds() -> usize {
    std::env::var("ZEN_LEAD_RESTARTS").map_or(RESTARTS, |n| n.parse().unwrap())
}

/// In each of these outages every watch of both replicas gets 410.
fn compactions() -> usize {
    std::env::var("ZEN_LEAD_COMPACTIONS").map_or(1, |n| n.parse().unwrap())
}

async fn restarts(t: Arc<Case>) {
    let elsewhere = Elsewhere::open(&t, 2, 2).await;
    let Elsewhere { case: t, control } = &elsewhere;
    let product = &t.world.product;
    product.ensure_started().await;
    // Their watches come back within seconds.
    let services = Together::led(t, &SERVICES, &["p0", "p1"], PATIENCE).await;
    let recorder = t.record().await;
    let mut order = vec!["p0".to_owned()];

    for round in 0..rounds() {
        let (leader, next, new) =
            (format!("p{round}"), format!("p{}", round + 1), format!("p{}", round + 2));
        // One change just before, which they may or may not have seen, and two during the outage.
        if round % 2 == 0 {
            t.set_ready(&leader, false).await;
        }
        control.kill(THEIRS);
        t.pod(hollow(&new, "web").dual()).await;
        t.vanish(&leader).await;
        control.launch(THEIRS, &[]);
        control.until_ready(THEIRS).await;
        services.until_led_by(&next, PATIENCE).await;
        order.push(next);
    }

    // With compaction of what they know. The first outage lasts until they call their watches lost.
    for round in rounds()..rounds() + compactions() {
        let (leader, next, new) =
            (format!("p{round}"), format!("p{}", round + 1), format!("p{}", round + 2));
        let old = version(t).await;
        let gone = [gone(product, 0).await, gone(product, 1).await];
        control.kill(THEIRS);
        if round == rounds() {
            for replica in product.replicas() {
                product.until_lost(replica, &WATCHED, PATIENCE).await;
            }
        }
        t.vanish(&leader).await;
        t.pod(hollow(&new, "web").dual()).await;
        control.compact().await;
        // A new API server has no memory of its own and asks etcd, which is compacted.
        control.launch(THEIRS, &["--watch-cache=false"]);
        control.until_ready(THEIRS).await;
        gets_410(t, control, &old).await;
        services.until_led_by(&next, PATIENCE).await;
        order.push(next);
        for replica in product.replicas() {
            product.until_ready(replica).await;
            let now = self::gone(product, replica).await;
            assert!(now > gone[replica], "replica {replica} got 410 {now} times");
        }
    }

    let history = recorder.finish().await;
    services.were_led_by(&history, &order).await;
    services.were_never_empty(&history);
    println!(
        "{} restarts of an API server, {} of them with etcd compacted: no change lost",
        rounds() + compactions(),
        compactions()
    );
    elsewhere.close().await;
}

/// How often the watches of a replica got the answer that their version is gone.
async fn gone(product: &Product, replica: usize) -> f64 {
    let labels = [("reason", "gone")];
    let scrape = product.scrape(replica).await.unwrap();
    scrape.value("zen_lead_watch_restarts_total", &labels).unwrap_or(0.0)
}

async fn version(t: &Case) -> String {
    let list = t.pods().list(&ListParams::default()).await.unwrap();
    list.metadata.resource_version.unwrap()
}

/// The API server really answers 410 to a watch from so old a version.
async fn gets_410(t: &Case, control: &ControlPlane, version: &str) {
    let client = control.cluster(THEIRS).admin().await;
    let pods: Api<Pod> = Api::namespaced(client, &t.ns);
    let answer = match pods.watch(&WatchParams::default(), version).await {
        Ok(events) => Box::pin(events).next().await.expect("an event"),
        Err(error) => Err(error),
    };
    let code = match answer {
        Ok(WatchEvent::Error(status)) | Err(kube::Error::Api(status)) => status.code,
        other => panic!("no 410, but {other:?}"),
    };
    assert_eq!(code, 410);
}
