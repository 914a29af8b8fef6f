//! `status` and `explain` on a real API server: they show what the EndpointSlices route to, even if
//! annotations and conditions say something else.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use crate::support::case::Case;
use crate::support::cli::{Said, zen_lead};
use crate::support::cluster::client;
use crate::support::harness::tests;
use crate::support::waiting::{check, until};

tests![
    status_and_explain_show_what_is_routed,
    explain_of_a_leader_service_and_of_none,
    a_source_without_leader_service_is_listed,
];

async fn run(t: &Case, args: &[&str]) -> Said {
    zen_lead(args, &t.world.cluster.kubeconfig, &[]).await
}

/// The cells of the only row, without namespace and time.
async fn row(t: &Case) -> Vec<String> {
    let said = run(t, &["status", "-n", &t.ns, "-o", "json"]).await;
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    let rows: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    ["service", "leaderService", "leader", "ready", "reason"]
        .map(|key| rows[0][key].to_string().replace('"', ""))
        .to_vec()
}

async fn explain(t: &Case, name: &str) -> Said {
    run(t, &["explain", &format!("{}/{name}", t.ns)]).await
}

async fn status_and_explain_show_what_is_routed(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_message("web-leader", "a leads; b: standby").await;
    assert_eq!(row(&t).await, ["web", "web-leader", "a", "true", "LeaderRoutingAvailable"]);
    let said = explain(&t, "web").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.ends_with("Next: nothing, all is as it should be\n"), "{said:?}");

    // No replica runs from here on: nothing is repaired.
    t.world.product.stop_all().await;
    t.vanish("a").await;
    assert_eq!(row(&t).await, ["web", "web-leader", "a", "false", "StaleEndpoint"]);
    let said = explain(&t, "web").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.ends_with(
            "Wrong now\n  web-leader-zen-lead-ipv4 routes a, a pod that no longer exists\n\
             Next: make b leader (pod_gone)\n"
        ),
        "{said:?}"
    );

    let as_zen_lead = client(&t.world.product.kubeconfig().to_owned()).await;
    let slices: Api<EndpointSlice> = Api::namespaced(as_zen_lead, &t.ns);
    let mut slice = slices.get("web-leader-zen-lead-ipv4").await.unwrap();
    slice.endpoints = None;
    slices.replace("web-leader-zen-lead-ipv4", &PostParams::default(), &slice).await.unwrap();
    assert_eq!(row(&t).await, ["web", "web-leader", "", "false", "StaleCondition"]);
    let said = explain(&t, "web").await;
    assert!(
        said.out.contains(
            "Wrong now\n  no pod is routed by web-leader, but b should lead\n  Service web-leader says \
             LeaderReady is True, but no pod is routed\n"
        ),
        "{said:?}"
    );
    t.world.product.ensure_started().await;
    t.until_led_by("web-leader", "b").await;
    until("status says so", || async {
        let now = row(&t).await;
        let wanted = ["web", "web-leader", "b", "true", "LeaderRoutingAvailable"];
        check(now == wanted, format!("{now:?}"))
    })
    .await;
}

async fn explain_of_a_leader_service_and_of_none(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    let said = explain(&t, "web-leader").await;
    let first = format!(
        "{0}/web-leader is the leader Service of {0}/web, which is explained here\nService {0}/web\n",
        t.ns
    );
    assert!(said.code == 0 && said.out.starts_with(&first), "{said:?}");
    let said = explain(&t, "none").await;
    let wanted = format!("zen-lead: Service {}/none does not exist\n", t.ns);
    assert_eq!((said.code, &*said.out, &*said.err), (1, "", &*wanted));
}

async fn a_source_without_leader_service_is_listed(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.one_service_quota().await;
    t.web(&[]).await;
    let message = t.until_condition("web", "False", "QuotaExceeded").await;
    assert_eq!(row(&t).await, ["web", "", "", "false", "QuotaExceeded"]);
    let said = explain(&t, "web").await;
    let wanted = format!(
        "Reported now\n  web: LeaderReady is False, QuotaExceeded: {message}\nWrong now\n  there is no \
         leader Service, so no pod is routed\nNext: create leader Service web-leader (if this \
         does not change, the conditions above say what prevents it)\n"
    );
    assert!(said.code == 0 && said.out.ends_with(&wanted), "{said:?}");
}
