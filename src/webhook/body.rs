//! Reads request bodies within bounds: a bound for each body, and a bound for all bodies together.
//!
//! Nothing is parsed here.

use std::sync::Arc;

use axum::extract::Request;
use futures::StreamExt;
use http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reject::Rejection;

/// Largest body, in bytes: two objects of 3 MiB (the API server's own limit for a request) and room
/// for the envelope; the same bound as controller-runtime's webhook server.
pub const MAX_BODY: usize = 7 * 1024 * 1024;
/// Bodies up to this size are reviewed on the thread that read them; larger ones on another, one at a time.
const SMALL: usize = 64 * 1024;
/// Small bodies in memory at the same time: 64 MiB in total.
const SMALL_AT_ONCE: usize = 1024;
/// Memory for large bodies, in KiB. A burst of 3 MiB bodies waits for it until the deadlines of the
/// reviews, instead of exhausting the memory of the process.
const LARGE_BUDGET_KIB: usize = 48 * 1024;

/// A body in memory, with its share of the budget.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    large: bool,
    _share: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn is_large(&self) -> bool {
        self.large
    }
}

/// Admits bodies into memory.
#[derive(Clone)]
pub(super) struct Admission {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_AT_ONCE)),
            large: Arc::new(Semaphore::new(LARGE_BUDGET_KIB)),
        }
    }

    /// Reads the body; waits for memory until the caller's deadline.
    pub(super) async fn read(&self, request: Request) -> Result<Held, Rejection> {
        check_type(request.headers())?;
        let announced = announced(request.headers())?;
        // Without a length, the body may have any size up to the limit.
        let most = announced.unwrap_or(MAX_BODY);
        let large = most > SMALL;
        let share = if large {
            let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
            Arc::clone(&self.large).acquire_many_owned(kib).await
        } else {
            Arc::clone(&self.small).acquire_owned().await
        };
        let share = share.expect("the semaphores are never closed");

        let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
        let mut stream = request.into_body().into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| Rejection::Broken(e.to_string()))?;
            if bytes.len() + chunk.len() > most {
                return Err(Rejection::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes, large, _share: share })
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Rejection::ContentType(given.to_owned()))
    }
}

fn announced(headers: &HeaderMap) -> Result<Option<usize>, Rejection> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    // The server has parsed it before; a number that does not fit a usize is too large as well.
    let length = value.to_str().ok().and_then(|v| v.parse().ok()).unwrap_or(usize::MAX);
    if length > MAX_BODY { Err(Rejection::Announced(length)) } else { Ok(Some(length)) }
}
