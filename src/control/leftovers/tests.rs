//! What is removed and what is not, with the real watches against the API server double.

use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::control::reconcile::tests::{SERVICES, SLICES, World};
use crate::platform::shutdown::Shutdown;
use crate::testing::Fault;

const ENDPOINTS: &str = "/api/v1/namespaces/shop/endpoints";
/// Long enough for a few looks.
const SOON: Duration = Duration::from_secs(5);

/// A served Service, and `leftovers` at work beside it.
struct Scene {
    world: World,
    /// Ends the tasks when dropped.
    _shutdown: Shutdown,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        world.reconcile().await.unwrap();
        world.sync().await;
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let worker = &world.worker;
        let remover = Remover {
            index: worker.index.clone(),
            reader: worker.reader.clone(),
            applier: worker.applier.clone(),
            me: worker.me.clone(),
            replicas: worker.replicas.clone(),
        };
        start(&world.api.client(), remover, &world.metrics, &supervisor);
        sleep(SOON).await;
        Self { world, _shutdown: shutdown }
    }

    /// They are there, and so is the selector.
    async fn selected() -> Self {
        let scene = Self::new().await;
        scene.select(json!({"app": "web"}));
        scene.world.sync().await;
        scene.put(&scene.leader_uid());
        sleep(SOON).await;
        assert_eq!(scene.left(), (true, true));
        scene
    }

    async fn deselect(&self) {
        self.select(Value::Null);
        self.world.sync().await;
        sleep(SOON).await;
    }

    fn refuse_deletion_of_endpoints(&self, times: usize) {
        let refused = Fault::Status(403, "Forbidden", "no");
        self.world.api.fail("DELETE", &format!("{ENDPOINTS}/web-leader"), times, refused);
    }

    fn leader_uid(&self) -> String {
        let leader = self.world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
        leader["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// As the built-in controllers write them, for the Service of this uid.
    fn put(&self, owner: &str) {
        self.world.api.put(SLICES, slice(owner));
        self.world.api.put(ENDPOINTS, endpoints("endpoint-controller"));
    }

    /// Whether the slice and the Endpoints are still there.
    fn left(&self) -> (bool, bool) {
        let api = &self.world.api;
        let there = |path: String| api.get(&path).is_some();
        (there(format!("{SLICES}/web-leader-x7")), there(format!("{ENDPOINTS}/web-leader")))
    }

    fn select(&self, selector: Value) {
        let mut leader = self.world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
        leader["spec"]["selector"] = selector;
        self.world.api.put(SERVICES, leader);
    }
}

fn slice(owner: &str) -> Value {
    json!({
        "metadata": {
            "name": "web-leader-x7", "namespace": "shop",
            "labels": {
                "kubernetes.io/service-name": "web-leader",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "zen-lead.io/source-service": "web",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web-leader", "uid": owner,
                "controller": true,
            }],
        },
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.2"]}],
    })
}

fn endpoints(manager: &str) -> Value {
    json!({"metadata": {
        "name": "web-leader", "namespace": "shop",
        "labels": {
            "endpoints.kubernetes.io/managed-by": manager, "zen-lead.io/source-service": "web",
        },
    }})
}

