//! The worker: pop, snapshot, decide, apply, record.
