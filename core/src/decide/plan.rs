//! What a decision is made of: steps in their order, and what was found on the way.
//!
//! Parts of a plan are made apart and added; no part reads another. Which step is done is `decide`'s.

use jiff::Timestamp;

use super::Step;
use super::elect::{self, Choice};
use crate::index::Limit;
use crate::report::ServiceReport;
use crate::version::Marks;

/// Steps in their order, and what was found on the way.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "findings that do not depend on each other")]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The furthest marks on the slices that were looked at.
    pub(super) marks: Marks,
    /// A newer version of zen-lead wrote what is there: only pods are taken out.
    pub(super) outranked: bool,
    /// The replicas of that newer version are gone.
    pub(super) may_take_over: bool,
    /// The Services seen here are ahead of the slices: read before writing.
    pub(super) doubtful: bool,
    /// It takes leader Services away, which rests on objects that are read by name.
    pub(super) removes: bool,
    /// When a timer runs out.
    pub(super) again_at: Option<Timestamp>,
    pub(super) report: Option<ServiceReport>,
    /// The election of the leader Service that the report is about, and the ports its leader lacks.
    pub(super) choice: Option<Choice>,
    pub(super) missing_ports: Vec<String>,
    /// The bound that keeps the source from being served as it asks.
    pub(super) refused_by: Option<Limit>,
}

impl Plan {
    /// What another part found, after what is here. The first report counts.
    pub(super) fn add(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.marks = self.marks.max(other.marks);
        self.outranked |= other.outranked;
        self.may_take_over |= other.may_take_over;
        self.doubtful |= other.doubtful;
        self.removes |= other.removes;
        self.again_at = elect::earliest(self.again_at, other.again_at);
        if self.report.is_none() {
            self.report = other.report;
            self.choice = other.choice;
            self.missing_ports = other.missing_ports;
        }
        self.refused_by = self.refused_by.or(other.refused_by);
    }
}