#[tokio::test(start_paused = true)]
async fn what_a_controller_makes_after_the_selector_is_gone_is_removed_each_time() {
    let scene = Scene::new().await;
    for _ in 0..2 {
        scene.put(&scene.leader_uid());
        sleep(SOON).await;
        assert_eq!(scene.left(), (false, false));
    }
    assert_eq!(scene.world.leader().as_deref(), Some("a"), "our own slice stays");
    // Nothing is left to look at.
    let seen = scene.world.api.count("GET");
    sleep(SOON).await;
    assert_eq!(scene.world.api.count("GET"), seen);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_before_the_selector_is_and_then_without_another_event() {
    let scene = Scene::selected().await;
    scene.deselect().await;
    assert_eq!(scene.left(), (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_behind_removes_nothing() {
    let scene = Scene::new().await;
    // The cache has not seen it.
    scene.select(json!({"app": "web"}));
    scene.put(&scene.leader_uid());
    sleep(SOON).await;
    assert_eq!(scene.left(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_of_our_leader_service_stays() {
    let scene = Scene::new().await;
    // Of a Service of that name that was there before.
    scene.put("uid-of-another");
    scene.world.api.put(ENDPOINTS, endpoints("somebody"));
    sleep(SOON).await;
    assert_eq!(scene.left(), (true, true));
    // It is no leader Service any longer.
    let mut leader = scene.world.api.get(&format!("{SERVICES}/web-leader")).unwrap();
    leader["metadata"]["ownerReferences"][0]["uid"] = json!("uid-of-an-earlier-web");
    scene.world.api.put(SERVICES, leader);
    scene.world.sync().await;
    scene.put(&scene.leader_uid());
    sleep(SOON).await;
    assert_eq!(scene.left(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_and_keeps_back_nothing_else() {
    let scene = Scene::new().await;
    scene.refuse_deletion_of_endpoints(30);
    scene.put(&scene.leader_uid());
    sleep(SOON).await;
    assert_eq!(scene.left(), (false, true));
    let asked = scene.world.api.count("DELETE");
    assert!(asked < 10, "{asked} times within {SOON:?}");
    scene.world.api.forgive();
    sleep(2 * LAST_WAIT).await;
    assert_eq!(scene.left(), (false, false));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_no_leftover_any_longer_is_forgotten() {
    let scene = Scene::selected().await;
    // It gets another owner.
    scene.world.api.put(SLICES, slice("uid-of-another"));
    scene.deselect().await;
    assert_eq!(scene.left(), (true, false), "not ours to remove");
    let asked = scene.world.api.seen().len();
    sleep(SOON).await;
    let seen = scene.world.api.seen();
    let calls: Vec<_> = seen[asked..]
        .iter()
        .filter(|s| s.verb != "WATCH")
        .map(|s| format!("{} {}", s.verb, s.path))
        .collect();
    assert!(calls.is_empty(), "still asked for after it was settled: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn one_whose_owner_an_orphaning_deletion_took_off_is_removed() {
    let scene = Scene::selected().await;
    let mut orphan = slice("gone");
    orphan["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    scene.world.api.put(SLICES, orphan);
    scene.deselect().await;
    assert_eq!(scene.left(), (false, false));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_removed_does_not_hold_up_the_next() {
    let scene = Scene::new().await;
    scene.refuse_deletion_of_endpoints(usize::MAX);
    scene.world.api.put(ENDPOINTS, endpoints("endpoint-controller"));
    // Long enough for the waits to have grown.
    sleep(Duration::from_mins(10)).await;
    scene.world.api.put(SLICES, slice(&scene.leader_uid()));
    sleep(SOON).await;
    assert_eq!(scene.left(), (false, true), "a slice that routes to every pod waits behind it");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_never_removed_makes_few_calls_whatever_the_answer_is() {
    for answer in [
        Fault::Status(409, "Conflict", "modified"),
        Fault::Status(404, "NotFound", "not there"),
        Fault::Status(500, "InternalError", "failed calling webhook \"x\": no"),
        Fault::Garbage("{}"),
    ] {
        let scene = Scene::new().await;
        let before = calls(&scene);
        scene.world.api.fail("DELETE", ENDPOINTS, usize::MAX, answer.clone());
        scene.world.api.put(ENDPOINTS, endpoints("endpoint-controller"));
        sleep(SOON).await;
        let at_first = calls(&scene) - before;
        assert!((4..=8).contains(&at_first), "{answer:?}: {at_first} calls within {SOON:?}");
        sleep(Duration::from_mins(10)).await;
        let before = calls(&scene);
        sleep(Duration::from_mins(10)).await;
        let late = calls(&scene) - before;
        assert!((4..20).contains(&late), "{answer:?}: {late} calls in the second ten minutes");
    }
}

/// Calls that are no watches.
fn calls(scene: &Scene) -> usize {
    scene.world.api.seen().iter().filter(|s| s.verb != "WATCH" && !is_first_list(s)).count()
}

/// The lists of the watches themselves.
fn is_first_list(seen: &crate::testing::Seen) -> bool {
    seen.verb == "GET" && !seen.path.contains("/namespaces/shop/")
}

/// A finalizer keeps it: the first deletion is all that can be done.
#[tokio::test(start_paused = true)]
async fn one_that_is_being_deleted_is_not_deleted_again() {
    let scene = Scene::new().await;
    let mut kept = slice(&scene.leader_uid());
    kept["metadata"]["finalizers"] = json!(["example.org/mine"]);
    kept["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let kept = scene.world.api.put(SLICES, kept);
    let kept: &'static str = Box::leak(kept.to_string().into_boxed_str());
    scene.world.api.fail("DELETE", SLICES, usize::MAX, Fault::Garbage(kept));
    sleep(Duration::from_mins(1)).await;
    let asked = scene.world.api.count("DELETE");
    assert!(asked <= 1, "{asked} deletions of what is being deleted already");
}

// A mutating webhook of others sets the label on what the built-in controllers make.
#[tokio::test(start_paused = true)]
async fn the_service_says_whose_a_leftover_is_whatever_its_label_says() {
    for label in ["changed", "", "else"] {
        let scene = Scene::selected().await;
        for (collection, name) in [(SLICES, "web-leader-x7"), (ENDPOINTS, "web-leader")] {
            let mut object = scene.world.api.get(&format!("{collection}/{name}")).unwrap();
            object["metadata"]["labels"]["zen-lead.io/source-service"] = json!(label);
            scene.world.api.put(collection, object);
        }
        scene.deselect().await;
        assert_eq!(scene.left(), (false, false), "{label:?}");
    }
}
