//! Tests of the publisher against the fake API server.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::testing::{FakeApi, Fault, events};
use zen_lead_core::names::ServiceKey;
use zen_lead_core::reason::Reason;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/team/events";

struct Scene {
    api: FakeApi,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    stop: tokio::sync::watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Scene {
    fn new() -> Self {
        let api = FakeApi::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let clock = Clock::fixed("2026-07-01T12:00:00.123456Z".parse().unwrap());
        let caller = Caller::new(Arc::clone(&metrics));
        let (publisher, writer) =
            Publisher::new(api.client(), caller, "pod-1".into(), clock, Arc::default());
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        Self { api, publisher, metrics, stop, tasks }
    }

    fn counted(&self, reason: &str, result: &str) -> usize {
        events(&self.metrics, reason, result)
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

async fn soon() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn note(reason: Reason, text: &str) -> Note {
    let regarding = ObjectReference {
        kind: Some("Service".into()),
        namespace: Some("team".into()),
        name: Some("web".into()),
        uid: Some("u-1".into()),
        ..ObjectReference::default()
    };
    Note::new(reason, ServiceKey::new("team", "web"), regarding, text)
}

#[tokio::test(start_paused = true)]
async fn an_event_has_all_that_the_api_server_demands() {
    let scene = Scene::new();
    let note = note(Reason::LeaderChanged, "web-1 leads");
    scene.publisher.publish(note.once_a_switch("3f2a-77", at(1_750_000_000_000)));
    soon().await;
    let event = scene.api.get(&format!("{EVENTS}/3f2a-77.1750000000000")).unwrap();
    let field = |name: &str| event[name].clone();
    assert_eq!(field("action"), "SwitchLeader");
    assert_eq!(field("eventTime"), "2026-07-01T12:00:00.123456Z");
    assert_eq!(field("note"), "web-1 leads");
    assert_eq!(field("reason"), "LeaderChanged");
    assert_eq!(field("regarding")["name"], "web");
    assert_eq!(field("reportingController"), "zen-lead.io/zen-lead");
    assert_eq!(field("reportingInstance"), "pod-1");
    assert_eq!(field("type"), "Normal");
    assert_eq!(scene.counted("LeaderChanged", "written"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_another_replica_has_reported_is_done() {
    let scene = Scene::new();
    scene.api.put(EVENTS, json!({"metadata": {"name": "uid.7"}, "note": "theirs"}));
    scene.publisher.publish(note(Reason::LeaderChanged, "ours").once_a_switch("uid", at(7)));
    soon().await;
    assert_eq!(scene.api.get(&format!("{EVENTS}/uid.7")).unwrap()["note"], "theirs");
    assert_eq!(scene.counted("LeaderChanged", "exists"), 1);

    // An attempt of ours whose answer was lost is ours.
    scene.api.fail("POST", EVENTS, 1, Fault::ResetAfter);
    scene.publisher.publish(note(Reason::LeaderChanged, "ours").once_a_switch("uid", at(8)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.counted("LeaderChanged", "written"), 1);
}

#[tokio::test(start_paused = true)]
async fn repetitions_are_left_out_for_ten_minutes() {
    let scene = Scene::new();
    let posts = || scene.api.count("POST");
    scene.publisher.publish(note(Reason::NoReadyPods, "a"));
    scene.publisher.publish(note(Reason::NoReadyPods, "a"));
    scene.publisher.publish(note(Reason::NoReadyPods, "b"));
    scene.publisher.publish(note(Reason::NoPodsFound, "a"));
    soon().await;
    assert_eq!((posts(), scene.counted("NoReadyPods", "repeated")), (3, 1));
    tokio::time::sleep(Duration::from_secs(599)).await;
    scene.publisher.publish(note(Reason::NoReadyPods, "a"));
    soon().await;
    assert_eq!(posts(), 3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.publisher.publish(note(Reason::NoReadyPods, "a"));
    soon().await;
    assert_eq!(posts(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_failed_event_is_no_reason_to_leave_out_the_next() {
    let scene = Scene::new();
    scene.api.fail("POST", EVENTS, 1, Fault::Status(403, "Forbidden", "no"));
    for _ in 0..2 {
        scene.publisher.publish(note(Reason::NoReadyPods, "a"));
        soon().await;
    }
    assert_eq!(scene.counted("NoReadyPods", "failed"), 1);
    assert_eq!(scene.counted("NoReadyPods", "written"), 1);
}

// Killing an API server for longer than a call may take lost the Event of one switch in 300.
#[tokio::test(start_paused = true)]
async fn the_event_of_a_switch_outlasts_an_outage() {
    let switch = |time| note(Reason::LeaderChanged, "b leads").once_a_switch("uid", at(time));
    for (fault, failures) in [
        (Fault::Stall, 20),
        (Fault::Status(503, "ServiceUnavailable", "down"), 60),
        (Fault::Status(403, "Forbidden", "roles are not read yet"), 5),
    ] {
        let scene = Scene::new();
        scene.api.fail("POST", EVENTS, failures, fault);
        scene.publisher.publish(switch(7));
        tokio::time::sleep(Duration::from_mins(9)).await;
        assert_eq!(scene.counted("LeaderChanged", "written"), 1);
        assert_eq!(scene.counted("LeaderChanged", "failed"), 0);
        assert_eq!(scene.api.get(&format!("{EVENTS}/uid.7")).unwrap()["note"], "b leads");
    }
    // Not without end, and what cannot succeed is not tried again.
    for (fault, reached) in [
        (Fault::Status(403, "Forbidden", "no"), Duration::from_mins(12)),
        (Fault::Status(422, "Invalid", "no"), Duration::from_secs(1)),
    ] {
        let scene = Scene::new();
        scene.api.fail("POST", EVENTS, usize::MAX, fault);
        scene.publisher.publish(switch(7));
        tokio::time::sleep(reached).await;
        assert_eq!(scene.counted("LeaderChanged", "failed"), 1);
        let tries = scene.api.count("POST");
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(scene.api.count("POST"), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_tried_again_is_bounded_and_tried_at_the_end() {
    let mut scene = Scene::new();
    scene.api.fail("POST", EVENTS, QUEUE + 50, Fault::Status(403, "Forbidden", "not yet"));
    let queue = i64::try_from(QUEUE).unwrap();
    for times in [0..queue, queue..queue + 50] {
        for time in times {
            let note = note(Reason::LeaderChanged, "x").once_a_switch("uid", at(time));
            scene.publisher.publish(of(note, time % 8));
        }
        soon().await;
    }
    assert_eq!(scene.counted("LeaderChanged", "failed"), 50);
    scene.stop.send_replace(true);
    scene.tasks.join_next().await.unwrap().unwrap();
    assert_eq!(scene.counted("LeaderChanged", "written"), QUEUE);
}

/// The same on behalf of a Service in this namespace.
fn of(note: Note, namespace: impl std::fmt::Display) -> Note {
    Note { service: ServiceKey::new(format!("team-{namespace}"), "web"), ..note }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_with_many_events_leaves_room_for_those_of_others() {
    let scene = Scene::new();
    for round in 1..=2 {
        for n in 0..2 * QUEUE {
            let text = format!("{round} {n}");
            scene.publisher.publish(of(note(Reason::LeaderChanged, &text), "loud"));
        }
        scene.publisher.publish(of(note(Reason::NoReadyPods, &round.to_string()), "quiet"));
        soon().await;
        assert_eq!(scene.counted("LeaderChanged", "dropped"), round * (2 * QUEUE - SHARE));
        assert_eq!(scene.counted("LeaderChanged", "written"), round * SHARE);
        assert_eq!(scene.counted("NoReadyPods", "written"), round);
    }
    assert!(scene.publisher.waiting.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_holds_up_nobody() {
    let mut scene = Scene::new();
    scene.api.fail("POST", EVENTS, usize::MAX, Fault::Stall);
    for n in 0..QUEUE + 100 {
        scene.publisher.publish(of(note(Reason::NoReadyPods, &n.to_string()), n % 8));
    }
    assert_eq!(scene.counted("NoReadyPods", "dropped"), 100);
    soon().await;
    let start = monotonic();
    scene.stop.send_replace(true);
    scene.tasks.join_next().await.unwrap().unwrap();
    assert_eq!(monotonic() - start, LAST_WRITES);
    // One was under way and as many waited as fit: none is lost without a count.
    assert_eq!(scene.counted("NoReadyPods", "dropped"), 100 + QUEUE);
    let text = scene.metrics.exposition().unwrap();
    assert!(text.contains(r#"zen_lead_timeout_occurrences_total{operation="flush_events"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_the_end_is_still_written() {
    let mut scene = Scene::new();
    scene.publisher.publish(note(Reason::NoReadyPods, "a"));
    scene.publisher.publish(note(Reason::NoReadyPods, "b"));
    scene.stop.send_replace(true);
    scene.tasks.join_next().await.unwrap().unwrap();
    assert_eq!(scene.api.count("POST"), 2);
    scene.publisher.publish(note(Reason::NoReadyPods, "c"));
    assert_eq!(scene.counted("NoReadyPods", "dropped"), 1);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    assert_eq!(cut("short", 8), "short");
    assert_eq!(cut("123456789", 8), "12345…");
    assert_eq!(cut("1234ää789", 8), "1234…");
    let long = cut(&"ä".repeat(5000), MAX_NOTE);
    assert!(long.len() <= MAX_NOTE && long.len() >= MAX_NOTE - 1, "{}", long.len());
}

#[test]
fn made_up_names_are_valid_and_differ() {
    let long = "a".repeat(300);
    for about in ["web", "web-", &long] {
        let (one, two) = (unique(about), unique(about));
        assert!(one.len() <= MAX_NAME && one != two, "{one} {two}");
        assert!(!one.contains("-."), "{one}");
    }
}

#[test]
fn the_memory_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::new().unwrap());
        let client = FakeApi::new().client();
        let (_publisher, mut writer) = Publisher::new(
            client,
            Caller::new(metrics),
            String::new(),
            Clock::system(),
            Arc::default(),
        );
        for n in 0..3 * REMEMBERED {
            assert!(!writer.is_recent(n as u64));
            assert!(writer.recent.len() <= REMEMBERED);
        }
        assert!(writer.is_recent(3 * REMEMBERED as u64 - 1));
    });
}
