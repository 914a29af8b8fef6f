//! Measurements beside something measured in the same run: the built-in EndpointSlice controller, a
//! plain client. Run them with `make bench`, one by its name with `make bench BENCH=burst`. They print
//! tables, write them as JSON and figures into target/bench, and check no times; a run fails only if the event
//! to measure did not happen.
//!
//! ZEN_LEAD_BENCH_BINARY_A and _B name two static binaries: each measurement then runs with A, B, B, A.
//! Numbers of rounds and sizes are set by the environment: ZEN_LEAD_BENCH_*, see e2e/README.md.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::missing_errors_doc)]
#![deny(dead_code, reason = "a measurement that BENCHES does not name never runs")]

mod support;

#[path = "bench/ab.rs"]
mod ab;
#[path = "bench/admission.rs"]
mod admission;
#[path = "bench/burst.rs"]
mod burst;
#[path = "bench/calls.rs"]
mod calls;
#[path = "bench/copies.rs"]
mod copies;
#[path = "bench/failover.rs"]
mod failover;
#[path = "bench/fill.rs"]
mod fill;
#[path = "bench/first.rs"]
mod first;
#[path = "bench/floor.rs"]
mod floor;
#[path = "bench/installed.rs"]
mod installed;
#[path = "bench/knobs.rs"]
mod knobs;
#[path = "bench/lost.rs"]
mod lost;
#[path = "bench/measure.rs"]
mod measure;
#[path = "bench/plain.rs"]
mod plain;
#[path = "bench/plot.rs"]
mod plot;
#[path = "bench/proxy.rs"]
mod proxy;
#[path = "bench/raw.rs"]
mod raw;
#[path = "bench/results.rs"]
mod results;
#[path = "bench/scale.rs"]
mod scale;
#[path = "bench/standby.rs"]
mod standby;
#[path = "bench/traffic.rs"]
mod traffic;
#[path = "bench/versions.rs"]
mod versions;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use calls::Calls;
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
    first::first,
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

/// The images of two binaries that are compared.
const IMAGES: [(&str, &str); 2] = [("A", "zen-lead:bench-a"), ("B", "zen-lead:bench-b")];

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
    let binaries = match binaries() {
        Ok(binaries) => binaries,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let world = Arc::new(World::set_up(cluster, fresh()).await);
        let versions = versions::of(&world, binaries.as_ref()).await;
        results::begin(&format!("{}-{}", world.began.strftime("%Y%m%d-%H%M"), world.run), versions);
        let mut code = ExitCode::SUCCESS;
        if let Err(why) = load(binaries.as_ref()).await {
            println!("{why}");
            code = ExitCode::FAILURE;
        } else {
            for (name, body) in chosen {
                let all_measured = match &binaries {
                    None => measure(&world, name, *body, None).await,
                    Some(_) => measure_both(&world, name, *body).await,
                };
                if !all_measured {
                    code = ExitCode::FAILURE;
                }
                // After each, so that an interrupted run leaves a file too.
                if let Err(why) = results::write(Path::new(RESULTS)) {
                    println!("no file of the results: {why}");
                    code = ExitCode::FAILURE;
                }
            }
        }
        world.tear_down().await;
        println!("tables as JSON, and figures: {RESULTS}");
        code
    })
}

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");

/// ZEN_LEAD_BENCH_BINARY_A and _B.
fn binaries() -> Result<Option<[PathBuf; 2]>, String> {
    let path = |name: &str| -> Option<PathBuf> {
        std::env::var_os(name).filter(|p| !p.is_empty()).map(PathBuf::from)
    };
    let [a, b] = ["ZEN_LEAD_BENCH_BINARY_A", "ZEN_LEAD_BENCH_BINARY_B"].map(path);
    let both = match (a, b) {
        (None, None) => return Ok(None),
        (Some(a), Some(b)) => [a, b],
        _ => return Err("set ZEN_LEAD_BENCH_BINARY_A and _B, or neither".to_owned()),
    };
    match both.iter().find(|path| !path.is_file()) {
        Some(missing) => Err(format!("there is no file {}", missing.display())),
        None => Ok(Some(both)),
    }
}

async fn load(binaries: Option<&[PathBuf; 2]>) -> Result<(), String> {
    for (binary, (_, image)) in binaries.into_iter().flatten().zip(IMAGES) {
        installed::load_image(image, binary).await?;
    }
    Ok(())
}

/// Measures once, then removes what was made and waits until it is gone. False if it failed.
async fn measure(world: &Arc<World>, name: &str, body: Body, binary: Option<&str>) -> bool {
    results::measuring(name, binary);
    let mut calls = Calls::follow(&world.cluster.audit_log);
    let case = Arc::new(Case::open(world.clone(), &format!("bench-{name}")).await);
    // As a task, so that a panic ends this measurement but not the cleanup.
    let measured = tokio::spawn(body(case)).await.is_ok();
    if !measured {
        println!("{name} failed");
    }
    calls::print(&format!("{name}, from begin to end"), &calls.new_ones(), None);
    let cleared = fill::clear_all(world).await;
    if let Err(why) = &cleared {
        println!("{name} is not cleared away: {why}");
    }
    measured && cleared.is_ok()
}

/// Measures with both binaries in turn, and prints the results beside each other.
async fn measure_both(world: &Arc<World>, name: &str, body: Body) -> bool {
    let mut passes = <[Vec<results::Table>; 4]>::default();
    let mut all_measured = true;
    for (label, tables) in ab::PASSES.into_iter().zip(&mut passes) {
        let (_, image) = IMAGES.into_iter().find(|(l, _)| *l == label).unwrap();
        println!("{name} with binary {label}");
        installed::restart_from(world, image).await;
        let before = results::tables_of(name).len();
        all_measured &= measure(world, name, body, Some(label)).await;
        *tables = results::tables_of(name).split_off(before);
    }
    results::measuring(name, None);
    let (head, rows) = ab::compare(&passes);
    measure::table(&format!("A and B: {name}"), &head, &rows);
    all_measured
}
