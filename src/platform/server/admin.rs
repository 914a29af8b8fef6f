//! The admin router: metrics and probes, without TLS, for the kubelet and Prometheus.
//!
//! Turns the state of `health` into answers, and a scrape into a body that is written while it is sent. With a
//! [`Token`], a scrape has to carry it: metrics name Services of all namespaces. Probes never do: the kubelet
//! sends no secret of this kind.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::token::Token;
use crate::platform::health::Health;
use crate::platform::metrics::{Metrics, Scrape};

/// Bytes of a scrape that are sent together. A scrape holds little more than one or two of these pieces,
/// also if its client reads slowly.
const PIECE: usize = 64 * 1024;
/// The text format of Prometheus that `prometheus::TextEncoder` writes.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Health,
    token: Option<Arc<Token>>,
}

/// `/metrics`, for callers with the token if there is one, `/livez`, `/readyz`, and `/healthz` as an alias of
/// `/livez`.
pub fn router(metrics: Arc<Metrics>, health: Health, token: Option<Arc<Token>>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Admin { metrics, health, token })
}

async fn scrape(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if admin.token.is_some_and(|token| !token.is_in(&headers)) {
        let text = "/metrics needs the token of --metrics-token-file, as \"Authorization: Bearer TOKEN\"\n";
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text)
            .into_response();
    }
    match admin.metrics.scrape() {
        Ok(scrape) => {
            let body = Body::from_stream(pieces(scrape));
            ([(header::CONTENT_TYPE, EXPOSITION)], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
                .into_response()
        }
    }
}

/// Writes a piece when the client has taken the one before. Between the parts of a piece, other tasks run.
fn pieces(scrape: Scrape) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold(Some(scrape), |scrape| async {
        let mut scrape = scrape?;
        let mut piece = String::with_capacity(PIECE);
        let mut more = true;
        while more && piece.len() + Scrape::PART_BYTES < PIECE {
            more = scrape.write_part(&mut piece);
            tokio::task::yield_now().await;
        }
        (!piece.is_empty()).then(|| (Ok(piece), more.then_some(scrape)))
    })
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
    use zen_lead_core::names::ServiceKey;

    async fn answer_to(metrics: &Arc<Metrics>, request: Request<Body>) -> Response {
        let health = Health::new(&[Gate::Certificate], metrics.clone());
        router(metrics.clone(), health, None).oneshot(request).await.unwrap()
    }

    async fn get(path: &str) -> (StatusCode, String, String) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let response = answer_to(&metrics, Request::get(path).body(Body::empty()).unwrap()).await;
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

    #[tokio::test]
    async fn a_token_opens_the_metrics_and_probes_need_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "s3cret\n").unwrap();
        let token = Token::load(file.path().to_owned()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let ask = async |path: &str, given: &str| {
            let health = Health::new(&[], metrics.clone());
            let request = Request::get(path).header(header::AUTHORIZATION, given);
            let request = request.body(Body::empty()).unwrap();
            let router = router(metrics.clone(), health, Some(token.clone()));
            let response = router.oneshot(request).await.unwrap();
            let status = response.status();
            let challenge = response.headers().contains_key(header::WWW_AUTHENTICATE);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, challenge, String::from_utf8(body.to_vec()).unwrap())
        };
        let (status, challenge, body) = ask("/metrics", "Bearer wrong").await;
        assert_eq!((status, challenge), (StatusCode::UNAUTHORIZED, true));
        assert!(body.contains("--metrics-token-file") && !body.contains("zen_lead"), "{body}");
        let (status, _, body) = ask("/metrics", "Bearer s3cret").await;
        assert!(status == StatusCode::OK && body.contains("zen_lead_build_info"), "{body}");
        for probe in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(ask(probe, "").await.0, StatusCode::OK, "{probe}");
        }
    }

    /// Enough Services for several pieces.
    fn many() -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::new().unwrap());
        for n in 0..2_000 {
            let key = ServiceKey::new("shop", format!("s{n}"));
            metrics.track(&key);
            metrics.reconciled(&key, "ok", false, std::time::Duration::from_millis(1));
        }
        metrics
    }

    #[tokio::test]
    async fn a_scrape_comes_in_pieces_between_which_others_work() {
        let metrics = many();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let mut body = answer_to(&metrics, request).await.into_body();
        let (mut pieces, mut turns) = (Vec::new(), 0);
        let read = async {
            while let Some(frame) = body.frame().await {
                pieces.push(frame.unwrap().into_data().unwrap());
            }
        };
        let other_work = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; () = read => (), () = other_work => () }
        assert!(pieces.iter().all(|p| !p.is_empty() && p.len() < PIECE), "{}", pieces.len());
        assert!(pieces.len() >= 4, "{}", pieces.len());
        assert!(turns > 2 * pieces.len(), "{turns} turns");
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), metrics.exposition().unwrap());
    }

    #[tokio::test]
    async fn a_head_request_gets_the_head_of_a_scrape() {
        let request = Request::head("/metrics").body(Body::empty()).unwrap();
        let response = answer_to(&many(), request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], EXPOSITION);
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
