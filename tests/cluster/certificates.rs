//! Certificates on a real API server: rotations during calls, starts from nothing, and repairs without a
//! user.
//!
//! `ZEN_LEAD_ROTATION_CALLS` and `ZEN_LEAD_ROTATIONS` set the least number of calls and rotations,
//! `ZEN_LEAD_COLD_STARTS` the number of starts from nothing, `ZEN_LEAD_CA_GENERATIONS` the number of CAs
//! that are replaced by age.

mod age;
mod calls;
mod cold_start;
mod fleet;
mod healing;
mod mounted;
mod rotation;
mod writes;

use kube::api::PostParams;
use serde_json::json;

use crate::support::ca::Ca;
use crate::support::case::{Case, annotation};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::source;
use crate::support::waiting::{check, until};
use crate::support::webhook::Hook;

pub fn tests() -> Vec<Test> {
    let mut tests = rotation::tests();
    tests.extend(age::tests());
    tests.extend(cold_start::tests());
    tests.extend(healing::tests());
    tests.extend(mounted::tests());
    tests
}

/// Waits until both configurations carry the CA, and it alone.
async fn until_published(t: &Case) -> String {
    let ca = Ca::of(t);
    until("both configurations carry the CA", || async {
        let ca = ca.value("ca.crt").await?;
        for hook in Hook::BOTH {
            let bundle = hook.bundle(&t.admin(), &t.world.system).await?;
            check(!ca.is_empty() && bundle == ca, format!("{hook:?}: {bundle}"))?;
        }
        Ok::<_, String>(ca)
    })
    .await
}

/// A write that both webhooks review, as a dry run; the error says which webhook was not called.
async fn try_write(t: &Case) -> Result<(), String> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let written = t.user_services().create(&dry, &source("dry", &json!({}))).await;
    let written = written.map_err(|e| e.to_string())?;
    // The mutating webhook may be skipped silently (Ignore): the annotation that it adds shows it.
    let added = annotation(&written, names::LEADER_NAME);
    check(!added.is_empty(), "the mutating webhook was not called")
}
