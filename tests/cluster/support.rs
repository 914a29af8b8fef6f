//! What the tests use: the cluster, the replicas under test, a namespace for each test.
//!
//! No tests here. Contract names are repeated on purpose and not taken from the library: a renamed
//! key has to break a test.

#![allow(dead_code, reason = "parts are shared with e2e/, and no suite uses all of them")]

pub mod audit;
pub mod built_in;
pub mod ca;
pub mod caller;
pub mod case;
pub mod cli;
pub mod cluster;
pub mod collector;
pub mod contract;
pub mod control_plane;
pub mod exposition;
pub mod firewall;
pub mod harness;
pub mod http;
pub mod issuer;
pub mod kubectl;
pub mod lag;
pub mod names;
pub mod objects;
pub mod policies;
pub mod product;
pub mod prometheus;
pub mod promtool;
pub mod proxy;
pub mod recorder;
pub mod report;
pub mod rights;
pub mod state;
pub mod tcp_proxy;
pub mod together;
pub mod waiting;
pub mod webhook;
pub mod world;
