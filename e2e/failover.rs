//! The leader is lost while requests run: which pod answers, and how many requests fail.
//!
//! Times are printed, not checked.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::case::{Case, Routed, epoch};
use crate::support::harness::tests;
use crate::support::recorder::History;
use crate::support::traffic::{Answers, Failure, Load, ask, until_answered};
use crate::support::waiting::{check, until, within};

tests![
    leader_deleted_gracefully_loses_no_connection,
    leader_that_exits_at_once_is_replaced,
    leader_deleted_by_force_is_replaced,
    not_ready_leader_is_left_without_a_failed_request,
    only_pod_not_ready_refuses_and_comes_back,
    rolling_update_switches_once,
    no_pod_answers_out_of_turn_in_a_row_of_switches,
];

const RATE: u32 = 150;

/// Three pods, a leader, and load on the leader Service.
struct Scene {
    leader: String,
    load: Load,
    recorder: crate::support::recorder::Recorder,
}

async fn scene(t: &Case, replicas: usize, args: &[&str]) -> Scene {
    t.app("web", replicas, args).await;
    t.web(&[]).await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    until_answered(to).await;
    let recorder = t.record().await;
    let load = Load::start(to, RATE);
    load.more(150).await;
    Scene { leader, load, recorder }
}

/// Ends load and recorder some requests after the switch, and checks what must always hold: the
/// pods led in this order, always one of them, and answered in this order.
async fn ended(
    scene: (Load, crate::support::recorder::Recorder),
    order: &[String],
) -> (Answers, History) {
    let (load, recorder) = scene;
    load.more(3 * RATE as usize).await;
    let answers = load.finish().await;
    let history = recorder.finish().await;
    history.holds("web-leader");
    history.never_empty("web-leader");
    assert_eq!(history.leaders("web-leader"), order);
    answers.assert_order(order);
    (answers, history)
}

fn print_times(t: &Case, what: &str, answers: &Answers, old: &str, new: &str) {
    let connections = answers
        .failures()
        .iter()
        .filter(|f| matches!(f, Failure::Connect(_) | Failure::Late))
        .count();
    let broken = answers.failures().len() - connections;
    let gap = answers.gap_ms(old, new);
    t.world.figure(
        format!("{what}, {RATE} requests/s"),
        format!(
            "{connections} new connections failed, {broken} broke, of {}; last answer of the old \
             leader to first of the new: {gap:.0} ms",
            answers.0.len()
        ),
    );
}

async fn deleted(t: &Case, args: &[&str], grace: Option<u32>, what: &str) -> Answers {
    let Scene { leader, load, recorder } = scene(t, 3, args).await;
    t.delete_pod(&leader, grace).await;
    let next = t.until_leader("web-leader", &leader).await;
    let (answers, history) = ended((load, recorder), &[leader.clone(), next.clone()]).await;
    // One write each: the earlier version, and the switch.
    assert_eq!(history.versions("web-leader"), 2);
    print_times(t, what, &answers, &leader, &next);
    answers
}

async fn leader_deleted_gracefully_loses_no_connection(t: Arc<Case>) {
    // Far longer than kube-proxy may delay new rules (minSyncPeriod, 1 s), even on a busy machine;
    // `make bench BENCH=deletions` measures the effect of one second.
    let args = ["-term-delay=10s"];
    let answers = deleted(&t, &args, None, "leader deleted, app serves 10 s after SIGTERM").await;
    assert!(answers.failures().is_empty(), "a successor was at hand: {answers}");
}

async fn leader_that_exits_at_once_is_replaced(t: Arc<Case>) {
    let args = ["-exit-at-once"];
    deleted(&t, &args, None, "leader deleted, app exits with SIGTERM").await;
}

async fn leader_deleted_by_force_is_replaced(t: Arc<Case>) {
    deleted(&t, &[], Some(0), "leader deleted by force (grace period 0)").await;
}

