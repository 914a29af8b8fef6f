//! What users and the cluster do to pods, Services and slices.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Service};
use zen_lead_core::keys::{kubernetes, setting};

use crate::checks::Ledger;
use crate::clumsy::{self, Clumsy};
use crate::facts::label;
use crate::walk::Profile;
use zen_lead_core::fixtures::api::{Server, Stored};
use zen_lead_core::fixtures::dice::Dice;
use zen_lead_core::fixtures::{Object, PodFixture, ServiceFixture, foreign_slice, pod, service};

/// The pods of a world.
pub const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// What happens to a pod.
#[derive(Clone, Copy, Debug)]
pub enum PodMove {
    ComeOrGo,
    Ready(bool),
    Terminate,
    Finish,
    Relabel(&'static str),
    Readdress(u8),
}

/// What users and the cluster do.
#[derive(Clone, Copy, Debug)]
pub enum World {
    Pod(&'static str, PodMove),
    Select(&'static str),
    Set(&'static str, &'static str),
    Families(bool),
    DeleteSource,
    PutSource,
    StripAnnotations,
    Rival(bool),
    Stranger(bool),
    PutSelectorOnLeader,
    EditLeader,
    DeleteLeader,
    EditLock,
    DeleteSlice(&'static str),
    ForeignSlice(&'static str, bool),
    CollectGarbage,
    Quota { slices: bool, services: bool },
    Tick(u16),
    Clumsy(Clumsy),
}

/// Applies it.
pub fn happen(server: &mut Server, what: World, dual_allowed: bool, ledger: &mut Ledger) {
    let source = server.services.now.get("web").cloned();
    let change = |server: &mut Server, change: &dyn Fn(Service) -> Service| {
        if let Some(source) = source.clone() {
            server.put_service(change(source));
        }
    };
    let leader = server
        .services
        .now
        .values()
        .find(|s| {
            s.metadata
                .labels
                .as_ref()
                .is_some_and(|l| l.contains_key(zen_lead_core::keys::status::SOURCE_SERVICE))
        })
        .cloned();
    match what {
        World::Pod(name, what) => pod_moves(server, name, what),
        World::Select(value) => change(server, &|s| s.selecting("app", value)),
        World::Set(key, value) => change(server, &|mut s| {
            if value.is_empty() {
                s.metadata.annotations.get_or_insert_default().remove(key);
                s
            } else {
                s.annotation(key, value)
            }
        }),
        World::Families(dual) => change(server, &|s| {
            if dual && dual_allowed {
                s.dual_stack()
            } else {
                let mut s = s;
                s.spec().ip_families = Some(vec!["IPv4".into()]);
                s.spec().ip_family_policy = Some("SingleStack".into());
                s
            }
        }),
        World::DeleteSource => _ = server.remove_service("web"),
        World::PutSource => {
            if source.is_none() {
                put_source(server, dual_allowed);
            }
        }
        World::StripAnnotations => change(server, &|mut s| {
            s.metadata.annotations = None;
            s
        }),
        World::Rival(there) => {
            if there {
                let now = server.now;
                let mut rival = service("api").enabled().set("leader-service-name", "web-leader");
                rival.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
                if !server.services.now.contains_key("api") {
                    server.put_service(rival);
                }
            } else {
                server.remove_service("api");
            }
        }
        World::Stranger(there) => {
            let held = server.services.now.get("web-leader");
            let theirs = held.is_none_or(|s| s.metadata.labels.is_none());
            if there && held.is_none() {
                server.put_service(service("web-leader").selecting("app", "theirs"));
            } else if !there && held.is_some() && theirs {
                server.remove_service("web-leader");
            }
        }
        World::PutSelectorOnLeader => {
            if let Some(leader) = leader {
                server.put_service(leader.selecting("app", "web"));
            }
        }
        World::EditLeader => {
            if let Some(mut leader) = leader {
                leader.spec().ports.get_or_insert_default()[0].port = 81;
                server.put_service(leader);
            }
        }
        World::DeleteLeader => {
            if let Some(leader) = leader {
                server.remove_service(&leader.name());
                ledger.by_hand(&leader.name());
            }
        }
        World::EditLock => {
            if let Some(mut lock) = server.slices.now.get("web-leader-zen-lead-ipv4").cloned()
                && let Some(endpoint) = lock.endpoints.get_or_insert_default().first_mut()
            {
                endpoint.addresses = vec!["10.66.66.66".into()];
                server.put_slice(lock);
            }
        }
        World::DeleteSlice(family) => {
            if server.remove_slice(&format!("web-leader-zen-lead-{family}")).is_some() {
                ledger.by_hand("web-leader");
            }
        }
        World::ForeignSlice(name, there) => {
            if there && !server.slices.now.contains_key(name) {
                server.put_slice(foreign_slice(name, "web-leader"));
            } else if !there
                && server
                    .slices
                    .now
                    .get(name)
                    .is_some_and(|s| s.metadata.owner_references.is_none())
            {
                server.remove_slice(name);
            }
        }
        World::CollectGarbage => {
            // A slice of an earlier leader Service may have the name of the present one's follower: the
            // lock does not wait for it, and its end is like a removal by a user.
            let before = server.slices.now.clone();
            server.collect_garbage();
            for (_, gone) in
                before.iter().filter(|(name, _)| !server.slices.now.contains_key(*name))
            {
                ledger.by_hand(&label(&gone.metadata, kubernetes::SERVICE_NAME));
            }
        }
        World::Quota { slices, services } => {
            server.slice_quota = slices;
            server.service_quota = services;
        }
        World::Clumsy(what) => clumsy::happen(server, what, ledger),
        World::Tick(ms) => server.now += SignedDuration::from_millis(i64::from(ms)),
    }
}

/// The source `web`, as it is in the beginning.
pub fn put_source(server: &mut Server, dual: bool) {
    let source = service("web").enabled();
    server.put_service(if dual { source.dual_stack() } else { source });
}

/// A new pod, not Ready yet.
pub fn fresh(name: &str, server: &Server) -> Pod {
    let mut pod = pod(name).readiness(false, server.now);
    pod.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(server.now));
    pod
}

fn pod_moves(server: &mut Server, name: &str, what: PodMove) {
    let known = server.pods.now.get(name).cloned();
    let now = server.now;
    let Some(known) = known else {
        let made = fresh(name, server);
        let ready = matches!(what, PodMove::Ready(true) | PodMove::ComeOrGo);
        server.put_pod(made.readiness(ready, now));
        return;
    };
    let changed = match what {
        PodMove::ComeOrGo => {
            server.remove_pod(name);
            return;
        }
        PodMove::Ready(ready) => {
            let conditions = known.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let is = conditions.into_iter().any(|c| c.status == "True");
            if is == ready {
                return;
            }
            known.readiness(ready, now)
        }
        PodMove::Terminate => known.terminating(),
        PodMove::Finish => known.phase("Failed"),
        PodMove::Relabel(value) => known.label("app", value),
        PodMove::Readdress(n) => {
            let (four, six) = (format!("10.1.200.{n}"), format!("fd00::ff{n:02x}"));
            known.ips(&[&four, &six])
        }
    };
    server.put_pod(changed);
}

/// Something that may happen.
pub fn happening(dice: &mut Dice, profile: Profile) -> World {
    let pod = dice.of(&PODS);
    // Two thirds of all events still belong to the protocol.
    let wild = profile == Profile::Everything && dice.one_in(3);
    if profile == Profile::Clumsy && dice.one_in(3) {
        return World::Clumsy(clumsy::clumsy(dice));
    }
    if profile == Profile::Skewed && dice.one_in(6) {
        return dice.of(&[
            World::Set(setting::MIN_READY_DURATION, "2s"),
            World::Set(setting::MIN_READY_DURATION, "2s"),
            World::Set(setting::MIN_READY_DURATION, "0s"),
            World::Set(setting::FAILOVER_MIN_DELAY, "3s"),
            World::Set(setting::FAILOVER_MIN_DELAY, "0s"),
        ]);
    }
    match if wild { 100 + dice.below(40) } else { dice.below(100) } {
        0..8 => World::Pod(pod, PodMove::ComeOrGo),
        8..32 => World::Pod(pod, PodMove::Ready(false)),
        32..60 => World::Pod(pod, PodMove::Ready(true)),
        60..64 => World::Pod(pod, PodMove::Terminate),
        64..66 => World::Pod(pod, PodMove::Finish),
        66..70 => World::Pod(pod, PodMove::Relabel(dice.of(&["web", "alt"]))),
        70..72 => World::Pod(pod, PodMove::Readdress(u8::try_from(dice.below(200)).unwrap_or(0))),
        72..78 => World::Select(dice.of(&["web", "web", "alt"])),
        78..86 => World::Set(setting::STICKY, dice.of(&["true", "false", "false"])),
        86..88 => World::Set(setting::FAILOVER_MIN_DELAY, dice.of(&["3s", "0s"])),
        88..90 => World::Set(setting::MIN_READY_DURATION, dice.of(&["2s", "0s"])),
        90..100 => World::Tick(dice.of(&[1, 300, 1000, 2500])),
        100..103 => World::Set(setting::STICKY, dice.of(&["perhaps", "true", "true"])),
        103..108 => World::Set(setting::ENABLED, dice.of(&["true", "true", "true", "false"])),
        108..111 => World::Set(setting::LEADER_SERVICE_NAME, dice.of(&["front", "web-leader", ""])),
        111..114 => World::Families(dice.one_in(2)),
        114..116 => World::DeleteSource,
        116..120 => World::PutSource,
        120..121 => World::StripAnnotations,
        121..123 => World::Rival(dice.one_in(3)),
        123..126 => World::Stranger(dice.one_in(3)),
        126..127 => World::PutSelectorOnLeader,
        127..128 => World::EditLeader,
        128..129 => World::DeleteLeader,
        129..130 => World::EditLock,
        130..132 => World::DeleteSlice(dice.of(&["ipv4", "ipv6"])),
        132..134 => {
            let name =
                dice.of(&["by-hand", "web-leader-zen-lead-ipv4", "web-leader-zen-lead-ipv6"]);
            World::ForeignSlice(name, dice.one_in(2))
        }
        134..138 => World::CollectGarbage,
        _ => World::Quota { slices: dice.one_in(5), services: dice.one_in(5) },
    }
}
