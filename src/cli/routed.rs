//! What EndpointSlices route to, and what conditions say, for `explain` and `status`.
//!
//! Reads objects as they are on the server. The two commands decide whether they are right.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use zen_lead_core::index::service::own_conditions;
use zen_lead_core::keys;
use zen_lead_core::reason::Reason;

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the slice.
    pub slice: String,
    /// Address family, as Kubernetes writes it.
    pub family: String,
    /// Name of the pod, or the address if the slice names no pod.
    pub pod: String,
    /// Uid of the pod, if the slice has it.
    pub uid: Option<String>,
    /// New connections go there. A missing condition means ready (API reference, EndpointConditions).
    pub ready: bool,
    /// The pod is being deleted.
    pub terminating: bool,
}

impl Endpoint {
    /// Its state as text.
    pub fn state(&self) -> &'static str {
        match (self.ready, self.terminating) {
            (true, _) => "ready",
            (false, true) => "not ready, terminating",
            (false, false) => "not ready",
        }
    }
}

/// The endpoints of a slice.
pub fn endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    let name = slice.metadata.name.clone().unwrap_or_default();
    let one = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let pod = endpoint.target_ref.as_ref();
        let address = endpoint.addresses.first().cloned().unwrap_or_default();
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        Endpoint {
            slice: name.clone(),
            family: slice.address_type.clone(),
            pod: pod.and_then(|pod| pod.name.clone()).unwrap_or(address),
            uid: pod.and_then(|pod| pod.uid.clone()),
            ready: conditions.ready != Some(false),
            terminating: conditions.terminating == Some(true),
        }
    };
    slice.endpoints.iter().flatten().map(one).collect()
}

/// Names of the pods that new connections go to, without duplicates.
pub fn routed(endpoints: &[Endpoint]) -> Vec<&str> {
    let mut names: Vec<&str> =
        endpoints.iter().filter(|e| e.ready).map(|e| e.pod.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The condition LeaderReady of a Service.
pub fn leader_ready(service: &Service) -> Option<&Condition> {
    own_conditions(service).find(|c| c.type_ == keys::CONDITION_LEADER_READY)
}

/// How the condition and annotations of a leader Service contradict its slices; `None` if they agree.
pub fn contradiction(leader: &Service, routed: &[&str]) -> Option<String> {
    let name = leader.metadata.name.as_deref().unwrap_or_default();
    let Some(condition) = leader_ready(leader) else {
        return Some(format!("Service {name} has no condition LeaderReady"));
    };
    let named = leader.annotations().get(keys::status::CURRENT_LEADER);
    let named = named.map(|n| n.rsplit('/').next().unwrap_or_default()).unwrap_or_default();
    let now = if routed.is_empty() { "no pod".to_owned() } else { routed.join(", ") };
    let pods = [Reason::NoPodsFound, Reason::NoReadyPods, Reason::PortResolutionFailed];
    let (says, reason) = (condition.status.as_str(), condition.reason.as_str());
    if says == "True" && routed.is_empty() {
        return Some(format!("Service {name} says LeaderReady is True, but no pod is routed"));
    }
    if says != "True" && !routed.is_empty() && pods.iter().any(|r| r.as_str() == reason) {
        return Some(format!("Service {name} says LeaderReady is {says}, but {now} is routed"));
    }
    // While LeaderReady is not True, the annotation names no pod.
    let expected = if says == "True" { routed } else { &[] };
    if expected != [named] && !(expected.is_empty() && named.is_empty()) {
        let named = if named.is_empty() { "no pod" } else { named };
        let key = keys::status::CURRENT_LEADER;
        return Some(format!("Service {name} names {named} in {key}, but {now} is routed"));
    }
    None
}
