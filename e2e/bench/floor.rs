//! The floor of a burst: plain clients that write the same statuses and the same slices, without a
//! controller for these objects. docs/decisions/floors-of-measurements.md says what is the same and what
//! is not.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;

use super::copies::{PLAIN, Template};
use super::fill::{Fill, Led, WRITERS, together};
use super::lost::{Burst, back, lose};
use super::plain::PlainSlice;
use super::raw::SliceWatch;
use crate::support::case::Case;

/// Pods and slices without a controller.
pub struct Floor {
    /// The pod of each slice.
    pods: HashMap<Led, String>,
    slices: HashMap<Led, Arc<Mutex<PlainSlice>>>,
}

impl Floor {
    /// This many hollow pods, each with a Service without a selector and a slice as zen-lead writes it.
    pub async fn make(t: &Case, template: &Template, size: usize, namespaces: usize) -> Self {
        let mut fill = Fill::unled(t.world.clone(), "floor", false);
        fill.grow(size, 1, namespaces).await;
        // As zen-lead, a client of their own.
        let client = t.world.cluster.admin().await;
        let make = |(namespace, service): Led| {
            let pod = format!("{service}-0");
            let body = template.slice(&service, &pod);
            let client = client.clone();
            async move {
                let slice = PlainSlice::create(client, &namespace, &body).await;
                ((namespace, service), pod, slice)
            }
        };
        let all = together(fill.sources().into_iter().map(make).collect()).await;
        let (mut pods, mut slices) = (HashMap::new(), HashMap::new());
        for (key, pod, slice) in all {
            pods.insert(key.clone(), pod);
            slices.insert(key, Arc::new(Mutex::new(slice)));
        }
        Self { pods, slices }
    }

    /// The statuses are written as in a burst, and after each answer the slice, [`WRITERS`] of either at
    /// the same time. Afterwards everything is as before.
    pub async fn burst(&self, t: &Case) -> Burst {
        let client = t.admin();
        let mut watch = SliceWatch::start(&client, PLAIN).await;
        let (send, answered) = unbounded_channel();
        let queue = futures::stream::unfold(answered, |mut answered| async {
            answered.recv().await.map(|key| (key, answered))
        });
        let putting = queue
            .map(|key| {
                let put = self.put(&key, "-next");
                async { tokio::spawn(put).await.unwrap() }
            })
            .buffer_unordered(WRITERS)
            .for_each(|()| async {});
        let losing = lose(&client, &self.pods, &mut watch, Some(send));
        let (burst, ()) = futures::join!(losing, putting);
        back(&client, &self.pods).await;
        let keys: Vec<Led> = self.pods.keys().cloned().collect();
        together(keys.iter().map(|key| self.put(key, "")).collect()).await;
        burst
    }

    /// Routes a slice to its pod, or to one with another end of the name.
    fn put(&self, key: &Led, end: &str) -> impl Future<Output = ()> + use<> {
        let (slice, pod) = (self.slices[key].clone(), format!("{}{end}", self.pods[key]));
        async move { slice.lock().await.put(&pod).await }
    }
}
