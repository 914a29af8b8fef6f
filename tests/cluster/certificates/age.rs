//! What is renewed by age, and by request where it is not old: no call fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::ca::Ca;
use super::calls::Calls;
use super::fleet::{Fleet, REPLICAS};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::waiting::{check, until};
use crate::support::webhook::{Hook, recorded, review};

/// When a third of it is left the next one comes.
const LIFE: Duration = Duration::from_mins(1);
const WAIT: Duration = Duration::from_secs(3);
const FLAGS: [&str; 4] =
    ["--ca-lifetime=1m", "--ca-introduce-wait=3s", "--ca-retire-wait=3s", "--leaf-lifetime=15s"];

pub fn tests() -> Vec<Test> {
    let old = Test::new("certificates", "an_old_ca_is_replaced", an_old_ca_is_replaced);
    let asked = "new_certificates_on_request_keep_the_ca";
    vec![
        old.within(LIFE * (generations() + 2)),
        Test::new("certificates", asked, new_leaves_on_request),
    ]
}

/// How many CAs grow old (ZEN_LEAD_CA_GENERATIONS).
fn generations() -> u32 {
    std::env::var("ZEN_LEAD_CA_GENERATIONS").map_or(1, |n| n.parse().unwrap())
}

async fn an_old_ca_is_replaced(t: Arc<Case>) {
    let ca = Ca::of(&t);
    let fleet = Fleet::start(&t.world, &FLAGS).await;
    // The CA that is there may live long; the first one that comes from now on does not.
    let before = ca.value("ca.crt").await.unwrap();
    ca.patch(&json!({"metadata": {"annotations": {"zen-lead.io/rotate-ca": "short"}}})).await;
    until("a new CA signs alone", || async {
        let (now, phase) = (ca.value("ca.crt").await?, ca.phase().await);
        check(now != before && phase == "steady", format!("the phase is {phase}"))
    })
    .await;
    let (calls, tasks) = Calls::start(&t, &fleet, WAIT).await;

    let mut authorities = BTreeSet::from([ca.value("ca.crt").await.unwrap()]);
    let mut ages = Vec::new();
    for _ in 0..generations() {
        let young = Instant::now();
        while authorities.contains(&ca.value("ca.crt").await.unwrap()) {
            assert!(young.elapsed() < LIFE, "the CA has come to its end");
            sleep(Duration::from_millis(50)).await;
        }
        ages.push(young.elapsed().as_secs());
        authorities.insert(ca.value("ca.crt").await.unwrap());
        ca.reaches(&["steady"]).await;
    }
    let tally = calls.finish(tasks).await;
    fleet.end().await;

    let made = tally.closing + tally.kept;
    println!(
        "certificates: {made} calls while {} CAs grew old, seen to be replaced after {ages:?} s; {} \
         certificates were shown; {} failed; {} without a verdict",
        ages.len(),
        tally.leaves.len(),
        tally.failed.len(),
        tally.void,
    );
    assert!(tally.failed.is_empty(), "{} failed: {:#?}", tally.failed.len(), tally.failed);
    assert!(tally.void * 100 <= made, "{} of {made} calls without a verdict", tally.void);
    assert_eq!(tally.by_replica.len(), REPLICAS, "every replica was called");
    assert!(tally.leaves.len() > REPLICAS, "leaves of the new CA were shown");
}

/// With the usual lives nothing is due: whatever is new was asked for.
async fn new_leaves_on_request(t: Arc<Case>) {
    let ca = Ca::of(&t);
    // The one that a test before has left is old, and would be replaced in minutes.
    ca.empty().await;
    let fleet = Fleet::start(&t.world, &[]).await;
    let authority = until("one CA is in the bundle", || async {
        let (phase, authority) = (ca.value("phase").await?, ca.value("ca.crt").await?);
        let bundle = Hook::Validating.bundle(&t.admin(), &t.world.system).await?;
        check(phase == "steady" && bundle == authority, phase).map(|()| authority)
    })
    .await;
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
    assert!(tally.failed.is_empty(), "{} failed: {:#?}", tally.failed.len(), tally.failed);
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
