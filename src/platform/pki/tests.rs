//! Certificates against rustls' own verifier, and the authority against an API server in memory.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{CertificateError as Tls, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

mod fake;
mod requests;

use super::*;
use crate::platform::clock::Clock;
use crate::platform::metrics::Metrics;
use crate::platform::server::tls::CertificateSource;
use fake::{Fake, MUTATING, SECRET, VALIDATING, configuration};

const DAY: Duration = Duration::from_hours(24);

fn t0() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The result for a TLS client that trusts `bundle` and verifies `chain` under `name` at `now`.
fn verify(
    bundle: &str,
    chain: &[CertificateDer<'_>],
    name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name).unwrap();
    let seconds = u64::try_from(now.as_second()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(|_| ())
}

struct Replica {
    authority: Authority,
    source: Arc<CertificateSource>,
    clock: Clock,
}

impl Replica {
    fn new(fake: &Fake, at: Timestamp) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let source = CertificateSource::new(Arc::clone(&metrics));
        let clock = Clock::fixed(at);
        let settings = PkiSettings::new("zen");
        let authority =
            Authority::new(fake.client(), settings, Arc::clone(&source), clock.clone(), metrics);
        Self { authority, source, clock }
    }

    /// One pass that must go well.
    async fn pass(&mut self) -> RotationReport {
        let report = self.authority.pass().await;
        assert_eq!(report.problems, Vec::<String>::new());
        report
    }

    /// Whether a client with this bundle accepts the certificate in use.
    fn accepted_by(&self, bundle: &str) -> Result<(), Error> {
        let chain = self.source.chain();
        verify(bundle, &chain, "zen-lead.zen.svc", self.clock.now())
    }

    fn phase(&self) -> state::RotationPhase {
        self.authority.known.as_ref().unwrap().phase
    }
}

#[test]
fn a_leaf_is_believed_for_its_names_and_for_no_other() {
    let ca = Ca::generate(t0(), DAY * 365, None).unwrap();
    let mut settings = PkiSettings::new("zen");
    settings.extra_names = vec!["127.0.0.1".into(), "lead.example.com".into()];
    let leaf = ca.sign(&settings.names(), t0(), DAY * 7).unwrap();
    let bundle = ca.certificate.to_pem();
    for name in
        ["zen-lead.zen.svc", "zen-lead.zen.svc.cluster.local", "127.0.0.1", "lead.example.com"]
    {
        assert_eq!(verify(&bundle, &leaf.chain(), name, t0()), Ok(()), "{name}");
    }
    for name in ["zen-lead.other.svc", "zen-lead.zen", "127.0.0.2", "svc"] {
        let got = verify(&bundle, &leaf.chain(), name, t0());
        let wrong_name = matches!(
            got,
            Err(Error::InvalidCertificate(
                Tls::NotValidForNameContext { .. } | Tls::NotValidForName
            ))
        );
        assert!(wrong_name, "{name}: {got:?}");
    }

    let other = Ca::generate(t0(), DAY * 365, None).unwrap().certificate.to_pem();
    let got = verify(&other, &leaf.chain(), "zen-lead.zen.svc", t0());
    assert_eq!(got, Err(Error::InvalidCertificate(Tls::UnknownIssuer)));
    // In a rotation both are in the bundle, in any order.
    for both in [format!("{bundle}{other}"), format!("{other}{bundle}")] {
        assert_eq!(verify(&both, &leaf.chain(), "zen-lead.zen.svc", t0()), Ok(()));
    }
}

#[test]
fn a_leaf_ends_with_its_ca_and_is_due_after_two_thirds() {
    let ca = Ca::generate(t0(), DAY * 10, None).unwrap();
    let names = ["a.b.svc".to_owned()];
    let leaf = ca.sign(&names, t0(), DAY * 6).unwrap();
    assert_eq!(leaf.ends, t0() + DAY * 6);
    for (now, due) in [
        (t0(), false),
        (t0() + DAY * 4 - Duration::from_secs(1), false),
        (t0() + DAY * 4, true),
        (t0() + DAY * 400, true),
        (t0() - DAY * 30, false),
    ] {
        assert_eq!(now >= leaf.due_at(), due, "{now}");
    }
    let late = ca.sign(&names, t0() + DAY * 9, DAY * 6).unwrap();
    assert_eq!(late.ends, t0() + DAY * 10, "never longer than the CA");
}

