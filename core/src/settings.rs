//! What a user asked for on a Service: the one reading of the `zen-lead.io/` annotations.
//!
//! Used by admission, by the index and by `zen-lead lint`, so that what admission accepts the
//! controller can run. Pure: no other object is read here (collisions are `admission::verdict`'s).

pub mod duration;
mod labels;
pub mod owner;
pub mod provider;
mod report;
mod values;
pub mod violation;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube_core::ResourceExt;
use strum::{IntoStaticStr, VariantArray};

use crate::keys::{self, setting, status};
use crate::names::{MAX_SERVICE_NAME, NameRule};
pub use owner::{LeaderOf, leader_of};
use provider::CopyList;
pub use report::{idle_warnings, settings_json, warnings};
pub use values::{MAX_FAILOVER_DELAY, MAX_MIN_READY};
pub use violation::{Cause, Rule, Violation};
use violation::{annotation_field, label_field, quoted};

/// Most unknown keys that are named one by one; the rest are only counted.
const MAX_NAMED: usize = 16;

/// Order among the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Strategy {
    /// Newest revision first, then oldest pod, then name.
    #[default]
    OldestReady,
}

/// What happens to a named port that the leader does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum PortsMode {
    /// No endpoint at all: fail closed.
    #[default]
    Strict,
    /// That port is left out.
    Partial,
}

/// Type of the leader Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum LeaderType {
    /// A ClusterIP, whatever the source is.
    #[default]
    #[strum(serialize = "ClusterIP")]
    ClusterIp,
    /// The type of the source.
    Mirror,
}

/// The settings of an enabled source Service, with all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderSpec {
    /// Name of the leader Service; empty while the source itself has no name (generateName).
    pub leader_service_name: String,
    /// Order among the candidates.
    pub strategy: Strategy,
    /// Whether an eligible incumbent stays.
    pub sticky: bool,
    /// How long a pod must have been Ready before it may become leader.
    pub min_ready_duration: Duration,
    /// How long an incumbent that is only NotReady is kept.
    pub failover_min_delay: Duration,
    /// What happens to a named port the leader does not have.
    pub ports_mode: PortsMode,
    /// Type of the leader Service.
    pub leader_type: LeaderType,
    /// Annotation keys copied to the leader Service, sorted, without duplicates.
    pub copy_annotations: Vec<String>,
    /// Label keys copied to the leader Service, sorted, without duplicates.
    pub copy_labels: Vec<String>,
    /// The source whose leader this one takes.
    pub same_leader_as: Option<String>,
    /// No setting: provider annotations of a mirrored source that `copy_annotations` does not name.
    /// While there are any, the leader Service is not published.
    pub unnamed_provider_annotations: Vec<String>,
}

impl Default for LeaderSpec {
    /// As of a source that is only enabled, without a name.
    fn default() -> Self {
        Self {
            leader_service_name: String::new(),
            strategy: Strategy::default(),
            sticky: true,
            min_ready_duration: Duration::ZERO,
            failover_min_delay: Duration::ZERO,
            ports_mode: PortsMode::default(),
            leader_type: LeaderType::default(),
            copy_annotations: Vec::new(),
            copy_labels: Vec::new(),
            same_leader_as: None,
            unnamed_provider_annotations: Vec::new(),
        }
    }
}

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// No `zen-lead.io/` setting: none of our business.
    None,
    /// Has settings, all valid, but is not enabled.
    Off,
    /// Wants a leader Service.
    On(LeaderSpec),
}

