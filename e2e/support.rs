//! What the end-to-end tests use. The harness is that of tests/cluster; this adds zen-lead as users
//! install it, apps of real pods, and traffic. No tests here.

// Shared files: no suite uses all of them.
#![allow(dead_code, unused_macros, unused_imports)]

#[path = "../tests/cluster/support/audit.rs"]
pub mod audit;
#[path = "../tests/cluster/support/built_in.rs"]
pub mod built_in;
#[path = "../tests/cluster/support/case.rs"]
pub mod case;
#[path = "../tests/cluster/support/cluster.rs"]
pub mod cluster;
#[path = "../tests/cluster/support/exposition.rs"]
pub mod exposition;
#[path = "../tests/cluster/support/harness.rs"]
pub mod harness;
#[path = "../tests/cluster/support/kubectl.rs"]
pub mod kubectl;
#[path = "../tests/cluster/support/names.rs"]
pub mod names;
#[path = "../tests/cluster/support/objects.rs"]
pub mod objects;
#[path = "../tests/cluster/support/promtool.rs"]
pub mod promtool;
#[path = "../tests/cluster/support/recorder.rs"]
pub mod recorder;
#[path = "../tests/cluster/support/report.rs"]
pub mod report;
#[path = "../tests/cluster/support/rights.rs"]
pub mod rights;
#[path = "../tests/cluster/support/waiting.rs"]
pub mod waiting;

pub mod app;
pub mod logs;
pub mod product;
pub mod traffic;
pub mod world;
