//! The verdict on a change of one Service, given a view on the others.
//!
//! Pure. Judges what the change adds: what was wrong before and is not touched is reconcile's to
//! report, because a webhook that refuses unrelated writes is in the way. Admission is advice;
//! names and collisions are checked again at write time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube_core::ResourceExt;

use super::peers::Peer;
use crate::decode;
use crate::index::LabelPairs;
use crate::index::view::Neighbour;
use crate::index::{Limit, Reached};
use crate::keys::{setting, status};
use crate::names::NameRule;
use crate::settings::violation::{annotation_field, quoted};
use crate::settings::{self, Cause, Intent, LeaderSpec, Rule, Violation};

/// Two such pods on one node are one address: a switch between them moves nothing.
const HOST_NETWORK: &str = "selected pods use hostNetwork: two of them on one node share an address, a switch moves nothing";

/// What is done to the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Create,
    /// It is changed, also through a subresource.
    Update,
}

/// One change of one Service.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is done.
    pub operation: Change,
    /// The Service before, for an update.
    pub old: Option<&'a Service>,
    /// The Service after.
    pub new: &'a Service,
    /// Namespace of the Service.
    pub namespace: &'a str,
    /// Name of the Service; empty while the API server has not made one (generateName).
    pub name: &'a str,
    /// Whether zen-lead itself is asking.
    pub by_zen_lead: bool,
}

/// The view on the other Services that collisions are judged from.
pub trait Neighbours {
    /// The Service of that name.
    fn service(&self, namespace: &str, name: &str) -> Option<Neighbour>;
    /// Names of all enabled sources in the namespace that ask for that leader name.
    fn claimants(&self, namespace: &str, leader_name: &str) -> Vec<String>;
    /// The enabled Services in the namespace, when there is no place for one more.
    fn services_at_limit(&self, namespace: &str) -> Option<Reached>;
    /// The pods that the Service selects, when they are known and too many.
    fn pods_beyond_limit(&self, _namespace: &str, _service: &Service) -> Option<Reached> {
        None
    }
    /// Whether all Services have been seen; before that nothing is refused for another's sake.
    fn synced(&self) -> bool;
    /// Visits the enabled, valid sources of the namespace: name, selector and settings.
    fn each_source(
        &self,
        _namespace: &str,
        _visit: &mut dyn FnMut(&str, &LabelPairs, &LeaderSpec),
    ) {
    }
    /// Whether a pod that the Service selects is known to share its node's address.
    fn on_host_network(&self, _namespace: &str, _service: &Service) -> bool {
        false
    }
}

/// What is wrong with a change (nothing: it is allowed), and what is unwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the change is refused; empty when it is allowed.
    pub violations: Vec<Violation>,
    /// What the user is told in either case, at most 120 characters each.
    pub warnings: Vec<String>,
}

/// Judges a change.
pub fn verdict(question: &Question<'_>, others: &dyn Neighbours, names: NameRule) -> Verdict {
    let Question { operation, old, new, by_zen_lead, .. } = *question;
    let old = old.filter(|_| operation == Change::Update);
    if by_zen_lead || new.metadata.deletion_timestamp.is_some() {
        return Verdict::default();
    }
    let mut violations = settings::status_key_violations(old, new);
    let changed = changed_settings(old, new);
    let respecified = settings::is_enabled(new) && old.is_some_and(|old| old.spec != new.spec);
    let opts_out = changed == [setting::ENABLED] && is_off(new);
    if old.is_some() && (opts_out || (changed.is_empty() && !respecified)) {
        let warnings = farewell(old, new, names).filter(|_| violations.is_empty());
        let warnings = warnings.into_iter().collect();
        return Verdict { violations, warnings };
    }
    let intent = settings::read(new, names);
    let mut warnings = match &intent {
        Ok(Intent::On(settings)) => settings::warnings(new, settings),
        Ok(Intent::Off) => settings::idle_warnings(new),
        Ok(Intent::None) | Err(_) => Vec::new(),
    };
    // Not compared with others: the caller decides how long that would take.
    let is_compared = decode::too_many(new).is_none();
    if is_compared
        && matches!(intent, Ok(Intent::On(_)))
        && others.on_host_network(question.namespace, new)
    {
        warnings.push(HOST_NETWORK.to_owned());
    }
    let peer = match &intent {
        Ok(Intent::On(spec)) if is_compared && others.synced() => {
            Some(Peer { namespace: question.namespace, name: question.name, service: new, spec })
        }
        _ => None,
    };
    let asks = [setting::ENABLED, setting::SAME_LEADER_AS];
    let asked = old.is_none() || asks.iter().any(|key| changed.contains(key));
    if let Some(peer) = peer.as_ref().filter(|_| asked) {
        violations.extend(peer.violations(others));
    }
    let unnamed = new_provider_annotations(old, new);
    if unnamed.is_empty() {
        warnings.extend(unpublished(new));
    }
    violations.extend(intent.as_ref().err().cloned().unwrap_or_default());
    violations.extend(settings::provider::unnamed_violation(&unnamed));
    if let (true, Some(old)) = (changed.is_empty(), old) {
        // Only the spec changed: what was wrong with it before is not this change's doing.
        let before = settings::read(old, names).err().unwrap_or_default();
        violations.retain(|violation| !before.contains(violation));
    } else {
        let (refusals, unsure) = collisions(question, others, names);
        violations.extend(refusals);
        warnings.extend(unsure);
    }
    if is_compared {
        violations.extend(too_many_pods(question, old, others));
    }
    // A value that is wrong says more.
    if violations.is_empty() {
        violations.extend(too_large(old, new));
    }
    if violations.is_empty() {
        let selects_anew = old.is_some_and(|old| selector(old) != selector(new));
        let peer = peer.as_ref().filter(|_| asked || selects_anew);
        warnings.extend(peer.map(|peer| peer.warnings(others)).unwrap_or_default());
        warnings.extend(farewell(old, new, names));
    }
    Verdict { violations, warnings }
}

