//! The subcommands beside `serve`: they read and print, and never write to the cluster.
//!
//! Each is a file of its own and judges nothing itself.

pub mod explain;
pub mod lint;
mod routed;
pub mod status;

use std::io::{self, ErrorKind, Write};

/// Writes to standard output. A reader that has seen enough and is gone (`| head -1`) is no failure.
///
/// # Errors
/// What else keeps the text from being written.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The outcome of a write, where a closed pipe counts as success.
fn unless_closed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
