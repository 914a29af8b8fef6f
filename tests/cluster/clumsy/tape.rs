//! Every version of the Services, slices and pods of a namespace, with the time it was seen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::raw::{Hand, Kind};

/// A version; for a deletion, the last state.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub kind: Kind,
    pub object: Value,
    pub deleted: bool,
}

/// Records until it is dropped.
pub struct Tape {
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Tape {
    pub fn start(hand: &Hand) -> Self {
        let seen = Arc::default();
        let kinds = [Kind::Service, Kind::Slice, Kind::Pod];
        let tasks = kinds.map(|kind| tokio::spawn(follow(hand.clone(), kind, Arc::clone(&seen))));
        Self { seen, tasks: tasks.into() }
    }

    /// All so far, in the order in which the API server wrote them: the watches of the kinds may be behind
    /// each other. (resourceVersions of one server can be compared: KEP-5504.)
    pub fn all(&self) -> Vec<Seen> {
        let mut all = self.seen.lock().unwrap().clone();
        all.sort_by_key(|seen| {
            let version = seen.object["metadata"]["resourceVersion"].as_str();
            version.and_then(|v| v.parse::<u64>().ok()).unwrap_or_default()
        });
        all
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn follow(hand: Hand, kind: Kind, seen: Arc<Mutex<Vec<Seen>>>) {
    // From the beginning: the namespace is new.
    let mut from = "0".to_owned();
    loop {
        let path = format!("{}?watch=true&resourceVersion={from}", kind.path(&hand.ns));
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        if let Ok(stream) = hand.client.request_stream(request).await {
            let mut lines = stream.lines();
            while let Ok(Some(line)) = lines.try_next().await {
                let Ok(mut event) = serde_json::from_str::<Value>(&line) else { break };
                let object = event["object"].take();
                let Some(version) = object["metadata"]["resourceVersion"].as_str() else { break };
                version.clone_into(&mut from);
                let deleted = event["type"] == "DELETED";
                seen.lock().unwrap().push(Seen { at: Instant::now(), kind, object, deleted });
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
