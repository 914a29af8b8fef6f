//! The publisher of Events: a bounded queue and the one task that writes it out.
//!
//! Events are a help for people, not a record: when in doubt, one is dropped (and counted). Only that of
//! a switch is tried again for a while if the API server could not be reached: perhaps no other replica reports
//! it (docs/decisions/event-of-a-switch.md).

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CONTROLLER, Note};
use crate::control::pressure::Pressure;
use crate::platform::api::{self, CallError, Caller, Delays, ErrorKind};
use crate::platform::clock::{Clock, monotonic};
use crate::platform::metrics::Metrics;
use crate::platform::operation::{Operation, Target};
use zen_lead_core::shrink;

/// Events that may wait to be written.
const QUEUE: usize = 4096;
/// Those of one namespace: a tenant whose Services change all the time leaves room for the Events of others.
const SHARE: usize = QUEUE / 4;
/// First wait before the Event of a switch is tried again; they double.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long such an Event is tried.
const TRIED: Duration = Duration::from_mins(10);
/// How long an Event that says the same again is left out.
const WINDOW: Duration = Duration::from_mins(10);
/// Events that are remembered in order to leave out their repetitions.
const REMEMBERED: usize = 8192;
/// Longest note, in bytes (k8s.io/kubernetes/pkg/apis/core/validation/events.go).
const MAX_NOTE: usize = 1024;
/// Longest object name, in bytes.
const MAX_NAME: usize = 253;
/// How long the Events that still wait may take when the process ends.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Where Events are handed in; clones share it.
#[derive(Clone)]
pub struct Publisher {
    notes: mpsc::Sender<PendingEvent>,
    waiting: Arc<Waiting>,
    metrics: Arc<Metrics>,
}

/// How many Events of each namespace wait.
type Waiting = Mutex<HashMap<Arc<str>, usize>>;

/// The room that one Event takes of its namespace's share.
struct Share {
    waiting: Arc<Waiting>,
    namespace: Arc<str>,
}

impl Share {
    /// Room for an Event of this namespace, where it has any left.
    fn take(waiting: &Arc<Waiting>, namespace: &Arc<str>) -> Option<Self> {
        let mut all = waiting.lock();
        let own = all.entry(namespace.clone()).or_default();
        if *own >= SHARE {
            return None;
        }
        *own += 1;
        Some(Self { waiting: Arc::clone(waiting), namespace: namespace.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.waiting.lock();
        let Some(own) = all.get_mut(&self.namespace) else { return };
        *own -= 1;
        if *own == 0 {
            all.remove(&self.namespace);
            shrink::map(&mut all);
        }
    }
}

/// The task that writes what was handed in.
pub struct Writer {
    notes: mpsc::Receiver<PendingEvent>,
    client: Client,
    caller: Caller,
    /// Name of this pod.
    instance: String,
    clock: Clock,
    pressure: Arc<Pressure>,
    /// When each Event was last written, by a hash of what it says (the texts may be long).
    recent: HashMap<u64, Instant>,
    hashing: RandomState,
    /// Those to be tried again, at most [`QUEUE`].
    late: Vec<PendingEvent>,
}

/// An Event on its way.
struct PendingEvent {
    note: Note,
    _share: Share,
    /// When it was handed in.
    since: Instant,
    /// Not tried again before this.
    due: Instant,
    delays: Delays,
}

impl PendingEvent {
    fn new(note: Note, share: Share) -> Self {
        let now = monotonic();
        let delays = Delays::new(AGAIN, LONGEST_WAIT);
        Self { note, _share: share, since: now, due: now, delays }
    }
}

impl Publisher {
    /// A publisher and its writer, which gives way to `pressure`; `instance` is the name of this pod.
    pub fn new(
        client: Client,
        caller: Caller,
        instance: String,
        clock: Clock,
        pressure: Arc<Pressure>,
    ) -> (Self, Writer) {
        let (sender, notes) = mpsc::channel(QUEUE);
        let metrics = Arc::clone(&caller.metrics);
        let (recent, hashing) = (HashMap::new(), RandomState::new());
        let late = Vec::new();
        let writer =
            Writer { notes, client, caller, instance, clock, pressure, recent, hashing, late };
        (Self { notes: sender, waiting: Arc::default(), metrics }, writer)
    }

    /// Hands in an Event. Returns at once; it is dropped when too many wait, or too many of its namespace.
    pub fn publish(&self, note: Note) {
        let reason = note.reason.as_str();
        let share = Share::take(&self.waiting, &note.service.namespace);
        let event = share.map(|share| PendingEvent::new(note, share));
        if event.is_none_or(|event| self.notes.try_send(event).is_err()) {
            self.metrics.event(reason, "dropped");
        }
    }
}

impl Writer {
    /// Writes Events until `stop` is done, then what still waits, for a short time.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut begun = None;
        let mut left_out = 0_u32;
        while begun.is_none() {
            let late = self.late.iter().enumerate().min_by_key(|(_, letter)| letter.due);
            let late = late.map(|(n, letter)| (n, letter.due));
            let letter = tokio::select! {
                biased;
                () = &mut stop => break,
                note = self.notes.recv() => note,
                Some(n) = wait_for(late) => Some(self.late.swap_remove(n)),
            };
            let Some(letter) = letter else { break };
            let pressure = Arc::clone(&self.pressure);
            tokio::select! {
                biased;
                () = &mut stop => {
                    self.late.push(letter);
                    break;
                }
                () = pressure.pass(letter.since) => {}
            }
            let (reason, metrics) = (letter.note.reason.as_str(), Arc::clone(&self.caller.metrics));
            let mut write = std::pin::pin!(self.write(letter));
            tokio::select! {
                biased;
                () = &mut write => {}
                // What is under way may take the time that all the rest has.
                () = &mut stop => {
                    let until = monotonic() + LAST_WRITES;
                    if tokio::time::timeout_at(until, write).await.is_err() {
                        metrics.event(reason, "dropped");
                        left_out += 1;
                    }
                    begun = Some(until);
                }
            }
        }
        self.notes.close();
        let until = begun.unwrap_or_else(|| monotonic() + LAST_WRITES);
        // Closed: what comes now is what waits.
        let mut rest = std::mem::take(&mut self.late);
        while let Some(note) = self.notes.recv().await {
            rest.push(note);
        }
        for letter in rest {
            let reason = letter.note.reason.as_str();
            let late = left_out > 0;
            if late || tokio::time::timeout_at(until, self.write(letter)).await.is_err() {
                self.caller.metrics.event(reason, "dropped");
                left_out += 1;
            }
        }
        if left_out > 0 {
            let operation = Operation::FlushEvents;
            self.caller.metrics.timeout(operation.as_str());
            tracing::warn!(
                "{operation}: not finished within {LAST_WRITES:?} of the end of the process; \
                 {left_out} Events are not written, conditions and logs say the same"
            );
        }
    }

    async fn write(&mut self, mut letter: PendingEvent) {
        let note = &letter.note;
        let reason = note.reason.as_str();
        let key = self.hashing.hash_one(identity(note));
        if self.is_recent(key) {
            self.caller.metrics.event(reason, "repeated");
            return;
        }
        let event = self.event(note);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let target = Target::of(&note.service, &name);
        let create = || async { events.create(&PostParams::default(), &event).await };
        let call = api::call(&self.caller, Operation::CreateEvent, target, create);
        let result = note.cause.run(call).await;
        let result = match result {
            Ok(_) => "written",
            // Perhaps by an earlier attempt of this call.
            Err(CallError { kind: ErrorKind::AlreadyExists, maybe_applied, .. }) => {
                if maybe_applied { "written" } else { "exists" }
            }
            Err(error) => {
                // It did not get out, so the next one is not a repetition.
                self.recent.remove(&key);
                if self.is_worth_another_try(&letter, &error) {
                    let wait = letter.delays.next_delay();
                    tracing::debug!(reason, "{error}; tried again in {wait:?}");
                    letter.due = monotonic() + wait;
                    self.late.push(letter);
                    return;
                }
                tracing::debug!(reason, "{error}; this Event is left out");
                "failed"
            }
        };
        self.caller.metrics.event(reason, result);
    }

    /// Only what has a name of its own: it cannot be told twice. An API server that has just come back
    /// refuses everything until it has read its roles, so a refusal may pass as well.
    fn is_worth_another_try(&self, letter: &PendingEvent, error: &CallError) -> bool {
        let refused = matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Unauthorized);
        letter.note.name.is_some()
            && (error.is_transient() || refused)
            && monotonic() < letter.since + TRIED
            && self.late.len() < QUEUE
            && !self.notes.is_closed()
    }

