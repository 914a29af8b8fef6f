//! From every shape of a Service to every other, against the rules by which the API server judges and
//! completes an update (Kubernetes 1.37: pkg/apis/core/validation, pkg/registry/core/service).

use super::*;

/// What the API server makes of a patch, or why it refuses it.
fn updated(present: &Service, patch: &Value) -> Result<Service, String> {
    let mut value = serde_json::to_value(present).unwrap();
    json_patch::merge(&mut value, patch);
    let mut service: Service = serde_json::from_value(value).unwrap();
    let old = present.spec.clone().unwrap();
    let annotations = service.metadata.annotations.clone().unwrap_or_default();
    let new = service.spec.as_mut().unwrap();
    complete(&old, new);
    let is = |spec: &ServiceSpec, type_: &str| spec.type_.as_deref() == Some(type_);
    let balancer = is(new, "LoadBalancer");
    let external = balancer || is(new, "NodePort");
    let etp = new.external_traffic_policy.as_deref();
    let primary = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|f| f.first().cloned());
    let dual = new.ip_families.as_ref().is_some_and(|f| f.len() == 2);
    for (refused, why) in [
        (
            !balancer && !new.load_balancer_source_ranges.as_deref().unwrap_or_default().is_empty(),
            "spec.LoadBalancerSourceRanges may only be used when `type` is 'LoadBalancer'",
        ),
        (!balancer && annotations.contains_key(SOURCE_RANGES), "annotation of a LoadBalancer"),
        (!balancer && new.load_balancer_class.is_some(), "loadBalancerClass of a LoadBalancer"),
        (
            balancer
                && is(&old, "LoadBalancer")
                && new.load_balancer_class != old.load_balancer_class,
            "loadBalancerClass may not change once set",
        ),
        (
            !balancer && new.allocate_load_balancer_node_ports.is_some(),
            "allocate of a LoadBalancer",
        ),
        (!external && etp.is_some(), "externalTrafficPolicy of an external type"),
        (
            new.health_check_node_port.is_some() && !(balancer && etp == Some("Local")),
            "healthCheckNodePort of a LoadBalancer with Local",
        ),
        (
            !external && new.ports.iter().flatten().any(|p| p.node_port.is_some()),
            "nodePort may not be used when `type` is 'ClusterIP'",
        ),
        (
            new.session_affinity.as_deref() == Some("None")
                && new.session_affinity_config.is_some(),
            "sessionAffinityConfig must not be set when session affinity is None",
        ),
        (
            new.session_affinity.as_deref() == Some("ClientIP")
                && new.session_affinity_config.is_none(),
            "sessionAffinityConfig is required",
        ),
        (
            primary(&old).is_some() && primary(new) != primary(&old),
            "the first of ipFamilies may not change once set",
        ),
        (
            dual == (new.ip_family_policy.as_deref() == Some("SingleStack")),
            "ipFamilies and ipFamilyPolicy must agree",
        ),
    ] {
        if refused {
            return Err(why.to_owned());
        }
    }
    Ok(service)
}

