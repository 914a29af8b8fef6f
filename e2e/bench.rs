//! Measurements beside something measured in the same run: the built-in EndpointSlice controller, a
//! plain write, a plain list. Run them with `make bench`, one by its name with `make bench
//! BENCH=burst`. They print tables and check no times; a run fails only if the event to measure
//! did not happen.
//!
//! Numbers of rounds and sizes are set by the environment: ZEN_LEAD_BENCH_*, see e2e/README.md.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![deny(dead_code, reason = "a measurement that BENCHES does not name never runs")]

mod support;

#[path = "bench/admission.rs"]
mod admission;
#[path = "bench/burst.rs"]
mod burst;
#[path = "bench/failover.rs"]
mod failover;
#[path = "bench/fill.rs"]
mod fill;
#[path = "bench/installed.rs"]
mod installed;
#[path = "bench/knobs.rs"]
mod knobs;
#[path = "bench/measure.rs"]
mod measure;
#[path = "bench/proxy.rs"]
mod proxy;
#[path = "bench/raw.rs"]
mod raw;
#[path = "bench/scale.rs"]
mod scale;
#[path = "bench/standby.rs"]
mod standby;
#[path = "bench/traffic.rs"]
mod traffic;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use support::case::Case;
use support::cluster::Cluster;
use support::world::{World, fresh, suited};

type Body = fn(Arc<Case>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! benches {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |case| Box::pin($module::$name(case)))),*]
    };
}

const BENCHES: &[(&str, Body)] = benches![
    failover::failover,
    failover::quiet,
    burst::burst,
    scale::memory,
    scale::start,
    admission::admission,
    admission::reviews_at_rates,
    knobs::settings,
    knobs::replicas,
    knobs::drain,
    traffic::probes,
    traffic::deletions,
    proxy::proxy,
];

fn main() -> ExitCode {
    // cargo test --benches asks for a list of tests and a quick run.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<_> = BENCHES
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
        println!("no such measurement: {}; there are: {}", wanted.join(" "), names.join(", "));
        return ExitCode::FAILURE;
    }
    let cluster = match Cluster::from_env().and_then(suited) {
        Ok(cluster) => cluster,
        Err(why) => {
            println!("not run: {why}");
            return if support::cluster::in_ci() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let world = Arc::new(World::set_up(cluster, fresh()).await);
        let mut code = ExitCode::SUCCESS;
        for (name, body) in chosen {
            let case = Arc::new(Case::open(world.clone(), &format!("bench-{name}")).await);
            // As a task, so that a panic ends this measurement but not the cleanup.
            if tokio::spawn(body(case)).await.is_err() {
                println!("{name} failed");
                code = ExitCode::FAILURE;
            }
            fill::clear(&world).await;
        }
        world.tear_down().await;
        code
    })
}
