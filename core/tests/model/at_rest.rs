//! What must hold once nothing moves any more: the right pod leads, every report says so, and nothing
//! is left over.

use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use zen_lead_core::keys::{kubernetes, setting, status};

use crate::checks::{Bad, bad};
use crate::facts::{
    Asks, asks, has_address, healthy, is_leader_of, is_slice_of, label, leader_name, led_by,
    number, ready_since, routed, seconds, selected, sticky, text,
};
use crate::repaired::repaired;
use zen_lead_core::fixtures::api::refuse::STRANGER;
use zen_lead_core::fixtures::api::{Server, Stored};

/// Checks the world at rest.
///
/// `version` is the highest decision version alive: from 2 on the youngest pod comes first.
pub fn at_rest(server: &Server, sources: &[&str], version: u32) -> Result<(), Bad> {
    for name in sources {
        let source = server.services.now.get(*name);
        let uid = source.map(Stored::id).unwrap_or_default();
        let wanted = source.map_or_else(|| format!("{name}-leader"), leader_name);
        let leads = |s: &Service| is_leader_of(s, &server.slices.now, name, &uid, &wanted);
        let own: Vec<&Service> = server.services.now.values().filter(|s| leads(s)).collect();
        let Some(source) = source.filter(|s| asks(s) != Asks::Nothing) else {
            // An object that a deletion left behind has no owner; it may stay, and serves no client.
            let left = |leader: &Service| source.is_none() && !routes(server, leader);
            let names: Vec<_> = own.iter().filter(|s| !left(s)).map(|s| s.name()).collect();
            if !names.is_empty() {
                return bad("at rest: no source asks for it", format!("{names:?} of {name}"));
            }
            continue;
        };
        let holder = server.services.now.get(&wanted);
        let mine = holder.filter(|h| leads(h));
        let valid = asks(source) == Asks::Leader;
        if valid && holder.is_none() {
            return bad("at rest: the leader Service is missing", wanted);
        }
        // Where another owner's object has the name of its lock, the earlier lock still serves.
        let theirs = |m: &Service| {
            let family = m.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
            let lock = format!("{wanted}-zen-lead-{}", family.unwrap_or_default().to_lowercase());
            let lock = server.slices.now.get(&lock);
            lock.is_some_and(|s| !is_slice_of(s, m))
        };
        if valid && mine.is_some_and(|m| !theirs(m)) && own.len() > 1 {
            let names: Vec<_> = own.iter().map(|s| s.name()).collect();
            return bad("at rest: one leader Service", format!("{names:?} of {name}"));
        }
        let problem = !valid || mine.is_none();
        // The report may also be about a name that is taken.
        let may_differ = !problem && mine.is_some_and(theirs);
        if problem != (condition(source) == "False") && !may_differ {
            return bad(
                "at rest: the source says whether it is served",
                format!("{name}: problem {problem}, {source:?}"),
            );
        }
        for leader in &own {
            served(server, source, leader, valid && mine.is_some(), version)?;
            if valid && leader.name() == wanted {
                repaired(server, source, leader)?;
            }
        }
    }
    for slice in server.slices.now.values() {
        let tied = label(&slice.metadata, kubernetes::SERVICE_NAME);
        let name = slice.name();
        let service = led_by(&name).map_or(tied, str::to_owned);
        let ours = label(&slice.metadata, kubernetes::SLICE_MANAGED_BY) == "zen-lead";
        // An orphaned slice has no owner; it serves no client, and is adopted again by its name. One whose
        // owner is a Service that never was is not ours.
        let owner = |o: &OwnerReference| o.kind == "Service" && o.uid != STRANGER;
        let owned = slice.metadata.owner_references.iter().flatten().any(owner);
        if ours && owned && !server.services.now.contains_key(&service) {
            return bad("at rest: no slice without its Service", slice.name());
        }
    }
    Ok(())
}

fn routes(server: &Server, leader: &Service) -> bool {
    server.slices.now.values().any(|s| is_slice_of(s, leader) && routed(s).is_some())
}

/// Type, class and ranges are those of the source where it asks for them.
fn same_type(source: &Service, spec: &ServiceSpec, wanted: &ServiceSpec) -> bool {
    let mirrors = text(&source.metadata, setting::LEADER_TYPE) == "mirror";
    let type_ = wanted.type_.as_deref().filter(|_| mirrors).unwrap_or("ClusterIP");
    let balancer = type_ == "LoadBalancer";
    let ranges = wanted.load_balancer_source_ranges.clone().filter(|_| balancer);
    spec.type_.as_deref() == Some(type_)
        && spec.load_balancer_class == wanted.load_balancer_class.clone().filter(|_| balancer)
        && spec.load_balancer_source_ranges.clone().unwrap_or_default()
            == ranges.unwrap_or_default()
}

fn condition(service: &Service) -> String {
    let all = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut ours = all.filter(|c| c.type_ == zen_lead_core::keys::CONDITION_LEADER_READY);
    ours.next().map(|c| c.status.clone()).unwrap_or_default()
}

