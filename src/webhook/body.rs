//! Reads request bodies within bounds: for each body, for all bodies together, and for those of one address.
//!
//! Nothing is parsed here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};

use axum::extract::Request;
use futures::StreamExt;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reject::Rejection;
use crate::platform::server::Peer;

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

/// One address gets half of that. With bodies that never end, it cannot keep those of others waiting.
const SHARE: usize = 2;

/// A body in memory, with its part of the budget.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    large: bool,
    _parts: (Arc<Budget>, [OwnedSemaphorePermit; 2]),
}

impl Held {
    pub(super) fn is_large(&self) -> bool {
        self.large
    }
}

struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Budget {
    fn new(part: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_AT_ONCE / part)),
            large: Arc::new(Semaphore::new(LARGE_BUDGET_KIB / part)),
        }
    }

    async fn take(&self, most: usize) -> OwnedSemaphorePermit {
        let permit = if most > SMALL {
            let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
            Arc::clone(&self.large).acquire_many_owned(kib).await
        } else {
            Arc::clone(&self.small).acquire_owned().await
        };
        permit.expect("the semaphores are never closed")
    }
}

/// Admits bodies into memory.
#[derive(Clone)]
pub(super) struct Admission {
    all: Arc<Budget>,
    /// Of addresses with a body in memory or waiting.
    shares: Arc<Mutex<HashMap<IpAddr, Weak<Budget>>>>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Budget::new(1)), shares: Arc::default() }
    }

    fn share(&self, address: IpAddr) -> Arc<Budget> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Budget::new(SHARE));
        shares.insert(address, Arc::downgrade(&share));
        share
    }

    /// Reads the body; waits for memory until the caller's deadline.
    pub(super) async fn read(&self, request: Request) -> Result<Held, Rejection> {
        check_type(request.headers())?;
        let announced = announced(request.headers())?;
        // Without a length, the body may have any size up to the limit.
        let most = announced.unwrap_or(MAX_BODY);
        let peer = request.extensions().get::<Peer>();
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        let share = self.share(address);
        // Its own part first, so that an address that has none left takes no part of all.
        let permits = [share.take(most).await, self.all.take(most).await];

        let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
        let mut stream = request.into_body().into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| Rejection::Broken(e.to_string()))?;
            if bytes.len() + chunk.len() > most {
                return Err(Rejection::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes, large: most > SMALL, _parts: (share, permits) })
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
