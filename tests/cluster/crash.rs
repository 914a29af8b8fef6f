//! Crashes at any point: zen-lead dies after each write of each scenario, and the next process brings
//! the objects to the same end.
//!
//! A proxy in front of the real API server counts the writes. The n-th write is executed, its answer is
//! withheld, and nothing else passes; then the process gets kill -9. For n = 0 the first write does not
//! reach the API server. The test goes on with n + 1 until the scenario ends without a death.
//!
//! With `ZEN_LEAD_CRASH_TWICE=1` (make soak) the second process dies as well, after each of its own
//! writes; and a rotation, which takes many seconds, is walked through write by write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::ca::Ca;
use crate::support::case::{Case, Routed, routed};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{annotations, hollow, source};
use crate::support::proxy::{Done, Fault, Proxy, Seen};
use crate::support::recorder::History;
use crate::support::waiting::{DEADLINE, check, until, within};
use crate::support::webhook::Hook;

/// After this time without a write zen-lead is at rest: nothing here waits for a timer.
const QUIET: Duration = Duration::from_millis(250);
/// A finalizer.
const HOLD: &str = "zen-lead-tests/hold";
const ROTATE_CA: &str = "zen-lead.io/rotate-ca";
/// The key of the last answered request in the Secret.
const ANSWERED: &str = "rotate-ca-answered";
/// More writes than any scenario has: the writes do not end.
const TOO_MANY: usize = 60;

pub fn tests() -> Vec<Test> {
    let deadline = Duration::from_mins(if twice() { 90 } else { 6 });
    let module = module_path!();
    [
        Test::new(module, "create", |t| walk(t, Scenario::Create)),
        Test::new(module, "switch", |t| walk(t, Scenario::Switch)),
        Test::new(module, "planned_switch", |t| walk(t, Scenario::PlannedSwitch)),
        Test::new(module, "rename", |t| walk(t, Scenario::Rename)),
        Test::new(module, "opt_out", |t| walk(t, Scenario::OptOut)),
        Test::new(module, "delete", |t| walk(t, Scenario::Delete)),
        Test::new(module, "rotate", |t| walk(t, Scenario::Rotate)),
    ]
    .map(|test| test.within(deadline))
    .into()
}

fn twice() -> bool {
    std::env::var_os("ZEN_LEAD_CRASH_TWICE").is_some_and(|v| v == "1")
}

/// An action of a user or a pod, to which zen-lead answers with several writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// A source of two families appears.
    Create,
    /// The leader is lost.
    Switch,
    /// The selector no longer matches a healthy leader.
    PlannedSwitch,
    /// Another name for the leader Service.
    Rename,
    /// The source opts out.
    OptOut,
    /// The source is deleted.
    Delete,
    /// A new CA is asked for.
    Rotate,
}

impl Scenario {
    /// Fewer deaths mean that the proxy missed writes.
    fn writes_at_least(self) -> usize {
        match self {
            // The leader Service, two slices, the mirror, an event; to empty the follower, two
            // slices, the mirror, an event.
            Self::Create | Self::PlannedSwitch => 5,
            // Two slices, the mirror (the leader Service), an event.
            Self::Switch | Self::OptOut => 4,
            // To create and to opt out; the Secret in four phases, both configurations twice.
            Self::Rename | Self::Rotate => 8,
            // Two slices, the mirror.
            Self::Delete => 3,
        }
    }

    /// The number of writes between two deaths: one, or more in `make test` for scenarios with similar
    /// parts.
    fn stride(self) -> usize {
        if self == Self::Rename && !twice() { 3 } else { 1 }
    }

    /// The longest time of a scenario. The pauses between checks of the certificates grow while each
    /// check finds something to do.
    fn patience(self) -> Duration {
        if self == Self::Rotate { Duration::from_mins(2) } else { DEADLINE }
    }

