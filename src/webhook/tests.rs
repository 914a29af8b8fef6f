//! Tests of the router with a scripted reviewer.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Version};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::platform::server::Peer;
use zen_lead_core::admission::{Outcome, Verb};
use zen_lead_core::settings::Rule;

/// Answers, refuses, panics or is slow, as the body says; records what it saw.
#[derive(Default)]
struct Puppet {
    seen: Mutex<Vec<(Path, usize)>>,
    in_flight: Mutex<Vec<i64>>,
    metrics: Mutex<Option<Arc<Metrics>>>,
}

impl Reviewer for Puppet {
    fn review(&self, path: Path, body: &[u8]) -> Result<Judged, ReviewError> {
        self.seen.lock().push((path, body.len()));
        if let Some(metrics) = &*self.metrics.lock() {
            self.in_flight.lock().push(metrics.webhook_in_flight().get());
        }
        match body {
            b"refuse" => Err(ReviewError::NoUid),
            b"panic" => panic!("on demand"),
            b"slow" => {
                std::thread::sleep(Duration::from_millis(150));
                Ok(judged(Outcome::Allowed, vec![]))
            }
            b"deny" => Ok(judged(Outcome::Denied, vec![Rule::UnknownKey, Rule::Boolean])),
            _ => Ok(judged(Outcome::Allowed, vec![])),
        }
    }
}

fn judged(outcome: Outcome, rules: Vec<Rule>) -> Judged {
    Judged {
        body: b"{\"answer\":1}".to_vec(),
        verb: Verb::Create,
        outcome,
        rules,
        dry_run: false,
        uid: String::new(),
        service: zen_lead_core::names::ServiceKey::new("team", "web"),
        user: "alice".into(),
    }
}

struct Bench {
    router: Router,
    puppet: Arc<Puppet>,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let puppet = Arc::new(Puppet::default());
        *puppet.metrics.lock() = Some(Arc::clone(&metrics));
        let reviewer: Arc<dyn Reviewer> = Arc::<Puppet>::clone(&puppet);
        Self { router: router(reviewer, Arc::clone(&metrics), Tracer::off()), puppet, metrics }
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        assert_eq!(kind.unwrap(), "application/json", "status {status}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn post(&self, target: &str, body: impl Into<Body>) -> (u16, Value) {
        self.send(request(target, body)).await
    }

    fn metric(&self, line: &str) -> bool {
        let text = self.metrics.exposition().unwrap();
        text.lines().any(|l| l == line)
    }
}

fn request(target: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(target)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
    });
    (code, status)
}

