//! Disabled tracing costs no memory: the spans of a reconcile, its calls and a review allocate no byte. The
//! allocator counts exactly; a measured time would prove nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test binary")]

use std::future::ready;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};

use http::{HeaderMap, Request, StatusCode};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use peak_alloc::PeakAlloc;
use zen_lead::platform::operation::{Operation, Target};
use zen_lead::platform::telemetry::http as headers;
use zen_lead::platform::telemetry::spans::{TraceLink, Tracer};
use zen_lead_core::admission::{Judged, Outcome, Verb};
use zen_lead_core::decide::{self, Decision, Trust};
use zen_lead_core::fixtures::{NAMESPACE, Object, PodFixture, ServiceFixture, at, pod, service};
use zen_lead_core::index::snapshot::Snapshot;
use zen_lead_core::index::{Index, Limits};
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::settings::Rule;
use zen_lead_core::version::Rv;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The number of rounds. The harness has its own thread; in at least one round it is idle.
const ROUNDS: usize = 200;

/// The subjects of the spans. They are made before, because they exist without tracing too.
struct Work {
    key: ServiceKey,
    decision: Decision,
    judged: Judged,
    from: HeaderMap,
    request: Request<()>,
}

impl Work {
    fn new() -> Self {
        let mut from = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        from.insert("traceparent", parent.parse().unwrap());
        let key = ServiceKey::new(NAMESPACE, "web");
        let judged = Judged {
            body: Vec::new(),
            verb: Verb::Create,
            outcome: Outcome::Denied,
            rules: vec![Rule::Boolean],
            dry_run: false,
            uid: "u-1".to_owned(),
            service: key.clone(),
            user: "alice".to_owned(),
        };
        let request = Request::put("https://c:6443/api/v1/namespaces/team/services/web");
        Self { decision: decision(&key), judged, from, request: request.body(()).unwrap(), key }
    }

    /// Every span of one reconcile with a retried call, and of two reviews.
    fn spans(&mut self, tracer: &Tracer) {
        let reconcile = tracer.reconcile(&self.key);
        poll(reconcile.run(ready(())));
        {
            let _inside = reconcile.enter();
            drop(tracer.snapshot(true));
            tracer.decide().decided(&self.decision);
            for attempt in 1..=2 {
                let target = Target::of(&self.key, "web-leader");
                let call = tracer.attempt(Operation::ReplaceSlice, target, attempt);
                let _sending = call.enter();
                headers::sent(&mut self.request);
                headers::answered(StatusCode::OK);
                if attempt == 1 {
                    call.failed("unavailable");
                }
            }
            poll(TraceLink::current().run(ready(())));
        }
        reconcile.reconciled(Ok("idle"));
        let review = tracer.review("POST /validate", "/validate", &self.from);
        review.reviewed(&self.judged);
        let review = tracer.review("POST /validate", "/validate", &self.from);
        review.rejected(StatusCode::BAD_REQUEST, "malformed");
    }

    /// The most bytes that the spans held at any moment, in the quietest of all rounds.
    fn held(&mut self, tracer: &Tracer) -> usize {
        let round = || {
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            self.spans(black_box(tracer));
            ALLOCATOR.peak_usage().saturating_sub(before)
        };
        std::iter::repeat_with(round).take(ROUNDS).min().unwrap()
    }
}

/// A decision with a switch, because it has the most attributes.
fn decision(key: &ServiceKey) -> Decision {
    let mut index = Index::new(NameRule::default(), Limits::default());
    index.apply_service(service("web").enabled().selecting("app", "web").version(1));
    index.apply_service(service("web-leader").leading("web", "uid-web").version(2));
    index.apply_pod(&pod("a").ready_for(60).version(3));
    index.pods_heard(Some(NAMESPACE), Rv(4));
    let snapshot = Snapshot { consistent: true, ..index.snapshot(key) };
    let context = decide::Context {
        now: at(100),
        writer: "zl-0",
        trust: Trust::Live,
        blocked: &[],
        version: 1,
        replicas: &[],
        verified: decide::Verified::default(),
        takes_over: false,
    };
    let decision = decide::decide(&snapshot, &context);
    assert!(decision.choice.is_some(), "{decision:?}");
    decision
}

fn poll(future: impl Future<Output = ()>) {
    let mut task = Context::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut task).is_ready());
}

#[test]
fn spans_of_tracing_that_is_off_allocate_nothing() {
    let mut work = Work::new();
    let off = work.held(&Tracer::off());
    // The same with a tracer that keeps nothing. It allocates: this proves that the count works.
    let provider = SdkTracerProvider::builder().build();
    let on = work.held(&Tracer::on(provider.tracer("test")));
    println!("bytes held for the spans of one reconcile and two reviews: off {off}, on {on}");
    assert!(on > 0, "the allocator counts");
    assert_eq!(off, 0, "tracing that is off allocates");
}
