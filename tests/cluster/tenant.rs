//! A hostile tenant: alice with the role `edit` in one namespace, and a client without credentials. Both do what
//! they can for a while, all at once. Another namespace is served meanwhile, and what the attack costs is printed
//! beside the same measurements without it.
//!
//! Attacks of one kind have tests of their own: `abuse`, `occupied`, `large` and `callers`, `conflicts` (names),
//! and e2e/test_manifests.sh (forged and edited objects). `ZEN_LEAD_TENANT_SECONDS` makes this one longer,
//! `ZEN_LEAD_TENANT_SERVICES` gives the tenant more Services over one pod.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::audit::Tail;
use crate::support::caller::{Caller, review};
use crate::support::case::{Case, refusal};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{foreign_slice, source, source_json, source_set};
use crate::support::waiting::{check, until};

/// The most memory that a replica may use, in MiB.
const MOST_MIB: u64 = 150;
/// Services of the tenant whose settings change ten times a second.
const FLIPPED: usize = 5;
/// The pause between two steps of an attack.
const PAUSE: Duration = Duration::from_millis(100);

pub fn tests() -> Vec<Test> {
    let name = "a_hostile_tenant_costs_other_namespaces_nothing";
    let test = Test::new(module_path!(), name, a_hostile_tenant_costs_other_namespaces_nothing);
    vec![test.within(Duration::from_mins(5) + attack() * 3)]
}

/// How long the attack lasts.
fn attack() -> Duration {
    let seconds = std::env::var("ZEN_LEAD_TENANT_SECONDS").map_or(20, |n| n.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Enabled Services over one pod of the tenant that changes all the time.
fn crowd() -> usize {
    std::env::var("ZEN_LEAD_TENANT_SERVICES").map_or(50, |n| n.parse().unwrap())
}

/// What the other namespace experienced, in milliseconds each.
#[derive(Default)]
struct Served {
    writes: Vec<u128>,
    first_leaders: Vec<u128>,
    failovers: Vec<u128>,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("annotated writes", &self.writes),
            ("first leaders", &self.first_leaders),
            ("failovers", &self.failovers),
        ];
        for (what, times) in kinds {
            let mut times = times.clone();
            times.sort_unstable();
            let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
            write!(f, " {what}: {} of {} ms (slowest {last});", times.len(), middle)?;
        }
        Ok(())
    }
}

/// Serves the honest namespace for this long: an annotated write that is refused, a first leader, a failover.
async fn serve(t: &Case, round: &mut usize, time: Duration) -> Served {
    let mut served = Served::default();
    let began = Instant::now();
    while began.elapsed() < time {
        *round += 1;
        let started = Instant::now();
        let bad = source_set(&format!("bad-{round}"), &[(names::STICKY, "perhaps")]);
        until("a mistake is refused", || async {
            let made = t.user_services().create(&PostParams::default(), &bad).await;
            let code = refusal(made).code;
            check(code == 422, code.to_string())
        })
        .await;
        served.writes.push(started.elapsed().as_millis());

        let started = Instant::now();
        let name = format!("new-{round}");
        t.create(&source(&name, &json!({"spec": {"selector": {"app": "web"}}}))).await;
        let leader = format!("{name}-leader");
        until("a first leader", || t.slice(&leader, "IPv4")).await;
        served.first_leaders.push(started.elapsed().as_millis());
        t.delete_service(&name).await;

        let (from, to) = if *round % 2 == 1 { ("a", "b") } else { ("b", "a") };
        t.set_ready(to, true).await;
        let started = Instant::now();
        t.set_ready(from, false).await;
        t.until_led_by("web-leader", to).await;
        served.failovers.push(started.elapsed().as_millis());
    }
    served
}

/// What attackers share.
#[derive(Clone)]
struct Attack {
    tenant: Arc<Case>,
    over: Arc<AtomicBool>,
    steps: Arc<AtomicUsize>,
}

