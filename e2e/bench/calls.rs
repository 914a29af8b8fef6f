//! zen-lead's calls, from the audit log of the API server: which, how many, and when.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::measure::{count, n, row, table};
use crate::support::audit::Tail;

/// The user of the installed zen-lead.
const USER: &str = "system:serviceaccount:zen-lead-system:zen-lead";

/// The calls since the last question.
pub struct Calls(Tail);

/// One call that was answered, or a watch that began.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When it was answered.
    pub at: Timestamp,
    /// The verb of Kubernetes: a PUT is an update.
    pub verb: String,
    /// The path, for a call about no object.
    pub resource: String,
    pub subresource: String,
    /// Refused, or failed.
    pub failed: bool,
}

impl Calls {
    /// From now on.
    pub fn follow(log: &Path) -> Self {
        Self(Tail::follow(log, USER))
    }

    pub fn new_ones(&mut self) -> Vec<Call> {
        self.0.entries().iter().filter_map(Call::of).collect()
    }

    /// Until zen-lead has written nothing for three seconds, at most for a minute.
    pub async fn until_quiet(&mut self) -> Vec<Call> {
        let began = Instant::now();
        let mut all = self.new_ones();
        while began.elapsed() < Duration::from_mins(1) {
            sleep(Duration::from_secs(3)).await;
            let more = self.new_ones();
            let quiet = !more.iter().any(Call::writes);
            all.extend(more);
            if quiet {
                break;
            }
        }
        all
    }
}

impl Call {
    /// None for the second entry of one call: a watch has one at its start and one at its end.
    pub fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let failed = entry["responseStatus"]["code"].as_u64().is_none_or(|code| code >= 400);
        let started = entry["stage"] == "ResponseStarted";
        if (entry["verb"] == "watch" && !failed) != started {
            return None;
        }
        let about = &entry["objectRef"];
        let resource =
            if about["resource"].is_null() { &entry["requestURI"] } else { &about["resource"] };
        Some(Self {
            at: entry["stageTimestamp"].as_str()?.parse().ok()?,
            verb: text(&entry["verb"]),
            resource: text(resource),
            subresource: text(&about["subresource"]),
            failed,
        })
    }

    pub fn is(&self, verb: &str, resource: &str, subresource: &str) -> bool {
        (&*self.verb, &*self.resource, &*self.subresource) == (verb, resource, subresource)
    }

    /// The annotations and the condition on a leader Service or a source.
    pub fn mirrors(&self) -> bool {
        self.is("patch", "services", "status")
    }

    pub fn writes_event(&self) -> bool {
        self.is("create", "events", "")
    }

    pub fn writes(&self) -> bool {
        !["get", "list", "watch"].contains(&&*self.verb)
    }
}

/// The clock of the audit log at a moment of this program, which runs on the same machine.
pub fn clock(at: Instant) -> Timestamp {
    let ago = jiff::SignedDuration::try_from(at.elapsed()).unwrap_or_default();
    Timestamp::now() - ago
}

/// Prints the calls by kind; `each` is what they are divided by, and its name.
pub fn print(title: &str, calls: &[Call], each: Option<(&str, usize)>) {
    let mut kinds: BTreeMap<[&str; 3], (usize, usize)> = BTreeMap::new();
    for call in calls {
        let kind = kinds.entry([&call.verb, &call.resource, &call.subresource]).or_default();
        *kind = (kind.0 + 1, kind.1 + usize::from(call.failed));
    }
    let mut head = vec!["verb", "resource", "subresource", "calls", "of them failed"];
    let by = each.map(|(name, number)| (format!("for each {name}"), number));
    head.extend(by.iter().map(|(name, _)| name.as_str()));
    let line_of = |kind: [&str; 3], (all, failed): (usize, usize)| {
        let mut line = row(&[&kind[0], &kind[1], &kind[2], &all, &failed]);
        line.extend(by.iter().map(|(_, number)| n(count(all) / count(*number), 2)));
        line
    };
    let failed = calls.iter().filter(|call| call.failed).count();
    let mut rows: Vec<_> =
        kinds.into_iter().map(|(kind, numbers)| line_of(kind, numbers)).collect();
    rows.push(line_of(["all", "", ""], (calls.len(), failed)));
    table(&format!("calls, {title}: of zen-lead, from the audit log"), &head, &rows);
}
