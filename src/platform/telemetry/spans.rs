//! The spans of zen-lead, one function per kind: their names, attributes and parents, as listed in
//! docs/tracing.md.
//!
//! They are spans of OpenTelemetry, not of `tracing`: those would also appear in the log, and the spans of
//! libraries would appear in the traces. No export here (`otlp`), no HTTP headers (`http`). Without
//! tracing a [`Tracer`] is empty, and the functions below do nothing.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{self, Poll};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt,
};
use opentelemetry::{Array, Context, ContextGuard, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_REQUEST_RESEND_COUNT, HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE, K8S_NAMESPACE_NAME, URL_PATH, URL_SCHEME,
};
use pin_project_lite::pin_project;

use super::http;
use crate::platform::operation::{Operation, Target};
use zen_lead_core::admission::Judged;
use zen_lead_core::decide::{Action, Decision, Step};
use zen_lead_core::names::ServiceKey;

/// Longest text of an attribute, in bytes: the name of an object always fits, but the name of a user has
/// no limit.
const MAX_TEXT: usize = 256;
/// Maximum number of rules listed for a refused review.
const MAX_RULES: usize = 32;

/// Makes spans, or nothing if tracing is off; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// A span that ends when this is dropped, or nothing.
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Context>);

/// The span that requested work which another task does later.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceLink(Option<SpanContext>);

impl Tracer {
    /// No spans.
    pub fn off() -> Self {
        Self::default()
    }

    /// Spans by this tracer.
    pub fn on(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    fn begin(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: impl FnOnce() -> Context,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let parent = parent();
        let mut span =
            SpanBuilder::from_name(name).with_kind(kind).start_with_context(tracer, &parent);
        if span.is_recording() {
            span.set_attributes(attributes());
        }
        Span(Some(parent.with_span(span)))
    }

    /// One reconcile of a Service: the root of its trace.
    pub fn reconcile(&self, key: &ServiceKey) -> Span {
        self.begin("reconcile", SpanKind::Internal, Context::new, || {
            vec![word(K8S_NAMESPACE_NAME, &key.namespace), word("zen_lead.service", &key.name)]
        })
    }

    /// The snapshot of a Service is taken.
    pub fn snapshot(&self, from_cache: bool) -> Span {
        let source = if from_cache { "cache" } else { "read" };
        self.begin("snapshot", SpanKind::Internal, Context::current, || {
            vec![KeyValue::new("zen_lead.snapshot.source", source)]
        })
    }

    /// The next step is chosen.
    pub fn decide(&self) -> Span {
        self.begin("decide", SpanKind::Internal, Context::current, Vec::new)
    }

    /// One attempt of a call to the API server; [`http::sent`] names it once the request is known.
    pub fn attempt(&self, operation: Operation, target: Target<'_>, attempt: u32) -> Span {
        self.begin(operation.as_str(), SpanKind::Client, Context::current, || {
            let mut all = vec![KeyValue::new("zen_lead.operation", operation.as_str())];
            if !target.namespace.is_empty() {
                all.push(word(K8S_NAMESPACE_NAME, target.namespace));
            }
            if !target.service.is_empty() {
                all.push(word("zen_lead.service", target.service));
            }
            if attempt > 1 {
                all.push(KeyValue::new(HTTP_REQUEST_RESEND_COUNT, i64::from(attempt) - 1));
            }
            all
        })
    }

    /// A request to the webhook; continues the caller's trace if the headers name one.
    pub fn review(&self, name: &'static str, path: &'static str, from: &::http::HeaderMap) -> Span {
        self.begin(
            name,
            SpanKind::Server,
            || http::caller(from),
            || {
                vec![
                    KeyValue::new(HTTP_REQUEST_METHOD, "POST"),
                    KeyValue::new(HTTP_ROUTE, path),
                    KeyValue::new(URL_PATH, path),
                    KeyValue::new(URL_SCHEME, "https"),
                ]
            },
        )
    }
}

impl Span {
    /// Runs a future inside the span.
    pub fn run<F: Future>(&self, future: F) -> Inside<F> {
        Inside { future, context: self.0.clone() }
    }

    /// Makes this the current span until the guard is dropped.
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    fn record(&self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(context) = &self.0
            && context.span().is_recording()
        {
            context.span().set_attributes(attributes());
        }
    }

