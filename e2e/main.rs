//! End-to-end tests: zen-lead installed as users install it, real pods, real connections.
//!
//! This file only says which tests run and when. Set-up and helpers are in `support`; each other
//! module has the tests of one subject. Run them with `make e2e`, or one of them by hand:
//! `source target/cluster/env; $CLUSTER_EXEC cargo test --features e2e --test e2e -- FILTER`
//! (after `make cluster-up image`).

// clippy.toml allows more in test code, but clippy does not recognize tests in a binary without the
// standard harness.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![deny(
    dead_code,
    reason = "a test that no list names, or a module that no phase names, never runs"
)]

mod admins;
mod failover;
mod helm;
mod install;
mod outage;
mod routing;
mod support;
mod watching;

use std::process::ExitCode;

use support::harness::{self, Phase};

fn main() -> ExitCode {
    let together = [routing::tests(), admins::tests(), watching::tests()];
    // The first of these count failed requests. kube-proxy handles at most one update a second, so
    // changes of other tests would disturb them. The others disturb zen-lead itself, and the last ones
    // remove it.
    let alone = [failover::tests(), outage::tests(), install::tests(), helm::tests()];
    harness::main([
        Phase { tests: together.into_iter().flatten().collect(), alone: false },
        Phase { tests: alone.into_iter().flatten().collect(), alone: true },
    ])
}
