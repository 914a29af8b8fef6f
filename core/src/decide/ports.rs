//! The ports of the leader's slice: Service ports resolved to numbers for one pod.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::index::pod::Pod;
use crate::settings::PortsMode;

/// The ports for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Ports {
    /// To be published.
    Resolved {
        /// Ports of the slice, in the order of the Service.
        ports: Vec<EndpointPort>,
        /// Named target ports the pod does not have (only with ports-mode partial).
        missing: Vec<String>,
    },
    /// Nothing may be published: these named target ports are missing.
    Failed {
        /// Names of the missing target ports.
        missing: Vec<String>,
    },
}

impl Ports {
    /// Names of the target ports the pod does not have.
    pub fn missing(&self) -> &[String] {
        match self {
            Self::Resolved { missing, .. } | Self::Failed { missing } => missing,
        }
    }
}

/// Resolves the source's ports for a pod.
pub fn resolve(source: &Service, pod: &Pod, mode: PortsMode) -> Ports {
    let mut ports = Vec::new();
    let mut missing = Vec::new();
    for port in source.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
        match number(port, pod) {
            Ok(number) => ports.push(endpoint_port(port, number)),
            Err(name) => missing.push(name),
        }
    }
    let nothing_left = ports.is_empty();
    if !missing.is_empty() && (mode == PortsMode::Strict || nothing_left) {
        return Ports::Failed { missing };
    }
    Ports::Resolved { ports, missing }
}

/// The ports of a slice without an endpoint: those known without a pod.
pub fn without_pod(source: &Service) -> Vec<EndpointPort> {
    let ports = source.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.filter_map(|p| fixed(p).map(|n| endpoint_port(p, n))).collect()
}

fn fixed(port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) => None,
    }
}

/// By name and protocol, as the built-in controller's `FindPort` does.
fn number(port: &ServicePort, pod: &Pod) -> Result<i32, String> {
    if let Some(number) = fixed(port) {
        return Ok(number);
    }
    let Some(IntOrString::String(name)) = &port.target_port else { return Ok(port.port) };
    let protocol = protocol(port);
    pod.template
        .ports
        .iter()
        .find(|p| *p.name == **name && *p.protocol == *protocol)
        .map(|p| i32::from(p.number))
        .ok_or_else(|| format!("{name}/{protocol}"))
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol(port).to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests;
