//! The admin router: metrics and probes, without TLS, for the kubelet and Prometheus.
//!
//! Turns the state of `health` into answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::platform::health::Health;
use crate::platform::metrics::Metrics;

/// The text format of Prometheus that `prometheus::TextEncoder` writes.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Health,
}

/// `/metrics`, `/livez`, `/readyz`, and `/healthz` as an alias of `/livez`.
pub fn router(metrics: Arc<Metrics>, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Admin { metrics, health })
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

/// Always 200: a restart would not repair anything that a gate reports.
async fn livez() -> Response {
    answer(StatusCode::OK, json!({ "alive": true }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let readiness = admin.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, readiness)
}

fn answer(status: StatusCode, body: impl Serialize) -> Response {
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
    use crate::platform::health::Gate;

    async fn get(path: &str) -> (StatusCode, String, String) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Health::new(&[Gate::Certificate], metrics.clone());
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(metrics, health).oneshot(request).await.unwrap();
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
        let alive = r#"{"alive":true}"#.to_owned();
        assert_eq!(get("/livez").await, (StatusCode::OK, json.into(), alive));
        assert_eq!(get("/healthz").await, get("/livez").await);
        let closed = r#"{"draining":false,"missing":["certificate"],"ready":false}"#.to_owned();
        let wanted = (StatusCode::SERVICE_UNAVAILABLE, json.into(), closed);
        assert_eq!(get("/readyz").await, wanted);
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
