//! Standing situations: refusals, finalizers, a namespace that is being deleted. Nothing else happens for
//! ten minutes. Reports say what is routed (R-c), calls are paused (R-d), refusals are reported (R-e).

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::StepKind;
use zen_lead_core::keys::{CONDITION_LEADER_READY, PREFIX, kubernetes, status};

use crate::checks::{Bad, Ledger, bad};
use crate::clumsy::{qualified, unreadable};
use crate::facts::{
    Asks, asks, healthy, is_slice_of, label, leads_for, led_by, named, routed, selected, text,
    was_made_for,
};
use crate::replica::{Outcome, Replica};
use crate::walk::SOURCES;
use zen_lead_core::fixtures::api::refuse::{Refuses, Write};
use zen_lead_core::fixtures::api::{Server, Stored};

/// How long nothing happens.
const STANDS: SignedDuration = SignedDuration::from_mins(10);
/// When the counting of calls begins.
const SETTLED: SignedDuration = SignedDuration::from_secs(30);
/// Moves of all replicas at one moment; more than that is a loop.
const AT_ONCE: usize = 300;
/// Calls of one replica about one Service in five seconds, and in the last five minutes.
const IN_FIVE_SECONDS: usize = 16;
const IN_THE_END: usize = 40;

/// Lets it stand, and checks.
pub fn stand(
    server: &mut Server,
    replicas: &mut [Replica],
    ledger: &mut Ledger,
    trace: &mut Option<String>,
) -> Result<(), Bad> {
    let end = server.now + STANDS;
    let began = server.now;
    for replica in replicas.iter_mut() {
        while replica.arrive(server, ledger)? {}
        replica.calls.clear();
        replica.resync();
    }
    let mut at_once = 0;
    // Until when one of them remembered a refusal. It reports that as long, and the others do not: in the
    // worker they stop after three writes each, and try again later (src/control/reconcile/blocks.rs).
    let mut remembered = began;
    loop {
        let before = server.version;
        while server.collect_garbage() {}
        for replica in replicas.iter_mut() {
            replica.catch_up(server);
            if let Some(trace) = trace
                && at_once < 24
                && !replica.idle()
            {
                let (doing, name) = (replica.describe(), &replica.name);
                if doing.starts_with("writes") {
                    let _ = writeln!(trace, "stands v{} {name} {doing}", server.version);
                }
            }
            replica.act(server, Outcome::Answered, ledger)?;
        }
        if replicas.iter().any(|r| r.remembers_refusal(server.now)) {
            remembered = server.now + SignedDuration::from_millis(1);
        }
        at_once += 1;
        if server.version == before && replicas.iter().all(Replica::idle) {
            let timers =
                replicas.iter().filter_map(|r| r.timer().into_iter().chain(r.retry()).min());
            let Some(next) = timers.min().filter(|next| *next < end) else { break };
            server.now = server.now.max(next) + SignedDuration::from_millis(1);
            at_once = 0;
        } else if at_once > AT_ONCE {
            let doing: Vec<_> = replicas.iter().map(Replica::describe).collect();
            return bad("R-d: calls are paused", format!("{doing:?}"));
        }
    }
    calls(replicas, began)?;
    // Each replica reports the refusal that it got, in its own words and at its own time; and what a webhook
    // puts back each time is written each time.
    let refused = replicas.iter().any(|r| r.remembers_refusal(server.now));
    let undoes = server.disturbed.webhooks.values().any(|does| *does == Refuses::Undoes);
    let fight = replicas.iter().find_map(|r| r.undone(remembered));
    if let Some(fight) = fight.filter(|_| !refused && !undoes) {
        return bad("R-d: replicas do not undo each other", fight);
    }
    reported(server)?;
    said(server, replicas)
}

/// R-d: counted for each replica, whose only Service this is.
fn calls(replicas: &[Replica], began: Timestamp) -> Result<(), Bad> {
    for replica in replicas {
        let counted: Vec<_> =
            replica.calls.iter().filter(|at| **at > began + SETTLED).copied().collect();
        for (n, first) in counted.iter().enumerate() {
            let until = *first + SignedDuration::from_secs(5);
            let burst = counted[n..].iter().take_while(|at| **at < until).count();
            if burst > IN_FIVE_SECONDS {
                let found = format!("{burst} calls of {} within 5 s", replica.name);
                return bad("R-d: fewer than 20 calls in 5 s", found);
            }
        }
        let last = counted.iter().filter(|at| **at > began + STANDS / 2).count();
        if last > IN_THE_END {
            let found = format!("{last} calls of {} in the last 5 minutes", replica.name);
            return bad("R-d: few calls after ten minutes", found);
        }
    }
    Ok(())
}

/// The pod that the lock of a leader Service routes to, as a proxy sees it: uid and name.
fn routes(server: &Server, leader: &Service) -> Option<(String, String)> {
    let first = leader.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let family = first.unwrap_or_else(|| "IPv4".into()).to_ascii_lowercase();
    let lock = server.slices.now.get(&format!("{}-zen-lead-{family}", leader.name()))?;
    let tied = label(&lock.metadata, kubernetes::SERVICE_NAME) == leader.name();
    let uid = Some(lock).filter(|l| tied && is_slice_of(l, leader)).and_then(routed)?;
    let pod = server.pods.now.values().find(|p| p.id() == uid)?;
    Some((uid, pod.name()))
}

