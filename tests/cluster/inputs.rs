//! Inputs from real clusters, one test for each: the objects and answers of public bug reports, and the
//! result that is expected. A test checks everything before it fails, so that its report shows all faults.
//!
//! `ZEN_LEAD_STANDING_MINUTES` lets each standing situation last that long and counts its calls again after it.

mod annotations;
mod conversions;
mod crowds;
mod flips;
mod ownership;
mod refusals;
mod reports;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::clumsy::act::Ground;
use crate::clumsy::calls::{Call, Calls, most_within, summary};
use crate::clumsy::raw::{self, Kind, LEADER, SLICE, WEB};
use crate::clumsy::rules::{self, MOST_CALLS};
use crate::clumsy::seen::{Seen, lies};
use crate::clumsy::tape::Tape;
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::hollow;
use crate::support::world::TEST_DEADLINE;

/// Lists tests of any file below `inputs`.
macro_rules! listed {
    ($($name:ident),* $(,)?) => {
        vec![$(
            $crate::support::harness::Test::new("inputs", stringify!($name), $name)
                .within($crate::inputs::deadline())
        ),*]
    };
}
pub(crate) use listed;

/// Tests that run beside others.
pub fn tests() -> Vec<Test> {
    let all = [
        ownership::tests(),
        refusals::tests(),
        annotations::tests(),
        conversions::tests(),
        reports::tests(),
        flips::tests(),
    ];
    all.into_iter().flatten().collect()
}

/// Tests that restart replicas or measure how fast others are served.
pub fn alone() -> Vec<Test> {
    let all = [ownership::alone(), conversions::alone(), crowds::tests()];
    all.into_iter().flatten().collect()
}

/// The longest time until the other pod follows a lost leader.
const FOLLOWED: Duration = Duration::from_secs(5);
/// The longest time until the reports agree with what is routed.
const REPORTED: Duration = Duration::from_secs(10);
/// The time after which a situation counts as standing.
const SETTLED: Duration = Duration::from_secs(3);
/// How long calls are counted.
const COUNTED: Duration = Duration::from_secs(6);
/// The minutes during which calls are counted in a situation that has lasted for long.
const LATER: u32 = 3;
/// The number of calls in one of these minutes has to be lower.
const CALLS_A_MINUTE: usize = 2;

/// How long situations stand before the second count, if there is one.
fn standing_minutes() -> Option<u32> {
    std::env::var("ZEN_LEAD_STANDING_MINUTES").ok().map(|minutes| minutes.parse().unwrap())
}

/// The longest time of a test.
pub fn deadline() -> Duration {
    let more = standing_minutes().map_or(0, |minutes| minutes + LATER);
    TEST_DEADLINE + Duration::from_mins(u64::from(more))
}

/// A namespace with an input, and the faults found in the result.
struct Input {
    ground: Ground,
    tape: Tape,
    calls: Calls,
    /// The calls of the standing situation.
    counted: Vec<Call>,
    wrong: Vec<String>,
    /// The state while calls were counted.
    stood: String,
}

impl Input {
    /// Pods p1 and p2, and no source yet.
    async fn bare(t: &Arc<Case>) -> Self {
        let ground = Ground::new(t.clone()).await;
        let (tape, calls) = (Tape::start(&ground.admin), Calls::from_now(t));
        for pod in ["p1", "p2"] {
            t.pod(hollow(pod, "web")).await;
        }
        Self { ground, tape, calls, counted: Vec::new(), wrong: Vec::new(), stood: String::new() }
    }

    /// The same, with the source web, which p1 leads, and all reports written.
    async fn led(t: &Arc<Case>, source: &Value) -> Self {
        let input = Self::bare(t).await;
        input.ground.source(source).await.unwrap();
        t.until_led_by("web-leader", "p1").await;
        t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
        // Waits until it is not young any more.
        sleep(Duration::from_millis(2500)).await;
        input
    }

    fn unless(&mut self, holds: bool, wrong: impl Into<String>) {
        if !holds {
            self.wrong.push(wrong.into());
        }
    }

    /// The slice of p1 was never emptied by zen-lead.
    fn never_emptied(&mut self) {
        let found = rules::never_emptied(&self.tape.all(), SLICE.1);
        self.wrong.extend(found.into_iter().map(|f| f.what));
    }

    /// p1 vanishes, and p2 follows soon.
    async fn follows_a_loss(&mut self) {
        self.ground.t.vanish("p1").await;
        self.is_led_by("p2", FOLLOWED).await;
    }