#[test]
fn a_clock_that_runs_ahead_makes_a_ca_that_the_others_believe() {
    let first = Ca::generate(t0(), DAY * 365, None).unwrap();
    let ahead = t0() + DAY * 3650;
    let next = Ca::generate(ahead, DAY * 365, Some(&first.certificate)).unwrap();
    let leaf = next.sign(&["a.b.svc".to_owned()], ahead, DAY * 7).unwrap();
    assert_eq!(verify(&next.certificate.to_pem(), &leaf.chain(), "a.b.svc", t0()), Ok(()));
}

#[tokio::test]
async fn replicas_started_together_agree_on_one_ca() {
    for with_secret in [true, false] {
        let fake = Fake::installed();
        if !with_secret {
            fake.remove(SECRET);
        }
        let mut replicas: Vec<_> = (0..5).map(|_| Replica::new(&fake, t0())).collect();
        let reports = join_all(replicas.iter_mut().map(Replica::pass)).await;
        assert_eq!(reports.iter().filter(|r| r.serving).count(), 5);

        let secret_writes = |code: &str| {
            let verb = if with_secret { "PUT" } else { "POST" };
            let writes = fake.writes();
            writes.iter().filter(|w| w.starts_with(verb) && w.ends_with(code)).count()
        };
        let won = if with_secret { secret_writes("200") } else { secret_writes("201") };
        assert_eq!(won, 1, "{:?}", fake.writes());
        assert_eq!(secret_writes("409"), 4, "the race must have taken place: {:?}", fake.writes());

        for path in [VALIDATING, MUTATING] {
            let bundle = fake.bundle(path, 0);
            assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
            for replica in &replicas {
                assert_eq!(replica.accepted_by(&bundle), Ok(()));
            }
            assert_eq!(fake.bundle(path, 1), "", "an item of another owner was written");
        }
        assert_eq!(with_secret, fake.get(SECRET).unwrap()["metadata"]["labels"]["a"] == "b");
    }
}

#[tokio::test]
async fn in_the_right_state_nothing_is_written() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    assert!(replica.pass().await.wrote);
    let before = fake.writes().len();
    for _ in 0..5 {
        let report = replica.pass().await;
        assert_eq!((report.wrote, report.published, report.serving), (false, true, true));
    }
    assert_eq!(fake.writes().len(), before);
}

#[tokio::test]
async fn a_wiped_or_foreign_bundle_is_put_right_and_a_missing_item_left_alone() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    replica.pass().await;
    let good = fake.bundle(VALIDATING, 0);

    for foreign in [json!(null), json!("Zm9yZWlnbg==")] {
        fake.edit(VALIDATING, |c| c["webhooks"][0]["clientConfig"]["caBundle"] = foreign);
        let report = replica.pass().await;
        assert!(report.wrote);
        assert_eq!(fake.bundle(VALIDATING, 0), good);
    }

    // The fake panics on a patch that names an item which is not there.
    fake.put(VALIDATING, configuration(&["renamed.zen-lead.io"]));
    fake.remove(MUTATING);
    let report = replica.pass().await;
    assert!(!report.wrote);
    assert_eq!(
        report.missing,
        [
            "item validate.zen-lead.io of ValidatingWebhookConfiguration zen-lead",
            "MutatingWebhookConfiguration zen-lead"
        ]
    );
    fake.put(MUTATING, configuration(&[MUTATE_ITEM]));
    replica.pass().await;
    assert_eq!(fake.bundle(MUTATING, 0), good);
}

#[tokio::test]
async fn a_lost_race_for_a_configuration_is_run_again_and_an_error_is_left_to_the_next_pass() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    fake.fail("PATCH", 1, 409);
    assert!(replica.pass().await.published);

    fake.edit(VALIDATING, |c| c["webhooks"][0]["clientConfig"]["caBundle"] = json!(null));
    fake.fail("PATCH", 1, 500);
    assert!(replica.pass().await.published, "tried again within the pass");

    fake.edit(VALIDATING, |c| c["webhooks"][0]["clientConfig"]["caBundle"] = json!(null));
    fake.fail("PATCH", 1, 403);
    let report = replica.authority.pass().await;
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let want = "cannot write the caBundle of the ValidatingWebhookConfiguration zen-lead: ";
    assert!(report.problems[0].starts_with(want), "{report:?}");
    assert!(report.serving && !report.published);
    assert!(replica.pass().await.published);
}

