//! What a step rests on and its write cannot compare was so at some time since its reconcile began. Each
//! object counts for itself: they are read one after the other.
//!
//! What a write does to those who are routed is `checks` and `kept`.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::Step;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::fixtures::api::{Server, Stored};
use zen_lead_core::index::evidence::slice_names;

use crate::checks::{Bad, bad};
use crate::describe::describe;
use crate::facts::{Asks, asks, has_address, healthy, leader_name, led_by, routed};
use crate::kept::readable;

/// The property, which a step breaks that rests on what was so before.
pub const FRESH: &str = "a step rests on what was so after its reconcile began";

/// The history since a version.
struct Since<'a> {
    server: &'a Server,
    version: u64,
}

impl Since<'_> {
    fn services(&self, name: &str, was: impl Fn(Option<&Service>) -> bool) -> bool {
        self.versions().any(|v| was(readable(&self.server.services, v).get(name)))
    }

    /// The slice was so, or not there.
    fn slices(&self, name: &str, was: impl Fn(&EndpointSlice) -> bool) -> bool {
        self.versions().any(|v| self.server.slices.at(v).get(name).is_none_or(&was))
    }

    fn pods(&self, uid: &str, was: impl Fn(&Pod) -> bool) -> bool {
        let fit = |v| readable(&self.server.pods, v).values().any(|p| p.id() == uid && was(p));
        self.versions().any(fit)
    }

    /// Versions at which something happened, and the first.
    fn versions(&self) -> impl Iterator<Item = u64> {
        self.version..=self.server.version
    }
}

/// The source asks for a leader Service of this name.
fn wants(source: Option<&Service>, leader: &str) -> bool {
    source.is_some_and(|s| {
        asks(s) == Asks::Leader
            && leader_name(s) == leader
            && s.metadata.deletion_timestamp.is_none()
    })
}

/// Checks a step of a reconcile for this source that began at this version.
pub fn fresh(server: &Server, version: u64, source: &str, step: &Step) -> Result<(), Bad> {
    let since = Since { server, version };
    let right = match step {
        Step::CreateLeader(made) => since.services(source, |s| wants(s, &made.name())),
        Step::DeleteLeader(target) => {
            let owned = |s: &EndpointSlice| {
                s.metadata.owner_references.iter().flatten().any(|o| o.uid == target.uid)
            };
            let empty = |name: &str| since.slices(name, |s| routed(s).is_none() || !owned(s));
            since.services(source, |s| !wants(s, &target.name))
                && slice_names(&target.name).iter().all(|name| empty(name))
        }
        Step::Slice(next) => match &next.write {
            SliceWrite::Create(slice) => {
                let name = slice.name();
                let leader = led_by(&name).unwrap_or_default();
                let family = slice.address_type.as_str();
                let fit = |p: &Pod| healthy(p) && has_address(p, family);
                since.services(leader, |l| l.is_some())
                    && routed(slice).is_none_or(|uid| since.pods(&uid, fit))
            }
            SliceWrite::Delete { name, .. } => {
                let leader = led_by(name).unwrap_or_default();
                let family = |l: &Service| {
                    let all = l.spec.as_ref().and_then(|s| s.ip_families.as_ref());
                    all.into_iter().flatten().any(|f| name.ends_with(&f.to_ascii_lowercase()))
                };
                since.services(source, |s| !wants(s, leader))
                    || since.services(leader, |l| !l.is_some_and(family))
            }
            SliceWrite::Replace(_) => true,
        },
        Step::PatchLeader(..) | Step::Mirror(..) | Step::SourceConditions(..) => true,
    };
    if right { Ok(()) } else { bad(FRESH, format!("{} since {version}", describe(step))) }
}
