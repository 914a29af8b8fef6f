//! The calls of zen-lead in a namespace, from the audit log.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::case::Case;

/// The parts of a call that matter here.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Timestamp,
    pub verb: String,
    /// With its subresource.
    pub resource: String,
    pub name: String,
    pub code: u64,
    pub message: String,
}

impl Call {
    /// Whether it is about this source, its leader Service or a slice of the leader Service.
    pub fn is_about(&self, source: &str) -> bool {
        self.name == source || self.name.starts_with(&format!("{source}-"))
    }

    /// The call in a few words.
    pub fn short(&self) -> String {
        format!("{} {} {}", self.verb, self.resource, self.code)
    }
}

/// Reads the log from its end at the time of creation.
pub struct Calls {
    path: PathBuf,
    from: u64,
    user: String,
    ns: String,
}

impl Calls {
    pub fn from_now(t: &Case) -> Self {
        let path = t.world.cluster.audit_log.clone();
        let from = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self { path, from, user: t.world.username(), ns: t.ns.clone() }
    }

    /// The calls since then, watches left out.
    pub fn since(&self, since: Timestamp) -> Vec<Call> {
        let mut file = std::fs::File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        let ours = |line: &&str| line.contains(&self.user) && line.contains(&self.ns);
        let calls = text.lines().filter(ours).filter_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let at = &entry["objectRef"];
            let is_ours = entry["user"]["username"] == self.user.as_str()
                && at["namespace"] == self.ns.as_str()
                && entry["verb"] != "watch";
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let sub = at["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
            let received: Timestamp = entry["requestReceivedTimestamp"].as_str()?.parse().ok()?;
            (is_ours && received >= since).then(|| Call {
                at: received,
                verb: word(&entry["verb"]),
                resource: word(&at["resource"]) + &sub,
                name: word(&at["name"]),
                code: entry["responseStatus"]["code"].as_u64().unwrap_or(0),
                message: word(&entry["responseStatus"]["message"]),
            })
        });
        let mut calls: Vec<Call> = calls.collect();
        calls.sort_by_key(|c| c.at);
        calls
    }
}

/// The most calls within any period of this length.
pub fn most_within(calls: &[Call], window: SignedDuration) -> usize {
    let within = |(n, first): (usize, &Call)| {
        calls[n..].iter().take_while(|c| c.at.duration_since(first.at) < window).count()
    };
    calls.iter().enumerate().map(within).max().unwrap_or(0)
}

/// The kinds of calls, and the number of each.
pub fn summary(calls: &[Call]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for call in calls {
        *counts.entry(call.short()).or_insert(0) += 1;
    }
    let all: Vec<String> = counts.into_iter().map(|(what, n)| format!("{n} x {what}")).collect();
    all.join(", ")
}
