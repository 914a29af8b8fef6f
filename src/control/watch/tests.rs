//! Tests of the loop against the fake API server: one thing that happens a test.

mod messages;
mod pages;
mod random;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::platform::api;
use crate::platform::clock::{Clock, monotonic};
use crate::testing::{FakeApi, Fault};

/// Read strictly: what is lenient is tested in `decode`.
impl Watched for ConfigMap {}

const MAPS: &str = "/api/v1/namespaces/n/configmaps";

/// Keeps name and value of each object, and the story of what it was told.
#[derive(Default)]
struct Notes {
    maps: Mutex<BTreeMap<String, String>>,
    story: Mutex<Vec<String>>,
}

impl Notes {
    fn tell(&self, what: String) {
        self.story.lock().push(what);
    }

    fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.story.lock())
    }

    fn maps(&self) -> Vec<String> {
        self.maps.lock().iter().map(|(k, v)| format!("{k}={v}")).collect()
    }
}

impl Sink<ConfigMap> for Notes {
    type Kept = (String, String);

    fn trim(&self, map: ConfigMap) -> Self::Kept {
        let value = map.data.and_then(|mut d| d.remove("v")).unwrap_or_default();
        (map.metadata.name.unwrap(), value)
    }

    fn reset(&self, objects: Vec<Self::Kept>, version: Rv) {
        self.tell(format!("reset {} @{version}", objects.len()));
        *self.maps.lock() = objects.into_iter().collect();
    }

    fn apply(&self, (name, value): Self::Kept, version: Rv) {
        self.tell(format!("apply {name}={value} @{version}"));
        self.maps.lock().insert(name, value);
    }

    fn delete(&self, (name, _): Self::Kept, version: Rv) {
        self.tell(format!("delete {name} @{version}"));
        self.maps.lock().remove(&name);
    }

    fn heard(&self, version: Rv) {
        self.tell(format!("heard @{version}"));
    }

    fn live(&self) {
        self.tell("live".into());
    }
}

/// A server with one running watch of its ConfigMaps.
struct Scene {
    notes: Arc<Notes>,
    handle: WatchHandle,
    group: WatchGroup,
    metrics: Arc<Metrics>,
    /// The states of the group, in order.
    ups: Arc<Mutex<Vec<bool>>>,
    tasks: JoinSet<()>,
}

impl Scene {
    fn new(api: &FakeApi) -> Self {
        Self::with(api.client(), ListParams::default())
    }

