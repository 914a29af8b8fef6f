//! Tests of the rows for combinations of Services, slices and pods.

use serde_json::{Value, json};

use super::*;
use zen_lead_core::keys::status::SOURCE_SERVICE;

fn leader(condition: &Value, current: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": "db-leader",
            "labels": {"zen-lead.io/source-service": "db"},
            "annotations": {"zen-lead.io/current-leader": current},
        },
        "status": {"conditions": condition},
    }))
    .unwrap()
}

fn ready(status: &str, reason: &str) -> Value {
    json!([{
        "type": "zen-lead.io/LeaderReady", "status": status, "reason": reason,
        "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z",
    }])
}

fn slice(pods: &[(&str, bool)]) -> EndpointSlice {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(name, ready)| {
            json!({
                "addresses": ["10.0.0.1"], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": name, "uid": format!("uid-{name}")},
            })
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": "db-leader-zen-lead-ipv4",
            "labels": {"kubernetes.io/service-name": "db-leader"},
            "annotations": {"zen-lead.io/leader-last-switch-time": "2026-01-02T03:04:05Z"},
        },
        "addressType": "IPv4", "endpoints": endpoints,
    }))
    .unwrap()
}

fn pod(name: &str, more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn source(enabled: &str, condition: &Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": "db", "annotations": {"zen-lead.io/enabled": enabled},
        },
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 80}]},
        "status": {"conditions": condition},
    }))
    .unwrap()
}

/// The rows of a table, without its header, each cell once.
fn cells(services: &[Service], slices: &[EndpointSlice], pods: &[Pod]) -> Vec<String> {
    let mut known = Slices::default();
    for slice in slices {
        known.add(slice);
    }
    let services: Vec<Service> = services.iter().cloned().filter_map(concerns_us).collect();
    let pods = pods.iter().filter_map(fit_uid).collect();
    let text = table(&rows(&services, &known, &pods));
    text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const SINCE: &str = "2026-01-02T03:04:05Z";

#[test]
fn the_slice_says_who_leads_and_a_condition_that_differs_is_stale() {
    let good = || leader(&ready("True", "LeaderRoutingAvailable"), "shop/a");
    let at_rest = || leader(&ready("False", "NoReadyPods"), "");
    let (a, b) = (pod("a", &json!({})), pod("b", &json!({})));
    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}});
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    for (leader, routed, pods, wanted) in [
        (good(), &[("a", true)][..], vec![a.clone()], "a true S LeaderRoutingAvailable"),
        (at_rest(), &[], vec![], "- false S NoReadyPods"),
        (at_rest(), &[("a", false)], vec![a.clone()], "- false S NoReadyPods"),
        // The slice was emptied, but the condition was not updated.
        (good(), &[], vec![a.clone()], "- false S StaleCondition"),
        (good(), &[("a", false)], vec![a.clone()], "- false S StaleCondition"),
        (good(), &[("b", true)], vec![b.clone()], "b true S StaleCondition"),
        (at_rest(), &[("a", true)], vec![a.clone()], "a true S StaleCondition"),
        // A refused write keeps a dead pod routed.
        (good(), &[("a", true)], vec![b.clone()], "a false S StaleEndpoint"),
        (good(), &[("a", true)], vec![pod("a", &gone)], "a false S StaleEndpoint"),
        (good(), &[("a", true)], vec![pod("a", &unready)], "a false S StaleEndpoint"),
        (
            good(),
            &[("a", true)],
            vec![pod("a", &json!({"status": {"phase": "Failed"}}))],
            "a false S StaleEndpoint",
        ),
        (good(), &[("a", true), ("b", true)], vec![a.clone(), b], "a,b false S SeveralPods"),
        (leader(&json!([]), ""), &[("a", true)], vec![a.clone()], "a true S NoCondition"),
        // Refusals are reported while the leader is ready.
        (
            leader(&ready("False", "ForeignEndpoints"), ""),
            &[("a", true)],
            vec![a],
            "a true S ForeignEndpoints",
        ),
    ] {
        let wanted = format!("shop db db-leader {}", wanted.replace(" S ", &format!(" {SINCE} ")));
        assert_eq!(cells(&[leader], &[slice(routed)], &pods), [wanted], "{routed:?}");
    }
}

#[test]
fn a_source_without_leader_service_is_a_row_with_its_reason() {
    for (enabled, condition, wanted) in [
        ("true", ready("False", "QuotaExceeded"), &["shop db - - false - QuotaExceeded"][..]),
        ("true", json!([]), &["shop db - - false - NoLeaderService"]),
        ("yes", ready("False", "InvalidService"), &["shop db - - false - InvalidService"]),
        ("false", json!([]), &[]),
    ] {
        assert_eq!(cells(&[source(enabled, &condition)], &[], &[]), wanted, "{enabled}");
    }
    let plain = serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "db"}}));
    assert_eq!(cells(&[plain.unwrap()], &[], &[]), Vec::<String>::new());
}

#[test]
fn the_reason_of_the_source_is_shown_while_the_leader_is_well() {
    let led = leader(&ready("True", "LeaderRoutingAvailable"), "shop/a");
    let refused = source("true", &ready("False", "Forbidden"));
    let found = cells(&[refused, led], &[slice(&[("a", true)])], &[pod("a", &json!({}))]);
    assert_eq!(found, [format!("shop db db-leader a true {SINCE} Forbidden")]);
}

#[test]
fn without_slice_the_annotation_says_since_when() {
    let mut led = leader(&ready("False", "NoPodsFound"), "");
    let annotations = led.metadata.annotations.as_mut().unwrap();
    annotations.insert(LAST_SWITCH_TIME.to_owned(), SINCE.to_owned());
    assert_eq!(cells(&[led], &[], &[]), [format!("shop db db-leader - false {SINCE} NoPodsFound")]);
}

#[test]
fn a_leader_service_whose_label_was_changed_is_shown_with_its_owner() {
    let mut source = source("true", &json!([]));
    source.metadata.uid = Some("u1".into());
    let mut leader = leader(&ready("True", "LeaderRoutingAvailable"), "shop/a");
    let meta = &mut leader.metadata;
    meta.labels = Some([(SOURCE_SERVICE.to_owned(), "other".to_owned())].into());
    meta.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "name": "db", "uid": "u1", "controller": true,
        }))
        .unwrap(),
    ]);
    let mut slices = Slices::default();
    slices.add(&slice(&[("a", true)]));
    let pods = [pod("a", &json!({}))].iter().filter_map(fit_uid).collect();
    let rows = rows(&[source, leader], &slices, &pods);
    let shown: Vec<_> = rows.iter().map(|r| (&*r.service, &*r.leader, r.ready)).collect();
    assert_eq!(shown, [("db", "a", true)]);
}
