//! Repairs without a user: a caBundle that others wipe or overwrite, once or all the time, and renewals
//! after a clock jumps by months or years, ahead or back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use zen_lead::config::certificates::Certificates;
use zen_lead::platform::clock::Clock;
use zen_lead::platform::metrics::Metrics;
use zen_lead::platform::pki::{Authority, Ca, PkiSettings};
use zen_lead::platform::server::{self, tls};
use zen_lead::platform::telemetry::spans::Tracer;
use zen_lead::webhook;
use zen_lead::webhook::verdicts::Verdicts;
use zen_lead_core::index::{Index, Limits};
use zen_lead_core::names::NameRule;

use super::writes::Writes;
use super::{try_write, until_published};
use crate::support::ca::Ca as SharedCa;
use crate::support::case::Case;
use crate::support::cluster;
use crate::support::harness::Test;
use crate::support::waiting::{DEADLINE, check, until};
use crate::support::webhook::Hook;

pub fn tests() -> Vec<Test> {
    let module = "certificates";
    vec![
        Test::new(
            module,
            "wiped_or_foreign_bundle_is_put_right",
            wiped_or_foreign_bundle_is_put_right,
        ),
        Test::new(
            module,
            "a_bundle_wiped_again_and_again_is_restored_with_pauses",
            a_bundle_wiped_again_and_again_is_restored_with_pauses,
        ),
        Test::new(module, "clock_that_jumps_costs_no_call", clock_that_jumps_costs_no_call),
        Test::new(
            module,
            "clock_that_jumps_over_the_life_of_the_ca_is_repaired",
            clock_that_jumps_over_the_life_of_the_ca_is_repaired,
        ),
        Test::new(
            module,
            "clock_set_back_by_a_year_costs_calls_only_after_a_restart",
            clock_set_back_by_a_year_costs_calls_only_after_a_restart,
        ),
    ]
}

const DAY: Duration = Duration::from_hours(24);
/// The default lifetime of a CA.
const YEAR: Duration = Duration::from_hours(365 * 24);
/// How long the test wipes the bundle as soon as it is written.
const FIGHT: Duration = Duration::from_secs(8);

