//! Steps in one line, for traces.

use zen_lead_core::decide::Step;
use zen_lead_core::decide::slices::SliceWrite;
use zen_lead_core::keys::status;

/// A step in one line.
pub fn describe(step: &Step) -> String {
    match step {
        Step::Slice(next) => match &next.write {
            SliceWrite::Create(s) | SliceWrite::Replace(s) => {
                let a = s.metadata.annotations.clone().unwrap_or_default();
                let get = |k: &str| a.get(k).cloned().unwrap_or_default();
                let ends: Vec<_> = s
                    .endpoints
                    .iter()
                    .flatten()
                    .map(|e| {
                        let name = e.target_ref.as_ref().and_then(|t| t.name.clone());
                        let ready = e.conditions.as_ref().and_then(|c| c.ready);
                        format!("{} ready={}", name.unwrap_or_default(), ready.unwrap_or(true))
                    })
                    .collect();
                format!(
                    "slice {} {} over {} := [{}] epoch {} at {}",
                    s.metadata.name.clone().unwrap_or_default(),
                    get(status::LEADER_POD_NAME),
                    s.metadata.resource_version.clone().unwrap_or_else(|| "nothing".into()),
                    ends.join(", "),
                    get(status::LEADER_EPOCH),
                    get(status::DECIDED_AT),
                )
            }
            SliceWrite::Delete { name, .. } => format!("slice {name} := deleted"),
        },
        other => format!("{:?}", other.kind()),
    }
}
