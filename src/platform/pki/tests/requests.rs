//! Tests of new CAs and leaves on request, and of the times of passes without a request.

use super::*;
use zen_lead_core::keys::request::{ROTATE_CA, ROTATE_LEAF};

fn ask(fake: &Fake, key: &str, value: &str) {
    fake.edit(SECRET, |s| s["metadata"]["annotations"][key] = json!(value));
}

/// Passes of all replicas and time, until one is in `phase`, or all are where it is the last one.
async fn until(replicas: &mut [Replica], phase: state::RotationPhase) {
    for _ in 0..200 {
        for replica in replicas.iter_mut() {
            replica.pass().await;
        }
        let there = replicas.iter().filter(|r| r.phase() == phase).count();
        if there == replicas.len() || there > 0 && phase != state::RotationPhase::Steady {
            return;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    panic!("{phase:?} was not reached: {:?}", replicas[0].phase());
}

fn bundle_of(fake: &Fake) -> String {
    let bundle = fake.bundle(VALIDATING, 0);
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1, "{bundle}");
    bundle
}

#[tokio::test(start_paused = true)]
async fn a_request_brings_one_new_ca_and_its_text_is_answered_once() {
    use state::RotationPhase::{Introducing, Retiring, Steady};
    let fake = Fake::installed();
    // A request that was on the Secret before there was a CA: the first CA answers it.
    ask(&fake, ROTATE_CA, "one");
    let mut replicas: Vec<_> = (0..3).map(|_| Replica::new(&fake, t0())).collect();
    until(&mut replicas, Steady).await;
    let first = bundle_of(&fake);
    let quiet = fake.writes().len();
    for replica in &mut replicas {
        replica.pass().await;
    }
    assert_eq!((fake.writes().len(), bundle_of(&fake)), (quiet, first.clone()));

    ask(&fake, ROTATE_CA, "two");
    until(&mut replicas, Introducing).await;
    until(&mut replicas, Retiring).await;
    // A request in the middle of a rotation is answered after it, whichever replica saw it first.
    ask(&fake, ROTATE_CA, "three");
    until(&mut replicas, Steady).await;
    let third = bundle_of(&fake);
    assert_ne!(third, first);
    assert_eq!(fake.nexts(), 2, "one next CA a request");

    // Also answered for replicas that start later; and removing the request asks for nothing.
    replicas.push(Replica::new(&fake, t0()));
    fake.edit(SECRET, |s| s["metadata"]["annotations"] = json!({}));
    let quiet = fake.writes().len();
    until(&mut replicas, Steady).await;
    ask(&fake, ROTATE_CA, "three");
    until(&mut replicas, Steady).await;
    assert_eq!((fake.writes().len(), bundle_of(&fake)), (quiet, third));
    assert_eq!(fake.nexts(), 2, "one next CA a request");
}

#[tokio::test]
async fn a_request_makes_every_replica_sign_anew_once_and_nothing_is_written() {
    let fake = Fake::installed();
    let mut replicas: Vec<_> = (0..2).map(|_| Replica::new(&fake, t0())).collect();
    for replica in &mut replicas {
        replica.pass().await;
    }
    ask(&fake, ROTATE_LEAF, "one");
    let quiet = fake.writes().len();
    for replica in &mut replicas {
        let before = replica.source.chain();
        replica.pass().await;
        let after = replica.source.chain();
        assert_ne!(after, before);
        let key = |chain: &[CertificateDer<'static>]| {
            x509_parser::parse_x509_certificate(&chain[0]).unwrap().1.public_key().raw.to_vec()
        };
        assert_ne!(key(&after), key(&before), "the key is new as well");
        replica.pass().await;
        assert_eq!(replica.source.chain(), after, "one request, one leaf");
        assert_eq!(replica.accepted_by(&bundle_of(&fake)), Ok(()));
    }
    assert_eq!(fake.writes().len(), quiet);
}

#[tokio::test(start_paused = true)]
async fn the_loop_looks_again_when_something_is_due() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    let settings = &mut replica.authority.settings;
    settings.times.leaf_lifetime = Duration::from_secs(15);
    settings.times.ca_introduce_wait = Duration::from_secs(2);
    settings.times.ca_retire_wait = Duration::from_secs(3);
    let (source, clock) = (replica.source.clone(), replica.clock.clone());
    let wake = Arc::new(tokio::sync::Notify::new());
    let run = replica.authority.run(wake.clone(), |_| {});
    let watch = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let chain = source.chain();
        // The wall clock stands still in this test: the test moves it.
        clock.set(t0() + Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_ne!(source.chain(), chain, "a leaf of 15 s is not left to the look of every 30 s");

        let first = bundle_of(&fake);
        ask(&fake, ROTATE_CA, "now");
        wake.notify_one();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_ne!(bundle_of(&fake), first, "waits of 2 s and 3 s end when they end");
    };
    tokio::select! {
        () = run => unreachable!("the loop never ends"),
        () = watch => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_steps_of_a_rotation_are_no_fight_and_bring_no_long_pauses() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    let settings = &mut replica.authority.settings;
    settings.times.ca_introduce_wait = Duration::ZERO;
    settings.times.ca_retire_wait = Duration::ZERO;
    let clock = replica.clock.clone();
    let wake = Arc::new(tokio::sync::Notify::new());
    let run = replica.authority.run(wake.clone(), |_| {});
    let watch = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for round in 1..=5 {
            // Past the end of the CA every call fails until the new one is trusted.
            clock.set(t0() + DAY * 400 * round);
            let (before, began) = (bundle_of(&fake), tokio_now());
            wake.notify_one();
            let is_new = |bundle: &str| bundle != before && bundle.matches("BEGIN").count() == 1;
            while !is_new(&fake.bundle(MUTATING, 0)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(tokio_now() - began < Duration::from_secs(3), "{:?}", tokio_now() - began);
        }
    };
    tokio::select! {
        () = run => unreachable!("the loop never ends"),
        () = watch => {}
    }
}
