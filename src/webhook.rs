//! The webhook router: limits, deadline, spans and metrics around a reviewer.
//!
//! No verdict logic: that is the core's `admission`, behind [`Reviewer`].

mod body;
mod deadline;
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
use crate::platform::telemetry::spans::Tracer;
use body::{Admission, Held};
use reject::Rejection;

pub use body::MAX_BODY;
pub use zen_lead_core::admission::{Judged, Path, ReviewError};

/// The name of the spans of a webhook and its route, as OpenTelemetry names what an HTTP server does.
fn traced(path: Path) -> (&'static str, &'static str) {
    match path {
        Path::Validate => ("POST /validate", "/validate"),
        Path::Mutate => ("POST /mutate", "/mutate"),
    }
}

/// Turns the body of an AdmissionReview into the body of its answer.
///
/// Called inside the review's span.
pub trait Reviewer: Send + Sync + 'static {
    /// Reviews one body. Must not block on input or output.
    ///
    /// # Errors
    /// If the body is not an AdmissionReview that can be answered.
    fn review(&self, path: Path, body: &[u8]) -> Result<Judged, ReviewError>;
}

#[derive(Clone)]
struct Webhook {
    reviewer: Arc<dyn Reviewer>,
    metrics: Arc<Metrics>,
    admission: Admission,
    /// Admits one large body at a time: parsed, it takes many times its size.
    large: Arc<Semaphore>,
    tracer: Tracer,
}

/// `POST /validate` and `POST /mutate`.
pub fn router(reviewer: Arc<dyn Reviewer>, metrics: Arc<Metrics>, tracer: Tracer) -> Router {
    let large = Arc::new(Semaphore::new(1));
    let state = Webhook { reviewer, metrics, admission: Admission::new(), large, tracer };
    let mut router = Router::new().fallback(wrong_path);
    for path in [Path::Validate, Path::Mutate] {
        let review = move |State(webhook): State<Webhook>, request: Request| async move {
            webhook.review(path, request).await
        };
        router = router.route(traced(path).1, post(review).fallback(wrong_method));
    }
    router.with_state(state)
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
        let reviewed = {
            let _in_flight = InFlight::new(&self.metrics);
            let work = self.reviewed(path, request).instrument(span.clone());
            let work = tokio::time::timeout(within, trace.run(work));
            work.await.unwrap_or(Err(Rejection::Deadline(within)))
        };
        let took = started.elapsed();
        let (_traced, _entered) = (trace.enter(), span.enter());
        match reviewed {
            Ok(judged) => {
                trace.reviewed(&judged);
                self.answer(path, judged, took)
            }
            Err(rejection) => {
                trace.rejected(rejection.status(), rejection.reason());
                self.reject(rejection)
            }
        }
    }

    async fn reviewed(&self, path: Path, request: Request) -> Result<Judged, Rejection> {
        let held = self.admission.read(request).await?;
        Span::current().record("bytes", held.bytes.len());
        let reviewed = if held.is_large() {
            // Parsing takes milliseconds: keep it away from the threads that serve the other requests.
            let (reviewer, span) = (Arc::clone(&self.reviewer), Span::current());
            let trace = opentelemetry::Context::current();
            // Held by the work itself, which continues after the caller has left.
            let turn = Arc::clone(&self.large).acquire_owned().await;
            let work = move || {
                let _turn = turn;
                let _traced = trace.attach();
                span.in_scope(|| review_one(&*reviewer, path, &held))
            };
            tokio::task::spawn_blocking(work).await.unwrap_or(Err(Rejection::Panic))
        } else {
            review_one(&*self.reviewer, path, &held)
        };
        // If the review took too long, the deadline only fires after a yield to the runtime.
        tokio::task::yield_now().await;
        reviewed
    }

    fn answer(&self, path: Path, judged: Judged, took: Duration) -> Response {
        let span = Span::current();
        let (operation, verdict) = (judged.verb.as_str(), judged.outcome.as_str());
        let rules: Vec<_> = judged.rules.iter().map(|rule| rule.as_str()).collect();
        span.record("operation", operation);
        span.record("verdict", verdict);
        if !rules.is_empty() {
            span.record("rules", rules.join(","));
        }
        self.metrics.webhook_request(path.as_str(), operation, verdict, took);
        for rule in rules {
            self.metrics.webhook_violation(rule);
        }
        tracing::debug!(?took, "review completed");
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
            tracing::warn!(reason, %rejection, "review not completed");
        } else {
            tracing::debug!(reason, %rejection, "request refused");
        }
        rejection.into_response()
    }
}

/// Reviews; a panic becomes an answer 500 instead of a lost connection.
///
/// That needs a build that unwinds: with `panic = "abort"` the process ends.
fn review_one(reviewer: &dyn Reviewer, path: Path, held: &Held) -> Result<Judged, Rejection> {
    // Unwind safe: the reviewer is shared and immutable, so no half-changed state is visible afterwards.
    catch_unwind(AssertUnwindSafe(|| reviewer.review(path, &held.bytes)))
        .map_err(|_| Rejection::Panic)?
        .map_err(Rejection::Refused)
}

/// Counts a review as in flight while this exists (it is dropped when the caller disconnects).
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
