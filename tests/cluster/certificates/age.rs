//! Renewals by age, and by request before that: no call fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::calls::Calls;
use super::fleet::{Fleet, REPLICAS};
use super::until_published;
use crate::support::ca::Ca;
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::waiting::{check, until};
use crate::support::webhook::{Hook, recorded, review};

/// The next CA comes when a third of the life is left.
const LIFE: Duration = Duration::from_mins(1);
const WAIT: Duration = Duration::from_secs(3);
const FLAGS: [&str; 4] =
    ["--ca-lifetime=1m", "--ca-introduce-wait=3s", "--ca-retire-wait=3s", "--leaf-lifetime=40s"];

pub fn tests() -> Vec<Test> {
    let old = Test::new("certificates", "an_old_ca_is_replaced", an_old_ca_is_replaced);
    let asked = "new_certificates_on_request_keep_the_ca";
    vec![
        old.within(LIFE * (generations() + 2)),
        Test::new("certificates", asked, new_leaves_on_request),
    ]
}

/// The number of CAs that are replaced by age (ZEN_LEAD_CA_GENERATIONS).
fn generations() -> u32 {
    std::env::var("ZEN_LEAD_CA_GENERATIONS").map_or(1, |n| n.parse().unwrap())
}

async fn an_old_ca_is_replaced(t: Arc<Case>) {
    let (ca, fleet, authority) = with_a_ca_of_its_own(&t, &FLAGS).await;
    let (calls, tasks) = Calls::start(&t, &fleet, WAIT).await;

    let mut authorities = BTreeSet::from([authority]);
    let mut ages = Vec::new();
    for _ in 0..generations() {
        let young = Instant::now();
        while authorities.contains(&ca.value("ca.crt").await.unwrap()) {
            assert!(young.elapsed() < LIFE, "the CA has expired");
            sleep(Duration::from_millis(50)).await;
        }
        ages.push(young.elapsed().as_secs());
        authorities.insert(ca.value("ca.crt").await.unwrap());
        ca.reaches(&["steady"]).await;
    }
    let tally = calls.finish(tasks).await;
    fleet.end().await;

    println!(
        "certificates: {} calls while {} CAs grew old, seen to be replaced after {ages:?} s; {} \
         certificates were shown; {} failed; {} without a verdict",
        tally.made(),
        ages.len(),
        tally.leaves.len(),
        tally.failed.len(),
        tally.void,
    );
    tally.none_failed();
    assert_eq!(tally.by_replica.len(), REPLICAS, "every replica was called");
    assert!(tally.leaves.len() > REPLICAS, "leaves of the new CA were shown");
}

/// With the default lifetimes nothing is due: every renewal was requested.
async fn new_leaves_on_request(t: Arc<Case>) {
    let (ca, fleet, authority) = with_a_ca_of_its_own(&t, &[]).await;
    let before = shown(&fleet, &authority).await;
    let (calls, tasks) = Calls::start(&t, &fleet, WAIT).await;
    ca.patch(&json!({"metadata": {"annotations": {"zen-lead.io/rotate-leaf": "now"}}})).await;
    until("each replica shows another certificate", || async {
        let now = shown(&fleet, &authority).await;
        check(before.is_disjoint(&now) && now.len() == REPLICAS, "the same as before")
    })
    .await;
    let tally = calls.finish(tasks).await;
    fleet.end().await;
    assert_eq!(ca.value("ca.crt").await.unwrap(), authority);
    tally.none_failed();
}

/// Replicas with these flags, and the CA that they made: the CA of an earlier test may have another
/// lifetime.
async fn with_a_ca_of_its_own(t: &Case, flags: &[&str]) -> (Ca, Arc<Fleet>, String) {
    let ca = Ca::of(t);
    ca.empty().await;
    let fleet = Fleet::start(&t.world, flags).await;
    ca.reaches(&["steady"]).await;
    let authority = until_published(t).await;
    (ca, fleet, authority)
}

/// The certificates of all replicas, signed by this CA.
async fn shown(fleet: &Fleet, authority: &str) -> BTreeSet<Vec<u8>> {
    let body = recorded("create-enabled");
    let mut all = BTreeSet::new();
    for n in 0..REPLICAS {
        let answer = review(fleet.port(n), Hook::Validating, authority, &body).await.unwrap();
        all.insert(answer.shown.to_vec());
    }
    all
}