/// What the API server fills in, and what it takes off because the type has it no longer.
fn complete(old: &ServiceSpec, new: &mut ServiceSpec) {
    let type_ = new.type_.clone().unwrap();
    let balancer = type_ == "LoadBalancer";
    let external = balancer || type_ == "NodePort";
    if !balancer && old.type_.as_deref() == Some("LoadBalancer") {
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
    }
    if !external && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
    if external {
        new.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if balancer {
        new.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if balancer && new.external_traffic_policy.as_deref() == Some("Local") {
        new.health_check_node_port.get_or_insert(31999);
    } else if new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    let allocates = new.allocate_load_balancer_node_ports != Some(false);
    for (n, port) in new.ports.iter_mut().flatten().enumerate() {
        let before = old.ports.iter().flatten().find(|p| p.name == port.name);
        if external && port.node_port.is_none() {
            let fresh = (!balancer || allocates).then(|| 32000 + i32::try_from(n).unwrap());
            port.node_port = before.and_then(|p| p.node_port).or(fresh);
        }
    }
    new.session_affinity.get_or_insert_with(|| "None".into());
    new.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    if new.ip_family_policy.as_deref() == Some("SingleStack")
        && let Some(families) = &mut new.ip_families
    {
        families.truncate(1);
    }
}

/// A source of this type, as the API server stores it.
fn source(type_: &str, policy: &str, class: Option<&str>, ranges: &[&str]) -> Service {
    let mut source = service("web");
    let s = source.spec();
    s.type_ = Some(type_.into());
    if type_ != "ClusterIP" {
        s.external_traffic_policy = Some(policy.into());
    }
    if type_ == "LoadBalancer" {
        s.allocate_load_balancer_node_ports = Some(policy != "Local");
        s.load_balancer_class = class.map(str::to_owned);
        s.load_balancer_source_ranges =
            (!ranges.is_empty()).then(|| ranges.iter().map(|r| (*r).to_owned()).collect());
    }
    source
}

/// Every shape that a source can have: types, policies, classes, ranges, affinity, ports.
fn shapes() -> Vec<(String, Service)> {
    let mut all = Vec::new();
    for policy in ["Cluster", "Local"] {
        for type_ in ["ClusterIP", "NodePort", "LoadBalancer"] {
            for class in [None, Some("example.com/a"), Some("example.com/b")] {
                for ranges in [&[][..], &["10.0.0.0/8"][..]] {
                    if type_ != "LoadBalancer" && (class.is_some() || !ranges.is_empty()) {
                        continue;
                    }
                    let mut source = source(type_, policy, class, ranges);
                    if type_ == "LoadBalancer" && !ranges.is_empty() {
                        source = source.annotation(SOURCE_RANGES, "10.0.0.0/8");
                    }
                    if policy == "Local" {
                        source.spec().session_affinity = Some("ClientIP".into());
                        source.spec().session_affinity_config = Some(affinity_for(60));
                        source.spec().internal_traffic_policy = Some("Local".into());
                        let admin = port("admin", 90, IntOrString::Int(9090));
                        source.spec().ports.as_mut().unwrap().push(admin);
                    }
                    all.push((format!("{type_} {policy} {class:?} {ranges:?}"), source));
                }
            }
        }
    }
    assert_eq!(all.len(), 16);
    all
}

/// Settings that mirror, or do not.
fn settings(leader_type: LeaderType) -> LeaderSpec {
    LeaderSpec { copy_labels: vec!["team".into()], ..spec(leader_type, &[SOURCE_RANGES]) }
}

/// A leader Service as it is after it was created for a source.
fn created(source: &Service, spec: &LeaderSpec) -> Service {
    let mut made = leader_service(source, spec, DECISION_VERSION).uid("u1").version(5);
    let wanted = made.clone();
    made.spec().type_.clone_from(&wanted.spec.as_ref().unwrap().type_);
    complete(&ServiceSpec::default(), made.spec());
    // Creation is judged by the same rules.
    updated(&made, &json!({})).unwrap_or_else(|why| panic!("{why}: {made:?}"))
}

/// Patches until nothing is left; how many it took.
fn followed(mut leader: Service, source: &Service, spec: &LeaderSpec) -> (Service, usize) {
    for patches in 0..4 {
        let Some(patch) = patch(&leader, source, spec) else { return (leader, patches) };
        leader = updated(&leader, &patch).unwrap_or_else(|why| panic!("{why}: {patch}"));
    }
    panic!("it does not come to rest: {leader:?}");
}

#[test]
fn every_shape_turns_into_every_other_without_a_refusal() {
    for (from_name, from) in shapes() {
        for (to_name, to) in shapes() {
            for (was, is) in [
                (LeaderType::Mirror, LeaderType::Mirror),
                (LeaderType::Mirror, LeaderType::ClusterIp),
                (LeaderType::ClusterIp, LeaderType::Mirror),
            ] {
                let what = format!("{from_name} ({was:?}) to {to_name} ({is:?})");
                let (old, new) = (created(&from, &settings(was)), created(&to, &settings(is)));
                let (leader, patches) = followed(old.clone(), &to, &settings(is));
                let class = |s: &Service| s.spec.as_ref().unwrap().load_balancer_class.clone();
                let is_balancer =
                    |s: &Service| s.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer");
                let by_way = is_balancer(&old) && is_balancer(&new) && class(&old) != class(&new);
                assert_eq!(patches, usize::from(old != new) + usize::from(by_way), "{what}");
                // All but the node ports, which stay where they can.
                let plain = |s: &Service| {
                    let mut s = s.clone();
                    s.spec().health_check_node_port.take();
                    for p in s.spec().ports.iter_mut().flatten() {
                        p.node_port = None;
                    }
                    s
                };
                assert_eq!(plain(&leader), plain(&new), "{what}");
            }
        }
    }
}

#[test]
fn a_balancer_that_ends_gives_up_every_field_in_one_patch() {
    let spec = settings(LeaderType::Mirror);
    let source = source("LoadBalancer", "Local", Some("example.com/a"), &["10.0.0.0/8"]);
    let leader = created(&source.clone().annotation(SOURCE_RANGES, "10.0.0.0/8"), &spec);
    let found = patch(&leader, &source, &settings(LeaderType::ClusterIp)).unwrap();
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]);
    assert_eq!(
        found,
        json!({
            "metadata": {"annotations": {
                SOURCE_RANGES: null,
                "zen-lead.io/copied-annotations": null,
                "zen-lead.io/load-balancer-class": null,
            }},
            "spec": {
                "type": "ClusterIP",
                "ports": ports,
                "externalTrafficPolicy": null,
                "healthCheckNodePort": null,
                "loadBalancerSourceRanges": null,
                "allocateLoadBalancerNodePorts": null,
                "loadBalancerClass": null,
            },
        })
    );
}

