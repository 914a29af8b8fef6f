//! The rights of deploy/manifests/10-rbac.yaml are exactly the calls zen-lead makes, by the audit log
//! of the real API server: nothing is refused, and every right is used. It is the last test of a run,
//! because it checks the calls of all tests; alone, it makes zen-lead use every right itself. The policies on
//! zen-lead's account are in force in all tests: they refuse none of these calls.

use std::sync::Arc;

use serde_json::json;

use crate::support::case::Case;
use crate::support::harness::tests;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rights::{calls, denied, exercise, granted, rarely, uncovered, unused};

tests![granted_rights_are_exactly_those_that_are_used];

async fn granted_rights_are_exactly_those_that_are_used(t: Arc<Case>) {
    let world = &t.world;
    // After a lost answer to a slice write zen-lead reads the slice to see whether it succeeded.
    let proxy = Proxy::start(world.product.kubeconfig()).await;
    let through = world.dir.join("kubeconfig-rights");
    proxy.write_kubeconfig(world.product.kubeconfig(), &through);
    let slices = format!("/namespaces/{}/endpointslices/", t.ns);
    proxy.fail(1, Fault::ResetAfter, move |seen| seen.verb == "PUT" && seen.path.contains(&slices));
    world.product.spawn_with(0, &through, &[], &[]);
    world.product.until_ready(0).await;
    let selector = json!({"spec": {"selector": {"app": "web"}}});
    let put_on = || async { drop(t.patch_service("web-leader", &selector).await) };
    exercise(&t, &world.system, &world.system, put_on).await;
    assert_eq!(proxy.left(), 0, "the answer to a slice write was lost");

    let rights = granted(&t.admin(), &world.system).await;
    let calls = calls(&world.cluster, &world.system, world.began);
    println!("{} rights, {} calls", rights.len(), calls.len());
    assert!(calls.len() > 30, "the audit log has {} calls of {}", calls.len(), world.username());
    let uncovered = uncovered(&rights, &calls);
    assert!(uncovered.is_empty(), "10-rbac.yaml lacks a right: {uncovered:#?}");
    let denied = denied(&calls);
    assert!(denied.is_empty(), "75-own-account.yaml is too narrow: {denied:#?}");
    let (unused, rare) = (unused(&rights, &calls), rarely(&rights, &[]));
    let idle: Vec<_> = unused.difference(&rare).collect();
    assert!(
        idle.is_empty(),
        "no call of the whole run needs these; take them out of 10-rbac.yaml, or name them with \
         their reason in support/rights.rs: {idle:#?}"
    );
    let used: Vec<_> = rare.difference(&unused).collect();
    assert!(used.is_empty(), "support/rights.rs says that these are not used: {used:#?}");
}
