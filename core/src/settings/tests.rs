//! Reading Services: defaults, every setting, shape, status keys, warnings, and the round trip.

mod bounds;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::settings::Strategy as Order;

/// A good Service `web` with these annotations.
fn service(annotations: &[(&str, &str)]) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some("web".into());
    service.metadata.annotations =
        Some(annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    service.spec = Some(ServiceSpec {
        selector: Some([("app".to_owned(), "web".to_owned())].into()),
        ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
        ..ServiceSpec::default()
    });
    service
}

/// The settings of an enabled Service.
fn settings(service: &Service) -> LeaderSpec {
    match read(service, NameRule::Dns1035) {
        Ok(Intent::On(spec)) => spec,
        other => panic!("not enabled: {other:?}"),
    }
}

fn rules(service: &Service) -> Vec<Rule> {
    let violations = read(service, NameRule::Dns1035).err().unwrap_or_default();
    violations.iter().map(|violation| violation.rule).collect()
}

const ON: (&str, &str) = (setting::ENABLED, "true");

/// Replicas that know different annotations write different effective settings, again and again.
#[test]
fn a_new_annotation_raises_the_version_of_decisions() {
    assert_eq!(
        (setting::ALL.len(), crate::ranking::DECISION_VERSION),
        (11, 1),
        "raise DECISION_VERSION with the number of annotations, then change both numbers here"
    );
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let spec = settings(&service(&[ON]));
    assert_eq!(
        settings_json(&spec),
        r#"{"leader-service-name":"web-leader","strategy":"oldest-ready","sticky":true,"min-ready-duration":"0s","failover-min-delay":"0s","ports-mode":"strict","leader-type":"ClusterIP","copy-annotations":[],"copy-labels":[],"same-leader-as":""}"#
    );
}

#[test]
fn every_setting_is_read() {
    let spec = settings(&service(&[
        ON,
        (setting::LEADER_SERVICE_NAME, "primary"),
        (setting::STRATEGY, "oldest-ready"),
        (setting::STICKY, "false"),
        (setting::MIN_READY_DURATION, "90s"),
        (setting::FAILOVER_MIN_DELAY, "+.5s"),
        (setting::PORTS_MODE, "partial"),
        (setting::LEADER_TYPE, "mirror"),
        (setting::COPY_ANNOTATIONS, "b.io/x, a\n\tb.io/x,-c.io/y,"),
        (setting::COPY_LABELS, "x.io/y, team\nx.io/y"),
        (setting::SAME_LEADER_AS, "api"),
    ]));
    assert_eq!(
        spec,
        LeaderSpec {
            leader_service_name: "primary".into(),
            strategy: Order::OldestReady,
            sticky: false,
            min_ready_duration: Duration::from_secs(90),
            failover_min_delay: Duration::from_millis(500),
            ports_mode: PortsMode::Partial,
            leader_type: LeaderType::Mirror,
            copy_annotations: vec!["a".into(), "b.io/x".into()],
            copy_labels: vec!["team".into(), "x.io/y".into()],
            same_leader_as: Some("api".into()),
            unnamed_provider_annotations: Vec::new(),
        }
    );
    assert_eq!(
        settings_json(&spec),
        r#"{"leader-service-name":"primary","strategy":"oldest-ready","sticky":false,"min-ready-duration":"1m30s","failover-min-delay":"500ms","ports-mode":"partial","leader-type":"mirror","copy-annotations":["a","b.io/x"],"copy-labels":["team","x.io/y"],"same-leader-as":"api"}"#
    );
}

#[test]
fn services_without_settings_are_none_of_our_business() {
    for annotations in [
        &[][..],
        &[("zen-lead", "x")],
        &[("zen-lead.iox/enabled", "yes")],
        &[(status::WRITER, "z")],
    ] {
        let mut service = service(annotations);
        assert_eq!(read(&service, NameRule::Dns1035), Ok(Intent::None));
        service.metadata.annotations = None;
        assert_eq!(read(&service, NameRule::Dns1035), Ok(Intent::None));
    }
}