/// Reads the annotations and the shape of a source Service.
///
/// Keys of [`status`] count neither as settings nor as unknown here: a leader Service has them, and
/// who may write them is [`status_key_violations`]' question.
///
/// # Errors
/// All violations at once, in the order of the documentation: settings, unknown keys, shape.
pub fn read(service: &Service, names: NameRule) -> Result<Intent, Vec<Violation>> {
    let annotations = service.annotations();
    let mut reader = AnnotationReader { annotations, violations: Vec::new() };
    if ours(annotations).all(|(key, _)| status::ALL.contains(&key)) {
        return Ok(Intent::None);
    }
    let own = service.metadata.name.as_deref().unwrap_or_default();
    let enabled = reader.setting(setting::ENABLED, values::boolean);
    let leader_service_name = reader
        .setting(setting::LEADER_SERVICE_NAME, |key, value| {
            values::leader_name(key, value, own, names)
        })
        .unwrap_or_else(|| default_leader_name(own));
    let strategy = reader.setting(setting::STRATEGY, values::choice).unwrap_or_default();
    let sticky = reader.setting(setting::STICKY, values::boolean).unwrap_or(true);
    let min_ready_duration = reader
        .setting(setting::MIN_READY_DURATION, |key, value| values::span(key, value, MAX_MIN_READY))
        .unwrap_or_default();
    let failover_min_delay = reader
        .setting(setting::FAILOVER_MIN_DELAY, |key, value| {
            values::span(key, value, MAX_FAILOVER_DELAY)
        })
        .unwrap_or_default();
    let ports_mode = reader.setting(setting::PORTS_MODE, values::choice).unwrap_or_default();
    let leader_type = reader.setting(setting::LEADER_TYPE, values::choice).unwrap_or_default();
    let copy = reader.setting(setting::COPY_ANNOTATIONS, CopyList::read).unwrap_or_default();
    let copy_labels = reader.setting(setting::COPY_LABELS, labels::read).unwrap_or_default();
    let same_leader_as = reader.setting(setting::SAME_LEADER_AS, |key, value| {
        values::other_source(key, value, own, names)
    });
    reader.unknown_keys();
    if enabled == Some(true) {
        reader.default_name(own);
        reader.shape(service);
    }
    if !reader.violations.is_empty() {
        return Err(reader.violations);
    }
    if enabled != Some(true) {
        return Ok(Intent::Off);
    }
    Ok(Intent::On(LeaderSpec {
        leader_service_name,
        strategy,
        sticky,
        min_ready_duration,
        failover_min_delay,
        ports_mode,
        leader_type,
        copy_annotations: copy.copied.into_iter().collect(),
        copy_labels: copy_labels.into_iter().collect(),
        same_leader_as,
        unnamed_provider_annotations: unnamed_provider_annotations(service),
    }))
}

/// Provider annotations of an enabled, mirrored source that its list of annotations to be copied does
/// not name, whatever else is wrong with it. None where that list itself is broken: that is one
/// mistake, not two.
pub fn unnamed_provider_annotations(service: &Service) -> Vec<String> {
    let annotations = service.annotations();
    let is = |key: &str, wanted: &str| annotations.get(key).is_some_and(|value| value == wanted);
    let mirrored = is(setting::LEADER_TYPE, LeaderType::Mirror.as_str()) && is_published(service);
    if !mirrored || !is_enabled(service) {
        return Vec::new();
    }
    let key = setting::COPY_ANNOTATIONS;
    let list =
        annotations.get(key).map_or_else(|| Ok(CopyList::default()), |v| CopyList::read(key, v));
    list.map(|list| list.unnamed(annotations)).unwrap_or_default()
}

/// Name of the leader Service when the user names none; empty for a Service without a name yet.
pub fn default_leader_name(service: &str) -> String {
    if service.is_empty() { String::new() } else { format!("{service}-leader") }
}

/// Whether the Service asks for a leader Service, valid or not.
pub fn is_enabled(service: &Service) -> bool {
    service.annotations().get(setting::ENABLED).is_some_and(|value| value == "true")
}

/// Name of the leader Service that an enabled Service asks for, even where another setting is
/// invalid; `None` when it is off, or has no valid name for it.
pub fn claimed_name(service: &Service, names: NameRule) -> Option<String> {
    if !is_enabled(service) {
        return None;
    }
    let own = service.metadata.name.as_deref().unwrap_or_default();
    let name = match service.annotations().get(setting::LEADER_SERVICE_NAME) {
        Some(name) if name == own => return None,
        Some(name) => name.clone(),
        None => default_leader_name(own),
    };
    names.fault(&name).is_none().then_some(name)
}

/// Status keys that `new` has and `old` has not, or not with this value: only zen-lead writes them.
///
/// Taking one away is not refused: it is repaired.
pub fn status_key_violations(old: Option<&Service>, new: &Service) -> Vec<Violation> {
    let mut changed: Vec<_> = ours(new.annotations())
        .filter(|(key, _)| status::ALL.contains(key))
        .filter(|(key, value)| old.and_then(|old| old.annotations().get(*key)) != Some(*value))
        .map(|(key, value)| (annotation_field(key), value))
        .collect();
    // An empty one as well: it names no source, and belongs on no Service of a user.
    let label = |service: &Service| service.labels().get(status::SOURCE_SERVICE).cloned();
    if let Some(value) = new.labels().get(status::SOURCE_SERVICE)
        && old.and_then(label).as_ref() != Some(value)
    {
        changed.push((label_field(status::SOURCE_SERVICE), value));
    }
    changed
        .into_iter()
        .map(|(field, value)| {
            let detail =
                "only zen-lead writes this key, on the leader Services it makes; remove it";
            Violation::of_value(field, Rule::StatusKey, Cause::Forbidden, value, detail)
        })
        .collect()
}

