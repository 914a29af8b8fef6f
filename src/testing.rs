//! Test doubles shared by the unit tests of this crate; compiled for tests only.
//!
//! [`FakeApi`] answers kube's client as an API server would: resourceVersions, paged lists, watches
//! with bookmarks, preconditions; and fails on demand. It is spoken to in memory, so that tests can
//! pause tokio's time, or over TCP. It knows no admission, no defaulting, no field ownership.

mod api;
mod store;

pub use api::{FakeApi, Fault, Seen, bookmark};