async fn wiped_or_foreign_bundle_is_put_right(t: Arc<Case>) {
    let (admin, system) = (t.admin(), t.world.system.clone());
    t.world.product.ensure_started().await;
    until_published(&t).await;
    let foreign = Ca::generate(Timestamp::now(), DAY, None).unwrap().certificate.to_pem();
    let foreign = json!({"clientConfig": {"caBundle": k8s_openapi::ByteString(foreign.into())}});
    let mut times = Vec::new();
    for round in 0..4 {
        // One accident, not one of many.
        sleep(Duration::from_secs(1)).await;
        for hook in Hook::BOTH {
            let began = Instant::now();
            if round % 2 == 0 {
                hook.wipe(&admin, &system).await;
            } else {
                hook.apply(&admin, &system, &foreign).await;
            }
            until_published(&t).await;
            times.push(began.elapsed());
        }
    }
    until("and writes are reviewed again", || try_write(&t)).await;
    times.sort();
    println!(
        "certificates: a caBundle that was wiped or overwritten was right again after {:?} (median), \
         {:?} (slowest of {})",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
}

async fn a_bundle_wiped_again_and_again_is_restored_with_pauses(t: Arc<Case>) {
    let (admin, system) = (t.admin(), t.world.system.clone());
    t.world.product.ensure_started().await;
    until_published(&t).await;
    let (began, mut wiped) = (Instant::now(), 0);
    while began.elapsed() < FIGHT || (wiped < 2 && began.elapsed() < DEADLINE) {
        if !Hook::Validating.bundle(&admin, &system).await.unwrap().is_empty() {
            Hook::Validating.wipe(&admin, &system).await;
            wiped += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let ended = Instant::now();
    until_published(&t).await;
    println!(
        "certificates: wiped {wiped} times in {FIGHT:?}, as soon as it was there; right again {:?} \
         after that",
        ended.elapsed()
    );
    // Two replicas, each with pauses of 0.4, 0.8, 1.6 ... seconds. Either may see the correct bundle and
    // begin with short pauses again. Without pauses there would be dozens of writes.
    assert!((2..=25).contains(&wiped), "zen-lead wrote {wiped} times");
}

/// zen-lead's certificates and webhook in this process, where the clock can be moved.
struct InProcess {
    clock: Clock,
    wake: Arc<Notify>,
    authority: JoinHandle<()>,
    server: server::Control,
}

impl InProcess {
    async fn start(t: &Case) -> Self {
        Self::start_at(t, Timestamp::now()).await
    }

    /// Starts with the clock at this time.
    async fn start_at(t: &Case, now: Timestamp) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let source = tls::CertificateSource::new(metrics.clone());
        let settings = PkiSettings {
            validating: t.world.system.clone(),
            mutating: t.world.system.clone(),
            extra_names: vec!["127.0.0.1".to_owned()],
            times: Certificates {
                ca_introduce_wait: Duration::from_secs(4),
                ca_retire_wait: Duration::from_secs(2),
                ..Certificates::default()
            },
            ..PkiSettings::new(t.world.system.clone())
        };
        let clock = Clock::fixed(now);
        let client = cluster::client(&t.world.product.kubeconfig().to_owned()).await;
        let authority =
            Authority::new(client, settings, source.clone(), clock.clone(), metrics.clone());
        let wake = Arc::new(Notify::new());
        let index = Index::new(NameRule::Dns1123, Limits::default());
        let verdicts = Verdicts::new(
            Arc::new(RwLock::new(index)),
            Box::new(|| true),
            NameRule::Dns1123,
            t.world.username(),
            metrics.clone(),
        );
        let router = webhook::router(Arc::new(verdicts), metrics.clone(), Tracer::off());
        let at = ([127, 0, 0, 1], t.world.product.webhook_port(0)).into();
        // A replica that ran before releases the port a moment after its end.
        let bind = || async { server::bind(at) };
        let listener = until("the port of the webhook is free", bind).await;
        let config = tls::server_config(source, None).unwrap();
        let woken = wake.clone();
        let authority = tokio::spawn(async move { authority.run(woken, |_| {}).await });
        let server = server::Control::new();
        let control = server.clone();
        tokio::spawn(async move {
            let limits = server::ServerLimits::default();
            server::https(listener, router, config, control, &limits, metrics).await.unwrap();
        });
        Self { clock, wake, authority, server }
    }

    /// Moves the clock and wakes the certificates, so that the test does not wait for half a minute.
    fn jump(&self, to: Timestamp) {
        self.clock.set(to);
        self.wake.notify_one();
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.authority.abort();
        // Not aborted: connections are separate tasks, and the API server would go on using them.
        self.server.stop(Duration::ZERO);
    }
}

/// The API server's clock stays: it checks certificates of the wrong time by the right time.
async fn clock_that_jumps_costs_no_call(t: Arc<Case>) {
    let zen_lead = InProcess::start(&t).await;
    let now = zen_lead.clock.now();
    let first = until_reviewed(&t).await;

    let writes = Writes::start(&t);
    zen_lead.jump(now + 250 * DAY);
    let second = until_another(&t, &first).await;
    zen_lead.jump(now);
    writes.more(20).await;
    let (made, failed) = writes.finish().await;
    println!("certificates: {made} writes while a clock jumped by 250 days and back");
    assert!(failed.is_empty(), "{failed:#?}");

    // After the end of the CA every call fails by that clock, so no caution is needed.
    zen_lead.jump(now + 700 * DAY);
    let third = until_another(&t, &second).await;
    until("writes are reviewed again", || try_write(&t)).await;
    lasts_when_put_right(&t, &zen_lead, now, &third).await;
}

/// The first good review; the CA by which it was made.
async fn until_reviewed(t: &Case) -> String {
    until("the first good review", || try_write(t)).await;
    until_published(t).await
}

/// Back at the right time the new CA stays, and nothing has to be done.
async fn lasts_when_put_right(t: &Arc<Case>, zen_lead: &InProcess, now: Timestamp, ca: &str) {
    zen_lead.jump(now);
    let writes = Writes::start(t);
    writes.more(20).await;
    let (_, failed) = writes.finish().await;
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(until_published(t).await, ca);
}

/// By that clock every call fails already, so zen-lead does not wait: a caller with the right time may get
/// a certificate before its CA is in the bundle that the caller trusts.
async fn clock_that_jumps_over_the_life_of_the_ca_is_repaired(t: Arc<Case>) {
    SharedCa::of(&t).empty().await;
    let zen_lead = InProcess::start(&t).await;
    let now = zen_lead.clock.now();
    let first = until_reviewed(&t).await;

    let began = Instant::now();
    zen_lead.jump(now + YEAR);
    let (mut made, mut failed, mut repaired) = (0, Vec::new(), Duration::ZERO);
    let mut rotated = std::pin::pin!(until_another(&t, &first));
    let second = loop {
        tokio::select! {
            second = &mut rotated => break second,
            written = try_write(&t) => {
                made += 1;
                if let Err(why) = written {
                    failed.push(why);
                    repaired = began.elapsed();
                }
            }
        }
    };
    let took = began.elapsed();
    println!(
        "certificates: {} of {made} writes failed when a clock jumped by the life of the CA, none \
         after {repaired:?}; another CA alone after {took:?}",
        failed.len(),
    );
    until("writes are reviewed again", || try_write(&t)).await;
    lasts_when_put_right(&t, &zen_lead, now, &second).await;
}

/// A running replica keeps its certificate, which is still valid. A replica that starts with such a clock
/// signs a certificate that has expired for all others, until the clock is right.
async fn clock_set_back_by_a_year_costs_calls_only_after_a_restart(t: Arc<Case>) {
    SharedCa::of(&t).empty().await;
    let zen_lead = InProcess::start(&t).await;
    let now = zen_lead.clock.now();
    let first = until_reviewed(&t).await;

    let writes = Writes::start(&t);
    zen_lead.jump(now - YEAR);
    // It repairs with that clock too: another CA is removed from the bundle.
    let foreign = Ca::generate(now, DAY, None).unwrap().certificate.to_pem();
    let both = k8s_openapi::ByteString(format!("{first}{foreign}").into_bytes());
    let both = json!({"clientConfig": {"caBundle": both}});
    for hook in Hook::BOTH {
        hook.apply(&t.admin(), &t.world.system, &both).await;
        zen_lead.wake.notify_one();
        assert_eq!(until_published(&t).await, first);
    }
    writes.more(20).await;
    zen_lead.jump(now);
    writes.more(20).await;
    let (made, failed) = writes.finish().await;
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(until_published(&t).await, first);

    drop(zen_lead);
    let zen_lead = InProcess::start_at(&t, now - YEAR).await;
    until("the certificate has expired by the API server's clock", || async {
        let error = try_write(&t).await.err().unwrap_or_default();
        check(error.contains("certificate has expired"), error)
    })
    .await;
    assert_eq!(until_published(&t).await, first, "the CA is as good as it was");
    let began = Instant::now();
    zen_lead.jump(now);
    until("writes are reviewed again", || try_write(&t)).await;
    let took = began.elapsed();
    println!(
        "certificates: {made} writes while a clock was set back by a year, none failed; a replica \
         started with that clock was right {took:?} after the clock was"
    );
    assert_eq!(until_published(&t).await, first);
}

/// Waits until a rotation has ended with another CA.
async fn until_another(t: &Case, before: &str) -> String {
    until("another CA is in use", || async {
        let fresh = timeout(Duration::from_secs(5), until_published(t)).await;
        let fresh = fresh.map_err(|_| "the rotation goes on".to_owned())?;
        check(fresh != before, "the old CA").map(|()| fresh)
    })
    .await
}
