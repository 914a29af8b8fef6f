//! The subcommands other than `serve`. They read and print, and never write to the cluster.
//!
//! Each has a file of its own. The rules are those of the core.

pub(crate) mod explain;
pub mod lint;
mod routed;
pub(crate) mod status;

use std::io::{self, ErrorKind, Write};

use k8s_openapi::api::core::v1::Service;

/// Writes to standard output. A reader that has closed the pipe (`| head -1`) is not an error.
///
/// # Errors
/// If the text cannot be written for any other reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Namespace and name of a Service; empty where it has none.
fn key_of(service: &Service) -> (String, String) {
    let metadata = &service.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The outcome of a write; a closed pipe counts as success.
fn unless_closed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