async fn not_ready_leader_is_left_without_a_failed_request(t: Arc<Case>) {
    let Scene { leader, load, recorder } = scene(&t, 2, &[]).await;
    t.set_ready_in_pod(&leader, false).await;
    let next = t.until_leader("web-leader", &leader).await;
    let (answers, _) = ended((load, recorder), &[leader.clone(), next.clone()]).await;
    assert!(answers.failures().is_empty(), "{answers}");
    print_times(&t, "leader turns NotReady", &answers, &leader, &next);
    // The old leader is ready again, but the new one stays: sticky.
    let recorder = t.record().await;
    t.set_ready_in_pod(&leader, true).await;
    t.until_ready_pods("web", 2).await;
    t.until_message("web-leader", &format!("{next} leads; {leader}: standby")).await;
    assert_eq!(recorder.finish().await.leaders("web-leader"), [next]);
}

async fn only_pod_not_ready_refuses_and_comes_back(t: Arc<Case>) {
    let Scene { leader, load, recorder } = scene(&t, 1, &[]).await;
    let to = t.address("web-leader", false).await;
    let before = epoch(&t.slice("web-leader", "IPv4").await.unwrap());
    t.set_ready_in_pod(&leader, false).await;
    t.until_routed("web-leader", &[Routed::not_ready(&leader)]).await;
    until("connections are refused", || async {
        let answer = ask(to, "GET", "/").await;
        let refused = matches!(&answer, Err(Failure::Connect(why)) if why == "connection refused");
        check(refused, format!("{answer:?}"))
    })
    .await;
    t.set_ready_in_pod(&leader, true).await;
    t.until_led_by("web-leader", &leader).await;
    until_answered(to).await;
    let answers = load.finish().await;
    assert!(answers.pods().into_iter().eq([leader.as_str()]), "{answers}");
    assert!(!answers.failures().is_empty());
    let history = recorder.finish().await;
    history.holds("web-leader");
    let states = history.states("web-leader", "IPv4");
    let (on, off) = (vec![Routed::ready(&leader)], vec![Routed::not_ready(&leader)]);
    assert_eq!(states, [on.clone(), off, on]);
    // The leader was never replaced, so the epoch is the same.
    assert_eq!(epoch(&t.slice("web-leader", "IPv4").await.unwrap()), before);
}

async fn rolling_update_switches_once(t: Arc<Case>) {
    let Scene { leader, load, recorder } = scene(&t, 3, &[]).await;
    let old: Vec<String> = Case::names(&t.pods_of("web").await);
    let patch = json!({"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}});
    t.deployments().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    within(Duration::from_secs(90), "the new pods have replaced the old", || async {
        let pods = t.pods_of("web").await;
        check(
            pods.len() == 3
                && pods.iter().all(|p| p.labels().get("version").is_some_and(|v| v == "2")),
            format!("{:?}", Case::names(&pods)),
        )
    })
    .await;
    t.until_ready_pods("web", 3).await;
    let next = t.until_leader("web-leader", &leader).await;
    assert!(!old.contains(&next));
    let (answers, history) = ended((load, recorder), &[leader.clone(), next.clone()]).await;
    let mut epochs: Vec<u64> = history
        .0
        .iter()
        .filter(|s| s.slice.address_type == "IPv4")
        .map(|s| epoch(&s.slice))
        .collect();
    epochs.retain(|e| *e > 0);
    epochs.dedup();
    assert_eq!(epochs.len(), 2, "one switch for three pods");
    print_times(&t, "rolling update of three pods", &answers, &leader, &next);
}

async fn no_pod_answers_out_of_turn_in_a_row_of_switches(t: Arc<Case>) {
    let Scene { leader, load, recorder } = scene(&t, 4, &[]).await;
    let mut order = vec![leader];
    for round in 0..3 {
        let now = order.last().unwrap().clone();
        // In turn: not ready (it still answers direct requests), and deleted.
        if round % 2 == 0 {
            t.set_ready_in_pod(&now, false).await;
        } else {
            t.delete_pod(&now, None).await;
        }
        order.push(t.until_leader("web-leader", &now).await);
        load.more(RATE as usize).await;
    }
    ended((load, recorder), &order).await;
}
