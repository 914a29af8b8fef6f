//! The loop that keeps Secret, leaf and caBundles correct, with the API calls it needs.
//!
//! `state` and `bundle` decide what to do; this module reads, writes and reports. Every pass starts from the
//! present state of the API server, so a pass that fails half-way is simply repeated.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration as Mutating, ValidatingWebhookConfiguration as Validating,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::PkiSettings;
use super::bundle::{self, Configuration};
use super::material::{Ca, Leaf, MaterialError};
use super::secret::{self, Found, Requests};
use super::state::{self, Facts, RotationState};
use crate::platform::api::{self, CallError, Caller, ErrorKind};
use crate::platform::clock::{Clock, monotonic};
use crate::platform::metrics::Metrics;
use crate::platform::operation::{Operation, Target};
use crate::platform::server::tls::{CertificateError, CertificateSource};
use zen_lead_core::keys::{FIELD_MANAGER, FIELD_MANAGER_CA, MANAGER, kubernetes};

/// Longest time between two passes if nothing wakes the loop.
const INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two passes. It doubles up to [`INTERVAL`] while each pass finds something to
/// repair, so that two writers that disagree do not flood the API server.
const SHORTEST: Duration = Duration::from_millis(200);
/// Deadline of a pass: about ten calls, each with its own deadline.
const PASS: Duration = Duration::from_secs(45);
/// Maximum number of lost races for the Secret in one pass.
const RACES: usize = 5;

/// Why a pass did not complete.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// An API call failed.
    #[error("cannot {what}: {source}")]
    Call {
        /// The action, with the name of the object.
        what: Box<str>,
        /// The cause.
        source: CallError,
    },
    /// The namespace of the Secret does not exist.
    #[error(
        "cannot create the Secret {secret}: there is no namespace {namespace}; create it, or set \
         --namespace (POD_NAMESPACE) to the one zen-lead runs in"
    )]
    NoNamespace {
        /// Name of the Secret.
        secret: String,
        /// Name of the namespace.
        namespace: String,
    },
    /// The pass took too long.
    #[error("the certificate check did not complete: {0}")]
    Overdue(#[from] CallError),
    /// A certificate could not be made.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The TLS server rejected the self-made certificate.
    #[error("the TLS server rejected the certificate that zen-lead made: {0}")]
    Certificate(#[from] CertificateError),
    /// Another client changed the Secret again and again.
    #[error(
        "the Secret {0} was changed by another client between read and write, {RACES} times in a \
         row; make sure that only zen-lead writes this Secret"
    )]
    Contended(String),
}

impl AuthorityError {
    fn is_silence(&self) -> bool {
        matches!(self, Self::Call { source: CallError { kind: ErrorKind::Timeout(_), .. }, .. })
    }
}

/// The result of a pass, for health and logs.
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationReport {
    /// Whether this replica serves a certificate that the CA signed.
    pub serving: bool,
    /// Whether each of zen-lead's webhook items has the right bundle.
    pub published: bool,
    /// Configurations or items that do not exist (not an error: the webhook may be disabled).
    pub missing: Vec<String>,
    /// Whether this pass wrote anything.
    pub wrote: bool,
    /// The step of a rotation that it performed.
    pub advanced: Option<state::RotationStep>,
    /// The API server does not answer at all.
    pub unanswered: bool,
    /// Messages of the errors.
    pub problems: Vec<String>,
}

/// The certificate authority of this replica.
pub struct Authority {
    client: Client,
    pub(super) settings: PkiSettings,
    source: Arc<CertificateSource>,
    clock: Clock,
    caller: Caller,
    /// The last state read from or written to the Secret.
    pub(super) known: Option<RotationState>,
    /// When `known` last changed.
    known_since: Option<Instant>,
    /// The requests on the Secret when it was last read.
    asked: Requests,
    leaf: Option<ActiveLeaf>,
}

/// The leaf in use.
struct ActiveLeaf {
    leaf: Leaf,
    /// The CA that signed it.
    ca: Ca,
    /// The request that it answers.
    asked: Option<String>,
}

