//! The subcommands beside `serve`: they read and print, and never write to the cluster.

pub mod explain;
pub mod lint;
pub mod status;