#[test]
fn a_service_that_is_off_is_judged_but_for_its_shape() {
    let mut off = service(&[(setting::ENABLED, "false"), (setting::STICKY, "true")]);
    off.spec = None;
    assert_eq!(read(&off, NameRule::Dns1035), Ok(Intent::Off));
    assert_eq!(rules(&service(&[(setting::STICKY, "yes")])), [Rule::Boolean]);
    assert_eq!(rules(&service(&[(setting::LEADER_SERVICE_NAME, "web")])), [Rule::LeaderNameSelf]);
    let mut long = service(&[(setting::ENABLED, "false")]);
    long.metadata.name = Some("a".repeat(63));
    assert_eq!(read(&long, NameRule::Dns1035), Ok(Intent::Off));
}

#[test]
fn the_longest_default_name_has_63_characters() {
    let mut longest = service(&[ON]);
    longest.metadata.name = Some("a".repeat(56));
    assert_eq!(settings(&longest).leader_service_name, format!("{}-leader", "a".repeat(56)));
    longest.metadata.name = Some("a".repeat(57));
    assert_eq!(rules(&longest), [Rule::DefaultLeaderName]);
    assert_eq!(claimed_name(&longest, NameRule::Dns1035), None);
}

#[test]
fn a_leading_digit_needs_a_server_that_takes_it() {
    let service = service(&[ON, (setting::LEADER_SERVICE_NAME, "1st")]);
    let violations = read(&service, NameRule::Dns1035).unwrap_err();
    assert_eq!(
        violations[0].to_string(),
        "metadata.annotations[zen-lead.io/leader-service-name]: Invalid value: \"1st\": \
         must start with a letter (a digit needs Kubernetes 1.36 or newer)"
    );
    assert!(read(&service, NameRule::Dns1123).is_ok());
}

#[test]
fn a_service_without_a_name_yet_can_be_read() {
    let mut unnamed = service(&[ON]);
    unnamed.metadata.name = None;
    assert_eq!(settings(&unnamed).leader_service_name, "");
    assert_eq!(claimed_name(&unnamed, NameRule::Dns1035), None);
}

#[test]
fn bounds_of_durations_are_inclusive() {
    for (key, value, ok) in [
        (setting::MIN_READY_DURATION, "24h", true),
        (setting::MIN_READY_DURATION, "24h1ns", false),
        (setting::MIN_READY_DURATION, "-0", true),
        (setting::MIN_READY_DURATION, "-1ns", false),
        (setting::FAILOVER_MIN_DELAY, "60m", true),
        (setting::FAILOVER_MIN_DELAY, "60m1ns", false),
        (setting::FAILOVER_MIN_DELAY, "2562047h47m16.854775807s", false),
    ] {
        let expected: &[Rule] = if ok { &[] } else { &[Rule::DurationRange] };
        assert_eq!(rules(&service(&[ON, (key, value)])), expected, "{key}={value}");
    }
}

#[test]
fn a_name_is_claimed_even_where_another_setting_is_broken() {
    let claim = |annotations: &[_]| claimed_name(&service(annotations), NameRule::Dns1035);
    assert_eq!(claim(&[ON, (setting::STICKY, "?")]).as_deref(), Some("web-leader"));
    assert_eq!(claim(&[ON, (setting::LEADER_SERVICE_NAME, "x")]).as_deref(), Some("x"));
    assert_eq!(claim(&[ON, (setting::LEADER_SERVICE_NAME, "web")]), None);
    assert_eq!(claim(&[ON, (setting::LEADER_SERVICE_NAME, "?")]), None);
    assert_eq!(claim(&[(setting::ENABLED, "false")]), None);
}

