//! One open watch of the fake API server: what it sends, and when it ends.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::super::store::{Entry, Place, selects};
use super::{FakeApi, Signal, bookmark, status};
use crate::platform::clock::monotonic;

/// One open watch.
pub(super) struct Watching {
    pub(super) api: FakeApi,
    pub(super) place: Place,
    pub(super) labels: String,
    pub(super) fields: String,
    pub(super) from: u64,
    pub(super) sent: u64,
    pub(super) cursor: usize,
    pub(super) skip_raw: usize,
    pub(super) opened: u64,
    pub(super) ends: tokio::time::Instant,
    pub(super) bookmarked: bool,
    pub(super) over: bool,
    pub(super) signal: watch::Receiver<Signal>,
}

impl Watching {
    pub(super) async fn next(&mut self) -> Option<std::io::Result<String>> {
        loop {
            if self.over {
                return None;
            }
            let signal = *self.signal.borrow_and_update();
            if signal.muted > self.opened {
                // The connection is dead; only its client can end it.
                std::future::pending::<()>().await;
            }
            if signal.ended > self.opened {
                self.over = true;
                let error = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut");
                return signal.reset.then_some(Err(error));
            }
            if let Some(line) = self.pending() {
                return Some(Ok(line + "\n"));
            }
            let now = monotonic();
            if now >= self.ends {
                return None;
            }
            // As the watch cache does: a bookmark two seconds before the end.
            let bookmark_at = self.ends - Duration::from_secs(2).min(self.ends - now);
            if !self.bookmarked && now >= bookmark_at {
                self.bookmarked = true;
                let version = self.api.version().max(self.sent);
                return Some(Ok(bookmark(version) + "\n"));
            }
            let until = if self.bookmarked { self.ends } else { bookmark_at };
            tokio::select! {
                _ = self.signal.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The next line that has not been sent.
    fn pending(&mut self) -> Option<String> {
        let store = self.api.inner.store.lock();
        if self.from < store.compacted && self.sent == self.from {
            self.over = true;
            let status = status((410, "Expired", "too old resource version".into()));
            return Some(json!({"type": "ERROR", "object": status}).to_string());
        }
        while let Some(entry) = store.history(&self.place.resource).get(self.cursor) {
            self.cursor += 1;
            match entry {
                Entry::Void => {}
                Entry::Raw(_) if self.skip_raw > 0 => self.skip_raw -= 1,
                Entry::Raw(line) => return Some(line.clone()),
                Entry::Changed { version, change, object } => {
                    let namespace = object["metadata"]["namespace"].as_str();
                    let here = self.place.namespace.as_deref().is_none_or(|n| namespace == Some(n));
                    if *version > self.from && here && selects(&self.labels, &self.fields, object) {
                        self.sent = *version;
                        return Some(
                            json!({"type": change.as_str(), "object": object}).to_string(),
                        );
                    }
                }
            }
        }
        None
    }
}
