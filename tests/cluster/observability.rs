//! Reports: Events, conditions, metrics, probes. Also that zen-lead writes nothing in a settled cluster.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use zen_lead::platform::metrics::Metrics;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::report::ServiceReport;

use crate::support::case::{Case, annotation, epoch, switch_notes};
use crate::support::harness::tests;
use crate::support::http;
use crate::support::names;
use crate::support::objects::source;
use crate::support::promtool;
use crate::support::waiting::{check, until};

tests![
    every_epoch_has_one_event,
    leader_service_creation_has_an_event,
    settled_services_are_not_written,
    metrics_with_any_names_pass_promtool,
    metrics_report_leader_and_failovers,
    metrics_of_a_removed_service_are_gone,
    probes_answer_with_their_state,
];

async fn every_epoch_has_one_event(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    let first = t.until_led_by("web-leader", "a").await;
    let first = format!("a leads (first_leader), epoch {}", epoch(&first));
    let mut expected = vec![[first.clone(), first]];
    t.until_message("web-leader", "a leads; b: standby").await;
    for (down, up) in [("a", "b"), ("b", "a"), ("a", "b")] {
        t.set_ready(down, false).await;
        let slice = t.until_led_by("web-leader", up).await;
        let number = epoch(&slice);
        expected.push(switch_notes(down, up, number));
        t.until_message("web-leader", &format!("{up} leads; {down}: not Ready")).await;
        t.set_ready(down, true).await;
        t.until_message("web-leader", &format!("{up} leads; {down}: standby")).await;
        let leader = t.services().get("web-leader").await.unwrap();
        assert_eq!(epoch(&leader), number, "mirror and slice agree");
    }
    // One each, not two of the same.
    t.until_reported("web-leader", expected.len()).await;
    let events = t.events("web-leader", "LeaderChanged").await;
    for notes in &expected {
        let found = events.iter().filter(|note| notes.contains(note)).count();
        assert_eq!(found, 1, "{notes:?} in {events:?}");
    }
}

async fn leader_service_creation_has_an_event(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    let note = t.until_event("web", "LeaderServiceCreated").await;
    assert_eq!(note, "made leader Service web-leader");
    let note = t.until_event("web-leader", "LeaderRoutingAvailable").await;
    assert_eq!(note, "a leads");
}

async fn settled_services_are_not_written(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[(names::FAILOVER_DELAY, "1s"), (names::MIN_READY, "1s")]).await;
    t.create(&source("empty", &json!({}))).await;
    let dual = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"}}});
    t.create(&source("dual", &dual)).await;
    t.until_led_by("web-leader", "a").await;
    t.until_led_by("dual-leader", "a").await;
    t.until_condition("dual-leader", "True", "LeaderRoutingAvailable").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    t.until_condition("empty-leader", "False", "NoPodsFound").await;
    t.until_event("dual-leader", "LeaderRoutingAvailable").await;
    // The last Events may come late and from both replicas: the test waits for ten seconds without a
    // write. Replicas that undo or repeat writes would never allow such a pause.
    until("nothing is written for ten seconds", || async {
        let before = t.world.writes(&t.ns);
        check(before.len() >= 9, format!("the audit log has {} writes", before.len()))?;
        // Time passes on purpose: that nothing happens is a statement about a time.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = t.world.writes(&t.ns);
        let shown: Vec<String> = after[before.len()..]
            .iter()
            .map(|w| {
                let at = &w["objectRef"];
                format!("{} {} {}", w["verb"], at["resource"], at["name"])
            })
            .collect();
        check(shown.is_empty(), format!("written although everything was right: {shown:?}"))
    })
    .await;
}

