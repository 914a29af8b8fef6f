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
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::{Mutex, MutexGuard};
use peak_alloc::PeakAlloc;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use zen_lead::control::queue::Queue;
use zen_lead::platform::health::Health;
use zen_lead::platform::metrics::Metrics;
use zen_lead::platform::server::admin;
use zen_lead_core::decode::Decoded;
use zen_lead_core::fixtures::{NAMESPACE, Object, ServiceFixture, foreign_slice, pod, service};
use zen_lead_core::index::placed::{PlacedService, PlacedSlice};
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
    let mut index = Index::new(NameRule::default(), Limits::default()).compact();
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
    let router = admin::router(metrics.clone(), Health::new(&[], metrics.clone()), None);
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

/// Bytes that these may take.
const SERVICE_BYTES: usize = 6_250;
const POD_BYTES: usize = 410;
/// Services, and pods of each, of which the bytes are counted.
const COUNTED: (usize, usize) = (500, 20);

/// Source, leader Service and slice of a Service, as they are in a cluster.
fn real_objects(n: usize) -> [Value; 3] {
    let uid = |kind: &str| format!("{kind:0<8}-4a3c-4d5e-9f60-{n:012}");
    let (name, leader) = (format!("web-{n:05}"), format!("web-{n:05}-leader"));
    let source = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": uid("abc"), "resourceVersion": "1234567",
            "creationTimestamp": "2026-11-30T12:00:00Z", "labels": {"app": name, "team": "blue"},
            "annotations": {"zen-lead.io/enabled": "true", "zen-lead.io/failover-min-delay": "2s"},
        },
        "spec": {
            "clusterIP": "10.0.12.34", "clusterIPs": ["10.0.12.34"], "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": name}, "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    });
    let pod = format!("{name}-7d4b9c6f5-x0000");
    let led = json!({
        "metadata": {
            "name": leader, "namespace": NAMESPACE, "uid": uid("def"), "resourceVersion": "1234568",
            "creationTimestamp": "2026-11-30T12:00:01Z",
            "labels": {"app.kubernetes.io/managed-by": "zen-lead", "zen-lead.io/source-service": name},
            "annotations": {
                "zen-lead.io/current-leader": format!("{NAMESPACE}/{pod}"),
                "zen-lead.io/leader-pod-name": pod, "zen-lead.io/leader-pod-uid": uid("bcd"),
                "zen-lead.io/last-switch-time": "2026-11-30T12:00:02.123456Z",
                "zen-lead.io/switch-reason": "first_leader", "zen-lead.io/leader-epoch": "1800000000000",
                "zen-lead.io/settings": "sticky=true failover-min-delay=2s min-ready-duration=0s",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": name, "uid": uid("abc"), "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "clusterIP": "10.0.12.35", "clusterIPs": ["10.0.12.35"], "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": {
            "loadBalancer": {},
            "conditions": [{
                "type": "zen-lead.io/LeaderReady", "status": "True", "reason": "LeaderRoutingAvailable",
                "lastTransitionTime": "2026-11-30T12:00:02Z",
                "message": format!("{pod} leads; {pod}: standby; {pod}: standby"),
            }],
        },
    });
    let slice = json!({
        "metadata": {
            "name": format!("{leader}-zen-lead-ipv4"), "namespace": NAMESPACE, "uid": uid("fed"),
            "resourceVersion": "1234569", "creationTimestamp": "2026-11-30T12:00:01Z", "generation": 1,
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "zen-lead.io/zen-lead",
                "kubernetes.io/service-name": leader, "zen-lead.io/source-service": name,
            },
            "annotations": {
                "zen-lead.io/leader-pod-name": pod, "zen-lead.io/leader-pod-uid": uid("bcd"),
                "zen-lead.io/last-switch-time": "2026-11-30T12:00:02.123456Z",
                "zen-lead.io/switch-reason": "first_leader", "zen-lead.io/leader-epoch": "1800000000000",
                "zen-lead.io/decided-at": "services=1234567,pods=1234567", "zen-lead.io/asked": "0123456789abcdef",
                "zen-lead.io/decision-version": "1", "zen-lead.io/writer": "zen-lead-6c9d5f7b4-abcde",
                "zen-lead.io/write-id": "zen-lead-6c9d5f7b4-abcde-1234567",
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-11-30T12:00:02Z",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": leader, "uid": uid("def"), "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.1.2.3"], "nodeName": "node-1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod, "uid": uid("bcd")},
        }],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    [source, led, slice]
}

fn real_service(index: &mut Index, n: usize) {
    let [source, led, slice] = real_objects(n);
    index.apply_service(serde_json::from_value::<Service>(source).unwrap());
    index.apply_service(serde_json::from_value::<Service>(led).unwrap());
    index.apply_slice(serde_json::from_value::<EndpointSlice>(slice).unwrap());
}

/// A pod of a Deployment, as it is in a cluster.
fn real_pod(index: &mut Index, service: usize, n: usize) {
    let app = format!("web-{service:05}");
    let pod = json!({
        "metadata": {
            "name": format!("{app}-7d4b9c6f5-x{n:04}"), "namespace": NAMESPACE, "resourceVersion": "1234567",
            "uid": format!("{service:08}-4a3c-4d5e-9f60-{n:012}"), "creationTimestamp": "2026-11-30T12:00:00Z",
            "labels": {
                "app": app, "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/version": "1.2.3",
                "pod-template-hash": "7d4b9c6f5", "team": "blue", "tier": "frontend",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7d4b9c6f5"), "uid": "u",
                "controller": true,
            }],
        },
        "spec": {
            "nodeName": format!("node-{}", n % 3),
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-30T12:00:01Z"}],
        },
    });
    index.apply_pod(&serde_json::from_value(pod).unwrap());
}

