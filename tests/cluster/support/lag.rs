//! An API server with late watches: their events are delayed, by kind.
//!
//! Lists and single reads are not delayed: they are consistent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream::{StreamExt, unfold};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How far behind the watches are. An event that a watch repeats is as old as when it was first
/// seen: a watch that begins again does not begin its delay again.
#[derive(Default)]
pub struct Lag {
    by: Mutex<HashMap<String, Duration>>,
    first_seen: Mutex<HashMap<(String, String), Instant>>,
}

/// An event, and when it is to be passed on.
type Due = (Instant, Bytes);

impl Lag {
    /// From now on, events of this resource (`pods`, …) come this much later. A watch that begins while its
    /// resource is not delayed never is.
    pub fn set(&self, resource: &str, by: Duration) {
        self.by.lock().unwrap().insert(resource.to_owned(), by);
    }

    /// The body of a watch of `resource`, delayed as set.
    pub fn delay(self: &Arc<Self>, resource: &str, body: Body) -> Body {
        if self.of(resource).is_none() {
            return body;
        }
        let (events, waiting) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(());
        let (lag, resource) = (self.clone(), resource.to_owned());
        tokio::spawn(async move {
            lag.read(&resource, body, &events).await;
            // The end of a watch is not delayed: the next watch brings the remaining events.
            drop(end);
        });
        Body::from_stream(unfold((waiting, ended), next))
    }

    fn of(&self, resource: &str) -> Option<Duration> {
        self.by.lock().unwrap().get(resource).copied()
    }

    async fn read(&self, resource: &str, body: Body, events: &mpsc::UnboundedSender<Due>) {
        let mut stream = body.into_data_stream();
        let mut buffer = Vec::new();
        while let Some(Ok(chunk)) = stream.next().await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let due = self.seen(resource, &line) + self.of(resource).unwrap_or_default();
                if events.send((due, line.into())).is_err() {
                    return;
                }
            }
        }
    }

    /// When an event was seen first.
    fn seen(&self, resource: &str, line: &[u8]) -> Instant {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let key = (resource.to_owned(), version.to_owned());
        *self.first_seen.lock().unwrap().entry(key).or_insert_with(Instant::now)
    }
}

type Stream = (mpsc::UnboundedReceiver<Due>, watch::Receiver<()>);

async fn next((mut waiting, mut ended): Stream) -> Option<(Result<Bytes, String>, Stream)> {
    let event = async {
        let (due, line) = waiting.recv().await?;
        sleep_until(due).await;
        Some(line)
    };
    let line = tokio::select! {
        line = event => line?,
        _ = ended.changed() => return None,
    };
    Some((Ok(line), (waiting, ended)))
}