impl Authority {
    /// An authority before its first pass.
    pub fn new(
        client: Client,
        settings: PkiSettings,
        source: Arc<CertificateSource>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            settings,
            source,
            clock,
            caller: Caller::new(metrics),
            known: None,
            known_since: None,
            asked: Requests::default(),
            leaf: None,
        }
    }

    /// Runs without end: a pass immediately, on every `wake` (a change of the Secret or of a
    /// configuration), when something is due, and every 30 seconds to notice a jump of the wall clock.
    pub async fn run(mut self, wake: Arc<Notify>, report: impl Fn(&RotationReport) + Send) {
        let mut pause = SHORTEST;
        loop {
            let pass = self.pass().await;
            report(&pass);
            let disturbed = pass.wrote || !pass.problems.is_empty();
            // The steps of a rotation are our own writes: they need no back-off.
            let fight = disturbed && pass.advanced.is_none();
            pause = if fight { (pause * 2).min(INTERVAL) } else { SHORTEST };
            for problem in &pass.problems {
                tracing::warn!("{problem}; trying again in {pause:?}");
            }
            // After a write or a problem the next pass follows after the pause; otherwise the loop waits
            // until something happens. If the server does not answer, a recovered watch wakes it.
            let (pause, rest) = if pass.unanswered {
                (SHORTEST, pause)
            } else {
                (pause, if disturbed { Duration::ZERO } else { self.idle() })
            };
            tokio::time::sleep(pause).await;
            let rest = rest.saturating_sub(pause);
            if !rest.is_zero() {
                let _elapsed_or_woken = tokio::time::timeout(rest, wake.notified()).await;
            }
        }
    }

    /// The time until something is due by time alone.
    fn idle(&self) -> Duration {
        let now = self.clock.now();
        let leaf = self.leaf.as_ref().filter(|shown| !shown.ends_with_ca());
        let leaf = leaf.map(|shown| {
            let left = shown.leaf.due_at().duration_since(now);
            left.try_into().unwrap_or_default()
        });
        let step = self
            .known
            .as_ref()
            .and_then(|state| state::wait(state, now, &self.facts(None), &self.settings.times));
        [leaf, step].into_iter().flatten().fold(INTERVAL, Duration::min)
    }

    /// The facts for a decision; `published` is what the bundles contain.
    fn facts(&self, published: Option<Vec<String>>) -> Facts {
        let observed = self.known_since.map(|at| monotonic() - at).unwrap_or_default();
        Facts { published, observed, asked: self.asked.ca.clone() }
    }

    /// Checks everything once and repairs what is wrong. A pass that takes too long is aborted; its
    /// knowledge is kept, and the next pass starts from the state of the API server at that time.
    pub async fn pass(&mut self) -> RotationReport {
        let metrics = Arc::clone(&self.caller.metrics);
        let object = format!("{}/{}", self.settings.namespace, self.settings.secret);
        let (operation, about) = (Operation::CertificatePass, Target::own(&object));
        let pass = async { Ok::<_, AuthorityError>(self.whole_pass().await) };
        match api::collection(&metrics, operation, about, PASS, pass).await {
            Ok(report) => report,
            Err(error) => RotationReport {
                serving: self.serves(),
                problems: vec![error.to_string()],
                ..RotationReport::default()
            },
        }
    }

    /// Whether the active leaf is signed by the known CA.
    fn serves(&self) -> bool {
        let known = self.known.as_ref().map(|state| &state.current);
        self.leaf.as_ref().is_some_and(|shown| Some(&shown.ca) == known)
    }

    async fn whole_pass(&mut self) -> RotationReport {
        let mut report = RotationReport::default();
        if let Err(error) = self.settle_secret(&mut report).await {
            report.unanswered = error.is_silence();
            report.problems.push(error.to_string());
        }
        let Some(state) = self.known.clone() else { return report };

        // First the leaf: readiness waits for it, and in a rotation its CA is already in the bundles.
        if let Err(error) = self.renew_leaf(&state) {
            report.problems.push(error.to_string());
        }
        report.serving = self.serves();
        if report.unanswered {
            // The other calls would also run into their deadlines, and delay noticing that the server is
            // back.
            return report;
        }
        let published = self.publish(&state, &mut report).await;

        if let Err(error) = self.advance(&state, published, &mut report).await {
            report.problems.push(error.to_string());
        }
        report
    }

    /// Reads the CA, or makes one if there is none. Afterwards `known` is the state of the Secret.
    async fn settle_secret(&mut self, report: &mut RotationReport) -> Result<(), AuthorityError> {
        for _ in 0..RACES {
            let now = self.clock.now();
            let held = self.read_secret().await?;
            self.asked = held.as_ref().map(|s| Requests::of(&s.metadata)).unwrap_or_default();
            let data = held.as_ref().and_then(|s| s.data.clone()).unwrap_or_default();
            let wanted = match secret::decode(&data, now) {
                Found::RotationState { state, repaired: false } => {
                    self.learn(*state);
                    return Ok(());
                }
                Found::RotationState { state, repaired: true } => *state,
                Found::Empty => self.fresh_state(now)?,
                Found::Rubbish(error) => {
                    tracing::error!(
                        secret = self.settings.secret,
                        %error,
                        "the CA Secret is not usable; writing a new CA"
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

    fn fresh_state(&self, now: Timestamp) -> Result<RotationState, MaterialError> {
        let predecessor = self.known.as_ref().map(|s| &s.current.certificate);
        let ca = Ca::generate(now, self.settings.times.ca_lifetime, predecessor)?;
        let asked = self.asked.ca.clone();
        Ok(match &self.known {
            Some(known) => known.succeed(ca, now, asked),
            None => RotationState::first(ca, now, asked),
        })
    }

    /// Performs the next step of the rotation if it is due.
    async fn advance(
        &mut self,
        state: &RotationState,
        published: Option<Vec<String>>,
        report: &mut RotationReport,
    ) -> Result<(), AuthorityError> {
        let now = self.clock.now();
        let facts = self.facts(published);
        let times = &self.settings.times;
        let Some(step) = state::step(state, now, &facts, times) else { return Ok(()) };
        let fresh = if step.needs_ca(state) {
            Some(Ca::generate(now, times.ca_lifetime, Some(&state.current.certificate))?)
        } else {
            None
        };
        let after = state.after(step, now, &facts, fresh);

        // Written only over the same state that the decision was made on.
        let held = self.read_secret().await?;
        let data = held.as_ref().and_then(|s| s.data.clone()).unwrap_or_default();
        let unchanged = matches!(
            secret::decode(&data, now),
            Found::RotationState { state: found, .. } if *found == *state
        );
        if unchanged && self.write_secret(held, &after).await? {
            tracing::info!(?step, phase = after.phase.as_str(), "CA rotation advanced");
            (report.wrote, report.advanced) = (true, Some(step));
            self.learn(after);
            // The bundle and the leaf follow in the next pass, soon after this write.
        }
        Ok(())
    }

    fn learn(&mut self, state: RotationState) {
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
        self.caller
            .metrics
            .set_certificate_expiry("ca", state.current.certificate.ends.as_second() as f64);
        if self.known.as_ref() != Some(&state) {
            tracing::info!(phase = state.phase.as_str(), ca = ?state.current.certificate, "CA loaded");
            self.known = Some(state);
            self.known_since = Some(monotonic());
        }
    }

    /// Signs a new leaf if there is none, if the CA changed, if it is due, or on request.
    fn renew_leaf(&mut self, state: &RotationState) -> Result<(), AuthorityError> {
        let now = self.clock.now();
        let asked = &self.asked.leaf;
        let good = self.leaf.as_ref().is_some_and(|shown| {
            let due = !shown.ends_with_ca() && now >= shown.leaf.due_at();
            let asked = asked.is_some() && *asked != shown.asked;
            shown.ca == state.current && !due && !asked
        });
        if good {
            return Ok(());
        }
        let names = self.settings.names();
        let leaf = state.current.sign(&names, now, self.settings.times.leaf_lifetime)?;
        self.source.swap(leaf.chain(), leaf.key(), now)?;
        tracing::info!(ends = %leaf.ends, "new certificate in use");
        self.leaf = Some(ActiveLeaf { leaf, ca: state.current.clone(), asked: asked.clone() });
        Ok(())
    }

    /// Writes the caBundles; returns the bundles of all our items, `None` if one is unknown.
    async fn publish(
        &self,
        state: &RotationState,
        report: &mut RotationReport,
    ) -> Option<Vec<String>> {
        let bundle = state.bundle();
        let PkiSettings { validating, mutating, .. } = &self.settings;
        let outcomes = [
            self.publish_to::<Validating>(validating, &bundle, report).await,
            self.publish_to::<Mutating>(mutating, &bundle, report).await,
        ];
        let mut carried = Vec::new();
        for outcome in outcomes {
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
        report: &mut RotationReport,
    ) -> Result<Option<String>, AuthorityError> {
        let api: Api<C> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER_CA).force();
        let about = Target::own(name);
        let mut races = 0;
        loop {
            let get = || api.get_opt(name);
            let found = api::call(&self.caller, Operation::GetWebhook, about, get).await;
            let found = found.map_err(cannot(format!("read the {} {name}", C::kind(&()))))?;
            let Some(found) = found else {
                report.missing.push(format!("{} {name}", C::kind(&())));
                return Ok(None);
            };
            let Some(carried) = bundle::carried(&found) else {
                report.missing.push(format!("item {} of {} {name}", C::ITEM, C::kind(&())));
                return Ok(None);
            };
            let Some(patch) = bundle::patch(&found, bundle) else { return Ok(Some(carried)) };

            let patch = Patch::Apply(&patch);
            let apply = || api.patch(name, &params, &patch);
            let written = api::call(&self.caller, Operation::ApplyWebhook, about, apply).await;
            let result = match &written {
                Ok(_) => "ok",
                Err(error) if error.is_stale() => "conflict",
                Err(_) => "error",
            };
            self.caller.metrics.ca_bundle_write(C::LABEL, result);
            races += 1;
            match written {
                // Most likely another replica with the same bundle: read again.
                Err(error) if error.is_stale() && races < RACES => {}
                Err(error) => {
                    let what = format!("write the caBundle of the {} {name}", C::kind(&()));
                    return Err(cannot(what)(error));
                }
                Ok(written) => {
                    report.wrote = true;
                    tracing::info!(kind = C::LABEL, name, "caBundle written");
                    return Ok(bundle::carried(&written));
                }
            }
        }
    }

    async fn read_secret(&self) -> Result<Option<Secret>, AuthorityError> {
        let name = &self.settings.secret;
        let (api, about) = (self.secrets(), Target::own(name));
        let get = || api.get_opt(name);
        let found = api::call(&self.caller, Operation::GetSecret, about, get).await;
        found.map_err(cannot(format!("read the Secret {name}")))
    }

    /// Writes `state` over `held` (or creates the Secret); `false` if another client was faster.
    async fn write_secret(
        &self,
        held: Option<Secret>,
        state: &RotationState,
    ) -> Result<bool, AuthorityError> {
        let name = &self.settings.secret;
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let (api, about) = (self.secrets(), Target::own(name));
        let (what, written) = if let Some(mut secret) = held {
            // Includes the resourceVersion that was read: a PUT on any other version is a conflict.
            secret.data = Some(secret::encode(state, secret.data.take().unwrap_or_default()));
            let replace = || api.replace(name, &params, &secret);
            let operation = Operation::ReplaceSecret;
            ("write", api::call(&self.caller, operation, about, replace).await)
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
            let create = || api.create(&params, &secret);
            let written = api::call(&self.caller, Operation::CreateSecret, about, create).await;
            if let Err(CallError { kind: ErrorKind::NotFound, .. }) = written {
                let (secret, namespace) = (name.clone(), self.settings.namespace.clone());
                return Err(AuthorityError::NoNamespace { secret, namespace });
            }
            ("create", written)
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(cannot(format!("{what} the Secret {name}"))(error)),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }
}

impl ActiveLeaf {
    /// No leaf can outlive its CA: do not sign a new one in each pass.
    fn ends_with_ca(&self) -> bool {
        self.leaf.ends >= self.ca.certificate.ends
    }
}

fn cannot(what: String) -> impl FnOnce(CallError) -> AuthorityError {
    move |source| AuthorityError::Call { what: what.into(), source }
}
