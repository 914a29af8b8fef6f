//! Connects the webhook router to the core's admission: the index view under a read lock, labels as text.
//!
//! No rules (those are the core's `settings` and `admission`) and no HTTP (`webhook`).

use std::sync::Arc;

use crate::platform::metrics::Metrics;
use crate::shared::{SharedIndex, SharedView};
use crate::webhook::Reviewer;
use zen_lead_core::admission::{self, Judged, Path, ReviewError};
use zen_lead_core::index::Limit;
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::settings::Rule;

/// Longest name shown, in characters: the limit of Kubernetes for most names.
const MAX_SHOWN: usize = 253;

/// Reviews with the rules of the core.
pub struct Verdicts {
    index: SharedIndex,
    synced: Box<dyn Fn() -> bool + Send + Sync>,
    names: NameRule,
    username: String,
    metrics: Arc<Metrics>,
}

impl Verdicts {
    /// `synced` returns whether all Services are known and up to date; `username` is the user name
    /// that zen-lead writes as.
    pub fn new(
        index: SharedIndex,
        synced: Box<dyn Fn() -> bool + Send + Sync>,
        names: NameRule,
        username: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { index, synced, names, username, metrics }
    }
}

impl Reviewer for Verdicts {
    fn review(&self, path: Path, body: &[u8]) -> Result<Judged, ReviewError> {
        let synced = (self.synced)();
        let view = SharedView { index: &self.index, synced };
        let mut judged = admission::judge(path, body, &view, self.names, &self.username)?;
        let ServiceKey { namespace, name } = &judged.service;
        judged.service = ServiceKey::new(cut(namespace), cut(name));
        judged.uid = cut(&judged.uid).to_owned();
        judged.user = cut(&judged.user).to_owned();
        if !judged.rules.is_empty() {
            tracing::info!(
                service = %judged.service,
                uid = judged.uid,
                rules = ?judged.rules.iter().map(|r| r.as_str()).collect::<Vec<_>>(),
                "refused at admission"
            );
        }
        if !judged.dry_run {
            let refused_by = judged.rules.iter().filter_map(|rule| limit_of(*rule));
            refused_by.for_each(|limit| self.metrics.limit_refusal(limit.as_str()));
        }
        Ok(judged)
    }
}

/// Shortens a text for logs and traces: the API server has not validated it yet.
fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_SHOWN).map_or(text, |(end, _)| &text[..end])
}

/// The bound that a rule enforces, if it enforces one.
fn limit_of(rule: Rule) -> Option<Limit> {
    match rule {
        Rule::NamespaceLimit => Some(Limit::ServicesPerNamespace),
        Rule::PodLimit => Some(Limit::PodsPerService),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use parking_lot::RwLock;
    use serde_json::json;

    use super::*;
    use zen_lead_core::fixtures::{NAMESPACE, ServiceFixture, service};
    use zen_lead_core::index::{Index, Limits};

    fn verdicts() -> (SharedIndex, Verdicts) {
        let index = Arc::new(RwLock::new(Index::new(NameRule::Dns1123, Limits::default())));
        let metrics = Arc::new(Metrics::new().unwrap());
        let verdicts = Verdicts::new(
            Arc::clone(&index),
            Box::new(|| true),
            NameRule::Dns1123,
            "system:serviceaccount:zen:zen-lead".into(),
            metrics,
        );
        (index, verdicts)
    }

    #[test]
    fn a_body_is_read_without_the_index() {
        let (index, verdicts) = verdicts();
        let writing = index.write();
        let (said, heard) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            let refused = verdicts.review(Path::Validate, b"[1,").unwrap_err();
            said.send(refused.as_str()).unwrap();
        });
        // A reviewer that takes the lock first would wait until the timeout.
        let reason = heard.recv_timeout(Duration::from_secs(20));
        drop(writing);
        reading.join().unwrap();
        assert_eq!(reason, Ok("malformed"));
    }

    /// The verdict uses the other sources in the index.
    #[test]
    fn a_source_over_the_same_pods_is_warned_about() {
        let (index, verdicts) = verdicts();
        index.write().apply_service(service("tcp").enabled());
        index.write().apply_service(service("plain"));
        let udp = serde_json::to_value(service("udp").enabled()).unwrap();
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "name": "udp", "namespace": NAMESPACE, "userInfo": {"username": "a"},
                "operation": "CREATE", "kind": {"group": "", "version": "v1", "kind": "Service"},
                "resource": {"group": "", "version": "v1", "resource": "services"},
                "object": udp,
            },
        });
        let judged = verdicts.review(Path::Validate, body.to_string().as_bytes()).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&judged.body).unwrap();
        assert_eq!(
            answer["response"]["warnings"],
            json!([
                "Service \"tcp\" selects the same pods, and its leader may differ",
                "for one leader, set zen-lead.io/same-leader-as on one Service to the name of the other",
            ])
        );
    }

    #[test]
    fn what_is_shown_of_a_name_is_short() {
        let (_, verdicts) = verdicts();
        let long = "\u{e9}".repeat(1 << 20);
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": long, "name": long, "namespace": long, "userInfo": {"username": long},
                "operation": "DELETE", "kind": {"group": "", "version": "v1", "kind": "Service"},
            },
        });
        let judged = verdicts.review(Path::Validate, body.to_string().as_bytes()).unwrap();
        let Judged { uid, service, user, .. } = judged;
        for shown in [&*uid, &*service.namespace, &*service.name, &*user] {
            assert_eq!(shown.chars().count(), MAX_SHOWN);
        }
        let answer: serde_json::Value = serde_json::from_slice(&judged.body).unwrap();
        assert_eq!(answer["response"]["uid"], long, "the answer repeats all of it");
    }
}
