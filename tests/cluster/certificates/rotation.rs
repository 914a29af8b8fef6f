//! Rotations one after the other, on request and after a loss of the Secret, with a replica killed in each
//! phase and the called replica replaced in between: no call fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::Instant;

use super::calls::Calls;
use super::fleet::{Fleet, REPLICAS};
use crate::support::ca::{self, Ca, ROTATION};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::waiting::{check, until, within};
use crate::support::webhook::Hook;
use crate::support::world::START_AND_STOP;

/// The waits of a rotation; an API server on the same machine needs milliseconds, a busy machine more.
const WAIT: Duration = Duration::from_secs(3);
const FLAGS: [&str; 4] = [
    "--ca-introduce-wait=3s",
    "--ca-retire-wait=3s",
    "--leaf-lifetime=40s",
    // The default: handshakes that have begun can finish.
    "--drain-delay=3s",
];
/// The phases of a rotation.
const PHASES: [&str; 3] = ["introducing", "introduced", "retiring"];
/// The number of extra rotations if no replica was killed in some phase because it was too short.
const MISSED: usize = 8;

pub fn tests() -> Vec<Test> {
    let deadline = ROTATION * u32::try_from(rotations() + MISSED).unwrap()
        + Duration::from_millis(50) * u32::try_from(calls()).unwrap();
    let test = Test::new("certificates", "rotations_fail_no_call", rotations_fail_no_call);
    vec![test.within(deadline)]
}

fn calls() -> usize {
    std::env::var("ZEN_LEAD_ROTATION_CALLS").map_or(2_000, |n| n.parse().unwrap())
}

fn rotations() -> usize {
    std::env::var("ZEN_LEAD_ROTATIONS").map_or(4, |n| n.parse().unwrap())
}

/// The cause of a rotation, another one each time.
async fn disturb(ca: &Ca, round: usize) -> &'static str {
    let ask = |what: &str| json!({"metadata": {"annotations": {what: format!("{round}")}}});
    match round % 4 {
        0 => {
            ca.patch(&ask("zen-lead.io/rotate-ca")).await;
            "a new CA is asked for"
        }
        1 => {
            ca.secrets.delete(ca::NAME, &DeleteParams::default()).await.unwrap();
            "the Secret is deleted"
        }
        2 => {
            ca.patch(&json!({"data": {"ca.key": "cnViYmlzaA=="}})).await;
            "the Secret is filled with rubbish"
        }
        _ => {
            ca.patch(&ask("zen-lead.io/rotate-leaf")).await;
            ca.patch(&ask("zen-lead.io/rotate-ca")).await;
            "new leaves and a new CA are asked for"
        }
    }
}

/// Starts the killed replica; it is called again when it is ready.
fn start_again(fleet: &Arc<Fleet>, n: usize) {
    fleet.spawn(n);
    let fleet = fleet.clone();
    tokio::spawn(async move { fleet.until_ready(n).await });
}

async fn until_ready(fleet: &Fleet, n: usize) {
    let ready = || async { check(fleet.is_ready(n), format!("replica {n} is not ready")) };
    within(START_AND_STOP, "a replica that was killed is ready again", ready).await;
}

async fn rotations_fail_no_call(t: Arc<Case>) {
    let (goal, rounds) = (calls(), rotations());
    let ca = Ca::of(&t);
    let fleet = Fleet::start(&t.world, &FLAGS).await;
    ca.reaches(&["steady"]).await;
    let (calls, tasks) = Calls::start(&t, &fleet, WAIT).await;

    let began = Instant::now();
    let (mut killed, mut authorities) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
    let mut round = 0;
    while round < rounds
        || calls.made().into_iter().any(|made| made < goal / 2)
        || (round < rounds + MISSED && PHASES.iter().any(|p| !killed.contains_key(*p)))
    {
        assert!(authorities.insert(ca.value("ca.crt").await.unwrap()), "no new CA");
        let others: Vec<usize> = (0..REPLICAS).filter(|n| *n != fleet.called()).collect();
        let what = disturb(&ca, round).await;
        for (n, victim) in [others[0], others[1], others[0]].into_iter().enumerate() {
            until_ready(&fleet, victim).await;
            // Or a later phase: the rotation goes on while a replica starts.
            let last: &[&str] = if n == 2 { &["steady"] } else { &[] };
            ca.reaches(&[&PHASES[n..], last].concat()).await;
            fleet.kill(victim).await;
            let phase = ca.phase().await;
            *killed.entry(phase).or_default() += 1;
            start_again(&fleet, victim);
        }
        ca.reaches(&["steady"]).await;
        for n in &others {
            until_ready(&fleet, *n).await;
        }
        // The called replica ends too, as in a rollout.
        let leaves = fleet.called();
        fleet.hand_over(others[round % others.len()]).await;
        start_again(&fleet, leaves);
        until_ready(&fleet, leaves).await;
        println!(
            "certificates: {what}: done after {:?}, calls {:?}",
            began.elapsed(),
            calls.made()
        );
        round += 1;
    }
    let took = began.elapsed();
    expiry_is_reported(&t, &fleet, &ca).await;
    let tally = calls.finish(tasks).await;
    fleet.end().await;

    println!(
        "certificates: {} calls in {} s ({} over new connections, by replica {:?}; {} by the API \
         server), {round} rotations, replicas killed {killed:?}, {round} replaced while called; {} \
         certificates were shown; {} failed; {} without a verdict; slowest {:?}",
        tally.made(),
        took.as_secs(),
        tally.closing,
        tally.by_replica,
        tally.kept,
        tally.leaves.len(),
        tally.failed.len(),
        tally.void,
        tally.slowest,
    );
    tally.none_failed();
    for phase in PHASES {
        assert!(killed.contains_key(phase), "no replica was killed in phase {phase}: {killed:?}");
    }
    assert!(tally.leaves.len() > round, "leaves were not renewed");
    assert_eq!(tally.by_replica.len(), REPLICAS, "every replica was called");
}

/// The metrics of each replica say when the CA in the Secret and its own certificate end.
async fn expiry_is_reported(t: &Case, fleet: &Fleet, ca: &Ca) {
    let bundle = Hook::Validating.bundle(&t.admin(), &t.world.system).await.unwrap();
    let authority = ca.value("ca.crt").await.unwrap();
    assert_eq!(bundle, authority, "the bundle is the one CA and nothing else");
    let body = crate::support::webhook::recorded("create-enabled");
    for n in 0..REPLICAS {
        let (product, number) = fleet.product(n);
        until("the metrics report when the certificates end", || async {
            let port = fleet.port(n);
            let shown = crate::support::webhook::review(port, Hook::Validating, &bundle, &body);
            let ends = [authority_end(&authority), end(&shown.await?.shown)];
            let scrape = product.scrape(number).await?;
            let shown = ["ca", "webhook"].map(|which| {
                let name = "zen_lead_certificate_expiry_timestamp_seconds";
                scrape.value(name, &[("certificate", which)])
            });
            // A leaf of 15 s may be renewed between the two reads.
            check(shown == ends.map(Some), format!("{shown:?}, and they end at {ends:?}"))
        })
        .await;
    }
}

fn authority_end(pem: &str) -> f64 {
    use rustls_pki_types::pem::PemObject;
    end(&rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
fn end(certificate: &[u8]) -> f64 {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.validity().not_after.timestamp() as f64
}