    /// Whether a request is one of its writes.
    fn writes(self, ns: &str) -> impl Fn(&Seen) -> bool + Send + Sync + use<> {
        let part = format!("/namespaces/{ns}/");
        move |s| {
            let rotates = s.path.contains("/secrets/") || s.path.contains("webhookconfigurations");
            let about = if self == Self::Rotate { rotates } else { s.path.contains(&part) };
            about && !["GET", "WATCH"].contains(&s.verb.as_str())
        }
    }

    async fn prepare(self, t: &Case) {
        if self == Self::Rotate {
            return;
        }
        for name in ["a", "b"] {
            t.pod(hollow(name, "web").dual()).await;
        }
        t.pod(hollow("x", "other").dual()).await;
        if self != Self::Create {
            create(t).await;
            led(t, "web-leader", "a").await;
        }
        if self == Self::Delete {
            // Otherwise garbage collection deletes the slices, sometimes before zen-lead.
            t.patch_service("web-leader", &json!({"metadata": {"finalizers": [HOLD]}})).await;
        }
    }

    /// Releases what is held for the scenario.
    async fn release(self, t: &Case) {
        if self == Self::Delete {
            t.patch_service("web-leader", &json!({"metadata": {"finalizers": null}})).await;
        }
    }

    async fn act(self, t: &Case) {
        let web = |patch: Value| async move { t.patch_service("web", &patch).await };
        match self {
            Self::Create => create(t).await,
            Self::Switch => _ = t.set_ready("a", false).await,
            Self::PlannedSwitch => _ = web(json!({"spec": {"selector": {"app": "other"}}})).await,
            Self::Rename => _ = web(annotations(&[(names::LEADER_NAME, "front")])).await,
            Self::OptOut => _ = web(annotations(&[(names::ENABLED, "false")])).await,
            Self::Delete => t.delete_service("web").await,
            Self::Rotate => {
                // Another text each time.
                let asked = json!({"metadata": {"annotations": {ROTATE_CA: &t.ns}}});
                Ca::of(t).patch(&asked).await;
            }
        }
    }

    /// Whether the last step has happened.
    async fn done(self, t: &Case) -> Result<(), String> {
        match self {
            Self::Create => is_switched(t, "web-leader", "a").await,
            Self::Switch => is_switched(t, "web-leader", "b").await,
            Self::PlannedSwitch => is_switched(t, "web-leader", "x").await,
            Self::Rename => {
                is_led(t, "front", "a").await?;
                is_gone(t, "web-leader").await
            }
            Self::OptOut => is_gone(t, "web-leader").await,
            Self::Delete => {
                for family in ["IPv4", "IPv6"] {
                    let now = routed(&t.slice("web-leader", family).await?);
                    check(now.is_empty(), format!("{family}: {now:?}"))?;
                }
                let leader = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
                check(leader.metadata.deletion_timestamp.is_some(), "it is not being deleted")?;
                let condition = t.condition("web-leader").await?;
                check(condition.status == "False", format!("{condition:?}"))
            }
            Self::Rotate => {
                let ca = Ca::of(t);
                let (phase, answered) = (ca.value("phase").await?, ca.value(ANSWERED).await?);
                check(phase == "steady" && answered == t.ns, format!("{phase}, {answered}"))?;
                let authority = ca.value("ca.crt").await?;
                for hook in Hook::BOTH {
                    let bundle = hook.bundle(&t.admin(), &t.world.system).await?;
                    check(bundle == authority, format!("{hook:?} does not carry the CA alone"))?;
                }
                Ok(())
            }
        }
    }

    /// Checks every version of the slices; it must hold regardless of the number of deaths.
    fn check_history(self, history: &History) {
        if self == Self::Rotate {
            return;
        }
        history.holds("web-leader");
        if self == Self::Switch {
            history.families_agree("web-leader");
        } else {
            history.never_two_across_families("web-leader");
        }
        let leaders = history.leaders("web-leader");
        let expected: &[&str] = match self {
            Self::Switch => &["a", "b"],
            Self::PlannedSwitch => &["a", "x"],
            _ => &["a"],
        };
        assert_eq!(leaders, expected);
        if matches!(self, Self::Switch | Self::PlannedSwitch) {
            history.never_empty("web-leader");
        }
        if self == Self::Rename {
            history.holds("front");
            assert_eq!(history.leaders("front"), ["a"]);
        }
    }

