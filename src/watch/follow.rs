//! One watch request: from its opening to its end, and what that end means.
//!
//! Waiting and starting again is the loop's business (`watch`).

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{WatchEvent, WatchParams};
use kube::core::Status;

use super::{Restart, Sink, Watch, Watched, times};
use crate::clock::monotonic;
use crate::retry::{retry_after, with_causes};
use crate::version::Rv;

/// How a watch ended.
pub(super) enum End {
    /// As planned; the next one goes on from where it was.
    Planned,
    /// It cannot go on from where it was.
    Relist(Restart),
    /// It may go on from where it was, after a pause.
    Failed { reason: Restart, message: String, retry_after: Option<Duration> },
}

impl<K: Watched, S: Sink<K>> Watch<K, S> {
    /// Watches once from `version`, and leaves there how far it came.
    pub(super) async fn watch_once(&mut self, version: &mut Rv) -> End {
        let seconds = jittered();
        let params = WatchParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let opened = monotonic();
        let deadline = opened + Duration::from_secs(seconds.into()) + times::GRACE;
        let from = version.to_string();
        let open = tokio::time::timeout_at(opened + times::OPEN, self.api.watch(&params, &from));
        let events = match self.pulse.or_lose(open, || self.sink.lost()).await {
            Err(_) => return silent(times::OPEN),
            Ok(Err(error)) => return failed(error),
            Ok(Ok(events)) => events,
        };
        let mut events = pin!(events);
        // Silence is good news once the backlog must have come; before, it says nothing.
        let mut settles = Some(monotonic() + times::SETTLED);
        loop {
            let until = settles.map_or(deadline, |at| at.min(deadline));
            let next = tokio::time::timeout_at(until, events.next());
            match self.pulse.or_lose(next, || self.sink.lost()).await {
                Err(_) if settles.take().is_some() => self.heard(*version),
                Err(_) => return silent(monotonic() - opened),
                Ok(None) if settles.is_none() => return End::Planned,
                // Ended at once and without news: not a planned end, whatever it looks like.
                Ok(None) => return broken("the watch ended as soon as it began".into()),
                Ok(Some(Ok(event))) => {
                    if let Some(end) = self.deliver(event, version) {
                        return end;
                    }
                    settles = None;
                }
                Ok(Some(Err(kube::Error::SerdeError(error)))) => self.malformed(&error.to_string()),
                Ok(Some(Err(kube::Error::Api(status)))) if is_no_status(&status) => {
                    self.malformed("an event that is not of the watched type");
                }
                Ok(Some(Err(error))) => return failed(error),
            }
        }
    }

    /// Passes an event on to the sink; returns the end if it is one.
    fn deliver(&mut self, event: WatchEvent<K>, version: &mut Rv) -> Option<End> {
        let (object, deleted) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                let Some(marked) = Rv::parse(&bookmark.metadata.resource_version) else {
                    self.malformed("a bookmark without a version");
                    return None;
                };
                if marked < *version {
                    return Some(End::Relist(Restart::History));
                }
                *version = marked;
                self.sink.heard(marked);
                self.heard(marked);
                return None;
            }
            WatchEvent::Error(status) => return Some(refused(&status)),
        };
        let Some(written) = object.meta().resource_version.as_deref().and_then(Rv::parse) else {
            let name = object.meta().name.as_deref().unwrap_or_default();
            self.malformed(&format!("{name:?} has no version"));
            return None;
        };
        if written < *version {
            // Versions only grow within a watch, unless the cluster was set back under it.
            return Some(End::Relist(Restart::History));
        }
        *version = written;
        let kept = self.sink.trim(object);
        if deleted {
            self.sink.delete(kept, written);
        } else {
            self.sink.apply(kept, written);
        }
        // Only now, so that a position that is read is never ahead of what the sink has.
        self.heard(written);
        None
    }
}

fn failed(error: kube::Error) -> End {
    match error {
        kube::Error::Api(status) => refused(&status),
        error => broken(with_causes(&error)),
    }
}

fn refused(status: &Status) -> End {
    // "Expired" is what the watch cache says, "Gone" the storage behind it.
    if status.code == 410 || status.reason == "Expired" || status.reason == "Gone" {
        return End::Relist(Restart::Gone);
    }
    let reason = match status.code {
        429 => Restart::Throttled,
        400..=499 => Restart::Refused,
        _ => Restart::Server,
    };
    let message = format!("HTTP {} {}: {}", status.code, status.reason, status.message);
    End::Failed { reason, message, retry_after: retry_after(status) }
}

/// kube takes every line that it cannot read as an event, but that is a JSON object, for a Status,
/// since all fields of a Status are optional (kube-client 5.0.0, `Client::request_events`). One
/// that says nothing is such a line; starting again would only meet it again.
fn is_no_status(status: &Status) -> bool {
    status.code == 0 && status.status.is_none() && status.reason.is_empty()
}

fn broken(message: String) -> End {
    End::Failed { reason: Restart::Connection, message, retry_after: None }
}

fn silent(after: Duration) -> End {
    let message = format!("nothing was heard for {after:?}");
    End::Failed { reason: Restart::Silent, message, retry_after: None }
}

/// A length for a watch. `RandomState` has a new key each time, which is random enough here.
fn jittered() -> u32 {
    let (low, high) = (*times::WATCH_SECONDS.start(), *times::WATCH_SECONDS.end());
    let random = RandomState::new().hash_one(0) % u64::from(high - low + 1);
    low + u32::try_from(random).expect("less than the span of a u32")
}
