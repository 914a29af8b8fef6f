//! A state of a small world as a number: two states with the same number behave the same way.
//!
//! Versions and epochs are only compared, so only their order counts; uids only distinguish objects.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::Step;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::index::Snapshot;
use zen_lead_core::index::snapshot::SourceState;
use zen_lead_core::keys::status;
use zen_lead_core::version::{Marks, Rv};

use crate::checks::Ledger;
use crate::facts::text;
use crate::replica::Replica;
use zen_lead_core::fixtures::api::{Answer, Event, Server, Stored};

enum Token {
    Plain(u64),
    Version(u64),
    Epoch(u64),
    Uid(String),
}

#[derive(Default)]
struct Tokens(Vec<Token>);

/// The number of a state.
pub fn digest(server: &Server, replicas: &[Replica], ledger: &Ledger) -> u64 {
    let mut tokens = Tokens::default();
    for service in server.services.now.values() {
        tokens.service(service);
    }
    for slice in server.slices.now.values() {
        tokens.slice(slice);
    }
    // The check of a write looks up earlier states of pods.
    for (version, event) in server.pods.log.iter() {
        tokens.0.push(Token::Version(*version));
        match event {
            Event::Set(pod) => tokens.pod(pod),
            Event::Gone(pod) => tokens.named("gone", &pod.id(), pod.metadata.name.as_deref()),
        }
    }
    let mut reach: Vec<_> = ledger.reach.iter().collect();
    reach.sort_by_key(|(uid, _)| *uid);
    for (uid, marks) in reach {
        tokens.0.push(Token::Uid(uid.clone()));
        tokens.marks(marks);
    }
    for replica in replicas {
        replica.visit(server, &mut |part| tokens.part(&part));
    }
    tokens.finish()
}

