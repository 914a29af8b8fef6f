//! All documented metrics as the running binary exports them: the test causes each of them, then
//! compares the scrapes of both replicas with docs/metrics.md.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::case::{Case, Routed, refusal};
use crate::support::contract::Contract;
use crate::support::exposition::Exposition;
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{source, source_set};
use crate::support::promtool;
use crate::support::proxy::{Fault, Proxy};
use crate::support::waiting::{check, until, within};

tests![live_scrapes_are_as_documented];

/// Metrics that no scrape here can have. The comparison of src/platform/metrics/tests/documented.rs has no exceptions.
const ABSENT: [&str; 3] = [
    // The API server stores no object with an unreadable field that zen-lead needs.
    "zen_lead_watch_malformed_objects_total",
    // No collector is configured; tests/otlp.rs has one.
    "zen_lead_trace_spans_total",
    // The bounds of a replica are far above what these tests make.
    "zen_lead_limit_refusals_total",
];

/// The only wait here is for the planned end of a watch, 25 to 30 s after its start.
const ALL_THERE: Duration = Duration::from_secs(90);

async fn scrapes(t: &Case) -> Result<[Exposition; 2], String> {
    let product = &t.world.product;
    Ok([product.scrape(0).await?, product.scrape(1).await?])
}

/// The value over both replicas.
async fn sum(t: &Case, name: &str, labels: &[(&str, &str)]) -> f64 {
    let both = until("both replicas are scraped", || scrapes(t)).await;
    both.iter().filter_map(|s| s.value(name, labels)).sum()
}

/// Waits until a counter is above a value, on both replicas together.
async fn until_above(t: &Case, name: &str, labels: &[(&str, &str)], bound: f64) {
    until(format!("{name} {labels:?} is above {bound}"), || async {
        let now = sum(t, name, labels).await;
        check(now > bound, now.to_string())
    })
    .await;
}

async fn live_scrapes_are_as_documented(t: Arc<Case>) {
    let product = &t.world.product;
    let proxy = Proxy::start(product.kubeconfig()).await;
    let path = t.world.dir.join("kubeconfig-metrics");
    proxy.write_kubeconfig(product.kubeconfig(), &path);
    for replica in [0, 1] {
        product.spawn_with(replica, &path, &["--namespace-idle-ttl", "0s"], &[]);
    }
    for replica in [0, 1] {
        product.until_ready(replica).await;
    }
    lost_ca_bundle(&t).await;
    let outside = t.outside().await;
    let (.., before_the_end) =
        tokio::join!(leaders(&t), conflicts(&t), admission(&t), strangers(&t), async {
            refused_writes(&outside, &proxy).await;
            refused_switch(&outside, &proxy).await;
            // The series of this Service end with it.
            let found = scrapes(&t).await.unwrap();
            idle_namespace(&outside).await;
            found
        });
    let contract = Contract::read();
    within(ALL_THERE, "the scrapes are as docs/metrics.md says", || async {
        let all = [before_the_end.clone(), scrapes(&t).await?].concat();
        let faults = contract.differences(&all, &ABSENT);
        check(faults.is_empty(), faults.join("\n"))
    })
    .await;
    let tool = t.world.cluster.promtool.clone();
    let tool = tool.expect("PROMTOOL is set by e2e/cluster.sh up, which builds it");
    for replica in [0, 1] {
        promtool::passes(&tool, &t.world.product.metrics(replica).await.unwrap());
    }
}

/// Leaders that change, that stay, and that lack a port.
async fn leaders(t: &Case) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    until_above(t, "zen_lead_failover_latency_seconds_count", &[("service", "web")], 0.0).await;
    let moved = json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8081}]);
    t.patch_service("web", &json!({"spec": {"ports": moved}})).await;
    until_above(t, "zen_lead_sticky_leader_hits_total", &[("service", "web")], 0.0).await;
    let unknown = json!([{"name": "grpc", "port": 90, "protocol": "TCP", "targetPort": "grpc"}]);
    let spec = json!({"spec": {"ports": unknown, "selector": {"app": "web"}}});
    t.create(&source("ports", &spec)).await;
    until_above(t, "zen_lead_port_resolution_failures_total", &[("service", "ports")], 0.0).await;
}

/// A leader without a successor: both replicas take it out at once, and one of them comes second.
async fn conflicts(t: &Case) {
    t.ready_pods("alone", &["x"]).await;
    t.create(&source("alone", &json!({}))).await;
    for _ in 0..50 {
        t.until_led_by("alone-leader", "x").await;
        t.set_ready("x", false).await;
        t.until_routed("alone-leader", &[Routed::not_ready("x")]).await;
        t.set_ready("x", true).await;
        let labels = [("service", "alone")];
        if sum(t, "zen_lead_endpoint_write_conflicts_total", &labels).await > 0.0 {
            return;
        }
    }
    panic!("two replicas never wrote the same slice at once");
}