    /// Whether the same was written within the window; if not, it is remembered from now on.
    fn is_recent(&mut self, key: u64) -> bool {
        let now = monotonic();
        if self.recent.get(&key).is_some_and(|at| now - *at < WINDOW) {
            return true;
        }
        if self.recent.len() >= REMEMBERED {
            self.recent.retain(|_, at| now - *at < WINDOW);
        }
        // Still full: better to repeat something than to grow without a bound.
        if self.recent.len() >= REMEMBERED {
            self.recent.clear();
        }
        self.recent.insert(key, now);
        false
    }

    fn event(&self, note: &Note) -> Event {
        // Events about objects without a namespace live in "default", as the API server demands.
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".into());
        let about = note.regarding.name.as_deref().unwrap_or("zen-lead");
        let name = note.name.clone().unwrap_or_else(|| unique(about));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some(note.reason.action().to_owned()),
            event_time: Some(MicroTime(self.clock.now())),
            note: Some(cut(&note.text, MAX_NOTE)),
            reason: Some(note.reason.as_str().to_owned()),
            regarding: Some(note.regarding.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(cut(&self.instance, 128)),
            type_: Some(note.reason.kind().to_owned()),
            ..Event::default()
        }
    }
}

/// Waits until the Event at a place is due; at once `None` where there is none.
async fn wait_for(late: Option<(usize, Instant)>) -> Option<usize> {
    let (place, due) = late?;
    tokio::time::sleep_until(due).await;
    Some(place)
}

/// What makes two Events the same.
fn identity(note: &Note) -> String {
    if let Some(name) = &note.name {
        return name.clone();
    }
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let regarding = &note.regarding;
    let parts = [
        part(&regarding.kind),
        part(&regarding.namespace),
        part(&regarding.name),
        part(&regarding.uid),
        note.reason.as_str().to_owned(),
        note.text.clone(),
    ];
    parts.join("\n")
}

/// A name that is used once. `RandomState` has a new random key each time.
fn unique(about: &str) -> String {
    let random = RandomState::new().hash_one(about);
    let room = MAX_NAME - 17;
    let about = about.get(..room.min(about.len())).unwrap_or("zen-lead");
    format!("{}.{random:016x}", about.trim_end_matches(['-', '.']))
}

/// The text, cut at a character's border and marked if it is longer than `max` bytes.
fn cut(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max - MARK.len()).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}
