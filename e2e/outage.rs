//! Some or all replicas of zen-lead die, or are replaced: what still works meanwhile, and that they catch
//! up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::case::{Case, annotation, epoch, refusal};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, source, source_set};
use crate::support::traffic::{Load, ask, until_answered};
use crate::support::waiting::{check, until, within};

tests![
    writer_killed_during_a_switch_does_not_stop_it,
    without_zen_lead_everything_else_works_and_it_catches_up,
    rolling_restart_under_writes_fails_no_call,
];

async fn writer_killed_during_a_switch_does_not_stop_it(t: Arc<Case>) {
    t.app("web", 3, &[]).await;
    t.web(&[]).await;
    let mut leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    let (load, recorder) = (Load::start(to, 50), t.record().await);
    let mut order = vec![leader.clone()];
    let product = &t.world.product;
    // A kill before, at, and after the loss; the last time of both replicas at once.
    let mut dead = BTreeSet::new();
    for (lead_ms, both) in [(0, false), (5, false), (20, false), (0, true)] {
        within(Duration::from_secs(90), "the killed replica has been restarted", || async {
            let now: BTreeSet<_> = product.pods().await.iter().map(container).collect();
            check(now.is_disjoint(&dead), format!("{now:?}"))
        })
        .await;
        product.until_running().await;
        t.until_ready_pods("web", 3).await;
        let slice = t.slice("web-leader", "IPv4").await.unwrap();
        let writer = annotation(&slice, "zen-lead.io/writer");
        let pods = product.pods().await;
        let victims: Vec<_> = pods.iter().filter(|p| both || p.name_any() == writer).collect();
        assert_eq!(victims.len(), if both { 2 } else { 1 }, "writer {writer}");
        dead.extend(victims.iter().map(|pod| container(pod)));
        let kill = async {
            tokio::time::sleep(Duration::from_millis(lead_ms)).await;
            for pod in victims {
                product.kill(pod).await;
            }
        };
        tokio::join!(kill, t.delete_pod(&leader, None));
        // If both are gone: after one is back. The kubelet waits 10 s and more before later restarts.
        let next = within(Duration::from_secs(90), "the switch happens", || async {
            let now = t.leader_now("web-leader").await?;
            check(now != leader, format!("{now} leads"))?;
            Ok::<_, String>(now)
        })
        .await;
        order.push(next.clone());
        leader = next;
    }
    load.more(50).await;
    let (answers, history) = (load.finish().await, recorder.finish().await);
    history.holds("web-leader");
    assert_eq!(history.leaders("web-leader"), order);
    assert!(answers.pods().iter().all(|pod| order.iter().any(|o| o == pod)), "{answers}");
    t.world.figure(
        "four switches, each with kill -9 of the writing replicas, 50 requests/s",
        answers.to_string(),
    );
}

/// The id of a pod's container, which changes with each restart.
fn container(pod: &Pod) -> String {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.filter_map(|s| s.container_id.clone()).collect()
}

async fn without_zen_lead_everything_else_works_and_it_catches_up(t: Arc<Case>) {
    let product = &t.world.product;
    let doomed = t.outside().await;
    doomed.web(&[]).await;
    t.app("web", 2, &[]).await;
    t.web(&[]).await;
    for name in ["leaves", "off", "goes"] {
        t.create(&source(name, &json!({}))).await;
        t.until_condition(&format!("{name}-leader"), "False", "NoPodsFound").await;
    }
    doomed.until_condition("web-leader", "False", "NoPodsFound").await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    until_answered(to).await;
    let load = Load::start(to, 100);
    load.more(50).await;

    product.scale(0).await;
    // Services without our keys.
    let plain = source("plain", &json!({"metadata": {"annotations": {names::ENABLED: null}}}));
    t.create(&plain).await;
    t.patch_service("plain", &json!({"spec": {"ports": [{"name": "http", "port": 81}]}})).await;
    t.delete_service("plain").await;
    // An enabled Service, but none of our keys.
    for service in ["web", "web-leader"] {
        for finalizers in [json!(["e2e.example/hold"]), json!(null)] {
            t.patch_service(service, &json!({"metadata": {"finalizers": finalizers}})).await;
        }
        t.patch_service(service, &annotations(&[("example.com/note", "x")])).await;
        t.patch_service(service, &json!({"metadata": {"labels": {"team": "x"}}})).await;
    }
    // Opting out in both ways, and deletion.
    t.patch_service("leaves", &json!({"metadata": {"annotations": {names::ENABLED: null}}})).await;
    t.delete_service("goes").await;
    t.until_gone("goes").await;
    t.until_gone("goes-leader").await;
    doomed_is_gone(&doomed).await;
    // Writes that need a review are refused, and the message names the webhook.
    let change = annotations(&[(names::STICKY, "false")]);
    let patch = Patch::Merge(&change);
    let result = t.user_services().patch("web", &PatchParams::default(), &patch).await;
    let status = refusal(result);
    assert_eq!(status.code, 500, "{status:?}");
    assert!(
        status.message.contains("failed calling webhook \"validate.zen-lead.io\""),
        "{}",
        status.message
    );
    let on = source("new", &json!({}));
    let status = refusal(t.user_services().create(&PostParams::default(), &on).await);
    assert!(status.message.contains("validate.zen-lead.io"), "{}", status.message);
    // The last leader stays routed.
    load.more(100).await;
    let answers = load.finish().await;
    answers.assert_only(&leader);

    // Changes during the outage are handled afterwards.
    let before = epoch(&t.slice("web-leader", "IPv4").await.unwrap());
    t.delete_pod(&leader, None).await;
    t.until_ready_pods("web", 2).await;
    assert!(t.services().get_opt("leaves-leader").await.unwrap().is_some());
    product.scale(2).await;
    product.until_running().await;
    let next = t.until_leader("web-leader", &leader).await;
    assert!(epoch(&t.slice("web-leader", "IPv4").await.unwrap()) > before);
    until("the new leader answers", || async {
        let answer = ask(to, "GET", "/").await;
        check(answer.as_deref() == Ok(next.as_str()), format!("{answer:?}"))
    })
    .await;
    t.until_gone("leaves-leader").await;
    t.patch_service("web", &change).await;
    t.patch_service("off", &annotations(&[(names::ENABLED, "false")])).await;
    t.until_gone("off-leader").await;
}

