//! Black-box tests: the real binary, two replicas of it, against a real kube-apiserver.
//!
//! This file only says which tests run and when. Set-up and helpers are in `support`; each other
//! module has the tests of one subject. Run them with `make test`, or by hand inside the cluster's network:
//! `source target/cluster/env; $CLUSTER_EXEC cargo test --test cluster [-- FILTER]`.

// clippy.toml allows more in test code, but clippy does not recognize tests in a binary without the
// standard harness.
#![allow(
    clippy::unnecessary_wraps,
    clippy::unused_async,
    reason = "the harness is shared with e2e/, where these functions need a Result or an await"
)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![deny(
    dead_code,
    reason = "a test that no list names, or a module that no phase names, never runs"
)]

mod abuse;
mod admission;
mod bad_services;
mod callers;
mod certificates;
mod churn;
mod clumsy;
mod commands;
mod conflicts;
mod crash;
mod drift;
mod dry_run;
mod failover;
mod families;
mod faults;
mod fields;
mod first_leader;
mod inputs;
mod invalid;
mod large;
mod lifecycle;
mod limits;
mod metrics;
mod monitoring;
mod observability;
mod occupied;
mod offline;
mod partitions;
mod ports;
mod proxy_env;
mod quota;
mod replicas;
mod rest;
mod restarts;
mod retries;
mod rights;
mod support;
mod tenant;
mod timing;
mod tracing;
mod unreachable;
mod unreadable;
mod without_webhook;

use std::process::ExitCode;

use support::harness::{self, Phase};

fn main() -> ExitCode {
    let together = [
        // These wait long, on a control plane of their own, so they start first.
        partitions::tests(),
        callers::tests(),
        restarts::tests(),
        first_leader::tests(),
        failover::tests(),
        timing::tests(),
        ports::tests(),
        families::tests(),
        fields::tests(),
        lifecycle::tests(),
        conflicts::tests(),
        drift::tests(),
        quota::tests(),
        admission::tests(),
        bad_services::tests(),
        invalid::tests(),
        observability::tests(),
        inputs::tests(),
    ];
    // Each of these ends or stops replicas, so it runs alone.
    let alone = [
        offline::tests(),
        faults::tests(),
        certificates::tests(),
        unreachable::tests(),
        metrics::tests(),
        monitoring::tests(),
        retries::tests(),
        proxy_env::tests(),
        commands::tests(),
        tracing::tests(),
        limits::tests(),
        replicas::tests(),
        unreadable::tests(),
        crash::tests(),
        rest::tests(),
        churn::tests(),
        dry_run::tests(),
        without_webhook::tests(),
        abuse::tests(),
        occupied::tests(),
        large::tests(),
        tenant::tests(),
        inputs::alone(),
        clumsy::tests(),
        // Last: it checks the calls of the whole run.
        rights::tests(),
    ];
    harness::main([
        Phase { tests: together.into_iter().flatten().collect(), alone: false },
        Phase { tests: alone.into_iter().flatten().collect(), alone: true },
    ])
}
