//! What Services cost in memory, to the byte: the allocator counts. Ten thousand Services are created and
//! deleted, and the index and the queue free all that they used for them; a scrape needs as little for
//! thousands of Services as for one. tests/cluster/churn.rs measures the whole process.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test binary")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use peak_alloc::PeakAlloc;
use tower::ServiceExt;
use zen_lead::control::queue::Queue;
use zen_lead::platform::health::Health;
use zen_lead::platform::metrics::Metrics;
use zen_lead::platform::server::admin;
use zen_lead_core::fixtures::{NAMESPACE, Object, ServiceFixture, foreign_slice, pod, service};
use zen_lead_core::index::{Index, Limits, Sizes};
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::report::ServiceReport;
use zen_lead_core::version::Rv;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The tests of this file count the bytes of the whole process, so they run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

const SERVICES: u64 = 10_000;
const NAMESPACES: u64 = 50;
/// Room that maps keep when they are empty, and what the runtime allocates in passing.
const CRUMBS: usize = 64 * 1024;

fn namespace(n: u64) -> String {
    format!("{NAMESPACE}-{}", n % NAMESPACES)
}

/// Takes in source, leader Service, slice and pod of every Service.
fn come(index: &mut Index, round: u64) {
    for n in 0..SERVICES {
        let (ns, version) = (namespace(n), round * 1000 + 1);
        let (name, leader) = (format!("s{n}"), format!("s{n}-leader"));
        let source = service(&name).enabled().selecting("app", &name);
        let led = service(&leader).leading(&name, &format!("uid-{name}"));
        index.apply_service(source.within(&ns).version(version));
        index.apply_service(led.within(&ns).version(version));
        index.apply_slice(foreign_slice(&name, &leader).within(&ns).version(version));
        index.apply_pod(&pod(&name).label("app", &name).within(&ns).version(version));
    }
    for n in 0..NAMESPACES {
        index.pods_heard(Some(&namespace(n)), Rv(round * 1000 + 2));
    }
}

/// The resident memory in KiB. It is printed and not checked: the allocator decides what it returns.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn go(index: &mut Index, round: u64) {
    let later = Rv(round * 1000 + 3);
    index.reset_services(Vec::new(), later);
    index.reset_slices(Vec::new(), later);
    for n in 0..NAMESPACES {
        index.drop_pods(Some(&namespace(n)));
    }
}

/// Every key waits, fails once, waits for its turn and is done.
async fn work(queue: &Queue<ServiceKey>) {
    for n in 0..SERVICES {
        queue.add_now(ServiceKey::new(namespace(n), format!("s{n}")));
    }
    assert_eq!(queue.sizes()[0], usize::try_from(SERVICES).unwrap());
    for _ in 0..SERVICES {
        queue.pop().await.unwrap().fail(None);
    }
    assert_eq!(queue.sizes()[2], usize::try_from(SERVICES).unwrap());
    for _ in 0..SERVICES {
        queue.pop().await.unwrap().done(None);
    }
    assert_eq!(queue.sizes(), [0, 0, 0]);
}

#[test]
fn every_byte_of_ten_thousand_services_comes_back() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut index = Index::new(NameRule::default(), Limits::default());
    let queue = Queue::new(Arc::new(Metrics::new().unwrap()), Arc::default(), 4);
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });

    println!("resident {} KiB before", resident());
    let before = ALLOCATOR.current_usage();
    for round in 1..=2 {
        come(&mut index, round);
        let n = usize::try_from(SERVICES).unwrap();
        let full = Sizes {
            services: 2 * n,
            sources: n,
            pods: n,
            slices: n,
            namespaces: usize::try_from(NAMESPACES).unwrap(),
        };
        assert_eq!(index.sizes(), full);
        let full_resident = resident();
        let indexed = ALLOCATOR.current_usage() - before;
        assert!(indexed > 1024 * n, "the allocator counts: {indexed}");
        runtime.block_on(work(&queue));
        go(&mut index, round);
        assert_eq!(index.sizes(), Sizes::default());
        let left = ALLOCATOR.current_usage().saturating_sub(before);
        println!(
            "round {round}: {indexed} bytes with all, {left} without; resident {full_resident} KiB \
             with all, {} KiB without",
            resident()
        );
        assert!(left < CRUMBS, "round {round}: {left} bytes of {indexed} are left");
    }
}

/// Services in a scrape.
const SCRAPED: usize = 2_000;
/// Bytes that the metrics of a Service may take, without its names, and bytes that a scrape may take.
const HELD: usize = 512;
const PEAK: usize = 128 * 1024;

/// What is recorded about a Service that has got its first leader.
fn led(metrics: &Metrics, key: &ServiceKey) {
    metrics.track(key);
    metrics.decided(key, true, None, false);
    metrics.failover(key, "first_leader", None);
    metrics.reconciled(key, "ok", false, Duration::from_millis(3));
    let at = Timestamp::from_second(1_800_000_000).ok();
    let report = ServiceReport {
        leader_since: at,
        leader_pod_created: at,
        pods_available: 2,
        endpoints: 1,
        epoch: 1_800_000_000_000,
        stable: true,
        leader_service: true,
        slices: 1,
    };
    metrics.services().set(key, &report);
}

/// Reads a whole scrape piece by piece, as a socket does; the bytes read, and the lines about Services.
async fn scrape(metrics: &Arc<Metrics>) -> (usize, usize) {
    let router = admin::router(metrics.clone(), Health::new(&[], metrics.clone()));
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let mut body = router.oneshot(request).await.unwrap().into_body();
    let (mut bytes, mut lines) = (0, 0);
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&piece).unwrap();
        assert!(text.ends_with('\n'), "a piece has whole lines");
        bytes += text.len();
        lines += text.lines().filter(|l| l.contains("service=\"s")).count();
    }
    (bytes, lines)
}

#[test]
fn a_scrape_of_thousands_of_services_holds_a_piece_of_it() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let keys: Vec<_> = (0..SCRAPED).map(|n| ServiceKey::new("shop", format!("s{n}"))).collect();
    let metrics = Arc::new(Metrics::new().unwrap());
    let empty = ALLOCATOR.current_usage();
    for key in &keys {
        led(&metrics, key);
    }
    let held = (ALLOCATOR.current_usage() - empty) / SCRAPED;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let (bytes, lines) = runtime.block_on(scrape(&metrics));
    let peak = ALLOCATOR.peak_usage() - before;
    println!(
        "{held} bytes a Service; a scrape of {SCRAPED} Services: {lines} lines about them, {bytes} bytes, \
         {peak} held at most"
    );
    assert_eq!(lines, 10 * SCRAPED, "the series of a Service with a leader");
    assert!(held > 100, "the allocator counts: {held}");
    assert!(held < HELD, "{held} bytes a Service");
    assert!(bytes > 4 * PEAK, "the text is much larger than what is held of it: {bytes}");
    assert!(peak < PEAK, "{peak} bytes of {bytes} were held");
}
