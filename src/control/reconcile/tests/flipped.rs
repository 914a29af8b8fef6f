//! Settings that are changed ten times a second: what they cost, and that no lost leader waits for them.

use super::standing::{LEADER, Pair};
use super::*;
use crate::control::reconcile::flips::SETTINGS_PAUSE;

/// Ten changes a second.
const FLIP: Duration = Duration::from_millis(100);

const PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Changes the source.
type Change = fn(&mut Value, u32);

/// What a client may flip, and how many calls of both replicas that may cost in ten seconds. Without the pause
/// it costs 99 to 402.
const CHANGES: [(&str, Change, usize); 10] = [
    ("sticky", |web, n| setting(web, "sticky", odd(n, "true", "false")), 22),
    ("an invalid value", |web, n| setting(web, "strategy", odd(n, "oldest-ready", "odd")), 22),
    ("any value", |web, n| setting(web, "min-ready-duration", &format!("{n}ms")), 22),
    ("the name", |web, n| setting(web, "leader-service-name", odd(n, "web-leader", "other")), 70),
    ("enabled", |web, n| setting(web, "enabled", odd(n, "true", "false")), 88),
    ("the selector", |web, n| web["spec"]["selector"]["app"] = json!(odd(n, "web", "none")), 44),
    ("a port", |web, n| web["spec"]["ports"][0]["port"] = json!(80 + n % 2), 22),
    (
        "a copied annotation",
        |web, n| {
            setting(web, "copy-annotations", "team");
            web["metadata"]["annotations"]["team"] = json!(n.to_string());
        },
        22,
    ),
    ("the proxy", |web, n| web["metadata"]["labels"] = json!({PROXY: odd(n, "a", "b")}), 33),
    (
        "session affinity",
        |web, n| web["spec"]["sessionAffinity"] = json!(odd(n, "None", "ClientIP")),
        11,
    ),
];

fn odd<'a>(n: u32, even: &'a str, odd: &'a str) -> &'a str {
    if n.is_multiple_of(2) { even } else { odd }
}

fn setting(web: &mut Value, name: &str, value: &str) {
    web["metadata"]["annotations"][format!("zen-lead.io/{name}")] = json!(value);
}

fn flip(pair: &Pair, change: Change, n: u32) {
    let mut web = pair.api.get(&format!("{SERVICES}/web")).unwrap();
    change(&mut web, n);
    pair.api.put(SERVICES, web);
}

/// Flips for ten seconds, and ends with the odd value.
async fn storm(pair: &mut Pair, change: Change) {
    for n in 0..100 {
        flip(pair, change, n);
        pair.run(FLIP).await;
    }
}