/// Provider annotations without a name in `copy-annotations` that this change adds, alters, or has
/// matter: by turning on the Service, mirroring, or a type that is published. What was there before,
/// for example because a controller wrote it, is reconcile's to report.
fn new_provider_annotations(old: Option<&Service>, new: &Service) -> Vec<String> {
    let mut unnamed = settings::unnamed_provider_annotations(new);
    if let Some(old) = old {
        let before = settings::unnamed_provider_annotations(old);
        let is_changed = |key: &str| old.annotations().get(key) != new.annotations().get(key);
        unnamed.retain(|key| !before.contains(key) || is_changed(key));
    }
    unnamed
}

/// Says that the leader Service is not published for annotations that were there before.
fn unpublished(service: &Service) -> Option<String> {
    match settings::unnamed_provider_annotations(service).len() {
        0 => None,
        n => Some(format!(
            "the leader Service is not published anew: {n} provider annotations are not in \
             zen-lead.io/copy-annotations"
        )),
    }
}

/// The selector of a Service, where it has one.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref())
}

/// Keys of zen-lead, but for those it writes itself, that are new or have another value.
fn changed_settings<'a>(old: Option<&Service>, new: &'a Service) -> Vec<&'a str> {
    settings::ours(new.annotations())
        .filter(|(key, _)| !status::ALL.contains(key))
        .filter(|(key, value)| old.and_then(|old| old.annotations().get(*key)) != Some(*value))
        .map(|(key, _)| key)
        .collect()
}

/// Whether the Service says in so many words that it is off.
fn is_off(service: &Service) -> bool {
    service.annotations().get(setting::ENABLED).is_some_and(|value| value == "false")
}

/// Says that a leader Service goes away, when the change takes away its name.
fn farewell(old: Option<&Service>, new: &Service, names: NameRule) -> Option<String> {
    let before = settings::claimed_name(old?, names)?;
    let stays = settings::claimed_name(new, names).as_ref() == Some(&before);
    let text = || format!("leader Service {} goes away; its clients must move", quoted(&before));
    (!stays).then(text)
}

