//! Objects that cannot be read, or only in part, on the API server double: what a worker writes then.

use super::*;

/// As kube-apiserver keeps it when a controller leaves the time out.
fn foreign_condition() -> Value {
    json!({
        "type": "x.example/Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": null,
    })
}

/// Changes an object behind the back of the worker.
fn change(world: &World, collection: &str, name: &str, pointer: &str, value: Value) {
    let mut object = world.api.get(&format!("{collection}/{name}")).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    world.api.put(collection, object);
}

/// Reason and status of our condition on a Service, with its message.
fn condition(world: &World, name: &str) -> (String, String, String) {
    let service = world.api.get(&format!("{SERVICES}/{name}")).unwrap();
    let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ours = conditions.iter().find(|c| c["type"] == "zen-lead.io/LeaderReady");
    let text = |key: &str| ours.map(|c| c[key].as_str().unwrap().to_owned()).unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

/// Times an object could not be read.
fn counted(world: &World, resource: &str) -> bool {
    let line = format!(r#"zen_lead_watch_malformed_objects_total{{resource="{resource}"}} "#);
    let text = world.metrics.exposition().unwrap();
    text.lines().any(|l| l.starts_with(&line))
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_others_without_a_time_changes_nothing() {
    let world = World::new();
    world.reconcile().await.unwrap();
    for name in ["web", "web-leader"] {
        let mut object = world.api.get(&format!("{SERVICES}/{name}")).unwrap();
        let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.insert(0, foreign_condition());
        object["status"] = json!({"conditions": conditions});
        world.api.put(SERVICES, object);
    }
    // As a replica that was just started reads it.
    let before = world.writes();
    world.reconcile().await.unwrap();
    assert_eq!(world.writes(), before, "all is as it should be");
    assert_eq!(world.leader().as_deref(), Some("a"));
    assert!(!counted(&world, "services"));
    // Nor do the answers to our writes.
    world.api.remove(&format!("{PODS}/a"));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"));
    let (state, reason, _) = condition(&world, "web-leader");
    assert_eq!((&*state, &*reason), ("True", "LeaderRoutingAvailable"));
    assert!(!counted(&world, "services"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_odd_conditions_is_no_failed_write() {
    let world = World::new();
    let mut source = source();
    source["status"] = json!({"conditions": [foreign_condition()]});
    world.api.put(SERVICES, source);
    // Refused for a reason that is written on the source: its answer carries the condition.
    let quota = "services \"web-leader\" is forbidden: exceeded quota: q";
    world.api.fail("POST", SERVICES, 1, Fault::Status(403, "Forbidden", quota));
    world.reconcile().await.unwrap();
    assert_eq!(condition(&world, "web").1, "QuotaExceeded");
}

#[tokio::test(start_paused = true)]
async fn a_relist_with_a_source_that_cannot_be_read_empties_nothing() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let slice = world.slice();
    change(&world, SERVICES, "web", "/spec/ports", json!("x"));
    world.reconcile().await.unwrap();
    assert_eq!(world.slice(), slice);
    assert!(counted(&world, "services"));
    let (state, reason, message) = condition(&world, "web-leader");
    assert_eq!((&*state, &*reason), ("True", "Unreadable"));
    assert_eq!(
        message,
        "the source Service \"web\" cannot be read (spec.ports: expected a list, found a text): what \
         is routed stays and follows its readiness, and no new leader is chosen; correct that field; \
         a leads"
    );
    let before = world.writes();
    world.reconcile().await.unwrap();
    assert_eq!(world.writes(), before, "said once");

    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader(), None, "it follows its readiness");
    assert_eq!(world.slice()["endpoints"][0]["targetRef"]["name"], "a");
    assert_eq!(condition(&world, "web-leader").0, "False");
    world.api.put(PODS, pod("a", "10.0.0.1", true, 1));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"));
    assert_eq!(world.api.count("DELETE"), 0);

    let ports = json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}]);
    change(&world, SERVICES, "web", "/spec/ports", ports);
    // Reads for reports are 5 s apart.
    tokio::time::advance(Duration::from_secs(5)).await;
    world.reconcile().await.unwrap();
    assert_eq!(condition(&world, "web-leader").1, "LeaderRoutingAvailable");
    world.api.remove(&format!("{PODS}/a"));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"), "and a later failover works");
}

#[tokio::test(start_paused = true)]
async fn a_leader_service_that_cannot_be_read_is_served_and_not_written() {
    let world = World::new();
    world.reconcile().await.unwrap();
    change(&world, SERVICES, "web-leader", "/spec/ports", json!("x"));
    let leader = world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    world.reconcile().await.unwrap();
    world.api.remove(&format!("{PODS}/a"));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert_eq!(world.api.get(&format!("{SERVICES}/web-leader")).unwrap(), leader);
    let (state, reason, _) = condition(&world, "web");
    assert_eq!((&*state, &*reason), ("False", "Unreadable"));
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_cannot_be_read_is_not_written() {
    let world = World::new();
    world.reconcile().await.unwrap();
    change(&world, SLICES, "web-leader-zen-lead-ipv4", "/ports", json!("x"));
    let slice = world.slice();
    world.api.remove(&format!("{PODS}/a"));
    world.reconcile().await.unwrap();
    assert_eq!(world.slice(), slice);
    let (state, reason, message) = condition(&world, "web-leader");
    assert_eq!((&*state, &*reason), ("False", "Unreadable"));
    assert!(
        message.starts_with("EndpointSlice web-leader-zen-lead-ipv4 cannot be read"),
        "{message}"
    );
    world.api.remove(&format!("{SLICES}/web-leader-zen-lead-ipv4"));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"), "made anew");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_read_neither_leads_nor_hides_the_others() {
    let world = World::new();
    let odd = |name, ip, age| {
        let mut odd = pod(name, ip, true, age);
        odd["status"]["conditions"][0]["status"] = json!(true);
        odd
    };
    world.api.put(PODS, odd("odd", "10.0.0.9", 0));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"));
    assert!(counted(&world, "pods"));
    // It leads, and then cannot be read any longer: it stays until it is gone.
    world.api.put(PODS, odd("a", "10.0.0.1", 1));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"));
    let (state, reason, _) = condition(&world, "web-leader");
    assert_eq!((&*state, &*reason), ("True", "Unreadable"));
    world.api.remove(&format!("{PODS}/a"));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_time_that_cannot_be_read_does_not_matter() {
    let world = World::new();
    // RFC 3339 has four digits for a year; a server that got such a time by protobuf sends five.
    let odd = |name, ip, age| {
        let mut odd = pod(name, ip, true, age);
        odd["status"]["conditions"][0]["lastTransitionTime"] = json!("12026-01-02T03:04:05Z");
        odd
    };
    world.api.put(PODS, odd("odd", "10.0.0.9", 0));
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("odd"), "the oldest ready pod");
    assert!(!counted(&world, "pods"));
    let mut unknown = odd("odd", "10.0.0.9", 0);
    unknown["metadata"]["deletionTimestamp"] = json!("12026-01-02T03:04:05Z");
    world.api.put(PODS, unknown);
    world.reconcile().await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("a"), "being deleted, whenever that was");
}
