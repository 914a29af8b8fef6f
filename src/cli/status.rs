//! `zen-lead status`: the leader Services of the cluster, as a table or as JSON.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use crate::config::Output;
use crate::decide::mirror;
use crate::decode::Decoded;
use crate::events::Reason;
use crate::index::service::own_conditions;
use crate::keys::status::SOURCE_SERVICE;
use crate::retry::{self, Caller, Operation, Target};

/// One leader Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Namespace.
    pub namespace: String,
    /// Source Service.
    pub service: String,
    /// Leader Service.
    pub leader_service: String,
    /// Pod that leads, empty when none does.
    pub leader: String,
    /// Whether a leader is routed.
    pub ready: bool,
    /// Since when (RFC 3339), empty when never.
    pub since: String,
    /// Reason of the condition.
    pub reason: String,
}

/// Reads and prints the leader Services.
///
/// # Errors
/// When the API server cannot be read.
pub async fn run(
    client: Client,
    caller: &Caller,
    namespace: Option<&str>,
    output: Output,
) -> anyhow::Result<String> {
    let api: Api<Decoded<Service>> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let ours = ListParams::default().labels(SOURCE_SERVICE);
    let about = Target::own(namespace.unwrap_or("of all namespaces"));
    let services = retry::call(caller, Operation::ListServices, about, || api.list(&ours)).await;
    let services =
        services.context("cannot read the leader Services with the rights of your kubeconfig")?;
    let rows: Vec<Row> = services.items.iter().map(row).collect();
    match output {
        Output::Table => Ok(table(&rows)),
        Output::Json => Ok(serde_json::to_string_pretty(&rows)? + "\n"),
    }
}

fn row(leader: &Decoded<Service>) -> Row {
    let leader = match leader {
        Decoded::Object(leader) => leader,
        // Its metadata say whose it is, and nothing whether a leader is routed.
        Decoded::Unreadable(found) => {
            let leader = Service { metadata: found.metadata.clone(), ..Service::default() };
            let reason = Reason::Unreadable.as_str().to_owned();
            return Row { reason, ..row(&leader.into()) };
        }
    };
    let meta = &leader.metadata;
    let truth = mirror::read(leader);
    let condition = own_conditions(leader).next();
    let ready = condition.is_some_and(|c| c.status == "True");
    let source = meta.labels.as_ref().and_then(|l| l.get(SOURCE_SERVICE)).cloned();
    Row {
        namespace: meta.namespace.clone().unwrap_or_default(),
        service: source.unwrap_or_default(),
        leader_service: meta.name.clone().unwrap_or_default(),
        leader: truth.pod_name.filter(|_| ready).unwrap_or_default(),
        ready,
        since: truth.switched_at.map(|t| t.to_string()).unwrap_or_default(),
        reason: condition.map(|c| c.reason.clone()).unwrap_or_default(),
    }
}

fn table(rows: &[Row]) -> String {
    let header = ["NAMESPACE", "SERVICE", "LEADER SERVICE", "LEADER", "READY", "SINCE", "REASON"];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.iter().map(|r| {
        let ready = r.ready.to_string();
        let row =
            [&r.namespace, &r.service, &r.leader_service, &r.leader, &ready, &r.since, &r.reason];
        row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.clone() })
    }));
    let width = |column: usize| lines.iter().map(|l| l[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let pad = |line: &[String; 7]| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_service_that_cannot_be_read_is_named_and_said_to_be_so() {
        let leader: Decoded<Service> = serde_json::from_value(serde_json::json!({
            "metadata": {
                "namespace": "shop", "name": "db-leader",
                "labels": {"zen-lead.io/source-service": "db"},
                "annotations": {"zen-lead.io/leader-pod-name": "db-0"},
            },
            "spec": {"ports": "x"},
        }))
        .unwrap();
        let text = table(&[row(&leader)]);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["shop", "db", "db-leader", "-", "false", "-", "Unreadable"]);
    }

    #[test]
    fn the_table_names_leader_and_reason_and_marks_what_is_missing() {
        let leader: Service = serde_json::from_value(serde_json::json!({
            "metadata": {
                "namespace": "shop", "name": "db-leader",
                "labels": {"zen-lead.io/source-service": "db"},
                "annotations": {
                    "zen-lead.io/leader-pod-name": "db-0",
                    "zen-lead.io/leader-last-switch-time": "2026-01-02T03:04:05Z",
                },
            },
            "status": {"conditions": [{
                "type": "zen-lead.io/LeaderReady", "status": "False", "reason": "NoReadyPods",
                "message": "db-0: not Ready", "lastTransitionTime": "2026-01-02T03:04:05Z",
            }]},
        }))
        .unwrap();
        let text = table(&[row(&leader.into())]);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let want = ["shop", "db", "db-leader", "-", "false", "2026-01-02T03:04:05Z", "NoReadyPods"];
        assert_eq!(cells, want);
    }
}
