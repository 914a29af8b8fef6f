//! Objects as large as the API server allows, in one namespace: the memory of both replicas stays below a
//! bound when the objects are made, when their namespace is read and when the replicas start, and other
//! namespaces are served as usual.
//!
//! `ZEN_LEAD_LARGE=n` makes n times as many of them.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Map, Value, json};

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::objects::{self, hollow, source};

/// The most memory that a replica may use.
const MOST_MIB: u64 = 150;
/// Services and pods with tens of thousands of annotations. With 57 both replicas were killed for want of
/// memory once; a debug build takes too long to read as many.
const WITH_MANY: usize = 6;
/// The API server allows 256 KiB of annotations in an object.
const MANY: usize = 40_000;
/// Services with one large annotation.
const WITH_A_LARGE_ONE: usize = 12;
/// Enabled Services among them.
const ENABLED: usize = 10;
/// Objects that are made at once.
const AT_ONCE: usize = 4;

pub fn tests() -> Vec<Test> {
    let name = "large_objects_of_one_namespace_cost_no_memory";
    let test = Test::new(module_path!(), name, large_objects_of_one_namespace_cost_no_memory);
    vec![test.within(Duration::from_mins(4) * times())]
}

fn times() -> u32 {
    std::env::var("ZEN_LEAD_LARGE").map_or(1, |n| n.parse().unwrap())
}

fn many() -> Value {
    Value::Object((0..MANY).map(|n| (format!("a{n:04x}"), json!(""))).collect::<Map<_, _>>())
}

async fn large_objects_of_one_namespace_cost_no_memory(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    let other = t.outside().await;
    other.show_to_webhooks().await;
    for t in [&*t, &other] {
        t.ready_pods("web", &["a", "b"]).await;
        t.web(&[]).await;
        t.until_led_by("web-leader", "a").await;
    }
    t.world.product.replicas().for_each(|n| forget_peak(&t, n));

    let times = times() as usize;
    let settings = json!({"zen-lead.io/enabled": "true"});
    let plain = json!({"metadata": {"annotations": many()}});
    let large = json!({"metadata": {"annotations": {"example.com/x": "x".repeat(250_000)}}});
    let mut enabled = large.clone();
    json_patch::merge(&mut enabled["metadata"]["annotations"], &settings);
    make(&t, "many", WITH_MANY * times, &plain).await;
    make(&t, "large", WITH_A_LARGE_ONE * times, &large).await;
    make(&t, "enabled", ENABLED, &enabled).await;
    make_pods(&t, WITH_MANY * times, &plain).await;
    report(&t, "they are made");

    // A first leader Service needs a read of the namespace.
    t.ready_pods("late", &["c"]).await;
    t.create(&source("late", &json!({}))).await;
    t.until_led_by("late-leader", "c").await;
    report(&t, "their namespace is read");
    switch(&t, "b").await;
    switch(&other, "b").await;

    t.world.product.stop_all().await;
    for n in t.world.product.replicas() {
        t.world.product.spawn(n, &[]);
        t.world.product.until_ready(n).await;
    }
    switch(&other, "a").await;
    switch(&t, "a").await;
    report(&t, "the replicas have started");
    t.until_led_by("enabled-0-leader", "a").await;
}

/// Lets the other pod lead.
async fn switch(t: &Case, to: &str) {
    let from = if to == "a" { "b" } else { "a" };
    t.set_ready(to, true).await;
    t.set_ready(from, false).await;
    t.until_led_by("web-leader", to).await;
}

/// Makes Services of this shape as alice; those with settings select the pods of web.
async fn make(t: &Case, name: &str, number: usize, shape: &Value) {
    let services: Api<Service> = t.user_services();
    let made = futures::stream::iter(0..number).map(|n| {
        let mut service = objects::source_json(&format!("{name}-{n}"), &json!({
            "metadata": {"annotations": null}, "spec": {"clusterIP": "None", "selector": {"app": "web"}},
        }));
        json_patch::merge(&mut service, shape);
        let service: Service = serde_json::from_value(service).unwrap();
        let services = services.clone();
        async move { services.create(&PostParams::default(), &service).await.map(|_| ()) }
    });
    let made: Vec<kube::Result<()>> = made.buffer_unordered(AT_ONCE).collect().await;
    made.into_iter().collect::<kube::Result<()>>().unwrap();
}

async fn make_pods(t: &Case, number: usize, shape: &Value) {
    let pods: Api<Pod> = t.pods();
    for n in 0..number {
        let pod = hollow(&format!("large-{n}"), "web").patch(shape).pod();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
}

/// The highest resident memory is counted anew from here on (proc(5), clear_refs).
fn forget_peak(t: &Case, replica: usize) {
    fs::write(format!("/proc/{}/clear_refs", t.world.product.pid(replica)), "5").unwrap();
}

/// Prints the highest resident memory of each replica, which must be within the bound.
fn report(t: &Case, when: &str) {
    let peaks: Vec<u64> =
        t.world.product.replicas().map(|n| t.world.product.memory(n, "VmHWM:") / 1024).collect();
    println!("large: when {when}: at most {peaks:?} MiB");
    assert!(peaks.iter().all(|peak| *peak <= MOST_MIB), "when {when}: {peaks:?} MiB");
}
