//! What both flows look at: the index, and who else runs. Locked for one question or change at a time.

use std::sync::Arc;

use parking_lot::RwLock;
use zen_lead_core::index::Index;

/// The index behind its lock.
pub type SharedIndex = Arc<RwLock<Index>>;

/// The replicas of zen-lead that are ready, by pod name.
pub type Replicas = Arc<RwLock<Vec<String>>>;