/// The source of a leader Service.
enum Of<'a> {
    Source(&'a Service),
    /// A source that is gone.
    Past,
    Others,
}

fn source_of<'a>(server: &'a Server, leader: &Service) -> Of<'a> {
    let ours = server.services.now.values().find(|s| leads_for(leader, &server.slices.now, s));
    let gone = |name: &str| !server.services.now.contains_key(name);
    let past = SOURCES.iter().any(|name| gone(name) && was_made_for(leader, name));
    ours.map_or(if past { Of::Past } else { Of::Others }, Of::Source)
}

/// R-c: LeaderReady and current-leader follow the slice on the server.
pub fn reported(server: &Server) -> Result<(), Bad> {
    if server.disturbed.answer(Write::Status).is_some() {
        return Ok(());
    }
    for leader in server.services.now.values() {
        let source = match source_of(server, leader) {
            Of::Source(source) => Some(source),
            Of::Past => None,
            Of::Others => continue,
        };
        if unreadable(&leader.metadata) || source.is_some_and(|s| unreadable(&s.metadata)) {
            continue;
        }
        let routed = routes(server, leader);
        let tied =
            |s: &&EndpointSlice| label(&s.metadata, kubernetes::SERVICE_NAME) == leader.name();
        let slices: Vec<_> = server.slices.now.values().filter(tied).collect();
        let beside = |s: &EndpointSlice| named(s).iter().any(|(_, ready)| *ready);
        let strangers = || slices.iter().filter(|s| !is_slice_of(s, leader));
        let foreign = strangers().any(|s| s.metadata.deletion_timestamp.is_none());
        // A Service that hangs in its deletion still routes: either report is partly true.
        let hanging = strangers().any(|s| s.metadata.deletion_timestamp.is_some() && beside(s));
        let all: Vec<_> = server
            .slices
            .now
            .values()
            .filter(|s| led_by(&s.name()) == Some(&leader.name()))
            .collect();
        if all.iter().any(|s| unreadable(&s.metadata)) {
            continue;
        }
        let conditions = leader.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.into_iter().find(|c| c.type_ == CONDITION_LEADER_READY);
        let says = ready.map(|c| c.status.clone()).unwrap_or_default();
        let names = text(&leader.metadata, status::CURRENT_LEADER);
        let found = || format!("{} says {says} {names:?}, routed {routed:?}", leader.name());
        let right = match &routed {
            None => says != "True" && names.is_empty(),
            Some(_) if foreign => says != "True",
            Some((uid, name)) => {
                let pod = server.pods.now.values().find(|p| p.id() == *uid);
                // What a replica knew of a pod before it became unreadable may be that it is not ready.
                let known = |p: &Pod| !unreadable(&p.metadata);
                let fit = |p: &Pod| healthy(p) && source.is_some_and(|s| selected(p, s));
                let fit = pod.is_some_and(|p| fit(p) && known(p));
                let true_ = says == "True" && names == qualified(name);
                // A pod that cannot lead any longer and is still routed, because the write is refused.
                let false_ = says == "False" && names.is_empty();
                true_ || ((!fit || hanging) && false_)
            }
        };
        if !right {
            return bad("R-c: what is reported is what is routed", found());
        }
    }
    Ok(())
}

/// R-e: a step that is held back is reported, in the server's words.
fn said(server: &Server, replicas: &[Replica]) -> Result<(), Bad> {
    if server.disturbed.answer(Write::Status).is_some() {
        return Ok(());
    }
    let asking = |s: &&Service| {
        asks(s) != Asks::Nothing
            && s.metadata.deletion_timestamp.is_none()
            && !unreadable(&s.metadata)
    };
    let Some(source) = server.services.now.get("web").filter(asking) else { return Ok(()) };
    // The report says instead what cannot be read.
    if server.slices.now.values().any(|s| unreadable(&s.metadata)) {
        return Ok(());
    }
    let leads = |s: &&Service| leads_for(s, &server.slices.now, source);
    let both = server.services.now.values().filter(leads).chain([source]);
    let messages: Vec<String> = both
        .flat_map(|s| s.status.iter().flat_map(|s| s.conditions.iter().flatten()))
        .filter(|c| c.type_.starts_with(PREFIX))
        .map(|c| c.message.clone())
        .collect();
    for replica in replicas {
        for (kind, words) in replica.held(server.now) {
            let reports = matches!(kind, StepKind::Mirror | StepKind::SourceConditions);
            // Where nothing can be made, nothing that refuses it is reported (src/control/reconcile/standing.rs).
            let made = matches!(kind, StepKind::CreateLeader | StepKind::CreateSlice);
            let ends = made && server.disturbed.terminating;
            if !reports && !ends && !messages.iter().any(|m| m.contains(words)) {
                let found =
                    format!("{} holds {kind:?}: {words:?}; said {messages:?}", replica.name);
                return bad("R-e: a lasting refusal is reported", found);
            }
        }
    }
    Ok(())
}