/// The label that a leader Service has: the name of its source. An empty one is none.
pub fn source_label(service: &Service) -> Option<&String> {
    service.labels().get(status::SOURCE_SERVICE).filter(|name| !name.is_empty())
}

/// The annotations that begin with [`keys::PREFIX`].
pub fn ours(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &String)> {
    annotations
        .range::<str, _>((Bound::Included(keys::PREFIX), Bound::Unbounded))
        .map(|(key, value)| (key.as_str(), value))
        .take_while(|(key, _)| key.starts_with(keys::PREFIX))
}

/// Whether the Service is reachable from outside of the cluster by its type.
fn is_published(service: &Service) -> bool {
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    matches!(type_, Some("NodePort" | "LoadBalancer"))
}

/// Collects values and violations.
struct AnnotationReader<'a> {
    annotations: &'a BTreeMap<String, String>,
    violations: Vec<Violation>,
}

impl AnnotationReader<'_> {
    /// Reads one setting; `None` when it is absent, or broken (then the violation is kept).
    fn setting<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str, &str) -> Result<T, Violation>,
    ) -> Option<T> {
        let value = self.annotations.get(key)?;
        read(key, value).map_err(|violation| self.violations.push(violation)).ok()
    }

    /// Refuses keys that do not exist.
    fn unknown_keys(&mut self) {
        let unknown = || {
            ours(self.annotations)
                .map(|(key, _)| key)
                .filter(|key| !setting::ALL.contains(key) && !status::ALL.contains(key))
        };
        let found: Vec<_> = unknown()
            .take(MAX_NAMED)
            .map(|key| {
                let hint = match provider::nearest_setting(key) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("the known keys are \"{}\"", setting::ALL.join("\", \"")),
                };
                let detail = format!("no such key; {hint}");
                let field = annotation_field(key);
                Violation::of_value(field, Rule::UnknownKey, Cause::NotSupported, key, detail)
            })
            .collect();
        let more = unknown().skip(MAX_NAMED).count();
        self.violations.extend(found);
        if more > 0 {
            self.violations.push(Violation::plain(
                "metadata.annotations",
                Rule::UnknownKey,
                Cause::NotSupported,
                format!("{more} more keys that begin with \"{}\" do not exist", keys::PREFIX),
            ));
        }
    }

    /// Refuses a default leader name that no Service can have.
    fn default_name(&mut self, own: &str) {
        let name = default_leader_name(own);
        if name.len() > MAX_SERVICE_NAME
            && !self.annotations.contains_key(setting::LEADER_SERVICE_NAME)
        {
            self.violations.push(Violation::plain(
                annotation_field(setting::LEADER_SERVICE_NAME),
                Rule::DefaultLeaderName,
                Cause::Required,
                format!(
                    "the default {} has {} characters, and a Service name at most \
                     {MAX_SERVICE_NAME}; set a shorter one here",
                    quoted(&name),
                    name.len()
                ),
            ));
        }
    }

    /// Refuses sources without pods to choose from, or without anything to route.
    fn shape(&mut self, service: &Service) {
        let spec = service.spec.as_ref();
        if let Some(source) = source_label(service) {
            self.violations.push(Violation::of_value(
                annotation_field(setting::ENABLED),
                Rule::SourceIsLeader,
                Cause::Invalid,
                "true",
                format!(
                    "this Service is itself the leader Service of {}; enable it there",
                    quoted(source)
                ),
            ));
            return;
        }
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            self.violations.push(Violation::of_value(
                "spec.type",
                Rule::ExternalName,
                Cause::Invalid,
                "ExternalName",
                "an ExternalName Service has no pods to choose a leader from; use \"ClusterIP\", \
                 \"NodePort\" or \"LoadBalancer\", or remove zen-lead.io/enabled",
            ));
            return;
        }
        if spec.and_then(|spec| spec.selector.as_ref()).is_none_or(BTreeMap::is_empty) {
            self.violations.push(Violation::plain(
                "spec.selector",
                Rule::NoSelector,
                Cause::Required,
                "the leader is chosen among the pods it matches; set it, or remove \
                 zen-lead.io/enabled",
            ));
        }
        if spec.and_then(|spec| spec.ports.as_ref()).is_none_or(Vec::is_empty) {
            self.violations.push(Violation::plain(
                "spec.ports",
                Rule::NoPorts,
                Cause::Required,
                "the leader Service has the ports of this one; set at least one, or remove \
                 zen-lead.io/enabled",
            ));
        }
    }
}

#[cfg(test)]
mod tests;
