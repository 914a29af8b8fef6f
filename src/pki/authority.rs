//! The loop that keeps Secret, leaf and caBundles right, with the API calls it needs.
//!
//! What to do is decided in `state` and `bundle`; here it is read, written and reported. Every pass
//! starts from what the API server says now, so a pass that fails half-way is simply done again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Settings;
use super::bundle::{self, Configuration};
use super::material::{Ca, Leaf, MaterialError};
use super::secret::{self, Found};
use super::state::{self, Facts, State};
use crate::clock::{Clock, monotonic};
use crate::keys::{FIELD_MANAGER, FIELD_MANAGER_CA, MANAGER, kubernetes};
use crate::metrics::Metrics;
use crate::serve::tls::{CertificateError, CertificateSource};

/// Time between two passes when nothing wakes the loop.
const INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two passes; it doubles up to [`INTERVAL`] while each pass finds something
/// to put right, so that two writers who disagree do not flood the API server.
const SHORTEST: Duration = Duration::from_millis(200);
/// Longest single API call.
const CALL: Duration = Duration::from_secs(10);
/// Lost races for the Secret in one pass before the next pass takes over.
const RACES: usize = 5;

/// Why a pass could not be finished.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// An API call failed.
    #[error("cannot {what}: {source}")]
    Api {
        /// What was tried, with the object's name.
        what: String,
        /// What the API server or the connection says.
        source: Box<kube::Error>,
    },
    /// An API call took too long.
    #[error("cannot {what}: no answer within {CALL:?}")]
    Timeout {
        /// What was tried.
        what: String,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The TLS server refused our own certificate.
    #[error("own certificate refused: {0}")]
    Certificate(#[from] CertificateError),
    /// Other replicas changed the Secret again and again.
    #[error("the Secret {0} changed under every one of {RACES} attempts to write it")]
    Contended(String),
}

/// What a pass found, for health and logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether this replica shows a certificate that its CA signed.
    pub serving: bool,
    /// Whether every one of our webhook items was seen with the right bundle.
    pub published: bool,
    /// Configurations or items that do not exist (not an error: the webhook may be off).
    pub missing: Vec<String>,
    /// Whether this pass wrote anything.
    pub wrote: bool,
    /// What went wrong, in words.
    pub problems: Vec<String>,
}

/// The certificate authority of this replica.
pub struct Authority {
    client: Client,
    settings: Settings,
    source: Arc<CertificateSource>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The last state read from or written to the Secret.
    pub(super) known: Option<State>,
    /// Since when `known` has been what it is.
    known_since: Option<Instant>,
    leaf: Option<(Ca, Leaf)>,
}

