//! What a watch tells about itself: synced or not, how far, when last heard.
//!
//! [`WatchHandle`] is read by everybody, [`Pulse`] written by the watch alone.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::group::Member;
use super::times;
use crate::platform::clock::monotonic;
use zen_lead_core::version::Rv;

/// Whether what a watch has delivered can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The first list is not in yet.
    Starting,
    /// In step with the server.
    Live,
    /// Not heard from for too long, or ended.
    Lost,
}

/// A view of one watch; clones show the same one.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    shared: Arc<WatchShared>,
}

#[derive(Debug)]
struct WatchShared {
    seen: Mutex<LastSeen>,
    state: watch::Sender<WatchState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LastSeen {
    position: Rv,
    synced_once: bool,
    last_heard: Option<Instant>,
}

impl WatchHandle {
    fn new() -> Self {
        let state = watch::Sender::new(WatchState::Starting);
        Self { shared: Arc::new(WatchShared { seen: Mutex::default(), state }) }
    }

    /// Whether it can be relied on.
    pub fn state(&self) -> WatchState {
        *self.shared.state.borrow()
    }

    /// The state and its changes.
    pub fn states(&self) -> watch::Receiver<WatchState> {
        self.shared.state.subscribe()
    }

    /// Waits for the first list.
    pub async fn synced(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.states().wait_for(|_| self.synced_once()).await;
    }

    /// Whether a list has ever been delivered.
    pub fn synced_once(&self) -> bool {
        self.shared.seen.lock().synced_once
    }

    /// How far the sink has been brought: everything up to this version has been delivered. Read it
    /// *before* the data it is to vouch for; the data may then only be newer.
    #[cfg(test)]
    pub fn position(&self) -> Rv {
        self.shared.seen.lock().position
    }

    /// When the server was last heard from. On a quiet watch with bookmarks this is at most about
    /// half a minute ago.
    pub fn last_heard(&self) -> Option<Instant> {
        self.shared.seen.lock().last_heard
    }

    fn set(&self, state: WatchState) {
        self.shared.state.send_replace(state);
    }
}

/// The writing side of a [`WatchHandle`], with the clock that decides when a watch is lost.
pub(super) struct Pulse {
    handle: WatchHandle,
    member: Option<Member>,
    failing_since: Option<Instant>,
}

impl Pulse {
    /// A watch that has not begun, as a member of its group.
    pub(super) fn new(join: impl FnOnce(WatchHandle) -> Member) -> Self {
        let handle = WatchHandle::new();
        let member = Some(join(handle.clone()));
        Self { handle, member, failing_since: None }
    }

    pub(super) fn handle(&self) -> WatchHandle {
        self.handle.clone()
    }

    /// A list begins a new history: the position may go back.
    pub(super) fn reset(&mut self, version: Rv) {
        let mut seen = self.handle.shared.seen.lock();
        seen.position = version;
        seen.synced_once = true;
    }

    /// Everything up to `version` has been delivered; true when this makes the watch live.
    pub(super) fn heard(&mut self, version: Rv) -> bool {
        self.failing_since = None;
        {
            let mut seen = self.handle.shared.seen.lock();
            seen.position = version;
            seen.last_heard = Some(monotonic());
        }
        if self.handle.state() == WatchState::Live {
            return false;
        }
        self.handle.set(WatchState::Live);
        self.changed();
        true
    }

    /// Something failed; true when it is the first failure since the server was heard.
    pub(super) fn failing(&mut self) -> bool {
        let first = self.failing_since.is_none();
        self.failing_since.get_or_insert_with(monotonic);
        first
    }

    /// Awaits `future`, and meanwhile marks the watch as lost when it has been silent or failing for too long.
    pub(super) async fn or_lose<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        while let Some(at) = self.lost_at() {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = tokio::time::sleep_until(at) => self.lose(),
            }
        }
        future.await
    }

    /// When the watch is lost if nothing happens; `None` if it is not live.
    fn lost_at(&self) -> Option<Instant> {
        if self.handle.state() != WatchState::Live {
            return None;
        }
        let silent = self.handle.last_heard().map(|at| at + times::SILENT);
        let failing = self.failing_since.map(|at| at + times::FAILING);
        silent.into_iter().chain(failing).min()
    }

    fn lose(&mut self) {
        let LastSeen { position, last_heard, .. } = *self.handle.shared.seen.lock();
        self.handle.set(WatchState::Lost);
        self.changed();
        let silent = last_heard.map(|at| (monotonic() - at).as_secs_f64());
        let kind = self.member.as_ref().map(|m| m.kind().as_str());
        tracing::error!(kind, %position, silent, "watch is lost: what is known may be out of date, so leaders stay and no pod is promoted until the watch answers again");
    }

    fn changed(&self) {
        if let Some(member) = &self.member {
            member.changed();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // First out of the group, which must not take the end of a watch for a loss.
        self.member = None;
        // The sink is no longer kept in step.
        self.handle.set(WatchState::Lost);
    }
}