/// A part of what a replica knows or is about to do.
pub enum Part<'a> {
    Flags(u64),
    View(&'a Snapshot),
    Slices(&'a [EndpointSlice], u64),
    Pending(&'a Step, &'a Marks, &'a Snapshot),
    Text(&'a str),
    Answer(&'a Answer),
}

impl Tokens {
    fn part(&mut self, part: &Part<'_>) {
        match part {
            Part::Flags(flags) => self.plain(flags),
            Part::Text(text) => self.plain(*text),
            Part::View(view) => self.view(view),
            Part::Answer(answer) => match answer {
                Answer::Service(service) => self.service(service),
                Answer::Slice(slice) => self.slice(slice),
                Answer::ServiceGone(gone) => self.named("gone", &gone.id(), None),
                Answer::SliceGone(gone) => self.named("gone", &gone.id(), None),
            },
            Part::Slices(slices, version) => {
                self.0.push(Token::Version(*version));
                for slice in *slices {
                    self.slice(slice);
                }
            }
            Part::Pending(step, reach, view) => {
                self.marks(reach);
                self.marks(&view.marks);
                self.plain(&view.consistent);
                for pod in &view.pods {
                    self.named("seen", &pod.uid, None);
                }
                self.step(step);
            }
        }
    }

    fn plain<T: Hash + ?Sized>(&mut self, value: &T) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        self.0.push(Token::Plain(hasher.finish()));
    }

    fn named(&mut self, kind: &str, uid: &str, name: Option<&str>) {
        self.plain(&(kind, name));
        self.0.push(Token::Uid(uid.to_owned()));
    }

    fn marks(&mut self, marks: &Marks) {
        self.0.extend([marks.services.0, marks.pods.0].map(Token::Version));
    }

    fn service(&mut self, service: &Service) {
        self.named("service", &service.id(), service.metadata.name.as_deref());
        self.0.push(Token::Version(Rv::of(&service.metadata).0));
        let set = |key: &str| text(&service.metadata, key);
        self.plain(&[
            set(zen_lead_core::keys::setting::STICKY),
            set(zen_lead_core::keys::setting::ENABLED),
        ]);
        self.plain(&service.spec.as_ref().and_then(|s| s.selector.clone()));
        self.0.push(Token::Epoch(set(status::LEADER_EPOCH).parse().unwrap_or(0)));
        self.0.push(Token::Uid(set(status::LEADER_POD_UID)));
    }

    fn pod(&mut self, pod: &Pod) {
        self.named("pod", &pod.id(), pod.metadata.name.as_deref());
        let status = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = status.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        self.plain(&(ready, pod.metadata.deletion_timestamp.is_some()));
        self.plain(&pod.metadata.labels);
    }

    fn slice(&mut self, slice: &EndpointSlice) {
        let meta = &slice.metadata;
        self.named("slice", meta.uid.as_deref().unwrap_or_default(), meta.name.as_deref());
        self.0.push(Token::Version(Rv::of(meta).0));
        for endpoint in slice.endpoints.iter().flatten() {
            let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref());
            self.named("endpoint", uid.unwrap_or_default(), None);
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            self.plain(&(conditions.ready, conditions.serving, conditions.terminating));
        }
        self.0.push(Token::Epoch(text(meta, status::LEADER_EPOCH).parse().unwrap_or(0)));
        self.0.push(Token::Uid(text(meta, status::LEADER_POD_UID)));
        self.marks(&Marks::parse(&text(meta, status::DECIDED_AT)));
        self.plain(&[text(meta, status::ASKED), text(meta, status::WRITER)]);
        // The id of a write is its writer and the version it was written over.
        let id = text(meta, status::WRITE_ID);
        let (writer, over) = id.rsplit_once('-').unwrap_or_default();
        self.plain(writer);
        self.0.push(Token::Version(over.parse().unwrap_or(0)));
    }

    fn view(&mut self, view: &Snapshot) {
        self.plain(&(view.consistent, view.pods_known));
        self.marks(&view.marks);
        if let SourceState::Judged { source, .. } = &view.source {
            self.service(&source.object);
        }
        for leader in &view.leaders {
            self.service(&leader.object);
        }
        let mut pods: Vec<_> = view.pods.iter().chain(&view.deselected).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        for pod in pods {
            self.named("pod", &pod.uid, None);
            self.0.push(Token::Version(pod.version.0));
        }
        let mut slices: Vec<_> = view.slices.iter().collect();
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        for slice in slices {
            match &slice.object {
                Some(object) => self.slice(object),
                None => self.named("foreign", &slice.uid, None),
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Slice(next) => match &next.write {
                SliceWrite::Create(slice) => {
                    self.plain("create");
                    self.slice(slice);
                }
                SliceWrite::Replace(slice) => {
                    self.plain("replace");
                    self.slice(slice);
                }
                SliceWrite::Delete { uid, version, .. } => {
                    self.named("delete", uid, None);
                    self.0.push(Token::Version(version.parse().unwrap_or(0)));
                }
            },
            other => self.plain(&format!("{other:?}")),
        }
    }

    fn finish(self) -> u64 {
        let order = |pick: &dyn Fn(&Token) -> Option<u64>| -> HashMap<u64, usize> {
            // A replica that has seen nothing stays below every version.
            let all: BTreeSet<u64> = self.0.iter().filter_map(pick).chain([0]).collect();
            all.into_iter().enumerate().map(|(rank, value)| (value, rank)).collect()
        };
        let versions = order(&|t| if let Token::Version(v) = t { Some(*v) } else { None });
        let epochs = order(&|t| if let Token::Epoch(e) = t { Some(*e) } else { None });
        let mut uids: HashMap<&str, usize> = HashMap::new();
        let mut hasher = DefaultHasher::new();
        for token in &self.0 {
            let (kind, value) = match token {
                Token::Plain(value) => (0, *value),
                Token::Version(v) => (1, versions[v] as u64),
                Token::Epoch(e) => (2, epochs[e] as u64),
                Token::Uid(uid) => {
                    let next = uids.len();
                    (3, *uids.entry(uid).or_insert(next) as u64)
                }
            };
            (kind, value).hash(&mut hasher);
        }
        hasher.finish()
    }
}