#[test]
fn provider_annotations_are_to_be_named_when_a_load_balancer_is_mirrored() {
    let internal = ("service.beta.kubernetes.io/azure-load-balancer-internal", "true");
    let mirror = (setting::LEADER_TYPE, "mirror");
    let of_type = |type_: &str, annotations: &[_]| {
        let mut service = service(annotations);
        service.spec.as_mut().unwrap().type_ = Some(type_.into());
        service
    };
    let unnamed = &[internal.0][..];
    for (type_, annotations, expected) in [
        ("LoadBalancer", &[ON, mirror, internal][..], unnamed),
        ("NodePort", &[ON, mirror, internal], unnamed),
        ("ClusterIP", &[ON, mirror, internal], &[]),
        ("LoadBalancer", &[ON, internal], &[]),
        ("LoadBalancer", &[(setting::ENABLED, "false"), mirror, internal], &[]),
        ("LoadBalancer", &[ON, mirror, internal, (setting::COPY_ANNOTATIONS, internal.0)], &[]),
        // Another mistake does not hide it; a broken list is one mistake, not two.
        ("LoadBalancer", &[ON, mirror, internal, (setting::STICKY, "?")], unnamed),
        ("LoadBalancer", &[ON, mirror, internal, (setting::COPY_ANNOTATIONS, "?")], &[]),
    ] {
        let service = of_type(type_, annotations);
        assert_eq!(unnamed_provider_annotations(&service), expected, "{type_} {annotations:?}");
        if let Ok(Intent::On(spec)) = read(&service, NameRule::Dns1035) {
            assert_eq!(spec.unnamed_provider_annotations, expected, "{type_} {annotations:?}");
        }
    }
    let left_out = format!("-{}", internal.0);
    let kept =
        of_type("LoadBalancer", &[ON, mirror, internal, (setting::COPY_ANNOTATIONS, &left_out)]);
    assert_eq!(settings(&kept).copy_annotations, Vec::<String>::new());
    assert_eq!(settings(&kept).unnamed_provider_annotations, Vec::<String>::new());
}

#[test]
fn in_doubt_an_annotation_steers_a_provider() {
    for (key, value, expected) in [
        ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb", true),
        ("networking.gke.io/load-balancer-type", "Internal", true),
        ("cloud.google.com/l4-rbs", "enabled", true),
        ("load-balancer.hetzner.cloud/use-private-ip", "true", true),
        ("yandex.cloud/subnet-id", "x", true),
        ("kubernetes.io/elb.class", "union", true),
        ("io.cilium/lb-ipam-ips", "10.0.0.1", true),
        ("lbipam.cilium.io/ips", "10.0.0.1", true),
        ("tailscale.com/funnel", "true", true),
        ("newcloud.example/loadbalancer-tier", "x", true),
        ("newcloud.example/Load-Balancer-Tier", "x", true),
        ("newcloud.example/internal-only", "x", true),
        ("loadbalancer", "x", true),
        // Not so: ours, kubectl's, tools of the user, and what controllers report.
        ("zen-lead.io/leader-type", "internal", false),
        ("kubectl.kubernetes.io/last-applied-configuration", "internal", false),
        ("prometheus.io/scheme", "https", false),
        ("meta.helm.sh/release-name", "internal", false),
        ("example.com/team", "private", false),
        ("newcloud.example/kind", " Internal ", false),
        ("argocd.argoproj.io/sync-wave", "1", false),
        ("external-dns.alpha.kubernetes.io/hostname", "a.example", false),
        ("cloud.google.com/neg-status", "{}", false),
        ("metallb.io/ip-allocated-from-pool", "p", false),
        ("service.kubernetes.io/topology-mode", "Auto", false),
        ("notazure.com/x", "y", false),
        ("album.example/title", "y", false),
    ] {
        assert_eq!(provider::is_provider(key), expected, "{key}: {value}");
        let mut mirrored = service(&[ON, (setting::LEADER_TYPE, "mirror"), (key, value)]);
        mirrored.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
        let unnamed = if expected { vec![key.to_owned()] } else { Vec::new() };
        assert_eq!(unnamed_provider_annotations(&mirrored), unnamed, "{key}: {value}");
    }
}