/// In this process, because the API server lets no such names through.
async fn metrics_with_any_names_pass_promtool(t: Arc<Case>) {
    let metrics = Metrics::new().unwrap();
    let long = "é\\\"\n".repeat(2048);
    for name in ["web", "\"", "\\", "a\nb", "ends\\", "{}\r\t", "\"} 1\nforged 1", "snö☃", &long]
    {
        let key = ServiceKey::new(name, name);
        metrics.track(&key);
        metrics.reconciled(&key, "ok", false, Duration::from_millis(1));
        metrics.failover(&key, "pod_gone", Some(Duration::from_millis(1)));
        metrics.services().set(&key, &ServiceReport::default());
    }
    let text = metrics.exposition().unwrap();
    let tool = t.world.cluster.promtool.clone();
    promtool::passes(&tool.expect("PROMTOOL is set by e2e/cluster.sh up"), &text);
}

async fn metrics_report_leader_and_failovers(t: Arc<Case>) {
    t.ready_pods("web", &["a", "b", "c"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    t.terminate("b").await;
    let slice = t.until_led_by("web-leader", "c").await;
    let ns = t.ns.clone();
    let web = [("namespace", ns.as_str()), ("service", "web")];
    until("gauges agree on both replicas, counters add up", || async {
        let product = &t.world.product;
        let both = [product.scrape(0).await.unwrap(), product.scrape(1).await.unwrap()];
        for found in &both {
            let gauge = |name: &str| found.value(name, &web);
            #[allow(clippy::cast_precision_loss)] // Milliseconds since 1970 fit.
            let number = epoch(&slice) as f64;
            let now = [
                gauge("zen_lead_leader_epoch"),
                gauge("zen_lead_pods_available"),
                gauge("zen_lead_leader_stable"),
                gauge("zen_lead_leader_service_without_endpoints"),
            ];
            let wanted = [Some(number), Some(1.0), Some(1.0), Some(0.0)];
            check(now == wanted, format!("{now:?} instead of {wanted:?}"))?;
            check(gauge("zen_lead_leader_duration_seconds").is_some(), "no duration")?;
            check(gauge("zen_lead_leader_pod_age_seconds").is_some(), "no pod age")?;
        }
        for (reason, times) in
            [("first_leader", 1.0), ("pod_not_ready", 1.0), ("pod_terminating", 1.0)]
        {
            let labels = [web[0], web[1], ("reason", reason)];
            let sum: f64 = both
                .iter()
                .filter_map(|found| found.value("zen_lead_failover_count_total", &labels))
                .sum();
            check((sum - times).abs() < 0.5, format!("{reason}: {sum}"))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

async fn metrics_of_a_removed_service_are_gone(t: Arc<Case>) {
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    let own = format!("namespace=\"{}\"", t.ns);
    for replica in [0, 1] {
        until("there are series of the Service", || async {
            check(t.world.product.metrics(replica).await?.contains(&own), "none")
        })
        .await;
    }
    t.delete_service("web").await;
    t.until_gone("web-leader").await;
    for replica in [0, 1] {
        until("no series of the Service is left", || async {
            let text = t.world.product.metrics(replica).await.unwrap();
            let left: Vec<&str> = text.lines().filter(|l| l.contains(&own)).collect();
            check(left.is_empty(), left.join("\n"))
        })
        .await;
    }
}

async fn probes_answer_with_their_state(t: Arc<Case>) {
    for replica in [0, 1] {
        let port = t.world.product.admin_port(replica);
        let live = http::get(port, "/livez").await.unwrap();
        assert_eq!(live.code, 200);
        let body: Value = serde_json::from_str(&live.body).unwrap();
        assert_eq!(body, json!({"alive": true}));
        until("it is ready", || async {
            let ready = http::get(port, "/readyz").await?;
            check(ready.code == 200, format!("{ready:?}"))?;
            let body: Value = serde_json::from_str(&ready.body).map_err(|e| e.to_string())?;
            let whole = json!({"ready": true, "missing": [], "draining": false});
            check(body == whole, ready.body)
        })
        .await;
        assert_eq!(http::get(port, "/nothing").await.unwrap().code, 404);
    }
    let service = t.web(&[]).await;
    assert!(service.uid().is_some());
    assert_eq!(annotation(&service, names::LEADER_NAME), "web-leader");
}
