//! Inputs 6, 10 and 16: calls that are refused or undone for a long time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{Input, deadline, listed};
use crate::clumsy::hooks::{Does, Hook, WORDS};
use crate::clumsy::moves::{Move, Who};
use crate::clumsy::protection;
use crate::clumsy::raw::{SLICE, WEB};
use crate::support::case::Case;
use crate::support::control_plane::{self, Elsewhere};
use crate::support::harness::Test;
use crate::support::names;

/// What a test that waits for several pauses to grow takes beside the usual time.
const LONG: Duration = Duration::from_mins(10);

pub fn tests() -> Vec<Test> {
    let ports = listed![used_up_node_ports_are_reported].remove(0).within(LONG + deadline());
    let mut all = listed![
        slice_updates_refused_by_409_are_no_storm,
        slice_updates_refused_by_a_dead_webhook_are_reported,
        slice_updates_refused_by_413_are_reported,
        creations_refused_by_400_are_reported,
        creations_refused_by_413_are_reported,
        creations_refused_by_500_are_reported,
        a_type_that_is_flipped_blames_no_webhook,
        a_patch_of_an_empty_slice_is_refused_in_words,
    ];
    all.push(ports.needs(control_plane::programs()));
    all
}

fn on_slices(does: Does) -> Hook {
    Hook { resource: "endpointslices", operation: "UPDATE", ours: true, does }
}

/// Input 6: the slice cannot be written, and the leader is lost.
async fn slice_is_refused(t: Arc<Case>, does: Does) {
    let mut input = Input::led(&t, &json!({})).await;
    let hook = on_slices(does);
    input.ground.act(&Move::Hook(hook)).await.unwrap();
    t.vanish("p1").await;
    input.is_quiet().await;
    input.reports_agree().await;
    for service in ["web", "web-leader"] {
        input.says(service, hook.words().unwrap()).await;
    }
    input.ground.act(&Move::Unhook).await.unwrap();
    input.is_led_by("p2", Duration::from_secs(30)).await;
    input.reports_agree().await;
    input.passes().await;
}

async fn slice_updates_refused_by_409_are_no_storm(t: Arc<Case>) {
    slice_is_refused(t, Does::Refuse(409)).await;
}

async fn slice_updates_refused_by_a_dead_webhook_are_reported(t: Arc<Case>) {
    slice_is_refused(t, Does::Gone).await;
}

async fn slice_updates_refused_by_413_are_reported(t: Arc<Case>) {
    slice_is_refused(t, Does::Refuse(413)).await;
}

/// Input 6: the leader Service cannot be made.
async fn creation_is_refused(t: Arc<Case>, code: u16) {
    let mut input = Input::bare(&t).await;
    let hook =
        Hook { resource: "services", operation: "CREATE", ours: true, does: Does::Refuse(code) };
    input.ground.act(&Move::Hook(hook)).await.unwrap();
    input.ground.source(&json!({})).await.unwrap();
    input.is_quiet().await;
    input.says("web", WORDS).await;
    input.ground.act(&Move::Unhook).await.unwrap();
    input.is_led_by("p1", Duration::from_secs(30)).await;
    input.passes().await;
}

async fn creations_refused_by_400_are_reported(t: Arc<Case>) {
    creation_is_refused(t, 400).await;
}

async fn creations_refused_by_413_are_reported(t: Arc<Case>) {
    creation_is_refused(t, 413).await;
}

async fn creations_refused_by_500_are_reported(t: Arc<Case>) {
    creation_is_refused(t, 500).await;
}

/// Input 10, on a control plane with one node port.
async fn used_up_node_ports_are_reported(t: Arc<Case>) {
    let elsewhere = Elsewhere::open(&t, 1, 2).await;
    elsewhere.control.kill(0);
    elsewhere.control.launch(0, &["--service-node-port-range", "31000-31000"]);
    elsewhere.control.until_ready(0).await;
    let world = elsewhere.case.world.clone();
    world.product.ensure_started().await;
    // This test is not about admission, and alice has no rights here.
    let case = Arc::new(elsewhere.case.outside().await);
    let mut input = Input::bare(&case).await;
    let mirror = json!({"metadata": {"annotations": {names::LEADER_TYPE: "mirror"}}});
    let source = crate::support::objects::source_json("web", &mirror);
    let admin = input.ground.admin.clone();
    admin.create(crate::clumsy::raw::Kind::Service, &source).await.unwrap();
    input.is_led_by("p1", Duration::from_secs(20)).await;
    // The source takes the only node port.
    admin.merge(WEB, &json!({"spec": {"type": "NodePort"}})).await.unwrap();
    input.is_quiet().await;
    input.says("web", "failed to allocate a nodePort: range is full").await;
    input.follows_a_loss().await;
    input.reports_agree().await;
    elsewhere.close().await;
    input.passes().await;
}

/// Input 16: as fast as a user with a script.
async fn a_type_that_is_flipped_blames_no_webhook(t: Arc<Case>) {
    let mirror = json!({"metadata": {"annotations": {names::LEADER_TYPE: "mirror"}}});
    let mut input = Input::led(&t, &mirror).await;
    for pause in [0, 10, 20, 30, 45, 60, 90, 120] {
        for wanted in ["NodePort", "ClusterIP"].iter().cycle().take(10) {
            let patch = json!({"spec": {"type": wanted}});
            input.ground.hand(Who::Alice).merge(WEB, &patch).await.unwrap();
            sleep(Duration::from_millis(pause)).await;
        }
    }
    input.is_quiet().await;
    input.no_event_says("webhook").await;
    input.never_emptied();
    input.reports_agree().await;
    input.passes().await;
}

/// Input 16.
async fn a_patch_of_an_empty_slice_is_refused_in_words(t: Arc<Case>) {
    protection::protect(&t).await;
    let mut input = Input::bare(&t).await;
    input.ground.source(&json!({})).await.unwrap();
    t.until_led_by("web-leader", "p1").await;
    for pod in ["p2", "p1"] {
        t.vanish(pod).await;
    }
    t.until_routed("web-leader", &[]).await;
    let patch = json!({"endpoints": [{"addresses": ["192.0.2.9"]}]});
    // A controller, because the role `edit` has no right on slices.
    let refused = input.ground.hand(Who::Robot).merge(SLICE, &patch).await.unwrap_err();
    let says = refused.1.contains(
        "endpoints of this EndpointSlice may not be changed: zen-lead keeps exactly the leader of web-leader in it",
    );
    input.unless(says && refused.0 == 403, format!("it is refused with {refused:?}"));
    input.passes().await;
}
