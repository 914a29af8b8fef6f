//! Inputs 1 to 5: conditions, labels, owner references and names that others changed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Input, listed};
use crate::clumsy::draw::squatted_slice;
use crate::clumsy::moves::{Move, Who};
use crate::clumsy::raw::{Cascade, How, LEADER, SLICE, WEB};
use crate::support::case::Case;
use crate::support::harness::Test;

pub fn tests() -> Vec<Test> {
    listed![
        a_condition_without_time_and_a_conflict_empty_nothing,
        a_changed_managed_by_label_empties_nothing,
        removed_owner_references_empty_nothing,
        an_orphaned_slice_goes_on_following_its_leader,
        a_squatted_slice_is_reported_and_causes_no_storm,
    ]
}

pub fn alone() -> Vec<Test> {
    listed![a_condition_without_time_survives_a_restart]
}

/// A condition as some controllers write it.
fn untimed() -> Value {
    let condition =
        json!({"type": "x.example/Ready", "status": "True", "reason": "", "message": ""});
    json!({"status": {"conditions": [condition]}})
}

async fn write_untimed(input: &Input) {
    let robot = input.ground.hand(Who::Robot);
    robot.patch(WEB, "status", How::Merge, &untimed()).await.unwrap();
}

/// Input 1.
async fn a_condition_without_time_survives_a_restart(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    let input = Input::led(&t, &json!({})).await;
    write_untimed(&input).await;
    for replica in t.world.product.replicas() {
        t.world.product.kill(replica);
    }
    t.world.product.ensure_started().await;
    goes_on(input, Duration::from_secs(3)).await;
}

/// Input 1, by way of a conflict.
async fn a_condition_without_time_and_a_conflict_empty_nothing(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    write_untimed(&input).await;
    input.ground.act(&Move::LoseWhileWritten).await.unwrap();
    input.is_led_by("p2", super::FOLLOWED).await;
    input.reports_agree().await;
    input.is_quiet().await;
    input.passes().await;
}

/// What must hold some time after bookkeeping, or the process that knew it, was lost.
async fn goes_on(mut input: Input, after: Duration) {
    sleep(after).await;
    input.never_emptied();
    input.is_led_by("p1", Duration::ZERO).await;
    input.reports_agree().await;
    input.follows_a_loss().await;
    input.reports_agree().await;
    input.is_quiet().await;
    input.passes().await;
}

/// Input 2.
async fn a_changed_managed_by_label_empties_nothing(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    let all =
        Move::LabelAll { who: Who::Alice, key: "app.kubernetes.io/managed-by", value: "Helm" };
    // A refusal is also correct.
    let _ = input.ground.act(&all).await;
    goes_on(input, Duration::from_secs(2)).await;
}

/// Input 3.
async fn removed_owner_references_empty_nothing(t: Arc<Case>) {
    let input = Input::led(&t, &json!({})).await;
    let patch = json!([{"op": "remove", "path": "/metadata/ownerReferences"}]);
    input.ground.hand(Who::Alice).patch(LEADER, "", How::Json, &patch).await.unwrap();
    goes_on(input, Duration::from_secs(2)).await;
}

/// Input 4.
async fn an_orphaned_slice_goes_on_following_its_leader(t: Arc<Case>) {
    let mut input = Input::led(&t, &json!({})).await;
    input.ground.hand(Who::Alice).delete(LEADER, Cascade::Orphan).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    input.is_led_by("p1", Duration::ZERO).await;
    input.follows_a_loss().await;
    input.reports_agree().await;
    input.is_quiet().await;
    input.passes().await;
}

/// Input 5.
async fn a_squatted_slice_is_reported_and_causes_no_storm(t: Arc<Case>) {
    let mut input = Input::bare(&t).await;
    input.ground.act(&squatted_slice(&json!({}))).await.unwrap();
    input.ground.source(&json!({})).await.unwrap();
    input.is_quiet().await;
    input.says("web", SLICE.1).await;
    input.reports_agree().await;
    input.ground.admin.delete(SLICE, Cascade::Background).await.unwrap();
    input.is_led_by("p1", Duration::from_secs(30)).await;
    input.reports_agree().await;
    input.passes().await;
}