fn by_kind(pair: &Pair) -> String {
    let mut kinds = std::collections::BTreeMap::new();
    for (_, call) in &pair.calls {
        *kinds.entry(call.as_str()).or_insert(0) += 1;
    }
    kinds.iter().map(|(call, n)| format!("{n} x {call}")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn settings_that_flip_cost_few_calls_and_the_last_ones_apply_within_a_second() {
    for (what, change, most) in CHANGES {
        let mut pair = Pair::served().await;
        storm(&mut pair, change).await;
        let calls = pair.calls.len();
        println!("{what}: {calls} calls in ten seconds");
        assert!(calls <= most, "{what}: {calls} calls: {}", by_kind(&pair));
        pair.run(SETTINGS_PAUSE).await;
        let (done, enabled) = (pair.calls.len(), what != "enabled");
        let asked = asked(&pair);
        assert!(asked.iter().all(|(_, says, present)| says == present), "{what}: {asked:?}");
        assert_eq!(!asked.is_empty(), enabled, "{what}");
        pair.run(Duration::from_secs(5)).await;
        // A leader Service of the old name goes last: reads for a report are 5 s apart.
        let more = if what == "the name" { 9 } else { 0 };
        let found = pair.calls.len() - done;
        assert!(found <= more, "{what}: {}", pair.list(done, found));
        assert_eq!(self::asked(&pair).len(), usize::from(enabled), "{what}");
    }
}

/// The leader Services that are there; what their slices are written for, and are to be.
fn asked(pair: &Pair) -> Vec<(&'static str, String, String)> {
    let web: k8s_openapi::api::core::v1::Service =
        serde_json::from_value(pair.api.get(&format!("{SERVICES}/web")).unwrap()).unwrap();
    let there = |name: &&str| pair.api.get(&format!("{SERVICES}/{name}")).is_some();
    let names = ["web-leader", "other"].into_iter().filter(there);
    let says = |name| {
        let slice = pair.api.get(&format!("{SLICES}/{name}-zen-lead-ipv4")).unwrap();
        let says = slice["metadata"]["annotations"]["zen-lead.io/asked"].as_str().unwrap();
        (name, says.to_owned(), decide::source_hash(&web))
    };
    names.map(says).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_acted_on_at_once_and_the_next_after_the_pause() {
    let (_, sticky, _) = CHANGES[0];
    let mut pair = Pair::served().await;
    let began = clock::monotonic();
    flip(&pair, sticky, 1);
    pair.run(FLIP).await;
    let first = pair.calls.len();
    assert!(first > 0 && pair.calls.iter().all(|(at, _)| *at == began), "{}", pair.list(0, first));
    flip(&pair, sticky, 0);
    pair.run(SETTINGS_PAUSE).await;
    let second = pair.list(first, pair.calls.len() - first);
    assert!(pair.calls.len() > first, "it was acted on");
    assert!(pair.calls[first..].iter().all(|(at, _)| *at == began + SETTINGS_PAUSE), "{second}");
}

/// Takes the leader away.
type Loss = fn(&FakeApi);

#[tokio::test(start_paused = true)]
async fn what_tools_write_beside_the_settings_makes_nothing_wait() {
    const MANAGED: &str = "app.kubernetes.io/managed-by";
    let (_, sticky, _) = CHANGES[0];
    let note: Change = |web, n| {
        web["metadata"]["annotations"]["example.com/note"] = json!(n.to_string());
        web["metadata"]["labels"]["note"] = json!(n.to_string());
    };
    for (beside, waits) in [(note, false), (sticky, true)] {
        let mut pair = Pair::served().await;
        flip(&pair, sticky, 1);
        pair.run(FLIP).await;
        flip(&pair, beside, 2);
        let mut leader = pair.api.get(LEADER).unwrap();
        leader["metadata"]["labels"][MANAGED] = json!("Helm");
        pair.api.put(SERVICES, leader);
        pair.run(Duration::from_millis(1)).await;
        let managed = pair.api.get(LEADER).unwrap()["metadata"]["labels"][MANAGED].clone();
        assert_eq!(managed, if waits { "Helm" } else { "zen-lead" });
    }
}

/// How a leader is lost.
const LOSSES: [(&str, Loss); 4] = [
    ("not ready", |api| _ = api.put(PODS, pod("a", "10.0.0.1", false, 1))),
    ("deleted", |api| api.remove(&format!("{PODS}/a"))),
    ("terminating", |api| {
        let mut a = pod("a", "10.0.0.1", true, 1);
        a["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:35Z");
        a["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        api.put(PODS, a);
    }),
    ("relabelled", |api| {
        let mut a = pod("a", "10.0.0.1", true, 1);
        a["metadata"]["labels"] = json!({"app": "debug"});
        api.put(PODS, a);
    }),
];

/// The pod that the leader Service routes, whatever its name.
fn leads(pair: &Pair) -> Option<String> {
    let slices = ["other", "web-leader"].map(|name| format!("{SLICES}/{name}-zen-lead-ipv4"));
    slices.iter().find_map(|path| {
        let endpoint = pair.api.get(path)?["endpoints"].get(0)?.clone();
        let ready = endpoint["conditions"]["ready"] == true;
        ready.then(|| endpoint["targetRef"]["name"].as_str().unwrap().to_owned())
    })
}

#[tokio::test(start_paused = true)]
async fn no_loss_waits_for_settings_that_flip() {
    for (what, change, _) in CHANGES {
        for (how, lose) in LOSSES {
            for flips in 1..5 {
                let case = format!("{what}, {how}, after {flips} flips");
                let mut pair = Pair::served().await;
                // One change is acted on, and the pause begins.
                flip(&pair, |web, _| setting(web, "ports-mode", "partial"), 0);
                pair.run(FLIP).await;
                for n in 0..flips {
                    flip(&pair, change, n);
                    pair.run(FLIP).await;
                }
                assert_eq!(pair.routed().as_deref(), Some("a"), "{case}: settings wait");
                let (at, before) = (clock::monotonic(), pair.calls.len());
                lose(&pair.api);
                pair.run(Duration::from_millis(1)).await;
                let written = pair.calls[before..].iter().find(|(_, call)| call.contains("PUT"));
                assert_eq!(written.map(|(at, _)| *at), Some(at), "{case}: not at once");
                // Where the present settings let no other pod lead, the next ones do.
                let unled = ["enabled", "the selector", "an invalid value"].contains(&what);
                let next = (flips % 2 == 1 || !unled).then_some("b");
                assert_eq!(leads(&pair).as_deref(), next, "{case}");
                flip(&pair, change, 0);
                pair.run(FLIP).await;
                assert_eq!(leads(&pair).as_deref(), Some("b"), "{case}: after the next flip");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_first_leader_and_no_end_of_a_delay_waits_for_settings_that_flip() {
    let (_, sticky, _) = CHANGES[0];
    let mut pair = Pair::served().await;
    let mut web = pair.api.get(&format!("{SERVICES}/web")).unwrap();
    setting(&mut web, "failover-min-delay", "300ms");
    pair.api.put(SERVICES, web);
    pair.run(Duration::from_secs(5)).await;
    pair.api.put(PODS, pod("a", "10.0.0.1", false, 1));
    for n in 0..2 {
        flip(&pair, sticky, n);
        pair.run(FLIP).await;
        assert_eq!(pair.routed(), None, "the delay");
    }
    // The clock of the double stands still, so the delay is over when the setting says so.
    pair.api.remove(&format!("{PODS}/b"));
    pair.api.remove(&format!("{PODS}/a"));
    flip(&pair, sticky, 2);
    pair.run(FLIP).await;
    flip(&pair, sticky, 3);
    let (at, before) = (clock::monotonic(), pair.calls.len());
    pair.api.put(PODS, pod("c", "10.0.0.3", true, 3));
    pair.run(Duration::from_millis(1)).await;
    assert_eq!(pair.routed().as_deref(), Some("c"));
    assert_eq!(pair.calls[before].0, at);
}
