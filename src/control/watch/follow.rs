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
use crate::platform::api::{self, retry_after, whole_ms, with_causes};
use crate::platform::clock::monotonic;
use crate::platform::operation::{Operation, Target};
use zen_lead_core::version::Rv;

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
            label_selector: self.selector.label_selector.clone(),
            field_selector: self.selector.field_selector.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let opened = monotonic();
        let deadline = opened + Duration::from_secs(seconds.into()) + times::GRACE;
        let from = version.to_string();
        let (operation, url) = (self.kind.watch(), self.api.resource_url().to_owned());
        let open = api::attempt(
            &self.caller,
            operation,
            Target::own(&url),
            &mut self.failed,
            times::OPEN,
            self.api.watch(&params, &from),
        );
        let call = (operation, url.as_str());
        let events = match self.pulse.or_lose(open).await {
            Err(_) => return silent(call, times::OPEN),
            Ok(Err(error)) => return failed(call, error),
            Ok(Ok(events)) => events,
        };
        let mut events = pin!(events);
        // Silence is good news once the backlog must have come; before, it says nothing.
        let mut settles = Some(monotonic() + times::SETTLED);
        loop {
            let until = settles.map_or(deadline, |at| at.min(deadline));
            let next = tokio::time::timeout_at(until, events.next());
            match self.pulse.or_lose(next).await {
                Err(_) if settles.take().is_some() => self.watched(*version),
                Err(_) => {
                    self.caller.metrics.timeout(operation.as_str());
                    return silent(call, monotonic() - opened);
                }
                Ok(None) if settles.is_none() => return End::Planned,
                // Ended at once and without news: not a planned end, whatever it looks like.
                Ok(None) => return broken(call, "ended as soon as it began"),
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
                Ok(Some(Err(error))) => return failed(call, error),
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
                self.watched(marked);
                return None;
            }
            WatchEvent::Error(status) => {
                let call = (self.kind.watch(), self.api.resource_url());
                return Some(refused(call, &status));
            }
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
        let object = object.trimmed();
        if let Some(error) = object.unreadable().filter(|_| !deleted) {
            self.malformed(&error);
        }
        let kept = self.sink.trim(object);
        if deleted {
            self.sink.delete(kept, written);
        } else {
            self.sink.apply(kept, written);
        }
        // Only now, so that a position that is read is never ahead of what the sink has.
        self.watched(written);
        None
    }
}

/// What was watched, for messages.
pub(super) type WatchCall<'a> = (Operation, &'a str);

fn failed(call: WatchCall<'_>, error: kube::Error) -> End {
    match error {
        kube::Error::Api(status) => refused(call, &status),
        error => broken(call, &with_causes(&error)),
    }
}

pub(super) fn refused((operation, url): WatchCall<'_>, status: &Status) -> End {
    // "Expired" is what the watch cache says, "Gone" the storage behind it.
    if status.code == 410 || status.reason == "Expired" || status.reason == "Gone" {
        return End::Relist(Restart::Gone);
    }
    let (reason, advice) = match status.code {
        429 => (Restart::Throttled, ""),
        401 | 403 => {
            (Restart::Refused, " (is the ClusterRole of zen-lead the one of this version?)")
        }
        400..=499 => (Restart::Refused, ""),
        _ => (Restart::Server, ""),
    };
    let Status { code, reason: word, message, .. } = status;
    let message = format!("{operation} {url}: refused with HTTP {code} {word}{advice}: {message}");
    End::Failed { reason, message, retry_after: retry_after(status) }
}

/// kube takes every line that it cannot read as an event, but that is a JSON object, for a Status,
/// since all fields of a Status are optional (kube-client 5.0.0, `Client::request_events`). One
/// that says nothing is such a line; starting again would only meet it again.
fn is_no_status(status: &Status) -> bool {
    status.code == 0 && status.status.is_none() && status.reason.is_empty()
}

pub(super) fn broken((operation, url): WatchCall<'_>, message: &str) -> End {
    let message = format!("{operation} {url}: the connection broke: {message}");
    End::Failed { reason: Restart::Connection, message, retry_after: None }
}

pub(super) fn silent((operation, url): WatchCall<'_>, after: Duration) -> End {
    let after = whole_ms(after);
    let message = format!("{operation} {url}: nothing was heard from the API server for {after:?}");
    End::Failed { reason: Restart::Silent, message, retry_after: None }
}

/// A length for a watch. `RandomState` has a new key each time, which is random enough here.
fn jittered() -> u32 {
    let (low, high) = (*times::WATCH_SECONDS.start(), *times::WATCH_SECONDS.end());
    let random = RandomState::new().hash_one(0) % u64::from(high - low + 1);
    low + u32::try_from(random).expect("less than the span of a u32")
}