#[tokio::test]
async fn a_lost_or_spoilt_secret_leads_to_a_new_ca_without_one_refused_call() {
    for spoil in [
        |fake: &Fake| fake.remove(SECRET),
        |fake: &Fake| fake.edit(SECRET, |s| s["data"] = json!({})),
        |fake: &Fake| fake.edit(SECRET, |s| s["data"]["ca.key"] = json!("cnViYmlzaA==")),
    ] {
        let fake = Fake::installed();
        let mut replicas: Vec<_> = (0..3).map(|_| Replica::new(&fake, t0())).collect();
        for replica in &mut replicas {
            replica.pass().await;
        }
        let before = fake.bundle(VALIDATING, 0);
        spoil(&fake);
        join_all(replicas.iter_mut().map(Replica::pass)).await;
        let after = fake.bundle(VALIDATING, 0);
        assert_eq!(after.matches("BEGIN CERTIFICATE").count(), 2, "{after}");
        assert!(after.starts_with(&before));
        for replica in &replicas {
            assert_eq!(replica.accepted_by(&before), Ok(()), "before the new bundle is noticed");
            assert_eq!(replica.accepted_by(&after), Ok(()));
        }
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_reported_and_the_certificate_stays() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    replica.pass().await;
    fake.fail("GET", 1, 403);
    let report = replica.authority.pass().await;
    assert!(
        report.problems[0].starts_with("cannot read the Secret zen-lead-ca: "),
        "{:?}",
        report.problems
    );
    assert!(report.serving);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_never_shows_a_certificate_that_a_known_bundle_does_not_cover() {
    use state::RotationPhase::{Introduced, Introducing, Retiring, Steady};

    let fake = Fake::installed();
    let mut replicas: Vec<_> = (0..3).map(|_| Replica::new(&fake, t0())).collect();
    for replica in &mut replicas {
        replica.pass().await;
    }
    let first = fake.bundle(VALIDATING, 0);
    for replica in &replicas {
        replica.clock.set(t0() + DAY * 250);
    }

    let mut seen = vec![(Steady, 1)];
    // The bundle of an API server that is one minute behind.
    let mut history = vec![first.clone()];
    for _ in 0..120 {
        // Each pass is made by one replica alone; one of them dies half-way through.
        for (n, replica) in replicas.iter_mut().enumerate() {
            if n == 1 && history.len() > 20 {
                continue;
            }
            replica.pass().await;
        }
        let bundle = fake.bundle(VALIDATING, 0);
        assert_eq!(bundle, fake.bundle(MUTATING, 0));
        let late = &history[history.len().saturating_sub(6)];
        for (n, replica) in replicas.iter().enumerate() {
            if n == 1 && history.len() > 20 {
                continue;
            }
            assert_eq!(replica.accepted_by(&bundle), Ok(()), "{:?}", replica.phase());
            assert_eq!(replica.accepted_by(late), Ok(()), "late, {:?}", replica.phase());
        }
        let now = (replicas[0].phase(), bundle.matches("BEGIN").count());
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        history.push(bundle);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let mut phases: Vec<_> = seen.iter().map(|(phase, _)| *phase).collect();
    phases.dedup();
    assert_eq!(phases, [Steady, Introducing, Introduced, Retiring, Steady], "{seen:?}");
    let last = history.last().unwrap();
    assert_eq!(last.matches("BEGIN").count(), 1);
    assert_ne!(*last, first);
}

#[tokio::test]
async fn replicas_that_rotate_together_introduce_one_next_ca() {
    let fake = Fake::installed();
    let mut replicas: Vec<_> = (0..4).map(|_| Replica::new(&fake, t0())).collect();
    for replica in &mut replicas {
        replica.pass().await;
        replica.clock.set(t0() + DAY * 250);
    }
    let before = fake.writes().len();
    join_all(replicas.iter_mut().map(Replica::pass)).await;
    let puts = |code: &str| {
        let writes = fake.writes().split_off(before);
        writes.iter().filter(|w| w.starts_with("PUT") && w.ends_with(code)).count()
    };
    assert_eq!(puts("200"), 1, "{:?}", fake.writes());
    assert_eq!(puts("409"), 3, "the race must have taken place: {:?}", fake.writes());
    let next = fake.get(SECRET).unwrap()["data"]["next-ca.crt"].clone();
    join_all(replicas.iter_mut().map(Replica::pass)).await;
    assert_eq!(fake.get(SECRET).unwrap()["data"]["next-ca.crt"], next);
    for replica in &replicas {
        let known = replica.authority.known.as_ref().unwrap().next.as_ref().unwrap();
        let bytes = k8s_openapi::ByteString(known.certificate.to_pem().into_bytes());
        assert_eq!(json!(bytes), next);
    }
}

#[tokio::test]
async fn a_replica_that_is_a_few_steps_behind_does_not_undo_what_another_began() {
    for behind in 0..24 {
        let fake = Fake::installed();
        let (mut one, mut two) = (Replica::new(&fake, t0()), Replica::new(&fake, t0()));
        for replica in [&mut one, &mut two] {
            replica.pass().await;
            replica.clock.set(t0() + DAY * 250);
        }
        let late = async {
            for _ in 0..behind {
                tokio::task::yield_now().await;
            }
            two.pass().await
        };
        futures::join!(one.pass(), late);
        let nexts = fake.nexts();
        assert_eq!(nexts, 1, "{behind} steps behind: {:?}", fake.writes());
    }
}

#[test]
fn the_patch_names_one_item_in_one_version_of_one_object() {
    use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
    let mut object = configuration(&["other.example.com", MUTATE_ITEM]);
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["resourceVersion"] = json!("7");
    let read = |object| serde_json::from_value::<MutatingWebhookConfiguration>(object).unwrap();
    let want = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "zen-lead", "uid": "u", "resourceVersion": "7" },
        "webhooks": [{ "name": "mutate.zen-lead.io", "clientConfig": { "caBundle": "UEVN" } }],
    });
    assert_eq!(bundle::patch(&read(object.clone()), "PEM"), Some(want));
    object["webhooks"][1]["clientConfig"]["caBundle"] = json!("UEVN");
    assert_eq!(bundle::patch(&read(object), "PEM"), None);
    let foreign = configuration(&["other.example.com", VALIDATE_ITEM]);
    assert_eq!(
        bundle::patch(&read(foreign), "PEM"),
        None,
        "the item of the other kind is not ours"
    );
}