    async fn is_led_by(&mut self, pod: &str, limit: Duration) {
        let began = Instant::now();
        loop {
            let seen = Seen::look(&self.ground.admin).await.unwrap();
            if seen.truth() == Some(pod) {
                return;
            }
            if began.elapsed() > limit {
                self.wrong.push(format!("{pod} does not lead after {limit:?}: {:?}", seen.routed));
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The reports agree with what is routed.
    async fn reports_agree(&mut self) {
        let began = Instant::now();
        loop {
            let refused = self.ground.status_is_refused();
            let found = lies(&self.ground.t, &self.ground.admin, refused).await.unwrap();
            if found.is_empty() || began.elapsed() > REPORTED {
                return self.wrong.extend(found);
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// The standing situation makes few calls.
    async fn is_quiet(&mut self) {
        sleep(SETTLED).await;
        self.counted = rules::standing(&self.calls, COUNTED).await;
        let most = most_within(&self.counted, SignedDuration::from_secs(5));
        self.unless(most < MOST_CALLS, format!("{most} calls in 5 s"));
        if let Some(minutes) = standing_minutes() {
            sleep(Duration::from_mins(u64::from(minutes))).await;
            self.counted = rules::standing(&self.calls, Duration::from_mins(LATER.into())).await;
            let calls = self.counted.len();
            println!(
                "inputs: {calls} calls in {LATER} minutes, after {minutes}: {}",
                self.ground.t.ns
            );
            let most = CALLS_A_MINUTE * LATER as usize;
            self.unless(calls < most, format!("{calls} calls in {LATER} minutes"));
        }
        self.stood = self.state().await;
    }

    /// These words are on a condition of ours on a Service, and in one Event about it.
    async fn says(&mut self, service: &str, words: &str) {
        let on_condition = |object: &Value| {
            let all = object["status"]["conditions"].as_array();
            let ours = |c: &&Value| c["type"].to_string().contains(names::PREFIX);
            all.into_iter().flatten().filter(ours).any(|c| c["message"].to_string().contains(words))
        };
        let began = Instant::now();
        while began.elapsed() < REPORTED {
            let services = self.ground.admin.list(Kind::Service).await.unwrap();
            let named = services.iter().find(|s| raw::text(s, "/metadata/name") == service);
            if named.is_some_and(on_condition) {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
        self.unless(
            began.elapsed() < REPORTED,
            format!("no condition of {service} says {words:?}"),
        );
        let events = self.ground.admin.list(Kind::Event).await.unwrap();
        let about = |e: &&Value| {
            raw::text(e, "/regarding/name") == service && raw::text(e, "/note").contains(words)
        };
        let count = events.iter().filter(about).count();
        self.unless(count == 1, format!("{count} Events about {service} say {words:?}"));
    }

    /// No Event says this.
    async fn no_event_says(&mut self, words: &str) {
        for event in self.ground.admin.list(Kind::Event).await.unwrap() {
            let note = raw::text(&event, "/note").to_owned();
            self.unless(!note.contains(words), format!("an Event says {note:?}"));
        }
    }

    /// Conditions and what is routed, in a few lines.
    async fn state(&self) -> String {
        let mut text = String::new();
        for on in [WEB, LEADER] {
            let object = self.ground.admin.get(on).await.unwrap();
            let condition = object.as_ref().and_then(|o| raw::condition(o)).cloned();
            let words = |c: &Value| json!([c["status"], c["reason"], c["message"]]).to_string();
            let condition = condition.map_or_else(|| "no condition".to_owned(), |c| words(&c));
            let there = if object.is_some() { condition } else { "is missing".to_owned() };
            let _ = writeln!(text, "  {}: {there}", on.1);
        }
        let seen = Seen::look(&self.ground.admin).await.unwrap();
        let _ = writeln!(text, "  routed: {:?}", seen.routed);
        text
    }

    /// Fails with all faults and the present state.
    async fn passes(self) {
        let at_the_end = self.state().await;
        let Self { ground, calls, counted, wrong, stood, .. } = self;
        for (hook, name) in &ground.hooks {
            hook.unregister(&ground.admin, name).await;
        }
        if wrong.is_empty() {
            return;
        }
        let mut text = String::from("this is wrong:\n");
        for what in &wrong {
            let _ = writeln!(text, "  - {what}");
        }
        if counted.is_empty() {
            let all = calls.since(Timestamp::UNIX_EPOCH);
            let _ = writeln!(text, "  calls in all: {}", summary(&all));
        } else {
            let seconds = u64::try_from(counted.len()).unwrap() / COUNTED.as_secs();
            let _ =
                writeln!(text, "  while it stood, {seconds} calls a second: {}", summary(&counted));
            text.push_str(&stood);
        }
        panic!("{text}  at the end:\n{at_the_end}");
    }
}