    fn with(client: Client, selector: ListParams) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let ups = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&ups);
        let group =
            WatchGroup::new(Kind::Services, Arc::clone(&metrics), move |up| told.lock().push(up));
        let notes = Arc::new(Notes::default());
        let (handle, watch) =
            group.watch(Api::<ConfigMap>::namespaced(client, "n"), selector, Arc::clone(&notes));
        group.seal();
        let mut tasks = JoinSet::new();
        tasks.spawn(watch.run());
        Self { notes, handle, group, metrics, ups, tasks }
    }

    async fn synced(api: &FakeApi) -> Self {
        let scene = Self::new(api);
        scene.handle.synced().await;
        soon().await;
        scene.notes.story();
        scene
    }

    fn counted(&self, line: &str) -> bool {
        let text = self.metrics.exposition().unwrap();
        let found = text.lines().any(|l| l == line);
        if !found {
            eprintln!("not found: {line}\n{text}");
        }
        found
    }

    /// `counted` for restarts.
    fn restarts(&self, reason: &str, times: u32) -> bool {
        let name = "zen_lead_watch_restarts_total";
        self.counted(&format!(r#"{name}{{reason="{reason}",resource="services"}} {times}"#))
    }
}

/// Lets everything happen that needs no time to speak of.
async fn soon() {
    sleep(Duration::from_millis(10)).await;
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

fn put(api: &FakeApi, name: &str, value: &str) {
    api.put(MAPS, json!({"metadata": {"name": name}, "data": {"v": value}}));
}

fn remove(api: &FakeApi, name: &str) {
    api.remove(&format!("{MAPS}/{name}"));
}

fn versions_watched(api: &FakeApi) -> Vec<String> {
    let watches = api.seen().into_iter().filter(|s| s.verb == "WATCH");
    watches.map(|s| s.query["resourceVersion"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_and_its_events_arrive_in_order_with_their_versions() {
    let api = FakeApi::new();
    put(&api, "a", "1");
    let scene = Scene::new(&api);
    assert_eq!(scene.handle.state(), WatchState::Starting);
    assert!(!scene.handle.synced_once() && scene.handle.last_heard().is_none());
    soon().await;
    assert_eq!(scene.handle.state(), WatchState::Live);
    put(&api, "b", "1");
    put(&api, "a", "2");
    remove(&api, "b");
    soon().await;
    assert_eq!(
        scene.notes.story(),
        ["reset 1 @101", "live", "apply b=1 @102", "apply a=2 @103", "delete b @104",]
    );
    assert_eq!(scene.handle.position(), Rv(104));
    assert_eq!(*scene.ups.lock(), [true]);
    assert!(scene.counted(r#"zen_lead_watch_up{resource="services"} 1"#));
    let watch = api.seen().into_iter().find(|s| s.verb == "WATCH").unwrap();
    assert_eq!(watch.query["allowWatchBookmarks"], "true");
    let length: u32 = watch.query["timeoutSeconds"].parse().unwrap();
    assert!(times::WATCH_SECONDS.contains(&length), "{length}");
}

#[tokio::test(start_paused = true)]
async fn long_lists_are_read_in_pages_and_delivered_as_one() {
    let api = FakeApi::new();
    for n in 0..1201 {
        put(&api, &format!("m{n:04}"), "x");
    }
    let scene = Scene::synced(&api).await;
    assert_eq!(scene.notes.maps().len(), 1201);
    assert_eq!((api.count("GET"), scene.handle.position()), (3, Rv(1301)));
    assert_eq!(api.seen()[0].query.get("limit").map(String::as_str), Some("500"));
    assert!(api.seen().iter().all(|s| s.verb != "GET" || !s.query.contains_key("resourceVersion")));
}

#[tokio::test(start_paused = true)]
async fn selectors_go_along_with_lists_and_watches() {
    let api = FakeApi::new();
    let selector = ListParams::default().labels("a!=b").fields("metadata.name=x");
    let scene = Scene::with(api.client(), selector);
    soon().await;
    put(&api, "x", "1");
    put(&api, "y", "1");
    soon().await;
    assert_eq!(scene.notes.maps(), ["x=1"]);
    for seen in api.seen() {
        assert_eq!(seen.query["labelSelector"], "a!=b");
        assert_eq!(seen.query["fieldSelector"], "metadata.name=x");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_heard_by_its_bookmarks_and_goes_on_from_them() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    // Writes of other types move the version on; only a bookmark tells.
    api.put("/api/v1/namespaces/n/secrets", json!({"metadata": {"name": "s"}}));
    seconds(31).await;
    assert_eq!(scene.notes.story(), ["heard @101"]);
    assert_eq!(scene.handle.position(), Rv(101));
    assert_eq!(versions_watched(&api), ["100", "101"]);
    assert!(scene.restarts("end", 1));
    for _ in 0..600 {
        seconds(1).await;
        let age = monotonic() - scene.handle.last_heard().unwrap();
        assert!(age < Duration::from_secs(30), "{age:?}");
    }
    assert_eq!(scene.handle.state(), WatchState::Live);
    assert_eq!(api.count("GET"), 1, "no list after the first");
    let clock = Clock::fixed(jiff::Timestamp::from_second(1000).unwrap());
    scene.group.publish(&clock);
    let age = (monotonic() - scene.handle.last_heard().unwrap()).as_secs_f64();
    let line = "zen_lead_watch_last_heard_timestamp_seconds";
    assert!(scene.counted(&format!(r#"{line}{{resource="services"}} {}"#, 1000.0 - age)));
}

#[tokio::test(start_paused = true)]
async fn a_gone_version_lists_again_and_what_vanished_unseen_is_gone() {
    for http in [true, false] {
        let api = FakeApi::new();
        put(&api, "a", "1");
        put(&api, "b", "1");
        let scene = Scene::synced(&api).await;
        if http {
            api.fail("WATCH", MAPS, 1, Fault::Status(410, "Expired", "too old"));
        }
        // While no watch is open, one object vanishes, one changes, one appears.
        api.fail("WATCH", MAPS, 1, Fault::Reset);
        api.end_watches(true);
        remove(&api, "a");
        put(&api, "b", "2");
        put(&api, "c", "1");
        if !http {
            api.compact();
        }
        seconds(1).await;
        assert_eq!(scene.notes.story(), ["reset 2 @105"], "http: {http}");
        assert_eq!(scene.notes.maps(), ["b=2", "c=1"]);
        assert!(scene.restarts("gone", 1));
        assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Live, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_from_its_last_version_and_misses_nothing() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    for n in 0..50u64 {
        put(&api, "a", &n.to_string());
        if n % 2 == 0 {
            soon().await;
        }
        api.end_watches(n % 3 == 0);
        put(&api, "b", &n.to_string());
        seconds(1).await;
    }
    assert_eq!(scene.notes.maps(), ["a=49", "b=49"]);
    let story = scene.notes.story();
    assert_eq!(story.len(), 100, "each change once, nothing else: {story:?}");
    assert_eq!(api.count("GET"), 1, "no list after the first");
    assert_eq!(*scene.ups.lock(), [true]);
}

#[tokio::test(start_paused = true)]
async fn over_a_real_connection_too() {
    tokio::time::resume();
    let api = FakeApi::new();
    let (uri, server) = api.listen().await;
    let client = api::client(Config::new(uri), None).unwrap();
    let mut scene = Scene::with(client, ListParams::default());
    scene.tasks.spawn(server);
    scene.handle.synced().await;
    for n in 1..=5 {
        put(&api, "a", &n.to_string());
        let wanted = format!("a={n}");
        let arrives = async {
            while scene.notes.maps() != [wanted.clone()] {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), arrives).await.expect("the change arrives");
        api.end_watches(n % 2 == 0);
    }
    assert_eq!(api.count("GET"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_noticed_in_40_seconds_and_another_one_is_made() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    api.mute_watches();
    put(&api, "a", "1");
    let dead = monotonic();
    while api.count("WATCH") == 1 && monotonic() - dead < Duration::from_mins(5) {
        soon().await;
    }
    let noticed = monotonic() - dead;
    assert!(noticed <= Duration::from_secs(36), "{noticed:?}");
    soon().await;
    assert_eq!(scene.notes.maps(), ["a=1"]);
    assert!(scene.restarts("silent", 1));
    assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Live, 1));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_swallows_everything_loses_the_watch_within_40_seconds() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    seconds(2).await;
    api.mute_watches();
    api.fail("WATCH", MAPS, usize::MAX, Fault::Stall);
    let heard = scene.handle.last_heard().unwrap();
    scene.handle.states().wait_for(|s| *s == WatchState::Lost).await.unwrap();
    let after = monotonic() - heard;
    assert!(after <= times::SILENT + Duration::from_millis(10), "{after:?}");
    assert_eq!(scene.handle.last_heard(), Some(heard));
    seconds(60).await;
    assert_eq!(scene.notes.story(), [] as [&str; 0]);
    assert_eq!(*scene.ups.lock(), [true, false], "reported once");
    assert!(scene.counted(r#"zen_lead_watch_up{resource="services"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_too_long_loses_the_watch_and_gets_it_back_without_a_list() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    put(&api, "a", "1");
    soon().await;
    api.fail("WATCH", MAPS, usize::MAX, Fault::Plain(503, None));
    api.end_watches(true);
    let away = monotonic();
    put(&api, "a", "2");
    seconds(14).await;
    assert_eq!(scene.handle.state(), WatchState::Live, "a short absence is no loss");
    scene.handle.states().wait_for(|s| *s == WatchState::Lost).await.unwrap();
    assert_eq!((monotonic() - away).as_secs(), times::FAILING.as_secs());
    assert_eq!(scene.notes.maps(), ["a=1"]);

    seconds(60).await;
    let tries = api.count("WATCH");
    seconds(100).await;
    let tries = api.count("WATCH") - tries;
    assert!((20..=40).contains(&tries), "{tries} attempts in 100 s at 2.5 to 5 s each");

    // The server is back: the next attempt finds it.
    api.forgive();
    seconds(8).await;
    assert_eq!(scene.notes.story(), ["apply a=1 @101", "apply a=2 @102", "live"]);
    assert_eq!(scene.handle.state(), WatchState::Live);
    assert_eq!((api.count("GET"), scene.handle.position()), (1, Rv(102)));
    assert_eq!(*scene.ups.lock(), [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn watches_that_open_and_break_at_once_are_not_taken_for_alive() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    // HTTP 200 and nothing: kube takes a connection cut in mid-stream for a clean end.
    api.fail("WATCH", MAPS, usize::MAX, Fault::Garbage(""));
    api.end_watches(false);
    seconds(30).await;
    assert_eq!(scene.handle.state(), WatchState::Lost);
    let tries = api.count("WATCH");
    assert!(tries < 25, "{tries} attempts in 30 s: no busy loop");
}

#[tokio::test(start_paused = true)]
async fn throttling_is_obeyed_but_not_for_ever() {
    for (asked, low, high) in [("2", 2000, 2200), ("99999999", 30_000, 30_200)] {
        let api = FakeApi::new();
        let scene = Scene::synced(&api).await;
        seconds(2).await;
        api.fail("WATCH", MAPS, 1, Fault::Plain(429, Some(asked)));
        api.end_watches(false);
        let start = monotonic();
        while api.count("WATCH") < 3 && monotonic() - start < Duration::from_mins(2) {
            soon().await;
        }
        let took = (monotonic() - start).as_millis();
        assert!((low..=high).contains(&took), "{took} ms for Retry-After {asked}");
        assert!(scene.restarts("throttled", 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_counted_and_skipped() {
    let api = FakeApi::new();
    put(&api, "good", "1");
    api.put(MAPS, json!({"metadata": {"name": "bad"}, "data": "not a map"}));
    let scene = Scene::synced(&api).await;
    assert_eq!(scene.notes.maps(), ["good=1"]);
    let line = r#"zen_lead_watch_malformed_objects_total{resource="services"}"#;
    assert!(scene.counted(&format!("{line} 1")));

    api.say(MAPS, r#"{"type":"ADDED","object":{"metadata":{"name":7}}}"#);
    api.say(MAPS, r#"{"type":"ADDED","object":{"metadata":{"name":"no-version"}}}"#);
    api.say(MAPS, r#"{"type":"SHOUTED","object":{}}"#);
    put(&api, "good", "2");
    soon().await;
    assert_eq!(scene.notes.story(), ["apply good=2 @103"]);
    assert!(scene.counted(&format!("{line} 4")));
    assert_eq!((api.count("WATCH"), api.count("GET")), (1, 1), "the watch goes on");
}

#[tokio::test(start_paused = true)]
async fn an_error_event_of_the_server_is_a_failure_not_the_end() {
    let api = FakeApi::new();
    let scene = Scene::synced(&api).await;
    let status =
        json!({"code": 500, "reason": "InternalError", "message": "etcd", "status": "Failure"});
    api.say(MAPS, json!({"type": "ERROR", "object": status}).to_string());
    seconds(2).await;
    put(&api, "a", "1");
    soon().await;
    assert_eq!(scene.notes.maps(), ["a=1"]);
    assert!(scene.restarts("server", 1));
}

#[tokio::test(start_paused = true)]
async fn until_the_first_list_is_in_nothing_is_up() {
    let api = FakeApi::new();
    put(&api, "a", "1");
    api.fail("GET", MAPS, 1, Fault::Stall);
    api.fail("GET", MAPS, 2, Fault::Status(403, "Forbidden", "no list for you"));
    let scene = Scene::new(&api);
    seconds(29).await;
    assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Starting, 1));
    assert!(scene.ups.lock().is_empty() && !scene.group.is_up());
    seconds(3).await;
    assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Live, 4));
    assert_eq!(scene.notes.story(), ["reset 1 @101", "live"]);
    assert!(scene.restarts("list", 3));
}

#[tokio::test(start_paused = true)]
async fn an_expired_continue_token_begins_the_list_again() {
    let api = FakeApi::new();
    for n in 0..501 {
        put(&api, &format!("m{n}"), "x");
    }
    api.expire_continue();
    let scene = Scene::new(&api);
    seconds(1).await;
    assert_eq!(scene.notes.maps().len(), 501);
    assert_eq!(api.count("GET"), 4, "one page, the refused second one, and two");
    assert_eq!(scene.notes.story()[0], "reset 501 @601");
}

#[tokio::test(start_paused = true)]
async fn versions_that_go_backwards_are_another_history() {
    let api = FakeApi::new();
    put(&api, "a", "1");
    put(&api, "a", "2");
    let scene = Scene::synced(&api).await;
    assert_eq!(scene.handle.position(), Rv(102));
    // A backup is restored under the open watch.
    api.set_version(50);
    put(&api, "b", "1");
    api.say(MAPS, crate::testing::bookmark(51));
    soon().await;
    assert_eq!(scene.notes.story(), ["reset 2 @51"]);
    assert_eq!((scene.handle.position(), scene.handle.state()), (Rv(51), WatchState::Live));
    assert!(scene.restarts("history", 1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_watch_is_lost_and_leaves_its_group_up() {
    let api = FakeApi::new();
    let mut scene = Scene::synced(&api).await;
    let maps = Api::<ConfigMap>::namespaced(api.client(), "later");
    let notes = Arc::new(Notes::default());
    let (later, watch) = scene.group.watch(maps, ListParams::default(), notes);
    assert!(scene.group.is_up(), "a watch that starts later does not close the gate");
    let running = scene.tasks.spawn(watch.run());
    later.synced().await;
    running.abort();
    soon().await;
    assert_eq!(later.state(), WatchState::Lost);
    assert_eq!(*scene.ups.lock(), [true], "it never counted as a loss of the group");
    assert!(scene.group.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_group_is_up_once_all_that_were_there_at_the_start_are_synced() {
    let api = FakeApi::new();
    let metrics = Arc::new(Metrics::new().unwrap());
    let group = WatchGroup::new(Kind::Pods, metrics, |_| {});
    let make = |namespace: &str| {
        let maps = Api::<ConfigMap>::namespaced(api.client(), namespace);
        group.watch(maps, ListParams::default(), Arc::new(Notes::default()))
    };
    let mut tasks = JoinSet::new();
    let (first, watch) = make("first");
    tasks.spawn(watch.run());
    first.synced().await;
    assert!(!group.is_up(), "more may come");
    let (_second, watch) = make("second");
    group.seal();
    assert!(!group.is_up(), "the second has not begun");
    // A namespace that is deleted before its first list must not close the gate for good.
    drop(watch);
    assert!(group.is_up());
}

#[tokio::test(start_paused = true)]
async fn failed_pages_and_openings_are_counted_under_their_attempt() {
    let api = FakeApi::new();
    api.fail("GET", MAPS, 2, Fault::Plain(503, None));
    api.fail("WATCH", MAPS, 2, Fault::Reset);
    let scene = Scene::new(&api);
    seconds(5).await;
    assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Live, 3));
    for operation in ["list_services", "watch_services"] {
        for attempt in [1, 2] {
            let labels =
                format!(r#"attempt="{attempt}",namespace="",operation="{operation}",service="""#);
            assert!(scene.counted(&format!("zen_lead_retry_attempts_total{{{labels}}} 1")));
        }
        let labels = format!(r#"namespace="",operation="{operation}",service="""#);
        assert!(scene.counted(&format!("zen_lead_retry_success_after_retry_total{{{labels}}} 1")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_slow_pages_ends_at_its_deadline_and_is_begun_again() {
    let api = FakeApi::new();
    for n in 0..5001 {
        put(&api, &format!("m{n:04}"), "x");
    }
    // Ten pages, each of which loses 29 s and then comes.
    for _ in 0..11 {
        api.fail("GET", MAPS, 1, Fault::Late(Duration::from_secs(29)));
    }
    let scene = Scene::new(&api);
    seconds(230).await;
    assert_eq!((scene.handle.state(), api.count("GET")), (WatchState::Starting, 8));
    seconds(240).await;
    assert!(scene.restarts("list", 1));
    let name = "zen_lead_timeout_occurrences_total";
    assert!(scene.counted(&format!(r#"{name}{{operation="list_services"}} 1"#)));
    assert_eq!((scene.handle.state(), scene.notes.maps().len()), (WatchState::Live, 5001));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_each_time_is_listed_with_growing_pauses() {
    let api = FakeApi::new();
    api.fail("WATCH", MAPS, 2000, Fault::Status(410, "Expired", "too old resource version"));
    let _scene = Scene::new(&api);
    seconds(10).await;
    let lists = api.count("GET");
    assert!(lists < 50, "{lists} lists within 10 s");
}