#[test]
fn what_controllers_write_on_a_service_is_never_asked_for() {
    for key in [
        "kubernetes.digitalocean.com/load-balancer-id",
        "loadbalancer.openstack.org/load-balancer-id",
        "loadbalancer.openstack.org/load-balancer-address",
        "service.beta.kubernetes.io/scw-loadbalancer-id",
        "service.beta.kubernetes.io/exoscale-loadbalancer-id",
        "service.beta.kubernetes.io/upcloud-load-balancer-id",
        "service.beta.kubernetes.io/vultr-loadbalancer-id",
        "k8s.cloudscale.ch/loadbalancer-uuid",
        "kubernetes.civo.com/loadbalancer-id",
        "load-balancer.hetzner.cloud/ipv6",
        "service.kubernetes.io/loadbalance-id",
        "ncp/internal_ip_for_policy",
        "kube-vip.io/loadbalancerIPs",
        "kube-vip.io/vipHost",
        "service.kubernetes.io/tcp-forwarding-rule-ipv6",
        "service.kubernetes.io/l3-forwarding-rule",
        "service.kubernetes.io/firewall-rule-for-hc-ipv6",
        "purelb.io/allocated-from",
    ] {
        assert!(!provider::is_provider(key), "{key}");
    }
    // A setting that resembles one of them is asked for.
    for key in [
        "kubernetes.digitalocean.com/load-balancer-ids",
        "service.beta.kubernetes.io/scw-loadbalancer-private",
        "kube-vip.io/loadbalancerHostname",
        "metallb.io/loadBalancerIPs",
        "service.kubernetes.io/tcp-forwarding-rule-ipv7",
    ] {
        assert!(provider::is_provider(key), "{key}");
    }
}

#[test]
fn labels_that_zen_lead_or_a_proxy_reads_cannot_be_copied() {
    let own = "is zen-lead's own on the leader Service; leave it out";
    let routes = "says who routes the leader Service, which zen-lead does; leave it out";
    let letters = "is no label key: the name must consist of letters, digits, \"-\", \"_\" or \".\", \
                   and start and end with a letter or digit";
    for (label, why) in [
        ("zen-lead.io/source-service", own),
        ("zen-lead.io/x", own),
        ("app.kubernetes.io/managed-by", own),
        ("kubernetes.io/service-name", routes),
        ("endpointslice.kubernetes.io/managed-by", routes),
        ("service.kubernetes.io/headless", routes),
        ("service.kubernetes.io/service-proxy-name", "is always copied; leave it out"),
        ("-team", "begins with \"-\": labels that are not named are not copied; leave it out"),
        ("team!", letters),
        ("Acme.io/x", "is no label key: before the \"/\" there must be no capital letters"),
    ] {
        let violations =
            read(&service(&[ON, (setting::COPY_LABELS, label)]), NameRule::Dns1035).unwrap_err();
        assert_eq!(
            violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!(
                "metadata.annotations[zen-lead.io/copy-labels]: Invalid value: \"{label}\": \
                 \"{label}\" {why}"
            )]
        );
    }
    let many: Vec<_> = (0..33).map(|n| format!("l{n}")).collect();
    let violations =
        read(&service(&[(setting::COPY_LABELS, &many.join(" "))]), NameRule::Dns1035).unwrap_err();
    assert_eq!(
        violations[0].to_string(),
        "metadata.annotations[zen-lead.io/copy-labels]: Too many: must name at most 32 label keys"
    );
    let most = service(&[ON, (setting::COPY_LABELS, &many[1..].join(","))]);
    assert_eq!(settings(&most).copy_labels.len(), 32);
}

#[test]
fn the_source_whose_leader_is_taken_is_another_service() {
    let field = "metadata.annotations[zen-lead.io/same-leader-as]: Invalid value:";
    for (value, why) in [
        (
            "web",
            "must not be the Service itself; name another enabled Service of this namespace, or \
             leave the annotation out",
        ),
        ("", "is no name of a Service: it must not be empty"),
        (
            "shop/api",
            "is no name of a Service: it must consist of lower case letters, digits or '-' (for \
             example 'my-leader')",
        ),
    ] {
        let violations =
            read(&service(&[ON, (setting::SAME_LEADER_AS, value)]), NameRule::Dns1035).unwrap_err();
        assert_eq!(violations[0].to_string(), format!("{field} {value:?}: {why}"));
    }
}

