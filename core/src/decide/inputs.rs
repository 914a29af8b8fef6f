//! What a step rests on that its write cannot compare: it is read by name just before, instead of the whole
//! namespace.
//!
//! The rest comes from the watches, as it does for every other step. Reading is the worker's business.

use std::collections::BTreeSet;

use serde_json::json;

use super::Step;
use super::slices::SliceWrite;
use crate::index::Snapshot;
use crate::index::evidence::slice_names;
use crate::ranking::hash;
use crate::version::Rv;

/// Names of the objects that are read before a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Services.
    pub services: BTreeSet<String>,
    /// EndpointSlices.
    pub slices: BTreeSet<String>,
    /// Pods.
    pub pods: BTreeSet<String>,
    /// They are for all steps that take leader Services of the source away, as long as the source is of this
    /// version, and not for one step.
    pub for_removal: Option<Rv>,
}

/// What was read by name in this reconcile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The step whose inputs were read just now, and their names, as a hash.
    pub step: Option<u64>,
    /// What the removal of leader Services rests on, for this version of the source.
    pub removal: Option<Rv>,
}

impl Verified {
    /// These were read for this step, and are as they are known.
    pub fn add(&mut self, inputs: &Inputs, step: &Step) {
        match inputs.for_removal {
            Some(source) => self.removal = Some(source),
            None => self.step = Some(inputs.for_step(step)),
        }
    }

    /// Whether these were read for this step.
    pub(super) fn covers(&self, inputs: &Inputs, step: &Step) -> bool {
        match inputs.for_removal {
            Some(source) => self.removal == Some(source),
            None => inputs.is_empty() || self.step == Some(inputs.for_step(step)),
        }
    }
}

impl Inputs {
    /// What this step rests on.
    ///
    /// - A leader Service is made for a source that still asks for it. That its name is free, the creation
    ///   itself says.
    /// - A slice is made for a leader Service that is there, with its last epoch, and for a pod that is fit.
    ///   That there is none yet, the creation itself says.
    /// - A leader Service or a slice is deleted for a source that does not ask for it, or where another one
    ///   routes already.
    pub fn of(snapshot: &Snapshot, step: &Step) -> Self {
        let mut inputs = Self::default();
        match step {
            Step::Slice(next) => inputs.add_slice(snapshot, &next.write),
            Step::CreateLeader(_) => _ = inputs.services.insert(snapshot.key.name.to_string()),
            Step::DeleteLeader(_) => return Self::of_removal(snapshot),
            Step::PatchLeader(..) | Step::Mirror(..) | Step::SourceConditions(..) => {}
        }
        inputs
    }

    /// What taking leader Services of a source away rests on.
    pub fn of_removal(snapshot: &Snapshot) -> Self {
        let mut inputs = Self { for_removal: Some(snapshot.source_version), ..Self::default() };
        inputs.services.insert(snapshot.key.name.to_string());
        for leader in &snapshot.leaders {
            inputs.services.insert(leader.name().to_owned());
            inputs.slices.extend(slice_names(leader.name()));
        }
        inputs
    }

    fn add_slice(&mut self, snapshot: &Snapshot, write: &SliceWrite) {
        match write {
            // It is compared and swapped.
            SliceWrite::Replace(_) => return,
            SliceWrite::Create(slice) => {
                let endpoints = slice.endpoints.iter().flatten();
                let pods = endpoints.filter_map(|e| e.target_ref.as_ref()?.name.clone());
                self.pods.extend(pods);
            }
            SliceWrite::Delete { name, .. } => {
                self.services.insert(snapshot.key.name.to_string());
                self.slices.insert(name.clone());
            }
        }
        let leaders = snapshot.leaders.iter().map(|leader| leader.name().to_owned());
        self.services.extend(leaders);
    }

    /// Hash of the step and of the names that are read for it.
    fn for_step(&self, step: &Step) -> u64 {
        let Self { services, slices, pods, .. } = self;
        hash(&[&step.content().to_string(), &json!([services, slices, pods]).to_string()])
    }

    /// Number of reads.
    pub fn len(&self) -> usize {
        self.services.len() + self.slices.len() + self.pods.len()
    }

    /// Nothing is to be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