#[tokio::test]
async fn clock_jumps_renew_the_leaf_and_an_ended_ca() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    replica.pass().await;
    let shown = replica.source.chain();
    replica.clock.set(t0() + DAY * 4);
    replica.pass().await;
    assert_eq!(replica.source.chain(), shown, "not due before two thirds of 7 days");

    for at in [t0() + DAY * 5, t0() + DAY * 200] {
        let before = replica.source.chain();
        replica.clock.set(at);
        replica.pass().await;
        assert_ne!(replica.source.chain(), before, "{at}");
        assert_eq!(replica.phase(), state::RotationPhase::Steady, "{at}");
        replica.clock.set(t0());
        assert_eq!(replica.accepted_by(&fake.bundle(VALIDATING, 0)), Ok(()), "{at}");
    }

    let shown = replica.source.chain();
    replica.clock.set(t0() - DAY * 30);
    assert!(!replica.pass().await.wrote);
    assert_eq!(replica.source.chain(), shown, "a clock set back renews nothing");

    replica.clock.set(t0() + DAY * 1000);
    replica.authority.pass().await;
    replica.pass().await;
    assert_eq!(replica.accepted_by(&fake.bundle(VALIDATING, 0)), Ok(()));
}

/// The loop of a replica, and its report of each pass with the time.
fn looping(
    fake: &Fake,
    wake: &Arc<Notify>,
) -> (impl Future<Output = ()> + use<>, UnboundedReceiver<(tokio::time::Instant, RotationReport)>) {
    let replica = Replica::new(fake, t0());
    let (sender, reports) = unbounded_channel();
    let run = replica.authority.run(Arc::clone(wake), move |r| {
        let _closed = sender.send((tokio_now(), r.clone()));
    });
    (run, reports)
}

