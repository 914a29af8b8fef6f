//! From a watch event to a written slice.
//!
//! ```text
//! watch -> feeds -> index (core) -> queue -> reconcile -> reader, apply -> record -> events
//! ```
//!
//! Nothing is decided here: that is the core's. No webhook.

pub mod apply;
pub mod events;
pub mod feeds;
pub mod leftovers;
pub mod pause;
pub mod queue;
pub mod reader;
pub mod reconcile;
pub mod record;
pub mod watch;
