//! The zen-lead binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use zen_lead::{app, config};

fn main() -> ExitCode {
    app::main(config::Cli::parse()).unwrap_or_else(|error| {
        eprintln!("zen-lead: {error:#}");
        ExitCode::from(2)
    })
}