impl Authority {
    /// An authority that has not looked at anything yet.
    pub fn new(
        client: Client,
        settings: Settings,
        source: Arc<CertificateSource>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            settings,
            source,
            clock,
            metrics,
            known: None,
            known_since: None,
            leaf: None,
        }
    }

    /// Runs for ever: a pass at once, on every `wake` (a change of the Secret or of a
    /// configuration), and every 30 seconds, which is how a jump of the wall clock is noticed.
    pub async fn run(mut self, wake: Arc<Notify>, report: impl Fn(&Report) + Send) {
        let mut pause = SHORTEST;
        loop {
            let pass = self.pass().await;
            for problem in &pass.problems {
                tracing::warn!(problem, "certificates are not as they should be");
            }
            report(&pass);
            let disturbed = pass.wrote || !pass.problems.is_empty();
            pause = if disturbed { (pause * 2).min(INTERVAL) } else { SHORTEST };
            tokio::time::sleep(pause).await;
            // After a write or a problem the next pass follows; otherwise there is time until
            // something happens.
            if !disturbed {
                let rest = INTERVAL.saturating_sub(pause);
                let _elapsed_or_woken = tokio::time::timeout(rest, wake.notified()).await;
            }
        }
    }

    /// Looks at everything once and puts right what is not.
    pub async fn pass(&mut self) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.settle_secret(&mut report).await {
            report.problems.push(error.to_string());
        }
        let Some(state) = self.known.clone() else { return report };

        // The leaf first: readiness waits for it, and in a rotation its CA is in the bundles already.
        if let Err(error) = self.renew_leaf(&state) {
            report.problems.push(error.to_string());
        }
        report.serving = self.leaf.as_ref().is_some_and(|(ca, _)| *ca == state.current);
        let published = self.publish(&state, &mut report).await;

        if let Err(error) = self.advance(&state, published, &mut report).await {
            report.problems.push(error.to_string());
        }
        report
    }

    /// Reads the CA, or makes one where there is none: after this `known` is what the Secret says.
    async fn settle_secret(&mut self, report: &mut Report) -> Result<(), AuthorityError> {
        for _ in 0..RACES {
            let now = self.clock.now();
            let held = self.read_secret().await?;
            let data = held.as_ref().and_then(|s| s.data.clone()).unwrap_or_default();
            let wanted = match secret::decode(&data, now) {
                Found::State { state, mended: false } => {
                    self.learn(state);
                    return Ok(());
                }
                Found::State { state, mended: true } => state,
                Found::Empty => self.fresh_state(now)?,
                Found::Rubbish(error) => {
                    tracing::error!(
                        secret = self.settings.secret,
                        %error,
                        "the CA Secret cannot be used and is written anew"
                    );
                    self.fresh_state(now)?
                }
            };
            if self.write_secret(held, &wanted).await? {
                report.wrote = true;
                self.learn(wanted);
                return Ok(());
            }
        }
        Err(AuthorityError::Contended(self.settings.secret.clone()))
    }

    fn fresh_state(&self, now: Timestamp) -> Result<State, MaterialError> {
        let predecessor = self.known.as_ref().map(|s| &s.current.certificate);
        let ca = Ca::generate(now, self.settings.ca_lifetime, predecessor)?;
        Ok(match &self.known {
            Some(known) => known.succeed(ca, now),
            None => State::first(ca, now),
        })
    }

    /// Takes the rotation one step further where it is time.
    async fn advance(
        &mut self,
        state: &State,
        published: Option<Vec<String>>,
        report: &mut Report,
    ) -> Result<(), AuthorityError> {
        let now = self.clock.now();
        let observed = self.known_since.map(|at| monotonic() - at).unwrap_or_default();
        let facts = Facts { published, observed };
        let lifetime = self.settings.ca_lifetime;
        let Some(step) = state::step(state, now, &facts, &self.settings.margins, lifetime) else {
            return Ok(());
        };
        let fresh = if step.needs_ca(state) {
            Some(Ca::generate(now, lifetime, Some(&state.current.certificate))?)
        } else {
            None
        };
        let after = state.after(step, now, fresh);

        // Written only over the very state that was judged.
        let held = self.read_secret().await?;
        let data = held.as_ref().and_then(|s| s.data.clone()).unwrap_or_default();
        let unchanged = matches!(
            secret::decode(&data, now),
            Found::State { state: found, .. } if found == *state
        );
        if unchanged && self.write_secret(held, &after).await? {
            tracing::info!(?step, phase = after.phase.as_str(), "CA rotation went on");
            report.wrote = true;
            self.learn(after);
            // The bundle and the leaf follow in the next pass, which a write brings on soon.
        }
        Ok(())
    }

    fn learn(&mut self, state: State) {
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
        self.metrics
            .set_certificate_expiry("ca", state.current.certificate.ends.as_second() as f64);
        if self.known.as_ref() != Some(&state) {
            tracing::info!(phase = state.phase.as_str(), ca = ?state.current.certificate, "CA read");
            self.known = Some(state);
            self.known_since = Some(monotonic());
        }
    }

    /// Signs a new leaf when there is none, when the CA changed, or when it is time.
    fn renew_leaf(&mut self, state: &State) -> Result<(), AuthorityError> {
        let now = self.clock.now();
        let good = self.leaf.as_ref().is_some_and(|(ca, leaf)| {
            // With a CA that is about to end no later leaf can be had: do not sign one each pass.
            let last = leaf.ends >= state.current.certificate.ends;
            *ca == state.current && (last || !leaf.is_due(now))
        });
        if good {
            return Ok(());
        }
        let names = self.settings.names();
        let leaf = state.current.sign(&names, now, self.settings.leaf_lifetime)?;
        self.source.swap(leaf.chain(), leaf.key(), now)?;
        tracing::info!(ends = %leaf.ends, "new certificate in use");
        self.leaf = Some((state.current.clone(), leaf));
        Ok(())
    }

    /// Puts the caBundles right; returns what all our items carry, `None` if one is not known.
    async fn publish(&self, state: &State, report: &mut Report) -> Option<Vec<String>> {
        let bundle = state.bundle();
        let validating = self
            .publish_to::<ValidatingWebhookConfiguration>(
                &self.settings.validating,
                &bundle,
                report,
            )
            .await;
        let mutating = self
            .publish_to::<MutatingWebhookConfiguration>(&self.settings.mutating, &bundle, report)
            .await;
        let mut carried = Vec::new();
        for outcome in [validating, mutating] {
            match outcome {
                Ok(found) => carried.extend(found),
                Err(error) => report.problems.push(error.to_string()),
            }
        }
        let known = report.problems.is_empty();
        report.published = known && carried.iter().all(|found| *found == bundle);
        known.then_some(carried)
    }

    async fn publish_to<C: Configuration>(
        &self,
        name: &str,
        bundle: &str,
        report: &mut Report,
    ) -> Result<Option<String>, AuthorityError> {
        let api: Api<C> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER_CA).force();
        let mut races = 0;
        loop {
            let what = format!("read the {} {name}", C::kind(&()));
            let Some(found) = called(what, api.get_opt(name)).await? else {
                report.missing.push(format!("{} {name}", C::kind(&())));
                return Ok(None);
            };
            let Some(carried) = bundle::carried(&found) else {
                report.missing.push(format!("item {} of {} {name}", C::ITEM, C::kind(&())));
                return Ok(None);
            };
            let Some(patch) = bundle::patch(&found, bundle) else { return Ok(Some(carried)) };

            let what = format!("write the caBundle of the {} {name}", C::kind(&()));
            let written = called(what, api.patch(name, &params, &Patch::Apply(&patch))).await;
            let result = match &written {
                Ok(_) => "ok",
                Err(error) if error.is_conflict() => "conflict",
                Err(_) => "error",
            };
            self.metrics.ca_bundle_write(C::LABEL, result);
            races += 1;
            match written {
                // Another replica, most likely, and with the very same bundle: look again.
                Err(error) if error.is_conflict() && races < RACES => {}
                Err(error) => return Err(error),
                Ok(written) => {
                    report.wrote = true;
                    tracing::info!(kind = C::LABEL, name, "caBundle written");
                    return Ok(bundle::carried(&written));
                }
            }
        }
    }

    async fn read_secret(&self) -> Result<Option<Secret>, AuthorityError> {
        let what = format!("read the Secret {}", self.settings.secret);
        called(what, self.secrets().get_opt(&self.settings.secret)).await
    }

    /// Writes `state` over `held` (or creates the Secret); `false` when somebody was faster.
    async fn write_secret(
        &self,
        held: Option<Secret>,
        state: &State,
    ) -> Result<bool, AuthorityError> {
        let name = &self.settings.secret;
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = self.secrets();
        let written = if let Some(mut secret) = held {
            // The resourceVersion that was read goes along: a PUT on anything else is a conflict.
            secret.data = Some(secret::encode(state, secret.data.take().unwrap_or_default()));
            called(format!("write the Secret {name}"), api.replace(name, &params, &secret)).await
        } else {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some([(kubernetes::MANAGED_BY.into(), MANAGER.into())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(secret::encode(state, secret::Data::new())),
                ..Secret::default()
            };
            called(format!("create the Secret {name}"), api.create(&params, &secret)).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }
}

impl AuthorityError {
    /// Whether somebody else wrote first: 409 for a stale version or a name that exists by now, and
    /// 404 for an object that was deleted since it was read.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. }
            if matches!(&**source, kube::Error::Api(status) if matches!(status.code, 404 | 409)))
    }
}

/// One API call with a deadline.
async fn called<T>(
    what: String,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, AuthorityError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(AuthorityError::Api { what, source: Box::new(source) }),
        Err(_) => Err(AuthorityError::Timeout { what }),
    }
}
