//! The subcommands beside serve.
//!
//! Each is a file of its own; they print and return an exit code, and judge nothing themselves.

pub mod lint;