#[test]
fn another_class_is_reached_by_way_of_a_cluster_ip() {
    let spec = settings(LeaderType::Mirror);
    let of_class = |class: Option<&str>| source("LoadBalancer", "Cluster", class, &["10.0.0.0/8"]);
    let types = |before: Option<&str>, after: Option<&str>| {
        let mut leader = created(&of_class(before), &spec);
        let mut types = Vec::new();
        while let Some(patch) = patch(&leader, &of_class(after), &spec) {
            types.push(patch["spec"]["type"].as_str().unwrap().to_owned());
            leader = updated(&leader, &patch).unwrap();
        }
        assert_eq!(leader.spec.as_ref().unwrap().load_balancer_class.as_deref(), after);
        types
    };
    let both = ["ClusterIP", "LoadBalancer"];
    assert_eq!(types(Some("example.com/a"), Some("example.com/b")), both);
    assert_eq!(types(Some("example.com/a"), None), both);
    assert_eq!(types(None, Some("example.com/b")), both);
    assert_eq!(types(None, None), [""; 0]);
}

#[test]
fn a_class_that_was_filled_in_stays() {
    let spec = settings(LeaderType::Mirror);
    let without = source("LoadBalancer", "Cluster", None, &[]);
    // As a cloud's mutating webhook does with a new load balancer.
    let mut leader = created(&without, &spec);
    leader.spec().load_balancer_class = Some("cloud.example/default".into());
    assert_eq!(patch(&leader, &without, &spec), None);
    // One made by an earlier version, which recorded no class.
    leader.metadata.annotations.as_mut().unwrap().remove("zen-lead.io/load-balancer-class");
    let expected = json!({"metadata": {"annotations": {"zen-lead.io/load-balancer-class": ""}}});
    assert_eq!(patch(&leader, &without, &spec), Some(expected));
}

#[test]
fn a_leader_that_was_made_an_external_name_comes_back() {
    let spec = settings(LeaderType::ClusterIp);
    let source = source("ClusterIP", "Cluster", None, &[]);
    let mut leader = created(&source, &spec);
    let s = leader.spec();
    s.type_ = Some("ExternalName".into());
    s.external_name = Some("evil.example".into());
    (s.ip_families, s.ip_family_policy, s.internal_traffic_policy) = (None, None, None);
    let (leader, patches) = followed(leader, &source, &spec);
    assert_eq!((patches, leader.spec), (1, created(&source, &spec).spec));
}

/// A source, or a leader Service of it, with these families.
fn with_families(policy: &str, families: &[&str]) -> Service {
    let mut source = source("ClusterIP", "Cluster", None, &[]);
    source.spec().ip_family_policy = Some(policy.into());
    source.spec().ip_families = Some(families.iter().map(|f| (*f).to_owned()).collect());
    source
}