#[test]
fn a_service_and_a_pod_are_small() {
    let _alone = alone();
    let (services, pods) = COUNTED;
    let mut index = Index::new(NameRule::default(), Limits::default()).compact();
    let empty = ALLOCATOR.current_usage();
    (0..services).for_each(|n| real_service(&mut index, n));
    let with_services = ALLOCATOR.current_usage();
    for service in 0..services {
        (0..pods).for_each(|n| real_pod(&mut index, service, n));
    }
    let with_pods = ALLOCATOR.current_usage();
    let service = (with_services - empty) / services;
    let pod = (with_pods - with_services) / (services * pods);
    for n in 0..services {
        let snapshot = index.snapshot(&ServiceKey::new(NAMESPACE, format!("web-{n:05}").as_str()));
        let slice = &snapshot.slices[0];
        assert_eq!((snapshot.leaders.len(), slice.named_pods().count()), (1, 1), "it is all there");
    }
    let looked_at = ALLOCATOR.current_usage();
    assert_eq!(looked_at, with_pods, "what a decision looks at is not kept");
    println!("{service} bytes a Service with its leader Service and its slice, {pod} bytes a pod");
    assert!(service > 1024 && pod > 128, "the allocator counts");
    assert!(service < SERVICE_BYTES && pod < POD_BYTES);
}

/// Bytes that source, leader Service and slice may take while a list is read, beside the same in the index.
const LISTED: usize = 6_500;

#[test]
fn a_list_holds_what_is_kept_and_no_objects() {
    let _alone = alone();
    let (count, names) = (COUNTED.0, NameRule::default());
    let mut index = Index::new(names, Limits::default()).compact();
    let objects: Vec<_> = (0..count).map(real_objects).collect();
    let empty = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut services = Vec::with_capacity(2 * count);
    let mut slices = Vec::with_capacity(count);
    for [source, led, slice] in &objects {
        for service in [source, led] {
            let service = Decoded::<Service>::deserialize(service).unwrap().trimmed();
            services.extend(PlacedService::trim_to_text(service, names));
        }
        let slice = Decoded::<EndpointSlice>::deserialize(slice).unwrap().trimmed();
        slices.extend(PlacedSlice::trim_to_text(slice));
    }
    let listed = ALLOCATOR.peak_usage() - empty;
    index.reset_placed_services(services, Rv(2_000_000));
    index.reset_placed_slices(slices, Rv(2_000_000));
    let all = Sizes { services: 2 * count, sources: count, slices: count, namespaces: 1, pods: 0 };
    assert_eq!(index.sizes(), all);
    let (kept, peak) = (ALLOCATOR.current_usage() - empty, ALLOCATOR.peak_usage() - empty);
    let [listed, kept, peak] = [listed, kept, peak].map(|bytes| bytes / count);
    println!("{listed} bytes a Service while a list is read, {kept} in the index, {peak} at most");
    assert!(listed > 1024, "the allocator counts");
    assert!(listed < LISTED && peak < LISTED);
}

/// A tenant chooses how many Services it has over how many pods: what that takes is a sum, not a product.
#[test]
fn many_services_over_the_same_pods_take_little_more_than_over_none() {
    let _alone = alone();
    let take = |app: &str| {
        let mut index = Index::new(NameRule::default(), Limits::default()).compact();
        let before = ALLOCATOR.current_usage();
        for n in 0..3_000 {
            let pod = pod(&format!("p{n}")).label("app", "web");
            index.apply_pod(&pod);
        }
        index.pods_heard(Some(NAMESPACE), Rv(1));
        for n in 0..300 {
            index.apply_service(service(&format!("s{n}")).enabled().selecting("app", app));
        }
        ALLOCATOR.current_usage() - before
    };
    let (apart, same) = (take("api"), take("web"));
    println!("{apart} bytes over none of the pods, {same} over all of them");
    assert!(same < apart + apart / 10, "{apart} {same}");
}