async fn admission(t: &Case) {
    let bad = source_set("bad", &[(names::STICKY, "perhaps")]);
    let refused = t.user_services().create(&PostParams::default(), &bad).await;
    assert_eq!(refusal(refused).code, 422);
}

/// Clients that do not speak TLS, request unknown paths, or send nothing until they are cut.
async fn strangers(t: &Case) {
    let port = t.world.product.webhook_port(0);
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let curl = move || {
        Command::new("curl")
            .args(["--silent", "--insecure", "--max-time", "10", "--write-out", "%{http_code}"])
            .args(["--output", "/dev/null", &format!("https://127.0.0.1:{port}/nothing")])
            .output()
            .expect("curl, which make test asks for")
    };
    let said = tokio::task::spawn_blocking(curl).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "404", "{said:?}");
    let admin = t.world.product.admin_port(0);
    let mut silent = TcpStream::connect(("127.0.0.1", admin)).await.unwrap();
    let _closed_or_reset = silent.read(&mut [0; 1]).await;
}

/// The caBundle is removed, and zen-lead restores it.
async fn lost_ca_bundle(t: &Case) {
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
    let name = &t.world.system;
    let bundles = |hooks: &ValidatingWebhookConfiguration| {
        let items = hooks.webhooks.iter().flatten();
        items.filter(|h| h.client_config.ca_bundle.is_some()).count()
    };
    until("the caBundle is gone", || async {
        let mut found = hooks.get(name).await.map_err(|e| e.to_string())?;
        for hook in found.webhooks.iter_mut().flatten() {
            hook.client_config.ca_bundle = None;
        }
        let written = hooks.replace(name, &PostParams::default(), &found).await;
        written.map(drop).map_err(|e| e.to_string())
    })
    .await;
    until("the caBundle is back", || async {
        let found = hooks.get(name).await.map_err(|e| e.to_string())?;
        check(bundles(&found) > 0, "it is not there")
    })
    .await;
    until_above(t, "zen_lead_ca_bundle_writes_total", &[("kind", "validating")], 0.0).await;
    until("the API server has noticed it", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        t.user_services().create(&dry, &source("probe", &json!({}))).await
    })
    .await;
}

/// Writes of slices fail for longer than a call may take, then succeed in the middle of a call.
async fn refused_writes(t: &Case, proxy: &Proxy) {
    refuse_slices(t, proxy);
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let ns = [("namespace", t.ns.as_str())];
    until_above(t, "zen_lead_timeout_occurrences_total", &[("operation", "create_slice")], 0.0)
        .await;
    until_above(t, "zen_lead_endpoint_write_errors_total", &ns, 0.0).await;
    // A call that has just begun to fail has ten seconds left to succeed, unless a call of the other
    // replica, which may begin at this moment, succeeds earlier.
    for _ in 0..10 {
        let first = [ns[0], ("operation", "create_slice"), ("attempt", "1")];
        let before = sum(t, "zen_lead_retry_attempts_total", &first).await;
        until_above(t, "zen_lead_retry_attempts_total", &first, before).await;
        proxy.clear();
        let slice = t.until_led_by("web-leader", "a").await;
        let looked = Instant::now();
        while looked.elapsed() < Duration::from_secs(3) {
            if sum(t, "zen_lead_retry_success_after_retry_total", &ns).await > 0.0 {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        refuse_slices(t, proxy);
        t.slices().delete(&slice.name_any(), &DeleteParams::default()).await.unwrap();
    }
    panic!("no retried call succeeded");
}

/// A conflict that no watch explains: the namespace is read.
async fn refused_switch(t: &Case, proxy: &Proxy) {
    let slices = format!("/namespaces/{}/endpointslices/", t.ns);
    proxy
        .fail(2, Fault::answer(409), move |seen| seen.verb == "PUT" && seen.path.contains(&slices));
    t.set_ready("a", false).await;
    until_above(t, "zen_lead_cache_misses_total", &[("resource", "services")], 0.0).await;
    proxy.clear();
}

/// The API server is not able to answer when a slice of this namespace is created.
fn refuse_slices(t: &Case, proxy: &Proxy) {
    let slices = format!("/namespaces/{}/endpointslices", t.ns);
    proxy.fail(usize::MAX, Fault::answer(503), move |seen| {
        seen.verb == "POST" && seen.path.ends_with(&slices)
    });
}

/// The last Service of a namespace goes: its pods are not kept (the replicas keep them for 0 s).
async fn idle_namespace(t: &Case) {
    t.delete_service("web").await;
    t.until_gone("web-leader").await;
    until_above(t, "zen_lead_cache_evictions_total", &[], 0.0).await;
}
