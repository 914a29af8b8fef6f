//! What a source has to do with other sources over the same pods: one leader or several.
//!
//! Pure. Two sources over the same pods elect apart from each other, unless one takes the other's
//! leader (`zen-lead.io/same-leader-as`). Which pod leads is `decide`'s.

use k8s_openapi::api::core::v1::Service;

use super::verdict::{Neighbours, listed, selector};
use crate::index::LabelPairs;
use crate::keys::setting;
use crate::settings::violation::{annotation_field, quoted};
use crate::settings::{Cause, LeaderSpec, Rule, Violation};

/// What to write where two sources over the same pods are to have one leader.
const ADVICE: &str =
    "for one leader, set zen-lead.io/same-leader-as on one Service to the name of the other";

/// A source among the others of its namespace.
pub(super) struct Peer<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    pub(super) spec: &'a LeaderSpec,
}

/// What is found among the others.
#[derive(Default)]
struct PeersFound {
    /// The named Service is enabled.
    named: bool,
    /// Whose leader the named Service takes itself.
    next: Option<String>,
    /// The named Service selects the same pods, or fewer or more of them.
    named_overlaps: bool,
    /// Those that take the leader of this one.
    followers: Vec<String>,
    /// Those over the same pods with a leader of their own.
    apart: Vec<String>,
}

impl Peer<'_> {
    fn look(&self, others: &dyn Neighbours) -> PeersFound {
        let mut found = PeersFound::default();
        let wanted = self.spec.same_leader_as.as_deref();
        let leads_by = |name: &str, spec: &LeaderSpec| -> String {
            spec.same_leader_as.clone().unwrap_or_else(|| name.to_owned())
        };
        let own = leads_by(self.name, self.spec);
        others.each_source(self.namespace, &mut |name, selector, spec| {
            if name == self.name {
                return;
            }
            let overlaps = overlap(self.service, selector);
            if wanted == Some(name) {
                found.named = true;
                found.next.clone_from(&spec.same_leader_as);
                found.named_overlaps = overlaps;
            }
            if spec.same_leader_as.as_deref() == Some(self.name) {
                found.followers.push(name.to_owned());
            }
            if overlaps && leads_by(name, spec) != own {
                found.apart.push(name.to_owned());
            }
        });
        found.followers.sort_unstable();
        found.apart.sort_unstable();
        found
    }

    /// Refuses chains of Services that take each other's leader: at a circle no pod could lead.
    pub(super) fn violations(&self, others: &dyn Neighbours) -> Vec<Violation> {
        let Some(wanted) = &self.spec.same_leader_as else { return Vec::new() };
        let found = self.look(others);
        let refuse = |detail: String| {
            let field = annotation_field(setting::SAME_LEADER_AS);
            Violation::of_value(field, Rule::SameLeader, Cause::Invalid, wanted, detail)
        };
        let mut out = Vec::new();
        match found.next {
            Some(next) if next == self.name => out.push(refuse(format!(
                "Service {} takes the leader of this one already; keep one of the two annotations",
                quoted(wanted)
            ))),
            Some(next) => out.push(refuse(format!(
                "Service {} takes the leader of {}; write that name here",
                quoted(wanted),
                quoted(&next)
            ))),
            None => {}
        }
        let followers: Vec<_> = found.followers.into_iter().filter(|name| name != wanted).collect();
        if !followers.is_empty() {
            out.push(refuse(format!(
                "Service {} takes the leader of this one; write {} there too",
                listed(&followers),
                quoted(wanted)
            )));
        }
        out
    }

    /// Says that leaders may differ, or that the named Service has none.
    pub(super) fn warnings(&self, others: &dyn Neighbours) -> Vec<String> {
        let found = self.look(others);
        let mut out = Vec::new();
        if let Some(wanted) = &self.spec.same_leader_as {
            let name = quoted(wanted);
            match (found.named, found.named_overlaps) {
                (false, _) => {
                    out.push(format!(
                        "Service {name} is not enabled: no pod leads here before it is"
                    ));
                }
                (true, false) => out.push(format!(
                    "Service {name} selects other pods: this one has no leader while they differ"
                )),
                (true, true) => {}
            }
        }
        if let Some(first) = found.apart.first() {
            let more = match found.apart.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let name = quoted(first);
            out.push(format!(
                "Service {name}{more} selects the same pods, and its leader may differ"
            ));
            out.push(ADVICE.to_owned());
        }
        out
    }
}

/// Whether the selector of the Service takes in what the other one selects, or the other way round.
fn overlap(service: &Service, other: &LabelPairs) -> bool {
    let Some(own) = selector(service).filter(|own| !own.is_empty()) else { return false };
    let shared =
        other.iter().filter(|(key, value)| own.get(&**key).is_some_and(|of| **of == **value));
    let (shared, all) = (shared.count(), other.len());
    all > 0 && (shared == own.len() || shared == all)
}

#[cfg(test)]
mod tests;