    fn fail(&self, kind: &'static str) {
        self.record(|| vec![KeyValue::new(ERROR_TYPE, kind)]);
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(""));
        }
    }

    /// Ends a failed attempt, with the category of its error.
    pub fn failed(self, category: &'static str) {
        self.fail(category);
    }

    /// Ends a reconcile, with its outcome or the category of its error.
    pub fn reconciled(self, outcome: Result<&'static str, &'static str>) {
        let (Ok(word) | Err(word)) = outcome;
        self.record(|| vec![KeyValue::new("zen_lead.outcome", word)]);
        if let Err(category) = outcome {
            self.fail(category);
        }
    }

    /// Ends a decision.
    pub fn decided(self, decision: &Decision) {
        self.record(|| {
            let mut all = vec![KeyValue::new("zen_lead.action", action(&decision.action))];
            let chosen = decision.choice.as_ref().and_then(|choice| choice.endpoint.as_ref());
            if let Some((pod, _)) = chosen {
                all.push(word("zen_lead.leader.name", &pod.name));
            }
            if let Action::Do(Step::Slice(next)) = &decision.action
                && let Some(switch) = &next.switch
            {
                all.push(word("zen_lead.leader.previous", switch.from.as_deref().unwrap_or("")));
                all.push(KeyValue::new("zen_lead.switch.reason", switch.reason.as_str()));
                all.push(number("zen_lead.leader.epoch", switch.epoch));
            } else if let Some(report) = &decision.report {
                all.push(number("zen_lead.leader.epoch", report.epoch));
            }
            all
        });
    }

    /// Ends a completed review.
    pub fn reviewed(self, judged: &Judged) {
        self.record(|| {
            let mut all = vec![
                KeyValue::new(HTTP_RESPONSE_STATUS_CODE, 200),
                word(K8S_NAMESPACE_NAME, &judged.service.namespace),
                word("zen_lead.service", &judged.service.name),
                word("zen_lead.review.uid", &judged.uid),
                word("zen_lead.review.user", &judged.user),
                KeyValue::new("zen_lead.review.dry_run", judged.dry_run),
                KeyValue::new("zen_lead.review.operation", judged.verb.as_str()),
                KeyValue::new("zen_lead.review.verdict", judged.outcome.as_str()),
            ];
            if !judged.rules.is_empty() {
                let rules = judged.rules.iter().take(MAX_RULES);
                let rules = rules.map(|rule| StringValue::from(rule.as_str()));
                let rules = Value::Array(Array::String(rules.collect()));
                all.push(KeyValue::new("zen_lead.review.rules", rules));
            }
            all
        });
    }

    /// Ends a request that was rejected without a review.
    pub fn rejected(self, status: ::http::StatusCode, reason: &'static str) {
        let code = i64::from(status.as_u16());
        self.record(|| vec![KeyValue::new(HTTP_RESPONSE_STATUS_CODE, code)]);
        // For a server, an error of the caller is not an error of its own.
        if status.is_server_error() {
            self.fail(reason);
        } else {
            self.record(|| vec![KeyValue::new(ERROR_TYPE, reason)]);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Ended here and not by the last clone of the context: a clone may live on in a task.
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

impl TraceLink {
    /// The current span.
    pub fn current() -> Self {
        Self(Context::map_current(|context| {
            context.has_active_span().then(|| context.span().span_context().clone())
        }))
    }

    /// Runs a future as part of the trace that requested it.
    pub fn run<F: Future>(&self, future: F) -> Inside<F> {
        let remote = |span: &SpanContext| Context::new().with_remote_span_context(span.clone());
        Inside { future, context: self.0.as_ref().map(remote) }
    }
}

pin_project! {
    /// A future in a span, or without one. (The type of OpenTelemetry always has a context, and an
    /// `async fn` would hold the future twice.)
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Inside<F> {
        #[pin]
        future: F,
        context: Option<Context>,
    }
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _inside = this.context.clone().map(Context::attach);
        this.future.poll(task)
    }
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Do(step) => step.kind().into(),
        other => other.into(),
    }
}

fn number(key: impl Into<Key>, value: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

/// An attribute with a text from outside, cut to its maximum length.
pub(super) fn word(key: impl Into<Key>, text: &str) -> KeyValue {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|i| text.is_char_boundary(*i));
    KeyValue::new(key, text[..end.unwrap_or(0)].to_owned())
}
