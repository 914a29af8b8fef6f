//! Each switch has its Event, and one only, whatever happens to the calls around it.

use super::*;
use crate::control::events::Publisher;
use crate::control::events::Writer;
use crate::testing::events;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

/// Gives a worker a publisher whose Events are written as soon as the writer runs.
fn telling(worker: &mut Reconciler, world: &World) -> Writer {
    let caller = Caller::new(worker.metrics.clone());
    let (me, clock) = (worker.me.clone(), worker.clock.clone());
    let (events, writer) = Publisher::new(world.api.client(), caller, me, clock, Arc::default());
    worker.recorder = Recorder::new(worker.metrics.clone(), events, worker.clock.now());
    writer
}

/// What the Event of a switch says; `None` where there is none.
fn note(world: &World, epoch: u64) -> Option<String> {
    let leader = world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    let uid = leader["metadata"]["uid"].as_str().unwrap();
    let event = world.api.get(&format!("{EVENTS}/{uid}.{epoch}"))?;
    Some(event["note"].as_str().unwrap().to_owned())
}

/// A millisecond later: no two switches are of the same time.
fn later(worker: &Reconciler) {
    worker.clock.set(worker.clock.now() + Duration::from_millis(1));
}

/// As its queue does: again until it succeeds, here at most ten times.
async fn until_done(worker: &Reconciler, key: &ServiceKey) {
    for _ in 0..10 {
        sync(worker, key).await;
        if worker.reconcile(key, clock::monotonic()).await == Ok(Requeue::Idle) {
            return;
        }
    }
    panic!("not at rest after ten reconciles");
}

/// Ends a replica and lets its Events be written.
async fn written(worker: Reconciler, writer: Writer) {
    drop(worker);
    writer.run(std::future::pending()).await;
}

/// The leader goes back from `b` to `a`: which Events are sent for that switch and for the one before, which came
/// after `first`.
async fn after_the_next(
    world: &World,
    worker: Reconciler,
    writer: Writer,
    first: u64,
) -> [String; 2] {
    world.api.put(PODS, pod("a", "10.0.0.1", true, 1));
    world.api.put(PODS, pod("b", "10.0.0.2", false, 2));
    until_done(&worker, &world.key).await;
    written(worker, writer).await;
    [first + 1, first + 2].map(|epoch| note(world, epoch).unwrap())
}

/// A replica that has led `a`, whose cache shows by now that it is not Ready; the epoch so far.
async fn about_to_switch(world: &World) -> (Reconciler, Writer, u64) {
    let (mut worker, _) = worker(&world.api, "zl-0", &[]);
    let writer = telling(&mut worker, world);
    until_done(&worker, &world.key).await;
    later(&worker);
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    sync(&worker, &world.key).await;
    (worker, writer, world.epoch())
}