#[tokio::test]
async fn a_review_is_answered_and_counted() {
    let bench = Bench::new();
    let answer = json!({ "answer": 1 });
    assert_eq!(bench.post("/validate?timeout=1s", "{}").await, (200, answer.clone()));
    assert_eq!(bench.post("/mutate", "deny").await, (200, answer));
    assert_eq!(*bench.puppet.seen.lock(), [(Path::Validate, 2), (Path::Mutate, 4)]);
    assert_eq!(*bench.puppet.in_flight.lock(), [1, 1]);
    for line in [
        "zen_lead_webhook_requests_total{operation=\"create\",path=\"validate\",verdict=\"allowed\"} 1",
        "zen_lead_webhook_requests_total{operation=\"create\",path=\"mutate\",verdict=\"denied\"} 1",
        "zen_lead_webhook_violations_total{rule=\"unknown_key\"} 1",
        "zen_lead_webhook_violations_total{rule=\"boolean\"} 1",
        "zen_lead_webhook_duration_seconds_count{path=\"validate\"} 1",
        "zen_lead_webhook_in_flight 0",
    ] {
        assert!(bench.metric(line), "{line}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_its_reason() {
    let bench = Bench::new();
    let json_type = |v: &str| {
        let mut r = request("/validate", "{}");
        r.headers_mut().insert(header::CONTENT_TYPE, v.parse().unwrap());
        r
    };
    let method = |m: Method| {
        let mut r = request("/mutate", "{}");
        *r.method_mut() = m;
        r
    };
    for (request, code, message, reason) in [
        (
            json_type("text/plain"),
            415,
            "content type \"text/plain\" is not supported; send application/json",
            "content_type",
        ),
        (
            json_type("application/json-patch+json"),
            415,
            "content type \"application/json-patch+json\" is not supported; send application/json",
            "content_type",
        ),
        (method(Method::PUT), 405, "method PUT is not allowed; use POST", "method"),
        (method(Method::GET), 405, "method GET is not allowed; use POST", "method"),
        (
            request("/validat", "{}"),
            404,
            "no webhook at \"/validat\"; use /validate or /mutate",
            "path",
        ),
        (request("/validate", "refuse"), 400, "the request has no uid", "no_uid"),
    ] {
        let label = format!("zen_lead_webhook_rejected_bodies_total{{reason=\"{reason}\"}}");
        let allow = request.method() != Method::POST;
        if allow {
            let mut again = Request::builder().method(request.method()).uri(request.uri());
            again = again.version(Version::HTTP_11);
            let response =
                bench.router.clone().oneshot(again.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.headers()[header::ALLOW], "POST");
        }
        assert_eq!(bench.send(request).await, failure(code, message));
        let text = bench.metrics.exposition().unwrap();
        assert!(text.contains(&label), "{label}");
    }
    let mut with_charset = json_type("Application/JSON; charset=utf-8");
    *with_charset.version_mut() = Version::HTTP_11;
    assert_eq!(bench.send(with_charset).await.0, 200);
    assert_eq!(bench.puppet.seen.lock().len(), 2, "only well-formed requests reach the reviewer");
}

/// A body of unknown length made of chunks of 64 KiB; panics when more than `most` are taken.
fn chunks(count: usize, most: usize) -> Body {
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    Body::from_stream(stream::iter((0..count).map(move |n| {
        assert!(n < most, "read on after the limit");
        Ok::<_, Infallible>(chunk.clone())
    })))
}

#[tokio::test]
async fn seven_mebibytes_are_read_and_not_one_byte_more() {
    let bench = Bench::new();
    // Announced: refused without reading anything.
    let mut announced = request("/validate", chunks(1, 0));
    announced.headers_mut().insert(header::CONTENT_LENGTH, (MAX_BODY + 1).into());
    let text = "the body has 7340033 bytes; the limit is 7340032";
    assert_eq!(bench.send(announced).await, failure(413, text));
    for huge in ["18446744073709551615", "99999999999999999999999999"] {
        let mut r = request("/validate", chunks(1, 0));
        r.headers_mut().insert(header::CONTENT_LENGTH, huge.parse().unwrap());
        assert_eq!(bench.send(r).await.0, 413, "{huge}");
    }
    // Not announced: refused as soon as it is too large; 112 chunks are exactly 7 MiB.
    let text = "the body has more than 7340032 bytes";
    assert_eq!(bench.post("/validate", chunks(1000, 113)).await, failure(413, text));
    assert_eq!(*bench.puppet.seen.lock(), []);

    assert_eq!(bench.post("/validate", chunks(112, 112)).await.0, 200);
    let mut whole = request("/validate", vec![b' '; MAX_BODY]);
    whole.headers_mut().insert(header::CONTENT_LENGTH, MAX_BODY.into());
    assert_eq!(bench.send(whole).await.0, 200);
    assert_eq!(*bench.puppet.seen.lock(), [(Path::Validate, MAX_BODY); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_in_time() {
    let bench = Bench::new();
    let never = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    for (target, within) in
        [("/validate?timeout=1s", 900), ("/mutate?timeout=2s", 1_900), ("/mutate", 9_900)]
    {
        let began = monotonic();
        let got = bench.post(target, never()).await;
        assert_eq!(began.elapsed(), Duration::from_millis(within), "{target}");
        let text = format!(
            "zen-lead did not finish its review within {:?}; try again",
            Duration::from_millis(within)
        );
        assert_eq!(got, failure(504, &text));
    }
    assert!(bench.metric("zen_lead_webhook_rejected_bodies_total{reason=\"deadline\"} 3"));
    assert!(bench.metric("zen_lead_timeout_occurrences_total{operation=\"admission_review\"} 3"));
    assert!(bench.metric("zen_lead_webhook_in_flight 0"));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_given() {
    let bench = Bench::new();
    let got = bench.post("/validate?timeout=100ms", "slow").await;
    assert_eq!(got, failure(504, "zen-lead did not finish its review within 90ms; try again"));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_review_works() {
    let bench = Bench::new();
    let text = "zen-lead failed to process this review; see its log";
    assert_eq!(bench.post("/validate", "panic").await, failure(500, text));
    assert!(bench.metric("zen_lead_webhook_rejected_bodies_total{reason=\"panic\"} 1"));
    assert!(bench.metric("zen_lead_webhook_in_flight 0"));
    assert_eq!(bench.post("/validate", "{}").await.0, 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let bench = Bench::new();
    let parts = vec![Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
    let got = bench.post("/validate", Body::from_stream(stream::iter(parts))).await;
    assert_eq!(got, failure(400, "the body could not be read: gone"));
}

#[tokio::test(start_paused = true)]
async fn large_bodies_wait_for_memory_and_small_ones_pass_them() {
    let bench = Bench::new();
    // Eight bodies of up to 7 MiB do not fit into 48 MiB; none of them ever arrives.
    let never = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let large: Vec<_> = (0..8).map(|_| bench.post("/validate?timeout=5s", never())).collect();
    let mut large = std::pin::pin!(futures::future::join_all(large));
    assert!(futures::poll!(large.as_mut()).is_pending());

    let mut small = request("/validate?timeout=1s", "{}");
    small.headers_mut().insert(header::CONTENT_LENGTH, 2.into());
    assert_eq!(bench.send(small).await.0, 200);
    let text = "zen-lead did not finish its review within 900ms; try again";
    assert_eq!(bench.post("/validate?timeout=1s", "{}").await, failure(504, text), "no length");

    for answer in large.await {
        assert_eq!(answer.0, 504);
    }
    assert_eq!(bench.post("/validate", "{}").await.0, 200, "the memory is free again");
}

#[tokio::test(start_paused = true)]
async fn one_address_leaves_half_of_the_memory_to_others() {
    let from = |last: u8, mut request: Request<Body>| {
        request.extensions_mut().insert(Peer(std::net::Ipv4Addr::new(10, 0, 0, last).into()));
        request
    };
    // More than all the memory there is, by bodies that never arrive.
    for (count, length) in [(20, MAX_BODY), (2_000, 1_000)] {
        let bench = Bench::new();
        let endless = (0..count).map(|_| {
            let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
            let mut request = request("/validate", body);
            request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            bench.router.clone().oneshot(from(1, request))
        });
        let endless: FuturesUnordered<_> = endless.collect();
        let mut endless = std::pin::pin!(endless.count());
        assert!((&mut endless).now_or_never().is_none());
        let honest = request("/validate", " ".repeat(length.min(3 << 20)));
        tokio::select! {
            biased;
            (status, _) = bench.send(from(2, honest)) => assert_eq!(status, 200),
            late = &mut endless => panic!("{late} deadlines passed first"),
        }
    }
}
