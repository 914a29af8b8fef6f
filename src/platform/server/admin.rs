//! The admin router: metrics and probes, in the clear, for the kubelet and Prometheus.
//!
//! What is healthy is decided elsewhere (`health`); this file only turns it into answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::platform::metrics::Metrics;

/// The text format of Prometheus that `prometheus::TextEncoder` writes.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the probes ask; the value is the JSON body of the answer.
pub trait Probe: Send + Sync {
    /// Whether the process should be left running.
    fn live(&self) -> (bool, Value);
    /// Whether it should be sent requests.
    fn ready(&self) -> (bool, Value);
}

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    probe: Arc<dyn Probe>,
}

/// `/metrics`, `/livez`, `/readyz`, and `/healthz` as another name of `/livez`.
pub fn router(metrics: Arc<Metrics>, probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Admin { metrics, probe })
}

async fn scrape(State(admin): State<Admin>) -> Response {
    match admin.metrics.exposition() {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
                .into_response()
        }
    }
}

async fn livez(State(admin): State<Admin>) -> Response {
    answer(admin.probe.live())
}

async fn readyz(State(admin): State<Admin>) -> Response {
    answer(admin.probe.ready())
}

fn answer((good, body): (bool, Value)) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = if body.is_null() { json!({ "ok": good }) } else { body };
    let mut response = (status, axum::Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Fake;
    impl Probe for Fake {
        fn live(&self) -> (bool, Value) {
            (true, Value::Null)
        }
        fn ready(&self) -> (bool, Value) {
            (false, json!({ "missing": ["certificate"] }))
        }
    }

    async fn get(path: &str) -> (StatusCode, String, String) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(metrics, Arc::new(Fake)).oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probes_answer_with_their_state_and_its_reason() {
        let json = "application/json";
        assert_eq!(get("/livez").await, (StatusCode::OK, json.into(), r#"{"ok":true}"#.into()));
        assert_eq!(get("/healthz").await, get("/livez").await);
        assert_eq!(
            get("/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, json.into(), r#"{"missing":["certificate"]}"#.into())
        );
        assert_eq!(get("/debug").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_text_format() {
        let (status, kind, body) = get("/metrics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, EXPOSITION));
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            body.contains(&format!("zen_lead_build_info{{version=\"{version}\"}} 1")),
            "{body}"
        );
    }
}
