//! Keeps a connection for calls open through any silence: a small call at intervals.
//!
//! Pings do not do that. The API server closes an HTTP/2 connection that had no request for 90 s, whatever pings
//! arrive (docs/decisions/warm-calls.md).

use std::time::Duration;

use kube::Client;

use super::{Caller, call};
use crate::platform::operation::{Operation, Target};
use crate::platform::telemetry::spans::Tracer;

/// A third of what the API server allows. It also bounds how long there may be no connection after the API
/// server has ended the last one.
const INTERVAL: Duration = Duration::from_secs(30);

/// Reads the version of the server every 30 s, without end. The API server answers it without a store or rights.
pub async fn keep_warm(client: Client, caller: Caller) {
    // A call that belongs to nothing would be a trace of its own.
    let caller = Caller { tracer: Tracer::off(), ..caller };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let version = || client.apiserver_version();
        let asked = call(&caller, Operation::GetVersion, Target::own("/version"), version).await;
        if let Err(error) = asked {
            tracing::debug!("{error}");
        }
    }
}
