//! What is held back, for how long, and what a repetition is.

use super::*;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use zen_lead_core::decide::ObjectRef;
use zen_lead_core::decide::slices::{SliceStep, SliceWrite};

fn patch(object: &str, version: &str, session: &str) -> Step {
    let target =
        ObjectRef { name: object.into(), uid: "u".into(), version: Some(version.to_owned()) };
    Step::PatchLeader(target, json!({"spec": {"sessionAffinity": session}}))
}

fn slice(name: &str) -> Step {
    let mut slice = EndpointSlice::default();
    slice.metadata.name = Some(name.into());
    let write = SliceWrite::Replace(Box::new(slice));
    Step::Slice(Box::new(SliceStep { write, switch: None, urgent: false }))
}

fn refuse(blocks: &mut Blocks, step: &Step, rank: usize) -> Duration {
    blocks.refused(step, RefusalCause::Other, "apply_service shop/web-leader", "no.", rank)
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_refusal_doubles_to_five_minutes_and_being_woken_changes_nothing() {
    let mut blocks = Blocks::default();
    let step = patch("web-leader", "1", "None");
    let mut waits = Vec::new();
    for _ in 0..10 {
        waits.push(refuse(&mut blocks, &step, 0).as_secs());
        blocks.expire();
        assert_eq!(blocks.now().count(), 1, "held");
        tokio::time::advance(*waits.last().map(|s| Duration::from_secs(*s)).iter().next().unwrap())
            .await;
        assert_eq!(blocks.now().count(), 0, "due");
        blocks.expire();
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(blocks.until(), None, "what has run out brings nothing back");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_forgotten_once_it_was_not_wanted_for_a_while_or_succeeded() {
    let mut blocks = Blocks::default();
    let step = patch("web-leader", "1", "None");
    refuse(&mut blocks, &step, 0);
    tokio::time::advance(FIRST_WAIT + SOON + Duration::from_secs(1)).await;
    blocks.expire();
    assert_eq!(refuse(&mut blocks, &step, 0), FIRST_WAIT, "a new story");
    assert_eq!(refuse(&mut blocks, &step, 0), 2 * FIRST_WAIT);
    assert!(blocks.succeeded(&step));
    assert!(!blocks.succeeded(&step));
    assert_eq!(refuse(&mut blocks, &step, 0), FIRST_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_later_rank_waits_three_times_as_long_and_waits_that_end_close_together_end_together() {
    let mut blocks = Blocks::default();
    assert_eq!(refuse(&mut blocks, &patch("a", "1", "None"), 1), 3 * FIRST_WAIT);
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = refuse(&mut blocks, &patch("b", "1", "None"), 1);
    assert_eq!(second, Duration::from_millis(7500), "2.5 s after the first, or with it");
    let third = refuse(&mut blocks, &patch("c", "1", "None"), 0);
    assert_eq!(third, FIRST_WAIT, "3 s before the first");
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut close = Blocks::default();
    refuse(&mut close, &patch("a", "1", "None"), 1);
    tokio::time::advance(Duration::from_millis(3500)).await;
    let shared = refuse(&mut close, &patch("b", "1", "None"), 0);
    assert_eq!(shared, Duration::from_millis(2500), "with the other, one look for both");
}

#[tokio::test(start_paused = true)]
async fn other_steps_are_tried_with_a_slice_that_is_tried_soon_before_or_after() {
    let mut blocks = Blocks::default();
    refuse(&mut blocks, &patch("a", "1", "None"), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(refuse(&mut blocks, &slice("b"), 0), FIRST_WAIT, "no slice waits for another step");
    tokio::time::advance(Duration::from_millis(1500)).await;
    assert_eq!(blocks.now().count(), 2, "the patch waits half a second more");
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(blocks.now().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_a_third_time_soon_after_is_undone_and_a_change_begins_anew() {
    let mut blocks = Blocks::default();
    let (one, two) = (patch("web-leader", "1", "None"), patch("web-leader", "2", "ClientIP"));
    let again = patch("web-leader", "9", "None");
    assert!(!blocks.written(&one, false));
    assert!(!blocks.written(&again, false), "the version does not count");
    assert!(!blocks.written(&two, false), "something else");
    assert!(!blocks.written(&one, false));
    assert!(!blocks.written(&one, false));
    assert!(blocks.written(&one, false));
    assert_eq!(blocks.undone(&one, Undoer::Later, 0), FIRST_WAIT);
    assert!(!blocks.succeeded(&one), "its writes succeed each time");
    assert_eq!(blocks.undone(&one, Undoer::Later, 0), 2 * FIRST_WAIT);
    tokio::time::advance(SOON + Duration::from_secs(1)).await;
    assert!(!blocks.written(&one, false));
}

#[tokio::test(start_paused = true)]
async fn what_the_source_asks_anew_is_tried_soon_and_waits_on_as_before() {
    let mut blocks = Blocks::default();
    let step = patch("web-leader", "1", "None");
    for _ in 0..6 {
        refuse(&mut blocks, &step, 0);
    }
    blocks.asked_anew();
    assert!(blocks.until().unwrap() - clock::monotonic() <= FIRST_WAIT);
    assert_eq!(refuse(&mut blocks, &step, 0).as_secs(), 128);
}

#[test]
fn the_message_names_who_undoes_it_only_as_far_as_that_is_known() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let mut blocks = Blocks::default();
    let step = patch("web-leader", "1", "None");
    blocks.undone(&step, Undoer::Later, 0);
    let message = blocks.now().next().unwrap().message.clone();
    assert_eq!(
        message,
        "Service \"web-leader\": another client changes it back after each repair: \
         metadata.managedFields of the object (kubectl get --show-managed-fields) names it; stop \
         that client; tried again by itself within 300s"
    );
    blocks.undone(&step, Undoer::InTheAnswer, 0);
    let message = blocks.now().next().unwrap().message.clone();
    assert_eq!(
        message,
        "Service \"web-leader\": the answer to each write lacks what was written: a mutating \
         admission webhook or policy changes it; exempt what zen-lead writes from it; tried again by \
         itself within 300s"
    );
}
