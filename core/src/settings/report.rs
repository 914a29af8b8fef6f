//! What is told about a valid Service: its effective settings, and what is legal but unwise.
//!
//! Nothing is refused here. A warning keeps to 120 characters, as the API server's documentation asks.

use k8s_openapi::api::core::v1::Service;
use kube_core::ResourceExt;
use serde::Serialize;

use super::values;
use super::{LeaderSpec, LeaderType, PortsMode, Strategy, is_published};
use crate::keys::{PREFIX, setting, status};

/// The settings as they are written on the leader Service; fields in the order of the documentation.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SettingsJson<'a> {
    leader_service_name: &'a str,
    strategy: &'static str,
    sticky: bool,
    min_ready_duration: String,
    failover_min_delay: String,
    ports_mode: &'static str,
    leader_type: &'static str,
    copy_annotations: &'a [String],
    copy_labels: &'a [String],
    same_leader_as: &'a str,
}

/// The effective settings as JSON, always in the same order, durations as Go writes them.
pub fn settings_json(spec: &LeaderSpec) -> String {
    let settings = SettingsJson {
        leader_service_name: &spec.leader_service_name,
        strategy: spec.strategy.as_str(),
        sticky: spec.sticky,
        min_ready_duration: values::format(spec.min_ready_duration),
        failover_min_delay: values::format(spec.failover_min_delay),
        ports_mode: spec.ports_mode.as_str(),
        leader_type: spec.leader_type.as_str(),
        copy_annotations: &spec.copy_annotations,
        copy_labels: &spec.copy_labels,
        same_leader_as: spec.same_leader_as.as_deref().unwrap_or_default(),
    };
    serde_json::to_string(&settings).expect("strings and booleans are always JSON")
}

/// What is legal on an enabled Service but unwise or without effect.
pub fn warnings(service: &Service, spec: &LeaderSpec) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut warn = |text: &str| out.push(text.to_owned());
    let source = service.spec.as_ref();
    let mirrored = spec.leader_type == LeaderType::Mirror && is_published(service);
    if !spec.sticky {
        warn(
            "zen-lead.io/sticky is false: connections stay with a leader that was replaced while it was healthy",
        );
    }
    if source.and_then(|s| s.internal_traffic_policy.as_deref()) == Some("Local") {
        warn(
            "spec.internalTrafficPolicy is Local: only clients on the leader's node will be answered",
        );
    }
    if mirrored && source.and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local") {
        warn(
            "spec.externalTrafficPolicy is Local: from outside, only the leader's node will answer",
        );
    }
    if source.and_then(|s| s.publish_not_ready_addresses) == Some(true) {
        warn("spec.publishNotReadyAddresses is ignored: only a ready pod can lead");
    }
    if source.and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        warn("the Service is headless; its leader Service gets a cluster IP");
    }
    if spec.leader_type == LeaderType::Mirror && !mirrored {
        warn("zen-lead.io/leader-type mirror has no effect: the Service is of type ClusterIP");
    }
    for (kind, keys, present) in [
        ("annotations", &spec.copy_annotations, service.annotations()),
        ("labels", &spec.copy_labels, service.labels()),
    ] {
        let absent = keys.iter().filter(|key| !present.contains_key(*key)).count();
        if absent > 0 {
            warn(&format!(
                "zen-lead.io/copy-{kind} names {absent} {kind} that the Service does not have"
            ));
        }
    }
    out.extend(label_warnings(service));
    out
}

/// What is without effect on a Service that is not enabled.
pub fn idle_warnings(service: &Service) -> Vec<String> {
    let annotations = service.annotations();
    let mut out = Vec::new();
    if !annotations.contains_key(setting::ENABLED) && super::ours(annotations).next().is_some() {
        out.push(
            "zen-lead.io annotations have no effect without zen-lead.io/enabled: \"true\"".into(),
        );
    }
    out.extend(label_warnings(service));
    out
}

/// SettingsJson written as labels, where no part of zen-lead reads them.
fn label_warnings(service: &Service) -> Option<String> {
    let labels = service.labels();
    let mut ours = labels.keys().filter(|k| k.starts_with(PREFIX) && *k != status::SOURCE_SERVICE);
    let key: String = ours.next()?.chars().take(60).collect();
    Some(format!("label {key} has no effect; settings are annotations"))
}

crate::texts!(Strategy, PortsMode, LeaderType);