async fn doomed_is_gone(doomed: &Case) {
    let namespaces: Api<Namespace> = Api::all(doomed.admin());
    namespaces.delete(&doomed.ns, &DeleteParams::default()).await.unwrap();
    within(Duration::from_mins(1), "a namespace with a leader Service is gone", || async {
        let found = namespaces.get_opt(&doomed.ns).await.map_err(|e| e.to_string())?;
        check(found.is_none(), format!("{:?}", found.and_then(|n| n.status)))
    })
    .await;
}

async fn rolling_restart_under_writes_fails_no_call(t: Arc<Case>) {
    t.web(&[]).await;
    let product = &t.world.product;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writes = tokio::spawn(write(t.clone(), stop.clone(), count.clone()));
    let more = |goal: usize| {
        let (count, goal) = (count.clone(), goal + count.load(Ordering::Relaxed));
        until("writes are made", move || {
            let count = count.load(Ordering::Relaxed);
            async move { check(count >= goal, format!("{count} of {goal}")) }
        })
    };
    more(20).await;
    let before = Case::names(&product.pods().await);
    product.restart().await;
    product.until_running().await;
    let after = Case::names(&product.pods().await);
    assert!(before.iter().all(|pod| !after.contains(pod)), "{before:?} {after:?}");
    more(20).await;
    stop.store(true, Ordering::Relaxed);
    let (failed, slowest) = writes.await.unwrap();
    let count = count.load(Ordering::Relaxed);
    t.world.figure(
        "annotated writes during a rolling restart of zen-lead",
        format!("{} of {count} failed; the slowest took {} ms", failed.len(), slowest.as_millis()),
    );
    assert!(failed.is_empty(), "{} of {count} writes failed: {failed:#?}", failed.len());
}

/// Writes that both webhooks review, one after the other, every 25 ms or as fast as they are answered: a
/// changed key on a Service, and a Service created as a dry run.
async fn write(
    t: Arc<Case>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> (Vec<String>, Duration) {
    let services: Api<Service> = t.user_services();
    let (mut failed, mut slowest) = (Vec::new(), Duration::ZERO);
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let begun = tokio::time::Instant::now();
        let n = count.load(Ordering::Relaxed);
        let wanted = format!("{n}ms");
        let result = if n.is_multiple_of(2) {
            let change = annotations(&[(names::FAILOVER_DELAY, &wanted)]);
            let patch = Patch::Merge(&change);
            services.patch("web", &PatchParams::default(), &patch).await
        } else {
            services.create(&dry, &source_set("dry", &[(names::FAILOVER_DELAY, &wanted)])).await
        };
        count.fetch_add(1, Ordering::Relaxed);
        slowest = slowest.max(begun.elapsed());
        match result {
            // The mutating webhook may be skipped silently (Ignore): the default that it sets shows it.
            Ok(s) if annotation(&s, names::LEADER_NAME).is_empty() => {
                failed.push("the mutating webhook was missed".to_owned());
            }
            Ok(_) => {}
            Err(error) => failed.push(error.to_string()),
        }
    }
    (failed, slowest)
}
