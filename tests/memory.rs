//! Ten thousand Services are created and deleted: the index and the queue free every byte that they used
//! for them. The allocator counts exactly; tests/cluster/churn.rs measures the whole process.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test binary")]

use std::sync::Arc;
use std::time::Duration;

use peak_alloc::PeakAlloc;
use zen_lead::control::queue::Queue;
use zen_lead::platform::metrics::Metrics;
use zen_lead_core::fixtures::{NAMESPACE, Object, ServiceFixture, foreign_slice, pod, service};
use zen_lead_core::index::{Index, Limits, Sizes};
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::version::Rv;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

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