    /// The leader Services whose switches need Events.
    fn reported(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Switch | Self::PlannedSwitch => &["web-leader"],
            // The same leader under another name is no switch.
            Self::Rename | Self::OptOut | Self::Delete | Self::Rotate => &[],
        }
    }
}

async fn create(t: &Case) {
    let dual = json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}});
    t.create(&source("web", &dual)).await;
}

async fn led(t: &Case, leader: &str, pod: &str) {
    until(format!("{pod} leads for {leader}"), || is_switched(t, leader, pod)).await;
}

/// Routed in both families, and the leader Service says so.
async fn is_led(t: &Case, leader: &str, pod: &str) -> Result<(), String> {
    for family in ["IPv4", "IPv6"] {
        let now = routed(&t.slice(leader, family).await?);
        check(now == [Routed::ready(pod)], format!("{family}: {now:?}"))?;
    }
    let condition = t.condition(leader).await?;
    check(condition.message.starts_with(&format!("{pod} leads")), format!("{condition:?}"))?;
    Ok(())
}

/// Routed, and the Event exists. It names the old leader unless its writer died.
async fn is_switched(t: &Case, leader: &str, pod: &str) -> Result<(), String> {
    is_led(t, leader, pod).await?;
    let notes = t.events(leader, "LeaderChanged").await;
    let (first, other) = (format!("{pod} leads ("), format!(" to {pod} ("));
    let found = notes.iter().any(|n| n.starts_with(&first) || n.contains(&other));
    check(found, format!("events: {notes:?}"))
}

async fn is_gone(t: &Case, leader: &str) -> Result<(), String> {
    let service = t.services().get_opt(leader).await.map_err(|e| e.to_string())?;
    check(service.is_none(), format!("{leader} is there"))?;
    for family in ["IPv4", "IPv6"] {
        check(t.slice(leader, family).await.is_err(), format!("its {family} slice is there"))?;
    }
    Ok(())
}

/// A process, and the proxy between it and the API server.
struct Life {
    proxy: Proxy,
}

impl Life {
    async fn begin(t: &Case) -> Self {
        let product = &t.world.product;
        let proxy = Proxy::start(product.kubeconfig()).await;
        let path = t.world.dir.join("kubeconfig-crash");
        proxy.write_kubeconfig(product.kubeconfig(), &path);
        let waits = ["--ca-introduce-wait=500ms", "--ca-retire-wait=500ms"];
        product.spawn_with(0, &path, &waits, &[]);
        Self { proxy }
    }

    /// It dies after this many further writes of the scenario.
    fn doom(&self, t: &Case, scenario: Scenario, after: usize) {
        let (writes, seen) = (scenario.writes(&t.ns), AtomicUsize::new(0));
        let fault = if after == 0 { Fault::DieBefore } else { Fault::DieAfter };
        let nth = after.max(1);
        let applies = move |s: &Seen| writes(s) && seen.fetch_add(1, Ordering::Relaxed) + 1 == nth;
        self.proxy.fail(1, fault, applies);
    }

    /// Whether nothing has been written for a while.
    fn quiet(&self, t: &Case, scenario: Scenario) -> Result<(), String> {
        let writes = scenario.writes(&t.ns);
        let seen = self.proxy.seen();
        let restless = seen
            .iter()
            .filter(|s| writes(s))
            .find(|s| s.done == Done::Pending || s.at.elapsed() < QUIET);
        check(restless.is_none(), format!("just written: {restless:?}"))
    }

    /// Waits until the scenario has ended and nothing more is written, or the process has died; returns
    /// whether it has died.
    async fn ends(&self, t: &Case, scenario: Scenario) -> bool {
        let what = format!("{scenario:?} ends, or zen-lead dies");
        within(scenario.patience(), what, || async {
            if self.proxy.dead() {
                return Ok(true);
            }
            scenario.done(t).await?;
            self.quiet(t, scenario)?;
            // It may have died meanwhile, on a busy machine long after its last write was sent.
            Ok::<_, String>(self.proxy.dead())
        })
        .await
    }
}

