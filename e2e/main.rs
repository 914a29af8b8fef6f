//! End-to-end tests: zen-lead installed as users install it, real pods, real connections.
//!
//! Only what runs when is said here; set-up and helpers are in `support`, what is proved in one
//! module a subject. Run them with `make e2e`, or one of them by hand:
//! `source target/cluster/env; $CLUSTER_EXEC cargo test --features e2e --test e2e -- FILTER`
//! (after `make cluster-up image`).

// Everything here is test code, which clippy.toml allows more; clippy does not see it in a test
// binary without the standard harness.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![deny(
    dead_code,
    reason = "a test that no list names, or a module that no phase names, never runs"
)]

mod admins;
mod failover;
mod install;
mod outage;
mod routing;
mod support;
mod watching;

use std::process::ExitCode;

use support::harness::{self, Phase};

fn main() -> ExitCode {
    let together = [routing::tests(), admins::tests(), watching::tests()];
    // The first of these count requests that fail, and kube-proxy lets at most one update a second
    // pass: other tests' changes would be in their way. The others disturb zen-lead itself. The
    // last one takes it away.
    let alone = [failover::tests(), outage::tests(), install::tests()];
    harness::main([
        Phase { tests: together.into_iter().flatten().collect(), alone: false },
        Phase { tests: alone.into_iter().flatten().collect(), alone: true },
    ])
}
