//! What gives way to leaders that are moved, and what waits for a moment.

use super::*;
use crate::control::pressure;
use crate::control::reconcile::waits::REWORDING;

const LEADER: &str = "/api/v1/namespaces/shop/services/web-leader";

fn another() -> ServiceKey {
    ServiceKey::new("shop", "another")
}

/// A world whose watches are live: nothing is read.
fn live() -> World {
    let mut world = World::new();
    let (mut worker, metrics) = worker(&world.api, "zl-0", &[]);
    worker.trust = Box::new(|_| Trust::Live);
    (world.worker, world.metrics) = (Arc::new(worker), metrics);
    world
}

/// Served, and the leader is lost while another Service's leader was moved just now.
async fn lost_in_a_burst() -> World {
    let world = live();
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
    world.worker.pressure.moved(&another());
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world
}

fn current(world: &World) -> String {
    let leader = world.api.get(LEADER).unwrap();
    leader["metadata"]["annotations"]["zen-lead.io/current-leader"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_written_at_once_and_its_mirror_when_no_other_leader_is_moved() {
    let world = lost_in_a_burst().await;
    let since = clock::monotonic();
    assert_eq!(world.reconcile().await.unwrap(), Requeue::GivesWay(since));
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert_eq!(current(&world), "shop/a", "the mirror gives way");
    tokio::time::advance(Duration::from_millis(50)).await;
    world.worker.pressure.moved(&another());
    assert_eq!(world.reconcile().await.unwrap(), Requeue::GivesWay(since), "as it has since then");
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
    assert_eq!(current(&world), "shop/b");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_gives_way_no_longer_than_the_longest_time() {
    let world = lost_in_a_burst().await;
    world.worker.pressure.set_waiting(7);
    let since = clock::monotonic();
    while world.reconcile().await.unwrap() == Requeue::GivesWay(since) {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(clock::monotonic() - since, pressure::LONGEST);
    assert_eq!(current(&world), "shop/b");
}

#[tokio::test(start_paused = true)]
async fn other_words_are_written_once_for_several_changes_and_a_switch_at_once() {
    let world = live();
    world.reconcile().await.unwrap();
    let before = world.writes();
    let began = clock::monotonic();
    for n in 0..8 {
        world.api.put(PODS, pod(&format!("c{n}"), &format!("10.0.1.{n}"), true, 3));
        world.reconcile().await.unwrap();
        tokio::time::advance(Duration::from_millis(249)).await;
    }
    world.api.put(PODS, pod("d", "10.0.2.1", true, 3));
    let next = world.reconcile().await.unwrap();
    assert_eq!(next, Requeue::At(began + REWORDING), "as long as the first has waited");
    assert_eq!(world.writes(), before);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.reconcile().await.unwrap(), Requeue::Idle);
    assert_eq!(world.writes(), before + 1);
    // What is more than words does not wait.
    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    world.reconcile().await.unwrap();
    assert_eq!(current(&world), "shop/b");
}