#[test]
fn the_first_family_stays_and_the_second_follows() {
    let spec = settings(LeaderType::ClusterIp);
    let (single, prefer, require) = ("SingleStack", "PreferDualStack", "RequireDualStack");
    let (v4, v6, both, turned) =
        (&["IPv4"][..], &["IPv6"][..], &["IPv4", "IPv6"][..], &["IPv6", "IPv4"][..]);
    for (was, is, expected) in [
        ((single, v4), (require, both), (require, both)),
        ((require, both), (single, v4), (single, v4)),
        ((prefer, both), (require, both), (require, both)),
        ((single, v6), (prefer, turned), (prefer, turned)),
        // Turned round, by way of a headless source or of ExternalName: a Service cannot follow.
        ((require, both), (require, turned), (require, both)),
        ((single, v4), (require, turned), (require, both)),
        ((single, v4), (single, v6), (single, v4)),
        ((require, both), (single, v6), (require, both)),
        // The server gave the leader Service a second family, which an older source does not have.
        ((prefer, both), (prefer, v4), (prefer, both)),
    ] {
        let leader = created(&with_families(was.0, was.1), &spec);
        let mut source = with_families(is.0, is.1);
        source.spec().session_affinity_config = None;
        let (leader, patches) = followed(leader, &source, &spec);
        assert!(patches <= 1);
        let got = leader.spec.as_ref().unwrap();
        let families: Vec<_> = got.ip_families.iter().flatten().map(String::as_str).collect();
        assert_eq!(
            (got.ip_family_policy.as_deref(), &families[..]),
            (Some(expected.0), expected.1)
        );
        let other_drift = source.label("team", "a");
        let (leader, _) = followed(leader, &other_drift, &spec);
        assert_eq!(leader.metadata.labels.unwrap()["team"], "a", "{was:?} {is:?}");
    }
}

#[test]
fn a_family_that_the_leader_cannot_have_is_reported() {
    let leader = |policy, families: &[&str]| {
        created(&with_families(policy, families), &settings(LeaderType::ClusterIp))
    };
    let of = |policy, families: &[&str]| with_families(policy, families);
    let single = leader("SingleStack", &["IPv4"]);
    assert_eq!(
        stuck_family(&single, &of("SingleStack", &["IPv6"])).as_deref(),
        Some(
            "the leader Service \"web-leader\" keeps its IP family IPv4, because Kubernetes does not \
             let a Service change its first one; delete it to have it made anew with IPv6"
        )
    );
    assert_eq!(stuck_family(&single, &of("SingleStack", &["IPv4"])), None);
    assert_eq!(stuck_family(&single, &of("RequireDualStack", &["IPv6", "IPv4"])), None);
    let dual = leader("RequireDualStack", &["IPv4", "IPv6"]);
    assert_eq!(stuck_family(&dual, &of("SingleStack", &["IPv6"])), None);
}

#[test]
fn an_unnamed_provider_annotation_holds_back_publishing_alone() {
    let unnamed = LeaderSpec {
        unnamed_provider_annotations: vec!["x".into()],
        ..settings(LeaderType::Mirror)
    };
    let balancer = source("LoadBalancer", "Cluster", None, &["10.0.0.0/8"])
        .annotation(SOURCE_RANGES, "10.0.0.0/8")
        .label("team", "a");
    // A new leader Service is not published; what is named and harmless comes along.
    let made = created(&balancer, &unnamed);
    let text = |s: &Service, key: &str| s.metadata.annotations.as_ref().unwrap().get(key).cloned();
    assert_eq!(made.spec.as_ref().unwrap().type_.as_deref(), Some("ClusterIP"));
    assert_eq!(
        (text(&made, SOURCE_RANGES), &*made.metadata.labels.as_ref().unwrap()["team"]),
        (None, "a")
    );
    assert_eq!(patch(&made, &balancer, &unnamed), None);

    // An existing one keeps its type and its copies. Everything else follows.
    let leader = created(&balancer, &settings(LeaderType::Mirror));
    assert_eq!(patch(&leader, &balancer, &unnamed), None);
    let mut changed = source("LoadBalancer", "Cluster", Some("example.com/a"), &["10.1.0.0/16"])
        .annotation(SOURCE_RANGES, "10.1.0.0/16")
        .label("team", "b");
    changed.spec().ports.as_mut().unwrap()[0].target_port = Some(IntOrString::Int(9090));
    let found = patch(&leader, &changed, &unnamed).unwrap();
    assert_eq!(
        found,
        json!({
            "metadata": {"labels": {"team": "b"}},
            "spec": {
                "ports": [{
                    "name": "http", "port": 80, "protocol": "TCP", "targetPort": 9090,
                    "nodePort": 32000,
                }],
                "loadBalancerSourceRanges": ["10.1.0.0/16"],
            },
        })
    );
    updated(&leader, &found).unwrap();
    // The ranges that keep others out stay with the type that they belong to.
    let node_port = source("NodePort", "Cluster", None, &[]).label("team", "a");
    assert_eq!(patch(&leader, &node_port, &unnamed), None);
    // Named at last: the leader follows.
    let (followed, _) = followed(leader, &changed, &settings(LeaderType::Mirror));
    assert_eq!(text(&followed, SOURCE_RANGES).as_deref(), Some("10.1.0.0/16"));
    assert_eq!(followed.spec.unwrap().load_balancer_class.as_deref(), Some("example.com/a"));
}
