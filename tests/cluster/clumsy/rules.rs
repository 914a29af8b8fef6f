//! The rules as checks, for a walk and for single inputs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::act::Ground;
use super::calls::{Call, Calls, most_within, summary};
use super::raw::{self, Hand, Kind};
use super::seen::{Seen, is_ready, lies, not_as_asked};
use super::tape;
use crate::support::names;
use crate::support::objects::{hollow, source_json};

/// A rule that does not hold, and where it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    pub what: String,
}

impl Finding {
    pub fn new(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

/// This many calls in five seconds are too many.
pub const MOST_CALLS: usize = 20;
/// How long a state must last before it counts.
const SETTLED: Duration = Duration::from_secs(2);

/// Rule a and b: zen-lead never empties the slice of a leader that is healthy and wanted.
pub fn never_emptied(tape: &[tape::Seen], slice_name: &str) -> Vec<Finding> {
    let mut state = State::default();
    let mut findings = Vec::new();
    let mut before: Option<Value> = None;
    for seen in tape {
        if seen.kind == Kind::Slice && raw::text(&seen.object, "/metadata/name") == slice_name {
            if let Some(old) = before.as_ref().filter(|_| !seen.deleted) {
                let pod = raw::text(old, "/endpoints/0/targetRef/uid").to_owned();
                let led = !pod.is_empty() && old["endpoints"][0]["conditions"]["ready"] == true;
                let leads =
                    seen.object["endpoints"].as_array().into_iter().flatten().any(|e| {
                        e["conditions"]["ready"] == true && !e["targetRef"]["uid"].is_null()
                    });
                let by_us = raw::annotation(old, names::WRITE_ID)
                    != raw::annotation(&seen.object, names::WRITE_ID)
                    && !raw::annotation(&seen.object, names::WRITE_ID).is_empty();
                let healthy = state.since.get(&pod).is_some_and(|s| seen.at - *s > SETTLED);
                let asked = state.asked_since.is_some_and(|s| seen.at - s > SETTLED);
                if led && !leads && by_us && healthy && asked {
                    let name = raw::text(old, "/endpoints/0/targetRef/name");
                    findings.push(Finding::new(
                        "R-b",
                        format!("the slice of the healthy leader {name} was emptied by zen-lead"),
                    ));
                }
            }
            before = (!seen.deleted).then(|| seen.object.clone());
        }
        state.note(seen);
    }
    findings.truncate(1);
    findings
}

/// The present state, and since when.
#[derive(Default)]
struct State {
    /// Pods by uid that are Ready and selected.
    since: std::collections::BTreeMap<String, Instant>,
    /// Source and leader Service are there, and the source asks for a leader.
    asked_since: Option<Instant>,
    source: Option<Value>,
    leader: Option<Value>,
}

impl State {
    fn note(&mut self, seen: &tape::Seen) {
        let name = raw::text(&seen.object, "/metadata/name");
        let object = (!seen.deleted).then(|| seen.object.clone());
        match seen.kind {
            Kind::Pod => {
                let uid = raw::text(&seen.object, "/metadata/uid").to_owned();
                let fit = object.is_some_and(|p| is_ready(&p) && raw::label(&p, "app") == "web");
                if fit {
                    self.since.entry(uid).or_insert(seen.at);
                } else {
                    self.since.remove(&uid);
                }
            }
            Kind::Service if name == "web" => self.source = object,
            Kind::Service if name == "web-leader" => self.leader = object,
            _ => return,
        }
        let lives = |o: &&Value| o["metadata"]["deletionTimestamp"].is_null();
        let leader = self.leader.as_ref().filter(lives);
        let asks = self.source.as_ref().filter(lives).is_some_and(|source| {
            let name = raw::annotation(source, names::LEADER_NAME);
            raw::annotation(source, names::ENABLED) == "true"
                && (name.is_empty() || name == "web-leader")
                && source["spec"]["selector"]["app"] == "web"
                && source["spec"]["type"] != "ExternalName"
        });
        if asks && leader.is_some() {
            self.asked_since.get_or_insert(seen.at);
        } else {
            self.asked_since = None;
        }
    }
}

/// Rule d: the calls of zen-lead in a standing situation, for this number of Services.
pub fn no_storm(calls: &[Call], services: usize) -> Option<Finding> {
    let most = most_within(calls, SignedDuration::from_secs(5));
    (most >= MOST_CALLS * services)
        .then(|| Finding::new("R-d", format!("{most} calls in 5 s: {}", summary(calls))))
}

/// Rule e: a call that was refused more than once in a standing situation is reported, in the server's
/// words, on the source and in an Event. Where a replica was `killed`, its last Events may be lost.
pub async fn is_reported(
    ground: &Ground,
    calls: &[Call],
    killed: bool,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let all_words =
        ground.hooks.iter().filter_map(|(hook, _)| hook.words()).chain(["exceeded quota"]);
    let mut all_words: Vec<&str> = all_words.collect();
    all_words.sort_unstable();
    all_words.dedup();
    if ground.status_is_refused() {
        return Ok(findings);
    }
    let words = |(code, text): (u16, String)| format!("{code} {text}");
    let seen = Seen::look(&ground.admin).await?;
    let events = ground.admin.list(Kind::Event).await.map_err(words)?;
    for word in all_words.iter().copied() {
        let refused: Vec<&Call> = calls
            .iter()
            .filter(|c| c.code >= 400 && c.message.contains(word) && c.is_about("web"))
            .collect();
        let Some(last) = refused.last() else { continue };
        // Of several refusals of one call the latest is reported: another webhook, or another answer of it.
        let mut later = calls.iter().filter(|c| c.at > last.at && c.code >= 400);
        if later.any(|c| (&c.verb, &c.resource) == (&last.verb, &last.resource)) {
            continue;
        }
        let (call, message) = (last.short(), &last.message);
        // Two replicas may meet different ones of several webhooks. One of the two is reported.
        let alike = calls.iter().filter(|c| c.code >= 400 && c.is_about("web"));
        let alike = alike.filter(|c| (&c.verb, &c.resource) == (&last.verb, &last.resource));
        let alike: Vec<&Call> = alike.collect();
        let alike =
            all_words.iter().filter(|word| alike.iter().any(|c| c.message.contains(**word)));
        let alike: Vec<&&str> = alike.collect();
        let on_source = seen.source.as_ref().is_some_and(|s| {
            let all = s["status"]["conditions"].as_array();
            all.is_some_and(|c| {
                c.iter().any(|c| {
                    c["type"].as_str().is_some_and(|t| t.starts_with(names::PREFIX))
                        && alike.iter().any(|word| c["message"].to_string().contains(**word))
                })
            })
        });
        // Without a source there is no object for a report; the leader Service is deleted as well.
        if seen.source.is_none() {
            continue;
        }
        if !on_source {
            let what = format!("{call} ({message}) is on no condition of the source");
            findings.push(Finding::new("R-e", what));
        }
        let events_about = |name: &str| {
            let about = |e: &&Value| {
                let note = raw::text(e, "/note");
                raw::text(e, "/regarding/name") == name
                    && alike.iter().any(|word| note.contains(**word))
            };
            events.iter().filter(about).count()
        };
        if events_about("web") == 0 && !killed {
            findings.push(Finding::new("R-e", format!("{call} ({message}) is in no Event")));
        }
    }
    Ok(findings)
}

/// Rule e: a refusal has a readable message.
pub fn is_no_answer((code, words): &(u16, String)) -> Option<Finding> {
    let raw = ["resulted in error", "no such overload", "fails to evaluate"];
    raw.iter().any(|r| words.contains(r)).then(|| {
        Finding::new("R-e", format!("a refusal shows the insides of a policy: {code} {words}"))
    })
}

/// Rule e: no Event blames a webhook if there was none.
pub async fn blames_no_webhook_wrongly(ground: &Ground) -> Option<Finding> {
    if ground.hooked {
        return None;
    }
    let events = ground.admin.list(Kind::Event).await.ok()?;
    let mut notes = events.iter().map(|e| raw::text(e, "/note"));
    let blames = notes.find(|note| note.contains("mutating webhook"))?;
    Some(Finding::new("R-e", format!("there is no webhook, and an Event says {blames:?}")))
}

/// The longest time until a neighbour has its first leader: 1 s more than usual (0.2 to 0.3 s), with room
/// for the walks that run beside this one.
const NEIGHBOUR: Duration = Duration::from_secs(4);

/// Rule f: a Service of another namespace gets its first leader without delay.
pub async fn neighbour(ground: &Ground) -> Option<Finding> {
    let t = ground.t.outside().await;
    let other = Hand::admin(&t);
    t.pod(hollow("p1", "web")).await;
    let began = Instant::now();
    other.create(Kind::Service, &source_json("web", &serde_json::json!({}))).await.ok()?;
    while began.elapsed() < Duration::from_mins(1) {
        if Seen::look(&other).await.is_ok_and(|seen| seen.truth().is_some()) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let taken = began.elapsed();
    (taken > NEIGHBOUR).then(|| {
        Finding::new("R-f", format!("a neighbour waited {taken:.1?} for its first leader"))
    })
}

/// Rule c at rest: the reports agree with what is routed, at the latest after `limit`.
pub async fn no_lies(ground: &Ground, limit: Duration) -> Vec<Finding> {
    let started = Instant::now();
    loop {
        let found = lies(&ground.t, &ground.admin, ground.status_is_refused()).await;
        let found = found.unwrap_or_else(|error| vec![format!("cannot be checked: {error}")]);
        if found.is_empty() || started.elapsed() > limit {
            return found.into_iter().map(|what| Finding::new("R-c", what)).collect();
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Without disturbance the leader Service becomes as the source asks.
pub async fn as_asked(ground: &Ground, limit: Duration) -> Vec<Finding> {
    let started = Instant::now();
    loop {
        let found = not_as_asked(&ground.admin).await;
        let found = found.unwrap_or_else(|error| vec![format!("cannot be checked: {error}")]);
        if found.is_empty() || started.elapsed() > limit {
            return found.into_iter().map(|what| Finding::new("asked", what)).collect();
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until a ready pod is routed, at most for `limit`; returns the pod.
pub async fn is_led(ground: &Ground, but: &str, limit: Duration) -> Result<String, String> {
    let started = Instant::now();
    loop {
        let seen = Seen::look(&ground.admin).await?;
        match seen.truth() {
            Some(pod) if pod != but => return Ok(pod.to_owned()),
            _ if started.elapsed() > limit => {
                let leader = if seen.leader.is_some() { "is there" } else { "is missing" };
                return Err(format!("routed is {:?}, {} {leader}", seen.routed, seen.leader_name));
            }
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The calls during this time from now on.
pub async fn standing(calls: &Calls, time: Duration) -> Vec<Call> {
    let since = Timestamp::now();
    sleep(time).await;
    calls.since(since)
}

impl Ground {
    /// Whether a webhook refuses status writes of zen-lead.
    pub fn status_is_refused(&self) -> bool {
        self.hooks.iter().any(|(hook, _)| hook.resource == "services/status")
    }
}
