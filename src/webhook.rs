//! The webhook router: limits, deadline, spans and metrics around a judge.
//!
//! No verdict logic: that is `admission`, reached through [`Judge`].

mod body;
mod deadline;
pub mod owner;
mod reject;
pub mod verdicts;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{StatusCode, header};
use tokio::sync::Semaphore;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::platform::clock::monotonic;
use crate::platform::metrics::Metrics;
use crate::platform::operation::Operation;
use crate::platform::telemetry::spans::{About, Tracer};
use body::{Admission, Held};
use reject::Rejection;

pub use body::MAX_BODY;
pub use zen_lead_core::admission::Path;

/// The name of the spans of a webhook and its route, as OpenTelemetry names what an HTTP server does.
fn traced(path: Path) -> (&'static str, &'static str) {
    match path {
        Path::Validate => ("POST /validate", "/validate"),
        Path::Mutate => ("POST /mutate", "/mutate"),
    }
}

/// A review that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The AdmissionReview to answer with, as JSON.
    pub body: Vec<u8>,
    /// `create`, `update`, ... (a closed set: it is a metric label).
    pub operation: &'static str,
    /// `allowed`, `denied`, ... (a closed set: it is a metric label).
    pub verdict: &'static str,
    /// The rules that were violated (a closed set: it is a metric label).
    pub rules: Vec<&'static str>,
    /// Who asked for what, for its trace.
    pub about: About,
}

/// A body that could not be judged at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status to answer with; anything but 4xx and 5xx becomes 400.
    pub status: u16,
    /// What the caller is told.
    pub message: String,
    /// Why (a closed set: it is a metric label).
    pub reason: &'static str,
}

/// Whoever turns the body of an AdmissionReview into the body of its answer.
///
/// Called inside the review's span.
pub trait Judge: Send + Sync + 'static {
    /// Judges one body. Must not block on input or output.
    ///
    /// # Errors
    /// When the body is no AdmissionReview that can be answered.
    fn judge(&self, path: Path, body: &[u8]) -> Result<Judged, Refused>;
}

#[derive(Clone)]
struct Webhook {
    judge: Arc<dyn Judge>,
    metrics: Arc<Metrics>,
    admission: Admission,
    /// Lets one large body at a time be judged: read as objects it takes many times its size.
    large: Arc<Semaphore>,
    tracer: Tracer,
}

/// `POST /validate` and `POST /mutate`.
pub fn router(judge: Arc<dyn Judge>, metrics: Arc<Metrics>, tracer: Tracer) -> Router {
    let large = Arc::new(Semaphore::new(1));
    let state = Webhook { judge, metrics, admission: Admission::new(), large, tracer };
    Router::new()
        .route("/validate", post(validate).fallback(wrong_method))
        .route("/mutate", post(mutate).fallback(wrong_method))
        .fallback(wrong_path)
        .with_state(state)
}

async fn validate(State(webhook): State<Webhook>, request: Request) -> Response {
    webhook.review(Path::Validate, request).await
}

async fn mutate(State(webhook): State<Webhook>, request: Request) -> Response {
    webhook.review(Path::Mutate, request).await
}

async fn wrong_method(State(webhook): State<Webhook>, request: Request) -> Response {
    webhook.reject(Rejection::Method(request.method().clone()))
}

async fn wrong_path(State(webhook): State<Webhook>, request: Request) -> Response {
    webhook.reject(Rejection::Path(request.uri().path().to_owned()))
}

impl Webhook {
    async fn review(&self, path: Path, request: Request) -> Response {
        let started = monotonic();
        let span = tracing::info_span!(
            "review",
            path = path.as_str(),
            bytes = Empty,
            operation = Empty,
            verdict = Empty,
            rules = Empty,
            rejected = Empty,
        );
        let (name, route) = traced(path);
        let trace = self.tracer.review(name, route, request.headers());
        let within = deadline::of(request.uri().query());
        let judged = {
            let _in_flight = InFlight::new(&self.metrics);
            let work = self.judged(path, request).instrument(span.clone());
            let work = tokio::time::timeout(within, trace.run(work));
            work.await.unwrap_or(Err(Rejection::Deadline(within)))
        };
        let took = started.elapsed();
        let (_traced, _entered) = (trace.enter(), span.enter());
        match judged {
            Ok(judged) => {
                trace.judged(&judged.about, judged.operation, judged.verdict, &judged.rules);
                self.answer(path, judged, took)
            }
            Err(rejection) => {
                trace.rejected(rejection.status(), rejection.reason());
                self.reject(rejection)
            }
        }
    }

    async fn judged(&self, path: Path, request: Request) -> Result<Judged, Rejection> {
        let held = self.admission.read(request).await?;
        Span::current().record("bytes", held.bytes.len());
        let judged = if held.is_large() {
            // Milliseconds of parsing: away from the threads that serve everybody else.
            let (judge, span) = (Arc::clone(&self.judge), Span::current());
            let trace = opentelemetry::Context::current();
            // Kept by the work itself, which goes on when the caller has left.
            let turn = Arc::clone(&self.large).acquire_owned().await;
            let work = move || {
                let _turn = turn;
                let _traced = trace.attach();
                span.in_scope(|| judge_one(&*judge, path, &held))
            };
            tokio::task::spawn_blocking(work).await.unwrap_or(Err(Rejection::Panic))
        } else {
            judge_one(&*self.judge, path, &held)
        };
        // Ran out of time while judging: only a turn of the runtime lets the deadline see it.
        tokio::task::yield_now().await;
        judged
    }

    fn answer(&self, path: Path, judged: Judged, took: Duration) -> Response {
        let span = Span::current();
        span.record("operation", judged.operation);
        span.record("verdict", judged.verdict);
        if !judged.rules.is_empty() {
            span.record("rules", judged.rules.join(","));
        }
        self.metrics.webhook_request(path.as_str(), judged.operation, judged.verdict, took);
        for rule in &judged.rules {
            self.metrics.webhook_violation(rule);
        }
        tracing::debug!(?took, "judged");
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], judged.body).into_response()
    }

    fn reject(&self, rejection: Rejection) -> Response {
        let reason = rejection.reason();
        Span::current().record("rejected", reason);
        self.metrics.webhook_rejected_body(reason);
        if matches!(rejection, Rejection::Deadline(_)) {
            self.metrics.timeout(Operation::AdmissionReview.as_str());
        }
        if rejection.status().is_server_error() {
            tracing::warn!(reason, %rejection, "review not judged");
        } else {
            tracing::debug!(reason, %rejection, "request refused");
        }
        rejection.into_response()
    }
}

/// Judges; a panic becomes an answer 500 instead of a lost connection.
///
/// That needs a build that unwinds: with `panic = "abort"` the process ends, as it would anywhere.
fn judge_one(judge: &dyn Judge, path: Path, held: &Held) -> Result<Judged, Rejection> {
    // Unwind safe: the judge is shared and immutable, nothing half-changed is seen afterwards.
    catch_unwind(AssertUnwindSafe(|| judge.judge(path, &held.bytes)))
        .map_err(|_| Rejection::Panic)?
        .map_err(Rejection::Refused)
}

/// Counts a review as in flight while it lives, however it ends (a vanished caller drops it).
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.webhook_in_flight().inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.webhook_in_flight().dec();
    }
}
