//! The subcommands beside `serve`: they read and print, and never write to the cluster.
//!
//! Each is a file of its own and judges nothing itself.

pub mod explain;
pub mod lint;
pub mod status;