#[tokio::test(start_paused = true)]
async fn the_loop_heals_on_a_wake_and_on_its_own() {
    let fake = Fake::installed();
    let wake = Arc::new(Notify::new());
    let (run, mut reports) = looping(&fake, &wake);
    let watch = async {
        let started = reports.recv().await.unwrap();
        assert!(started.1.serving && started.1.published);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let good = fake.bundle(VALIDATING, 0);
        for (waken, within) in [(true, Duration::from_secs(2)), (false, Duration::from_secs(31))] {
            fake.edit(VALIDATING, |c| c["webhooks"][0]["clientConfig"]["caBundle"] = json!(null));
            let at = tokio_now();
            if waken {
                wake.notify_one();
            }
            while fake.bundle(VALIDATING, 0) != good {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(tokio_now() - at <= within, "{:?}", tokio_now() - at);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        // A client that wipes it immediately each time does not make us write all the time.
        let before = fake.writes().len();
        for _ in 0..6000 {
            fake.edit(VALIDATING, |c| c["webhooks"][0]["clientConfig"]["caBundle"] = json!(null));
            wake.notify_one();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let writes = fake.writes().len() - before;
        assert!((15..40).contains(&writes), "{writes} writes in ten minutes");
    };
    tokio::select! {
        () = run => unreachable!("the loop never ends"),
        () = watch => {}
    }
}

fn tokio_now() -> tokio::time::Instant {
    crate::platform::clock::monotonic()
}

#[tokio::test]
async fn a_missing_namespace_is_reported_and_not_taken_for_a_race() {
    let fake = Fake::installed();
    fake.remove(SECRET);
    fake.fail("POST", 1, 404);
    let report = Replica::new(&fake, t0()).authority.pass().await;
    assert_eq!(
        report.problems,
        ["cannot create the Secret zen-lead-ca: there is no namespace zen; create it, or set \
          --namespace (POD_NAMESPACE) to the one zen-lead runs in"]
    );
    assert_eq!(fake.writes().len(), 1, "not tried five times: {:?}", fake.writes());
}

/// The bundles on the server are compared as text with what this writes.
#[test]
fn pem_has_lines_of_64_characters() {
    let pem = super::material::to_pem(&vec![0; 50].into());
    let wanted = format!(
        "-----BEGIN CERTIFICATE-----\n{}\nAAA=\n-----END CERTIFICATE-----\n",
        "A".repeat(64)
    );
    assert_eq!(pem, wanted);
}

#[tokio::test]
async fn a_secret_that_others_change_all_the_time_is_given_up_for_this_pass() {
    let fake = Fake::installed();
    fake.fail("PUT", 9, 409);
    let report = Replica::new(&fake, t0()).authority.pass().await;
    assert_eq!(fake.writes().len(), 5, "{:?}", fake.writes());
    assert!(
        report.problems[0].starts_with("the Secret zen-lead-ca was changed by another client ")
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_is_noticed_by_the_watches_and_at_the_latest_within_a_minute() {
    let fake = Fake::installed();
    let wake = Arc::new(Notify::new());
    let (run, mut reports) = looping(&fake, &wake);
    let watch = async {
        assert!(reports.recv().await.unwrap().1.published);
        for (waken, within) in [(true, 12), (false, 42)] {
            fake.silence(true);
            tokio::time::sleep(Duration::from_mins(5)).await;
            fake.silence(false);
            let back = tokio_now();
            if waken {
                wake.notify_one();
            }
            let at = loop {
                let (at, report) = reports.recv().await.unwrap();
                if at >= back && report.published {
                    break at;
                }
            };
            assert!(at - back <= Duration::from_secs(within), "{:?}", at - back);
        }
    };
    tokio::select! {
        () = run => unreachable!("the loop never ends"),
        () = watch => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_hangs_is_cut_off_and_what_is_shown_stays() {
    let fake = Fake::installed();
    let mut replica = Replica::new(&fake, t0());
    replica.pass().await;
    fake.silence(true);
    let began = tokio_now();
    let report = replica.authority.pass().await;
    // Not one call after the other.
    assert!(tokio_now() - began <= Duration::from_secs(11), "{:?}", tokio_now() - began);
    assert!(report.serving && !report.published, "{report:?}");
    assert!(
        report.problems.iter().any(|p| p.contains("get_secret zen-lead-ca: no success within 10s")),
        "{report:?}"
    );
    fake.silence(false);
    assert!(replica.pass().await.published);
}
