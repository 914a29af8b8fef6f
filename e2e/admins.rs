//! Changes of users and admins to a leader Service, and their results.

use std::sync::Arc;

use crate::support::built_in;
use crate::support::case::Case;
use crate::support::harness::tests;
use crate::support::kubectl::As;
use crate::support::product::BREAK_GLASS;
use crate::support::traffic::Load;
use crate::support::waiting::{check, until};

tests![selector_on_a_leader_service_is_refused, selector_put_on_by_break_glass_is_taken_off];

const SELECTOR: &str = r#"{"spec":{"selector":{"app":"web"}}}"#;

async fn selector_on_a_leader_service_is_refused(t: Arc<Case>) {
    t.web(&[]).await;
    t.app("web", 2, &[]).await;
    t.until_leader("web-leader", "").await;
    for who in [As::Alice, As::Admin] {
        let patch = ["patch", "service", "web-leader", "--type=merge", "-p", SELECTOR];
        let said = t.kubectl(who, &patch, None).await;
        assert_eq!(said.code, 1, "{said:?}");
        let wanted = "spec.selector of a leader Service may not be changed: zen-lead keeps it as \
                      the source Service has it. Change the Service web instead; in an emergency \
                      act with the group zen-lead:break-glass";
        assert!(said.err.contains(wanted), "{said:?}");
    }
    let leader = t.services().get("web-leader").await.unwrap();
    assert_eq!(leader.spec.unwrap().selector, None);
}

async fn selector_put_on_by_break_glass_is_taken_off(t: Arc<Case>) {
    t.app("web", 3, &[]).await;
    t.web(&[]).await;
    let leader = t.until_leader("web-leader", "").await;
    let to = t.address("web-leader", false).await;
    let load = Load::start(to, 100);
    load.more(50).await;
    // Impersonation drops the admin's own groups: the rights come from the group named here.
    let group = format!("--as-group={BREAK_GLASS}");
    let patch = ["patch", "service", "web-leader", "--type=merge", "-p", SELECTOR];
    let as_who = ["--as=admin", &group, "--as-group=system:masters"];
    let said = t.kubectl(As::Admin, &[&patch[..], &as_who[..]].concat(), None).await;
    assert_eq!(said.code, 0, "{said:?}");

    until("the selector is gone", || async {
        let found = t.services().get("web-leader").await.map_err(|e| e.to_string())?;
        let selector = found.spec.unwrap().selector.unwrap_or_default();
        check(selector.is_empty(), format!("{selector:?}"))
    })
    .await;
    built_in::until_gone(&t).await;
    let note = t.until_event("web-leader", "SelectorRemoved").await;
    assert_eq!(
        note,
        "a selector was put on the leader Service; removed, because it would route to every pod \
         it matches"
    );
    until("the leader answers alone again", || async {
        let probe = Load::start(to, 200);
        probe.more(100).await;
        let answers = probe.finish().await;
        check(answers.pods().into_iter().eq([leader.as_str()]), answers.to_string())
    })
    .await;
    let answers = load.finish().await;
    let others = answers.0.iter().filter(|r| r.answer.as_ref().is_ok_and(|p| *p != leader)).count();
    t.world.figure(
        "selector put on a leader Service at 100 requests/s",
        format!("{others} requests went to other pods before it was taken off; {answers}"),
    );
    assert!(answers.failures().is_empty(), "{answers}");
    assert_eq!(t.leader_now("web-leader").await, Ok(leader));
}
