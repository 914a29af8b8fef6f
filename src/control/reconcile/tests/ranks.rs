//! What a replica does that is not the first in rank for a Service.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_later_rank_waits_for_the_first_but_takes_out_at_once() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let key = &world.key;
    let replicas = ["zl-0", "zl-1"];
    let names = replicas.map(str::to_owned);
    let second = replicas.iter().find(|r| ranking::rank(r, &names, key) == 1).unwrap();
    let (other, _) = worker(&world.api, second, &replicas);

    world.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    let before = world.writes();
    let now = clock::monotonic();
    sync(&other, key).await;
    let next = other.reconcile(key, now).await.unwrap();
    assert_eq!(
        next,
        Requeue::At(now + ranking::STAGGER),
        "a successor is promoted by rank 0 first"
    );
    assert_eq!(world.writes(), before);
    tokio::time::advance(ranking::STAGGER).await;
    other.reconcile(key, now).await.unwrap();
    assert_eq!(world.leader().as_deref(), Some("b"), "no other replica did it");

    world.api.put(PODS, pod("b", "10.0.0.2", false, 2));
    sync(&other, key).await;
    other.reconcile(key, clock::monotonic()).await.unwrap();
    assert_eq!(world.leader(), None, "taking out never waits for rank");
}

/// A replica that begins has no series yet, and the first one may be refused what it wants to write for long.
#[tokio::test(start_paused = true)]
async fn a_later_rank_has_its_series_while_it_waits_or_fails() {
    let world = World::new();
    world.reconcile().await.unwrap();
    let replicas = ["zl-0", "zl-1"];
    let names = replicas.map(str::to_owned);
    let second = replicas.iter().find(|r| ranking::rank(r, &names, &world.key) == 1).unwrap();
    let series = r#"zen_lead_leader_service_without_endpoints{namespace="shop",service="web"} 0"#;
    let path = format!("{SERVICES}/web-leader");
    let mut leader = world.api.get(&path).unwrap();
    leader["spec"]["sessionAffinity"] = json!("ClientIP");
    world.api.put(SERVICES, leader);
    for fails in [false, true] {
        let (other, metrics) = worker(&world.api, second, &replicas);
        sync(&other, &world.key).await;
        if fails {
            world.api.fail("GET", "", 99, Fault::Stall);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let next = other.reconcile(&world.key, clock::monotonic()).await;
        assert!(fails || matches!(next, Ok(Requeue::At(_))), "{next:?}");
        let text = metrics.exposition().unwrap();
        assert!(text.lines().any(|line| line == series), "{fails}: {next:?}: {text}");
    }
}