fn served(
    server: &Server,
    source: &Service,
    leader: &Service,
    promotes: bool,
    version: u32,
) -> Result<(), Bad> {
    let families = leader.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    let lock_name = format!("{}-zen-lead-ipv4", leader.name());
    let taken = |name: &str| server.slices.now.get(name).is_some_and(|s| !is_slice_of(s, leader));
    if taken(&lock_name) {
        let follower = server.slices.now.get(&format!("{}-zen-lead-ipv6", leader.name()));
        return match follower.filter(|s| is_slice_of(s, leader)).and_then(routed) {
            None => Ok(()),
            Some(uid) => bad("at rest: without a lock no pod leads", uid),
        };
    }
    let Some(lock) = server.slices.now.get(&lock_name) else {
        return bad("at rest: the lock is missing", lock_name);
    };
    let fit = |p: &Pod| healthy(p) && selected(p, source) && has_address(p, "IPv4");
    let long_enough =
        |p: &Pod| ready_since(p) + seconds(source, setting::MIN_READY_DURATION) <= server.now;
    let last = text(&lock.metadata, status::LEADER_POD_UID);
    let is = routed(lock);
    let detail = || {
        let pods: Vec<_> = server
            .pods
            .now
            .values()
            .map(|p| format!("{}={} fit {} since {}", p.name(), p.id(), fit(p), ready_since(p)))
            .collect();
        format!("{}: routed {is:?}, last {last}, pods {pods:?}, now {}", lock.name(), server.now)
    };
    let incumbent = server.pods.now.values().find(|p| p.id() == last).filter(|p| fit(p));
    let mut fit_pods: Vec<&Pod> = server.pods.now.values().filter(|p| fit(p)).collect();
    fit_pods.retain(|p| long_enough(p) || p.id() == last);
    let age = |p: &Pod| {
        let created = p.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_millisecond());
        if version > 1 { -created } else { created }
    };
    fit_pods.sort_by_key(|p| (age(p), p.name()));
    let right = match (&is, promotes) {
        (Some(uid), false) => incumbent.is_some_and(|p| p.id() == *uid),
        (None, false) => incumbent.is_none(),
        (Some(uid), true) if sticky(source) => {
            *uid == last && fit_pods.iter().any(|p| p.id() == *uid)
        }
        (Some(uid), true) => fit_pods.first().is_some_and(|p| p.id() == *uid),
        (None, true) => fit_pods.is_empty(),
    };
    if !right {
        return bad("at rest: the right pod leads", detail());
    }
    let follower_name = format!("{}-zen-lead-ipv6", leader.name());
    let follower = server.slices.now.get(&follower_name).filter(|s| is_slice_of(s, leader));
    if families.len() > 1 && !taken(&follower_name) {
        let same =
            |key| follower.map(|f| text(&f.metadata, key)) == Some(text(&lock.metadata, key));
        let epoch = follower.map(|f| number(&f.metadata, status::LEADER_EPOCH));
        let epochs = epoch == Some(number(&lock.metadata, status::LEADER_EPOCH));
        let routes = follower.is_some_and(|f| routed(f) == is);
        if !routes || !epochs || !same(status::LEADER_POD_UID) {
            return bad(
                "at rest: the families agree",
                format!("{:?} beside {:?}", follower.map(|f| &f.metadata), lock.metadata),
            );
        }
    } else if families.len() == 1 && follower.is_some() {
        return bad("at rest: one slice a family", follower_name);
    }
    for key in [status::LEADER_EPOCH, status::LEADER_POD_UID, status::LEADER_POD_NAME] {
        // A slice that never had a leader says epoch 0, its mirror nothing.
        let says = |meta| Some(text(meta, key)).filter(|v| v != "0").unwrap_or_default();
        // If no pod ever led there is nothing to mirror, and what others wrote stays.
        if !last.is_empty() && says(&leader.metadata) != says(&lock.metadata) {
            return bad("at rest: the mirror is true", format!("{key}: {:?}", leader.metadata));
        }
    }
    let foreign = server.slices.now.values().any(|s| {
        label(&s.metadata, kubernetes::SERVICE_NAME) == leader.name() && !is_slice_of(s, leader)
    });
    let ready = if is.is_some() && !foreign { "True" } else { "False" };
    if condition(leader) != ready {
        return bad(
            "at rest: LeaderReady is true",
            format!("{ready} expected: {:?}", leader.status),
        );
    }
    let spec = leader.spec.clone().unwrap_or_default();
    let wanted = source.spec.clone().unwrap_or_default();
    if promotes
        && (spec.selector.is_some()
            || spec.ports != wanted.ports
            || spec.ip_families != wanted.ip_families
            || !same_type(source, &spec, &wanted))
    {
        return bad("at rest: the leader Service is as asked", format!("{spec:?}"));
    }
    Ok(())
}
