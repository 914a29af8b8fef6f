//! Many leaders lost at once, and when each slice followed. Who moves the slices is of no matter here:
//! zen-lead, or the plain clients of `floor`.

use std::collections::HashMap;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};

use super::fill::{Led, together};
use super::measure::{Sample, between, count, ms};
use super::raw::{SliceWatch, write_ready};

/// The longest time between two moved slices.
const PATIENCE: Duration = Duration::from_mins(2);

/// What happened, and when.
pub struct Burst {
    pub began: Instant,
    /// Begin and end of the write that made each leader NotReady.
    written: HashMap<Led, (Instant, Instant)>,
    /// When the slice was seen with another pod.
    moved: HashMap<Led, Instant>,
}

/// Turns all these pods NotReady, as many at the same time as `together` takes, until each slice routes to another pod. Each
/// answered write is reported to `answered`.
pub async fn lose(
    client: &Client,
    leaders: &HashMap<Led, String>,
    slices: &mut SliceWatch,
    answered: Option<UnboundedSender<Led>>,
) -> Burst {
    let began = Instant::now();
    let write = |(key, pod): (Led, String)| {
        let (client, answered) = (client.clone(), answered.clone());
        async move {
            let times = write_ready(&client, &key.0, &pod, false).await;
            if let Some(answered) = answered {
                answered.send(key.clone()).unwrap();
            }
            (key, times)
        }
    };
    let writing = together(leaders.clone().into_iter().map(write).collect());
    // The tasks have copies: when the last of them ends, the receiver does.
    drop(answered);
    let moving = async {
        let mut moved = HashMap::new();
        while moved.len() < leaders.len() {
            let Ok(seen) = timeout(PATIENCE, slices.next()).await else { break };
            let key = (seen.namespace, seen.service);
            if leaders.get(&key).is_some_and(|old| seen.ready.len() == 1 && seen.ready[0] != *old) {
                moved.entry(key).or_insert(seen.at);
            }
        }
        moved
    };
    let (written, moved) = futures::join!(writing, moving);
    assert_eq!(moved.len(), leaders.len(), "leaders that were moved");
    Burst { began, written: written.into_iter().collect(), moved }
}

/// Makes the pods ready again.
pub async fn back(client: &Client, leaders: &HashMap<Led, String>) {
    let write = |((namespace, _), pod): (Led, String)| {
        let client = client.clone();
        async move { write_ready(&client, &namespace, &pod, true).await }
    };
    together(leaders.clone().into_iter().map(write).collect()).await;
}

impl Burst {
    /// The end of the last write.
    pub fn end(&self) -> Instant {
        self.written.values().map(|(_, ended)| *ended).max().unwrap()
    }

    /// When the last slice was seen.
    pub fn last(&self) -> Instant {
        *self.moved.values().max().unwrap()
    }

    /// ms from the begin of the first write until the last slice was seen.
    pub fn start_to_last(&self) -> f64 {
        ms(self.last() - self.began)
    }

    /// ms of each write.
    pub fn writes(&self) -> Sample {
        Sample::of(self.written.values().map(|(began, ended)| ms(*ended - *began)).collect())
    }

    /// ms from the end of each write until its slice was seen.
    pub fn delays(&self) -> Sample {
        self.delays_of(&self.moved)
    }

    /// The same for others that follow the same pods.
    pub fn delays_of(&self, seen: &HashMap<Led, Instant>) -> Sample {
        Sample::of(seen.iter().map(|(key, at)| between(self.written[key].1, *at)).collect())
    }

    pub fn curve(&self) -> Vec<(f64, f64)> {
        self.curve_of(self.moved.values())
    }

    /// How many had been seen by how many ms after the begin.
    pub fn curve_of<'a>(&self, seen: impl Iterator<Item = &'a Instant>) -> Vec<(f64, f64)> {
        let mut times: Vec<f64> = seen.map(|at| between(self.began, *at)).collect();
        times.sort_by(f64::total_cmp);
        let points = times.into_iter().enumerate().map(|(before, ms)| (ms, count(before + 1)));
        std::iter::once((0.0, 0.0)).chain(points).collect()
    }
}
