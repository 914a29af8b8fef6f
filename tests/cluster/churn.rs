//! Thousands of Services are created and deleted: memory and series return to their earlier numbers.
//!
//! `ZEN_LEAD_CHURN_SERVICES` says how many (in each of two rounds).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::source;
use crate::support::waiting::{check, within};
use crate::support::world::RUN_LABEL;

/// The default number of Services in a round.
const SERVICES: usize = 500;
/// Each leader Service needs a read of its namespace, so many small namespaces are quicker, but not so
/// many that all pods of the cluster are watched together.
const NAMESPACES: usize = 40;
const IN_A_NAMESPACE: usize = 50;
const AT_ONCE: usize = 8;
const LABEL: &str = "zen-lead-tests/churn";

pub fn tests() -> Vec<Test> {
    let deadline = 5 * patience(services());
    let test =
        Test::new(module_path!(), "memory_and_series_come_back", memory_and_series_come_back);
    vec![test.within(deadline)]
}

fn services() -> usize {
    std::env::var("ZEN_LEAD_CHURN_SERVICES").map_or(SERVICES, |n| n.parse().unwrap())
}

/// The longest time of a step for this many Services, on a busy machine.
fn patience(all: usize) -> Duration {
    Duration::from_secs(60 + all as u64 / 2)
}

/// What the process holds in memory.
#[derive(Clone, Debug)]
struct Held {
    /// Resident memory, KiB.
    resident: u64,
    /// All series.
    series: usize,
    /// Series that name a Service, by name and labels.
    of_services: BTreeSet<(String, BTreeMap<String, String>)>,
    /// Objects and entries, by resource.
    sizes: BTreeMap<String, f64>,
}

impl Held {
    /// What it holds now, after a pause: with 10,000 Services a scrape has about 80,000 series, and
    /// the process needs time for its work between two scrapes.
    async fn later(t: &Case, all: usize) -> Result<Self, String> {
        tokio::time::sleep(Duration::from_millis(all as u64 / 4)).await;
        Self::read(t).await
    }

    async fn read(t: &Case) -> Result<Self, String> {
        let resident = t.world.product.memory(0, "VmRSS:");
        let scrape = t.world.product.scrape(0).await?;
        let series = scrape.series();
        let sizes = &scrape.families["zen_lead_cache_size"].samples;
        Ok(Self {
            resident,
            series: series.len(),
            sizes: sizes.iter().map(|s| (s.labels["resource"].clone(), s.value)).collect(),
            of_services: series.into_iter().filter(|(_, l)| l.contains_key("service")).collect(),
        })
    }

    fn line(&self) -> String {
        format!("{} KiB, {} series, {:?}", self.resident, self.series, self.sizes)
    }

    /// It holds nothing that it did not hold before.
    fn is_within(&self, before: &Self) -> Result<(), String> {
        let more: Vec<_> = self.of_services.difference(&before.of_services).collect();
        check(more.is_empty(), format!("{} series of Services, {:?}", more.len(), more.first()))?;
        for (resource, size) in &self.sizes {
            let known = before.sizes.get(resource).copied().unwrap_or_default();
            check(*size <= known, format!("{size} {resource}, {known} before"))?;
        }
        Ok(())
    }
}

async fn memory_and_series_come_back(t: Arc<Case>) {
    let all = services();
    let flags = ["--namespace-idle-ttl=1s", "--cleanup-interval=500ms"];
    t.world.product.spawn(0, &flags);
    t.world.product.until_ready(0).await;
    // One Service stays, so that everything is in use as usual.
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = Held::read(&t).await.unwrap();
    println!("churn: before: {}", before.line());
    let mut after: Vec<Held> = Vec::new();
    for round in 1..=2 {
        let began = Instant::now();
        let peak = come(&t, round, all).await;
        println!("churn: round {round}: {all} there after {:?}: {}", began.elapsed(), peak.line());
        go(&t, round, all).await;
        let now = within(patience(all), "nothing of the deleted objects is held", || async {
            let now = Held::later(&t, all).await?;
            now.is_within(&before).map(|()| now)
        })
        .await;
        println!("churn: round {round}: gone after {:?}: {}", began.elapsed(), now.line());
        after.push(now);
    }
    // Not compared with the start: the allocator decides when free memory returns to the system
    // (tests/memory.rs counts the bytes themselves). But it is used again, so nothing was lost.
    let (first, second) = (after[0].resident, after[1].resident);
    assert!(
        second <= first + first / 10 + 4096,
        "{second} KiB after the second round, {first} KiB after the first"
    );
    t.until_led_by("web-leader", "a").await;
}

fn namespaces(t: &Case, round: usize, all: usize) -> Vec<String> {
    let short: String = t.ns.chars().take(40).collect();
    let spaces = all.div_ceil(IN_A_NAMESPACE).min(NAMESPACES);
    (0..spaces).map(|n| format!("{short}-{round}-{n}")).collect()
}

/// Creates the Services and waits until each has its leader Service.
async fn come(t: &Case, round: usize, all: usize) -> Held {
    let spaces = namespaces(t, round, all);
    for name in &spaces {
        let labels = json!({RUN_LABEL: t.world.run});
        let space: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        Api::all(t.admin()).create(&PostParams::default(), &space).await.unwrap();
    }
    let made = futures::stream::iter(0..all).map(|n| {
        let services = Api::namespaced(t.world.user.clone(), &spaces[n % spaces.len()]);
        async move {
            // Without addresses: the cluster has only a limited number.
            let shape =
                json!({"metadata": {"labels": {LABEL: "yes"}}, "spec": {"clusterIP": "None"}});
            let service = source(&format!("s{n}"), &shape);
            within(Duration::from_mins(1), "a Service is made", || async {
                services.create(&PostParams::default(), &service).await
            })
            .await
        }
    });
    let made: Vec<Service> = made.buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(made.len(), all);
    within(patience(all), "all are served", || async {
        let held = Held::later(t, all).await?;
        let served = held.of_services.iter().filter(|(name, labels)| {
            name == "zen_lead_leader_epoch" && spaces.contains(&labels["namespace"])
        });
        let served = served.count();
        check(served == all, format!("{served} are")).map(|()| held)
    })
    .await
}

/// Deletes them, and also the objects for which garbage collection would need a long time.
async fn go(t: &Case, round: usize, all: usize) {
    let now = DeleteParams::default();
    for name in namespaces(t, round, all) {
        let services: Api<Service> = Api::namespaced(t.admin(), &name);
        let slices: Api<EndpointSlice> = Api::namespaced(t.admin(), &name);
        let labelled = |label: &str| ListParams::default().labels(label);
        let ours = format!("{}=zen-lead", names::MANAGED_BY);
        let slices_of_ours = format!("{}=zen-lead", names::SLICE_MANAGED_BY);
        services.delete_collection(&now, &labelled(&format!("{LABEL}=yes"))).await.unwrap();
        services.delete_collection(&now, &labelled(&ours)).await.unwrap();
        slices.delete_collection(&now, &labelled(&slices_of_ours)).await.unwrap();
        let spaces: Api<Namespace> = Api::all(t.admin());
        spaces.delete(&name, &now).await.unwrap();
    }
}
