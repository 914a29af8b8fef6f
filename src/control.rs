//! From a watch event to a written slice.
//!
//! ```text
//! watch -> feeds -> index (core) -> queue -> reconcile -> reader, apply -> record -> events
//! ```
//!
//! Nothing is decided here: that is the core's. No webhook.

pub(crate) mod apply;
pub(crate) mod events;
pub(crate) mod feeds;
pub(crate) mod leftovers;
pub(crate) mod pause;
pub(crate) mod pressure;
pub mod queue;
pub(crate) mod reader;
pub(crate) mod reconcile;
pub(crate) mod record;
pub(crate) mod watch;