/// Refuses names that would put two Services in one place, and new work above the limit.
///
/// Also returns a warning when the view does not allow to say so.
fn collisions(
    question: &Question<'_>,
    others: &dyn Neighbours,
    names: NameRule,
) -> (Vec<Violation>, Option<String>) {
    let Question { operation, old, new, namespace, name, .. } = *question;
    let leader_name = settings::claimed_name(new, names);
    if leader_name.is_none() && operation == Change::Update {
        return (Vec::new(), None);
    }
    if !others.synced() {
        let warning = "zen-lead has just started and could not check for name collisions; \
                       a collision will be reported as an event";
        return (Vec::new(), leader_name.map(|_| warning.to_owned()));
    }
    let mut out = Vec::new();
    if let Some(leader_name) = &leader_name {
        out.extend(leader_name_taken(question, leader_name, others));
    }
    if operation == Change::Create && !name.is_empty() {
        let claimants = except(others.claimants(namespace, name), name);
        if !claimants.is_empty() {
            out.push(Violation::of_value(
                "metadata.name",
                Rule::OwnNameClaimed,
                Cause::Duplicate,
                name,
                format!(
                    "this is the name of the leader Service of {}; choose another name",
                    listed(&claimants)
                ),
            ));
        }
    }
    let is_leader = |old: &Service| {
        settings::source_label(old).is_some()
            || others.service(namespace, name).is_some_and(|own| own.leader_of.is_some())
    };
    let labelled = settings::source_label(new).is_some();
    // A label that is still there is refused by settings::read.
    if leader_name.is_some() && !labelled && old.is_some_and(is_leader) {
        out.push(Violation::of_value(
            annotation_field(setting::ENABLED),
            Rule::SourceIsLeader,
            Cause::Invalid,
            "true",
            "this Service is a leader Service that zen-lead made; enable its source instead",
        ));
    }
    if settings::is_enabled(new)
        && !old.is_some_and(settings::is_enabled)
        && let Some(Reached { found, bound }) = others.services_at_limit(namespace)
    {
        out.push(Violation::plain(
            annotation_field(setting::ENABLED),
            Rule::NamespaceLimit,
            Cause::Forbidden,
            format!(
                "namespace {} has {found} enabled Services, and zen-lead serves at most {bound} \
                 there; turn another one off, or ask who runs zen-lead for a higher {}",
                quoted(namespace),
                Limit::ServicesPerNamespace.flag()
            ),
        ));
    }
    (out, None)
}

/// Refuses to select more pods than zen-lead looks at: by turning the Service on, or by another
/// selector. Pods that come later are reconcile's to report.
fn too_many_pods(
    question: &Question<'_>,
    old: Option<&Service>,
    others: &dyn Neighbours,
) -> Option<Violation> {
    let Question { new, namespace, .. } = *question;
    let as_before =
        old.is_some_and(|old| settings::is_enabled(old) && selector(old) == selector(new));
    if !settings::is_enabled(new) || as_before || !others.synced() {
        return None;
    }
    let Reached { found, bound } = others.pods_beyond_limit(namespace, new)?;
    Some(Violation::plain(
        "spec.selector",
        Rule::PodLimit,
        Cause::TooMany,
        format!(
            "it matches {found} pods in namespace {}, and zen-lead takes Services of at most \
             {bound}; narrow the selector, or ask who runs zen-lead for a higher {}",
            quoted(namespace),
            Limit::PodsPerService.flag()
        ),
    ))
}

/// Refuses an enabled Service that could not be read, unless it was like that before.
fn too_large(old: Option<&Service>, new: &Service) -> Option<Violation> {
    let before =
        old.is_some_and(|old| settings::is_enabled(old) && decode::too_large(old).is_some());
    let why =
        Some(new).filter(|new| settings::is_enabled(new) && !before).and_then(decode::too_large)?;
    Some(Violation::plain("metadata", Rule::TooLarge, Cause::TooMany, why))
}

/// Refuses a leader name that a Service has, or another source asks for.
fn leader_name_taken(
    question: &Question<'_>,
    leader_name: &str,
    others: &dyn Neighbours,
) -> Option<Violation> {
    let Question { new, namespace, name, .. } = *question;
    let is_default = !new.annotations().contains_key(setting::LEADER_SERVICE_NAME);
    let advice =
        if is_default { "set another name with this annotation" } else { "choose another name" };
    let refuse = |rule, detail| {
        let field = annotation_field(setting::LEADER_SERVICE_NAME);
        Some(Violation::of_value(field, rule, Cause::Duplicate, leader_name, detail))
    };
    if let Some(taken) = others.service(namespace, leader_name) {
        match taken.leader_of {
            // Ours, or that of a source of this name that was deleted: it goes away with it.
            Some(leader) if leader.source == name => {}
            Some(leader) => {
                let source = quoted(&leader.source);
                let detail =
                    format!("this is the leader Service of Service {source} already; {advice}");
                return refuse(Rule::NameClaimed, detail);
            }
            None => {
                let detail = format!(
                    "Service {} exists in namespace {} and was not made by zen-lead; {advice}, or \
                     delete that Service first",
                    quoted(leader_name),
                    quoted(namespace)
                );
                return refuse(Rule::NameTaken, detail);
            }
        }
    }
    let claimants = except(others.claimants(namespace, leader_name), name);
    if claimants.is_empty() {
        return None;
    }
    let detail =
        format!("asked for as leader name by Service {} already; {advice}", listed(&claimants));
    refuse(Rule::NameClaimed, detail)
}

/// The names without the Service's own, in order.
fn except(mut names: Vec<String>, own: &str) -> Vec<String> {
    names.retain(|name| name != own);
    names.sort_unstable();
    names
}

/// Up to three names in quotes, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(3).map(|name| quoted(name)).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
