//! The keyed, delayed work queue.