#[test]
fn status_keys_are_zen_leads_to_write() {
    let plain = service(&[ON]);
    let mut marked = service(&[ON, (status::LEADER_EPOCH, "7"), (status::WRITER, "z")]);
    marked.metadata.labels = Some([(status::SOURCE_SERVICE.to_owned(), "api".to_owned())].into());
    let fields = |old: Option<&Service>, new: &Service| -> Vec<String> {
        status_key_violations(old, new).into_iter().map(|violation| violation.field).collect()
    };
    let all = [
        "metadata.annotations[zen-lead.io/leader-epoch]",
        "metadata.annotations[zen-lead.io/writer]",
        "metadata.labels[zen-lead.io/source-service]",
    ];
    assert_eq!(fields(None, &marked), all);
    assert_eq!(fields(Some(&plain), &marked), all);
    assert_eq!(fields(Some(&marked), &marked), Vec::<String>::new());
    assert_eq!(fields(Some(&marked), &plain), Vec::<String>::new());
    let old = service(&[(status::LEADER_EPOCH, "6"), (status::WRITER, "z")]);
    assert_eq!(fields(Some(&old), &marked), [all[0], all[2]]);
}

/// A change to a Service.
type Change = fn(&mut Service);

#[test]
fn a_leader_service_is_known_by_owner_label_and_annotation() {
    let leader: Service = serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": "web-leader",
            "labels": {"zen-lead.io/source-service": "web"},
            "annotations": {"zen-lead.io/decision-version": "1"},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u1", "controller": true,
            }],
        },
    }))
    .unwrap();
    let unlabel: Change = |s| s.metadata.labels = None;
    let unstamp: Change = |s| s.metadata.annotations = None;
    let disown: Change = |s| s.metadata.owner_references = None;
    let share: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    let by_a_pod: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].kind = "Pod".into();
    let rename: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].name = "api".into();
    let cases: [(&[Change], Option<&str>); 10] = [
        (&[], Some("web")),
        (&[unlabel], Some("web")),
        (&[unstamp], Some("web")),
        (&[disown], Some("web")),
        (&[share], Some("web")),
        (&[rename], Some("api")),
        (&[unlabel, unstamp], None),
        (&[unlabel, disown], None),
        (&[unstamp, disown], None),
        (&[by_a_pod], None),
    ];
    for (n, (changes, expected)) in cases.into_iter().enumerate() {
        let mut changed = leader.clone();
        for change in changes {
            change(&mut changed);
        }
        let found = leader_of(&changed).map(|of| of.source);
        assert_eq!(found.as_deref(), expected, "case {n}");
    }
}

#[test]
fn what_is_unwise_is_said_in_120_characters() {
    let mut unwise = service(&[
        ON,
        (setting::STICKY, "false"),
        (setting::LEADER_TYPE, "mirror"),
        (setting::COPY_ANNOTATIONS, "a.io/b c.io/d"),
        (setting::COPY_LABELS, "team"),
        ("a.io/b", "x"),
    ]);
    unwise.metadata.labels = Some([(setting::ENABLED.to_owned(), "true".to_owned())].into());
    let spec = unwise.spec.as_mut().unwrap();
    spec.internal_traffic_policy = Some("Local".into());
    spec.external_traffic_policy = Some("Local".into());
    spec.publish_not_ready_addresses = Some(true);
    spec.cluster_ip = Some("None".into());
    let on_cluster_ip = warnings(&unwise, &settings(&unwise));
    assert_eq!(
        on_cluster_ip,
        [
            "zen-lead.io/sticky is false: connections stay with a leader that was replaced while it was healthy",
            "spec.internalTrafficPolicy is Local: only clients on the leader's node will be answered",
            "spec.publishNotReadyAddresses is ignored: only a ready pod can lead",
            "the Service is headless; its leader Service gets a cluster IP",
            "zen-lead.io/leader-type mirror has no effect: the Service is of type ClusterIP",
            "zen-lead.io/copy-annotations names 1 annotations that the Service does not have",
            "zen-lead.io/copy-labels names 1 labels that the Service does not have",
            "label zen-lead.io/enabled has no effect; settings are annotations",
        ]
    );
    unwise.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
    let mirrored = warnings(&unwise, &settings(&unwise));
    assert_eq!(
        mirrored[2],
        "spec.externalTrafficPolicy is Local: from outside, only the leader's node will answer"
    );
    assert!(mirrored.contains(
        &"zen-lead.io/copy-annotations names 1 annotations that the Service does not have".into()
    ));
    let idle = idle_warnings(&service(&[(setting::STICKY, "true")]));
    assert_eq!(
        idle,
        ["zen-lead.io annotations have no effect without zen-lead.io/enabled: \"true\""]
    );
    assert_eq!(idle_warnings(&service(&[(setting::ENABLED, "false")])), Vec::<String>::new());
    for warning in on_cluster_ip.iter().chain(&mirrored).chain(&idle) {
        assert!(warning.chars().count() <= 120, "{} in {warning}", warning.len());
    }
    assert_eq!(warnings(&service(&[ON]), &settings(&service(&[ON]))), Vec::<String>::new());
}

