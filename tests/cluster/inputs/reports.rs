//! Inputs 11 and 15: answers to users, and warnings.

use std::sync::Arc;

use serde_json::json;

use super::{Input, listed};
use crate::clumsy::raw::Kind;
use crate::clumsy::seen::zen_lead;
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::kubectl::As;
use crate::support::objects::source_json;

pub fn tests() -> Vec<Test> {
    listed![
        two_services_over_the_same_pods_are_warned_of,
        explain_of_the_leader_service_explains_its_source,
        explain_of_a_service_that_is_missing_is_an_error,
        explain_never_praises_an_empty_slice,
    ]
}

/// Input 11.
async fn two_services_over_the_same_pods_are_warned_of(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    let udp = json!({"spec": {"selector": {"app": "web"},
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let service = source_json("web-udp", &udp);
    let said = t.kubectl(As::Alice, &["create", "-f", "-"], Some(&service)).await;
    input.unless(said.code == 0, format!("kubectl says {said:?}"));
    let warned = said.err.contains("Warning:") && said.err.contains("web");
    input.unless(warned, format!("no warning: kubectl says {:?}", said.err));
    input.passes().await;
}

/// Input 15.
async fn explain_of_the_leader_service_explains_its_source(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    let (code, text) = zen_lead(&t, &["explain", &format!("{}/web-leader", t.ns)]).await;
    let source = format!("{}/web", t.ns);
    let explains =
        text.lines().any(|line| line.trim_end().ends_with(&source)) || text.contains(" web ");
    input
        .unless(code == 0 && explains && text.contains("p1"), format!("it says ({code}) {text:?}"));
    input.passes().await;
}

/// Input 15.
async fn explain_of_a_service_that_is_missing_is_an_error(t: Arc<Case>) {
    let mut input = Input::bare(&t).await;
    let (code, text) = zen_lead(&t, &["explain", &format!("{}/nope", t.ns)]).await;
    input.unless(code == 1, format!("the exit code is {code}"));
    let wrong = text.contains("all is as it should be") || !text.contains("does not exist");
    input.unless(!wrong, format!("it says {text:?}"));
    input.passes().await;
}

/// Input 15: no pod is ready, so it is correct that no pod is routed.
async fn explain_never_praises_an_empty_slice(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    for pod in ["p2", "p1"] {
        t.vanish(pod).await;
    }
    t.until_routed("web-leader", &[]).await;
    let pods = input.ground.admin.list(Kind::Pod).await.unwrap();
    input.unless(pods.is_empty(), "there are pods");
    input.reports_agree().await;
    input.passes().await;
}
