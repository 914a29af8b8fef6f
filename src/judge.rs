//! Joins the webhook server to the verdict: the index view under a read lock, labels as text.
//!
//! No rules (`spec`, `admission`) and no HTTP (`serve`).

use std::sync::Arc;

use crate::admission::review;
use crate::index::Limit;
use crate::index::view::View;
use crate::metrics::Metrics;
use crate::names::NameRule;
use crate::reconcile::SharedIndex;
use crate::serve::webhook::{Judge, Judged, Path, Refused};
use crate::spec::Rule;
use crate::telemetry::spans::About;

/// Judges reviews for the server.
pub struct Verdicts {
    index: SharedIndex,
    synced: Box<dyn Fn() -> bool + Send + Sync>,
    names: NameRule,
    username: String,
    metrics: Arc<Metrics>,
}

impl Verdicts {
    /// `synced` says whether all Services were seen and are up to date; `username` is the user
    /// zen-lead writes as.
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

impl Judge for Verdicts {
    fn judge(&self, path: Path, body: &[u8]) -> Result<Judged, Refused> {
        let path = match path {
            Path::Validate => review::Path::Validate,
            Path::Mutate => review::Path::Mutate,
        };
        let synced = (self.synced)();
        let judged = {
            let index = self.index.read();
            let view = View { index: &index, synced };
            review::judge(path, body, &view, self.names, &self.username)
        };
        let judged = judged.map_err(|error| Refused {
            status: 400,
            reason: error.as_str(),
            message: error.to_string(),
        })?;
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
        Ok(Judged {
            operation: judged.verb.as_str(),
            verdict: judged.outcome.as_str(),
            rules: judged.rules.iter().map(|rule| rule.as_str()).collect(),
            about: About {
                uid: judged.uid,
                service: judged.service,
                user: judged.user,
                dry_run: judged.dry_run,
            },
            body: judged.body,
        })
    }
}

/// The bound behind a rule, where it is one.
fn limit_of(rule: Rule) -> Option<Limit> {
    match rule {
        Rule::NamespaceLimit => Some(Limit::ServicesPerNamespace),
        Rule::PodLimit => Some(Limit::PodsPerService),
        _ => None,
    }
}