/// Settings that any user could ask for.
fn any_spec() -> impl Strategy<Value = LeaderSpec> {
    let key = "([a-z0-9]{1,8}\\.io/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?";
    (
        "[a-z]([a-z0-9-]{0,61}[a-z0-9])?".prop_filter("not its own", |name| name != "web"),
        any::<bool>(),
        0..=MAX_MIN_READY.as_nanos(),
        0..=MAX_FAILOVER_DELAY.as_nanos(),
        prop_oneof![Just(PortsMode::Strict), Just(PortsMode::Partial)],
        prop_oneof![Just(LeaderType::ClusterIp), Just(LeaderType::Mirror)],
        proptest::collection::btree_set(key, 0..8),
        proptest::collection::btree_set("[a-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", 0..8),
        proptest::option::of("api|db"),
    )
        .prop_map(
            |(name, sticky, min_ready, delay, ports_mode, leader_type, copied, labels, as_)| {
                LeaderSpec {
                    leader_service_name: name,
                    strategy: Order::OldestReady,
                    sticky,
                    min_ready_duration: Duration::from_nanos(u64::try_from(min_ready).unwrap()),
                    failover_min_delay: Duration::from_nanos(u64::try_from(delay).unwrap()),
                    ports_mode,
                    leader_type,
                    copy_annotations: copied.into_iter().collect(),
                    copy_labels: labels.into_iter().collect(),
                    same_leader_as: as_,
                    unnamed_provider_annotations: Vec::new(),
                }
            },
        )
}

proptest! {
    #[test]
    fn settings_are_read_back_as_they_are_written(spec in any_spec()) {
        let json: serde_json::Value = serde_json::from_str(&settings_json(&spec)).unwrap();
        let mut annotations = vec![(setting::ENABLED.to_owned(), "true".to_owned())];
        for (key, value) in json.as_object().unwrap() {
            let text = match value {
                serde_json::Value::String(text) if text.is_empty() => continue,
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(keys) => {
                    keys.iter().filter_map(|k| k.as_str()).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            annotations.push((format!("{}{key}", keys::PREFIX), text));
        }
        let pairs: Vec<_> = annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let service = service(&pairs);
        prop_assert_eq!(read(&service, NameRule::Dns1035), Ok(Intent::On(spec.clone())));
        prop_assert_eq!(claimed_name(&service, NameRule::Dns1035), Some(spec.leader_service_name.clone()));
        for warning in warnings(&service, &spec) {
            prop_assert!(warning.chars().count() <= 120, "{}", warning);
        }
    }

    #[test]
    fn any_values_are_read_or_refused_in_short(
        values in proptest::collection::vec(".{0,200}", setting::ALL.len()),
        extra in ".{0,300}",
        name in ".{0,70}",
    ) {
        let extra = format!("{}{extra}", keys::PREFIX);
        let mut pairs: Vec<_> =
            setting::ALL.into_iter().zip(values.iter().map(String::as_str)).collect();
        pairs.push((&extra, "x"));
        let mut service = service(&pairs);
        service.metadata.name = Some(name);
        for names in [NameRule::Dns1035, NameRule::Dns1123] {
            for violation in read(&service, names).err().unwrap_or_default() {
                prop_assert!(violation.message.len() < 2_000, "{}", violation);
                prop_assert!(!violation.message.contains('\n'), "{}", violation);
            }
        }
    }
}