impl Attack {
    /// Repeats steps until the attack is over. What they achieve does not matter.
    fn go<F: Future<Output = ()> + Send>(
        &self,
        step: impl Fn(Arc<Case>, usize) -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let Self { tenant, over, steps } = self.clone();
        tokio::spawn(async move {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                step(tenant.clone(), n).await;
                n += 1;
                steps.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}

async fn patch(t: &Case, name: &str, patch: Value) {
    let services: Api<Service> = t.user_services();
    let _ = services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
}

/// Settings and the selector, ten times a second.
async fn flip(t: Arc<Case>, service: String, n: usize) {
    let sticky = if n.is_multiple_of(2) { "true" } else { "false" };
    let app = if n.is_multiple_of(3) { "web" } else { "none" };
    let change = json!({
        "metadata": {"annotations": {names::STICKY: sticky}},
        "spec": {"selector": {"app": app}},
    });
    patch(&t, &service, change).await;
}

/// What is not protected here, because the policies are not installed: labels, owner and existence of a leader Service.
async fn harm(t: Arc<Case>, n: usize) {
    let leader = format!("flip-{}-leader", n % FLIPPED);
    match n % 4 {
        0 => {
            let label = json!({"metadata": {"labels": {names::SOURCE_LABEL: null}}});
            patch(&t, &leader, label).await;
        }
        1 => patch(&t, &leader, json!({"metadata": {"ownerReferences": null}})).await,
        2 => patch(&t, &leader, json!({"spec": {"selector": {"app": "web"}}})).await,
        _ => drop(t.user_services().delete(&leader, &DeleteParams::default()).await),
    }
}

/// Takes names that others will want, and forges slices of the leader Services of another source.
async fn squat(t: Arc<Case>, n: usize) {
    let name = format!("taken-{}-leader", n % 10);
    let plain = source(&name, &json!({"metadata": {"annotations": null}}));
    let _ = t.user_services().create(&PostParams::default(), &plain).await;
    let wants = source(&format!("taken-{}", n % 10), &json!({}));
    let _ = t.user_services().create(&PostParams::default(), &wants).await;
    let slice = foreign_slice(&format!("flip-{}-leader", n % FLIPPED));
    let _ = t.slices().create(&PostParams::default(), &slice).await;
    let _ = t.slices().delete("by-hand", &DeleteParams::default()).await;
}

/// Changes a label that no selector asks for, on a pod that many Services select.
async fn flap(t: Arc<Case>, n: usize) {
    let label = json!({"metadata": {"labels": {"step": n.to_string()}}});
    let _ = t.pods().patch("flapping", &PatchParams::default(), &Patch::Merge(label)).await;
}

async fn a_hostile_tenant_costs_other_namespaces_nothing(t: Arc<Case>) {
    let product = &t.world.product;
    product.ensure_started().await;
    let honest = t.outside().await;
    honest.show_to_webhooks().await;
    honest.ready_pods("web", &["a", "b"]).await;
    honest.web(&[]).await;
    honest.until_led_by("web-leader", "a").await;
    t.ready_pods("web", &["a", "b"]).await;
    for n in 0..FLIPPED {
        let selects = json!({"spec": {"selector": {"app": "web"}}});
        t.create(&source(&format!("flip-{n}"), &selects)).await;
    }
    until("the tenant has leaders", || t.slice("flip-0-leader", "IPv4")).await;
    t.ready_pods("crowd", &["flapping"]).await;
    for n in 0..crowd() {
        let selects = json!({"spec": {"selector": {"app": "crowd"}}});
        t.create(&source(&format!("crowd-{n}"), &selects)).await;
    }
    for n in 0..crowd() {
        let leader = format!("crowd-{n}-leader");
        until("the crowd has leaders", || t.slice(&leader, "IPv4")).await;
    }

    let mut round = 0;
    let quiet = serve(&honest, &mut round, attack() / 2).await;
    println!("tenant: without an attack:{quiet}");

    let mut calls = Tail::follow(&t.world.cluster.audit_log, &t.world.username());
    let (over, steps) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
    let attack_on = Attack { tenant: t.clone(), over: over.clone(), steps: steps.clone() };
    let mut attackers = Vec::new();
    for n in 0..FLIPPED {
        attackers.push(attack_on.go(move |t, step| flip(t, format!("flip-{n}"), step)));
    }
    attackers.push(attack_on.go(harm));
    attackers.push(attack_on.go(flap));
    attackers.push(attack_on.go(squat));
    for replica in product.replicas() {
        let caller = Caller::new(&t, replica).await;
        let made_up = review("u", &source_json("guess", &json!({}))).to_string();
        attackers.push(attack_on.go(move |_, _| {
            let (caller, made_up) = (caller.clone(), made_up.clone());
            async move { drop(caller.review("/validate", made_up.as_bytes()).await) }
        }));
    }
    let began = Instant::now();
    let served = serve(&honest, &mut round, attack()).await;
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.unwrap();
    }
    let steps = steps.load(Ordering::Relaxed);
    println!("tenant: during {steps} steps of an attack of {took:?}:{served}");

    let peaks: Vec<u64> = product.replicas().map(|n| product.memory(n, "VmHWM:") / 1024).collect();
    // Calls on behalf of the tenant: everything in its namespace.
    let entries = calls.entries();
    let about = |entry: &&Value| entry["objectRef"]["namespace"] == t.ns.as_str();
    let calls = entries.iter().filter(about).filter(|e| e["verb"] != "watch").count();
    println!("tenant: {calls} calls of both replicas on its behalf; memory at most {peaks:?} MiB");
    assert!(peaks.iter().all(|peak| *peak <= MOST_MIB), "{peaks:?} MiB");
    assert!(steps >= FLIPPED * 10, "the attack made {steps} steps only");

    // Once it ends, the tenant is served by the last state of its objects. A leader Service that lost two of its
    // three signs is not touched: its condition says to delete it.
    for n in 0..FLIPPED {
        // The attack may just have deleted it.
        let leader = format!("flip-{n}-leader");
        let _ = t.user_services().delete(&leader, &DeleteParams::default()).await;
        let selects = json!({"spec": {"selector": {"app": "web"}}});
        t.patch_service(&format!("flip-{n}"), &selects).await;
        t.until_led_by(&leader, "a").await;
    }
}
