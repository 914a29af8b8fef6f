//! The pure decision: who leads, and the next write that makes it so.