/// Two replicas at rest; the writer of the second runs at the end.
async fn pair(world: &World) -> (Reconciler, Writer) {
    let (mut next, _) = worker(&world.api, "zl-1", &[]);
    let writer = telling(&mut next, world);
    world.reconcile().await.unwrap();
    until_done(&next, &world.key).await;
    (next, writer)
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_told_once_whichever_call_fails_or_loses_its_answer() {
    let calls =
        [("PUT", "web-leader-zen-lead-ipv4"), ("GET", SLICES), ("PATCH", "web-leader/status")];
    let unavailable = Fault::Status(503, "ServiceUnavailable", "etcd has no leader");
    for (verb, path) in calls {
        for fault in [Fault::Reset, Fault::ResetAfter, Fault::StallAfter, unavailable.clone()] {
            // Once, and for longer than a call is tried.
            for times in [1, 99] {
                let world = World::new();
                let (worker, writer, first) = about_to_switch(&world).await;
                world.api.fail(verb, path, times, fault.clone());
                let _ = worker.reconcile(&world.key, clock::monotonic()).await;
                world.api.forgive();
                until_done(&worker, &world.key).await;

                let metrics = Arc::clone(&worker.metrics);
                written(worker, writer).await;
                let case = format!("{verb} {path}: {fault:?}, {times} times");
                let told = [first, first + 1].map(|epoch| note(&world, epoch));
                let expected = [
                    format!("a leads (first_leader), epoch {first}"),
                    format!("leader changed from a to b (pod_not_ready), epoch {}", first + 1),
                ];
                assert_eq!(told, expected.map(Some), "{case}");
                assert_eq!(world.epoch(), first + 1, "{case}");
                let tried = ["written", "exists", "repeated", "failed", "dropped"]
                    .map(|result| events(&metrics, "LeaderChanged", result));
                assert_eq!(tried, [2, 0, 0, 0, 0], "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_the_mirror_never_shows_is_told() {
    let world = World::new();
    let (worker, writer, first) = about_to_switch(&world).await;
    world.api.fail("PATCH", "web-leader/status", 99, Fault::Reset);
    worker.reconcile(&world.key, clock::monotonic()).await.unwrap_err();
    world.api.forgive();
    // The next one comes before the mirror could be written.
    later(&worker);
    let told = after_the_next(&world, worker, writer, first).await;
    assert!(told[0].starts_with("leader changed from a to b "), "{told:?}");
    assert!(told[1].starts_with("leader changed from b to a "), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_switch_whose_writer_died_is_told_by_a_replica_that_loses_the_answer_to_its_mirror() {
    let world = World::new();
    let (next, writer) = pair(&world).await;
    let first = world.epoch();

    later(&world.worker);
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world.api.fail("PATCH", "web-leader/status", 99, Fault::Reset);
    // Its Event is never written.
    world.reconcile().await.unwrap_err();
    world.api.forgive();
    world.api.fail("PATCH", "web-leader/status", 1, Fault::ResetAfter);
    until_done(&next, &world.key).await;

    written(next, writer).await;
    let told = note(&world, first + 1).expect("the event");
    assert!(told.starts_with("leader changed from a to b "), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_switch_whose_writer_died_before_its_event_is_told_once_by_the_next_process() {
    let world = World::new();
    // Mirrored, and its event is never written.
    world.reconcile().await.unwrap();
    let epoch = world.epoch();
    let before = world.writes();
    for told_before in [false, true] {
        assert_eq!(note(&world, epoch).is_some(), told_before);
        let (mut next, _) = worker(&world.api, "zl-0", &[]);
        let writer = telling(&mut next, &world);
        for _ in 0..3 {
            until_done(&next, &world.key).await;
        }
        written(next, writer).await;
        let told = format!("a leads (first_leader), epoch {epoch}");
        assert_eq!(note(&world, epoch), Some(told));
    }
    assert_eq!(world.writes(), before + 2, "one attempt a process, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn who_switches_next_tells_of_the_switch_whose_writer_died() {
    for mirrored in [false, true] {
        let world = World::new();
        let (next, writer) = pair(&world).await;
        let first = world.epoch();
        later(&world.worker);
        world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
        if !mirrored {
            world.api.fail("PATCH", "web-leader/status", 99, Fault::Reset);
        }
        // Its Event is never written.
        assert_eq!(world.reconcile().await.is_ok(), mirrored);
        world.api.forgive();
        next.clock.set(world.worker.clock.now());
        later(&next);
        let told = after_the_next(&world, next, writer, first).await;
        // Once it is mirrored, who led before is on no object any longer.
        let start = if mirrored { "b leads " } else { "leader changed from a to b " };
        assert!(told[0].starts_with(start), "{told:?}");
        assert!(told[1].starts_with("leader changed from b to a "), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_without_a_switch_is_no_second_event() {
    let world = World::new();
    let (next, writer) = pair(&world).await;
    let first = world.epoch();
    // Made again with a new epoch; then the other replica switches.
    world.api.remove(&format!("{SLICES}/web-leader-zen-lead-ipv4"));
    later(&world.worker);
    world.reconcile().await.unwrap();
    assert_eq!(world.epoch(), first + 1);
    next.clock.set(world.worker.clock.now());
    later(&next);
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    until_done(&next, &world.key).await;
    written(next, writer).await;
    let told = [first, first + 1, first + 2].map(|epoch| note(&world, epoch));
    assert_eq!(told.map(|note| note.is_some()), [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_with_a_switch_tells_of_the_one_before_too() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let first = world.epoch();
    let (mut next, _) = worker(&world.api, "zl-0", &[]);
    let writer = telling(&mut next, &world);
    later(&next);
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    until_done(&next, &world.key).await;
    written(next, writer).await;
    let told = [first, first + 1].map(|epoch| note(&world, epoch).unwrap());
    assert!(told[0].starts_with("a leads "), "{told:?}");
    assert!(told[1].starts_with("leader changed from a to b "), "{told:?}");
}