/// The whole walk of a scenario: undisturbed first, then with a death after each write.
async fn walk(t: Arc<Case>, scenario: Scenario) {
    let mut life = Life::begin(&t).await;
    t.world.product.until_ready(0).await;
    if scenario == Scenario::Rotate && !twice() {
        // One run takes many seconds: only one, in the middle.
        let (died, _) = play(&t, scenario, &mut life, &[3], None).await;
        assert_eq!(died, 1, "a rotation has more writes than that");
        println!("{scenario:?}: the end is right after a death");
        return;
    }
    let (died, expected) = play(&t, scenario, &mut life, &[], None).await;
    assert_eq!(died, 0);
    let mut deaths = 0;
    for n in (0..).step_by(scenario.stride()) {
        assert!(n < TOO_MANY, "the writes of {scenario:?} do not end");
        let (died, _) = play(&t, scenario, &mut life, &[n], Some(&expected)).await;
        deaths += died;
        if died == 0 {
            assert!(n > scenario.writes_at_least(), "{scenario:?} has less than {n} writes");
            break;
        }
        if twice() {
            deaths += die_again(&t, scenario, &mut life, n, &expected).await;
        }
    }
    println!("{scenario:?}: the same end after {deaths} deaths");
}

/// The second process dies too, after each of its writes.
async fn die_again(
    t: &Case,
    scenario: Scenario,
    life: &mut Life,
    first: usize,
    expected: &Value,
) -> usize {
    let mut deaths = 0;
    for second in 0..TOO_MANY {
        let (died, _) = play(t, scenario, life, &[first, second], Some(expected)).await;
        deaths += died;
        if died < 2 {
            return deaths;
        }
    }
    panic!("{scenario:?}: started again after {first} writes, the writes of zen-lead do not end")
}

/// Runs the scenario in its own namespace, with a death after each of these numbers of writes; returns
/// the number of deaths and the state at the end.
async fn play(
    t: &Case,
    scenario: Scenario,
    life: &mut Life,
    deaths: &[usize],
    expected: Option<&Value>,
) -> (usize, Value) {
    let suffix: Vec<String> = deaths.iter().map(usize::to_string).collect();
    let t = t.outside_as(&format!("d{}", suffix.join("-"))).await;
    scenario.prepare(&t).await;
    until("zen-lead is at rest", || async { life.quiet(&t, scenario) }).await;
    let recorder = t.record().await;
    let mut deaths = deaths.iter();
    if let Some(n) = deaths.next() {
        life.doom(&t, scenario, *n);
    }
    scenario.act(&t).await;
    let mut died = 0;
    while life.ends(&t, scenario).await {
        died += 1;
        t.world.product.kill(0);
        *life = Life::begin(&t).await;
        if let Some(n) = deaths.next() {
            life.doom(&t, scenario, *n);
        }
    }
    // Writes about the deletion of the namespace do not belong to the scenario.
    life.proxy.clear();
    t.world.product.until_ready(0).await;
    let history = recorder.finish().await;
    let state = t.state().await;
    if scenario == Scenario::Rotate {
        t.show_to_webhooks().await;
        // The API server trusts the certificate that is shown.
        let (services, reviewed) = (t.user_services(), source("reviewed", &json!({})));
        let create = || async { services.create(&PostParams::default(), &reviewed).await };
        until("a Service is reviewed", create).await;
    }
    let after = format!("{scenario:?}, dead after {suffix:?} writes");
    if let Some(expected) = expected {
        assert_eq!(&state, expected, "{after}: another end");
    }
    scenario.check_history(&history);
    for leader in scenario.reported() {
        let (notes, switches) = (t.events(leader, "LeaderChanged").await, history.switches(leader));
        assert_eq!(notes.len(), switches.len(), "{after}: {switches:?} have the Events {notes:?}");
    }
    scenario.release(&t).await;
    t.close().await;
    (died, state)
}
