//! Every version of every slice of a namespace, as the API server stored them, and the rules that hold in
//! all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::case::{Routed, annotation, epoch, routed};
use super::names;
use super::waiting::{check, until};

/// Watches until it is finished.
pub struct Recorder {
    api: Api<EndpointSlice>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// A version of a slice; a deletion keeps the last state.
#[derive(Clone, Debug)]
pub struct Seen {
    pub slice: EndpointSlice,
    pub deleted: bool,
}

impl Recorder {
    pub async fn start(api: Api<EndpointSlice>) -> Self {
        let list = api.list(&ListParams::default()).await.unwrap();
        let first = list.items.into_iter().map(|slice| Seen { slice, deleted: false }).collect();
        let seen = Arc::new(Mutex::new(first));
        let from = list.metadata.resource_version.unwrap();
        let task = tokio::spawn(follow(api.clone(), from, seen.clone()));
        Self { api, seen, task }
    }

    /// Stops after it has seen everything that exists now and the deletion of everything else.
    pub async fn finish(self) -> History {
        until("the recorder has caught up", || async {
            let list = self.api.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let seen = self.seen.lock().unwrap();
            let missing = list.items.iter().find(|slice| {
                !seen.iter().any(|s| s.slice.resource_version() == slice.resource_version())
            });
            check(missing.is_none(), format!("not seen: {missing:?}"))?;
            let ends: BTreeMap<String, bool> =
                seen.iter().map(|s| (s.slice.name_any(), s.deleted)).collect();
            let ended = ends.iter().find(|(name, deleted)| {
                !**deleted && !list.items.iter().any(|slice| slice.name_any() == **name)
            });
            check(ended.is_none(), format!("its end is not seen: {ended:?}"))
        })
        .await;
        self.task.abort();
        History(std::mem::take(&mut *self.seen.lock().unwrap()))
    }
}

async fn follow(api: Api<EndpointSlice>, mut from: String, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), &from).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        pin_mut!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (slice, deleted) = match event {
                WatchEvent::Added(s) | WatchEvent::Modified(s) => (s, false),
                WatchEvent::Deleted(s) => (s, true),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
            };
            from = slice.resource_version().unwrap();
            seen.lock().unwrap().push(Seen { slice, deleted });
        }
    }
}

/// What was recorded, in order.
pub struct History(pub Vec<Seen>);

impl History {
    fn of<'a>(&'a self, leader: &'a str, family: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().filter(move |s| {
            s.slice.labels().get(names::SERVICE_NAME).map(String::as_str) == Some(leader)
                && s.slice.labels().get(names::SLICE_MANAGED_BY).map(String::as_str)
                    == Some("zen-lead")
                && s.slice.address_type == family
        })
    }

    /// Number of versions (deletions not counted) of the IPv4 slice of a leader Service.
    pub fn versions(&self, leader: &str) -> usize {
        self.of(leader, "IPv4").filter(|s| !s.deleted).count()
    }

    /// What the versions of a slice routed to, one after the other, repetitions left out.
    pub fn states(&self, leader: &str, family: &str) -> Vec<Vec<Routed>> {
        let mut states: Vec<Vec<Routed>> = self
            .of(leader, family)
            .map(|s| if s.deleted { Vec::new() } else { routed(&s.slice) })
            .collect();
        states.dedup();
        states
    }

    /// The pods that were ready in the IPv4 slice, one after the other.
    pub fn leaders(&self, leader: &str) -> Vec<String> {
        let ready = self.states(leader, "IPv4").into_iter().flatten().filter(|r| r.ready);
        let mut pods: Vec<String> = ready.map(|r| r.pod).collect();
        pods.dedup();
        pods
    }

    /// The times at which a pod became leader, as the IPv4 slice says, one after the other.
    pub fn switches(&self, leader: &str) -> Vec<String> {
        let all = self.of(leader, "IPv4").map(|s| annotation(&s.slice, names::SWITCHED_AT));
        let mut times: Vec<String> = all.filter(|t| !t.is_empty()).collect();
        times.dedup();
        times
    }

    /// Never two pods with ready other than false in the slices of one family, and epochs only grow.
    pub fn holds(&self, leader: &str) {
        for family in ["IPv4", "IPv6"] {
            let mut present: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let mut last = 0;
            for seen in self.of(leader, family) {
                let uids = seen
                    .slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
                let uids: BTreeSet<String> = uids
                    .filter_map(|e| e.target_ref.as_ref().and_then(|t| t.uid.clone()))
                    .collect();
                let name = seen.slice.name_any();
                let now = epoch(&seen.slice);
                assert!(now >= last, "epoch of {name} fell from {last} to {now}");
                last = now;
                if seen.deleted {
                    present.remove(&name);
                } else {
                    present.insert(name, uids);
                }
                let all: BTreeSet<_> = present.values().flatten().collect();
                assert!(all.len() <= 1, "two pods are ready in {family}: {present:?}");
            }
        }
    }

    /// From the first leader on, the IPv4 slice always had a ready pod.
    pub fn never_empty(&self, leader: &str) {
        let states = self.states(leader, "IPv4");
        let led = states.iter().skip_while(|s| !s.iter().any(|r| r.ready));
        for state in led {
            assert!(state.iter().any(|r| r.ready), "no pod was ready in between: {states:?}");
        }
    }

    /// At no moment did the two families name different ready pods.
    pub fn never_two_across_families(&self, leader: &str) {
        self.families(leader, 0);
    }

    /// A lost leader stays in the second family for the time of one write, and no longer.
    pub fn families_agree(&self, leader: &str) {
        self.families(leader, 1);
    }

    /// The families name different ready pods for at most so many versions in a row.
    fn families(&self, leader: &str, most: usize) {
        let mut present: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let ours = |s: &&Seen| {
            s.slice.labels().get(names::SERVICE_NAME).map(String::as_str) == Some(leader)
        };
        let mut differ = 0;
        for seen in self.0.iter().filter(ours) {
            let ready = routed(&seen.slice).into_iter().filter(|r| r.ready && !seen.deleted);
            present.insert(&seen.slice.address_type, ready.map(|r| r.pod).collect());
            let all: BTreeSet<_> = present.values().flatten().collect();
            differ = if all.len() > 1 { differ + 1 } else { 0 };
            assert!(differ <= most, "two pods at once, for {differ} versions: {present:?}");
        }
    }
}
