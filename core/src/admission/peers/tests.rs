//! Sources over the same pods: which are refused, and which are warned about.

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use crate::admission::verdict::{Change, Neighbours, Question, Verdict, verdict};
use crate::index::LabelPairs;
use crate::index::Reached;
use crate::index::service::selector;
use crate::index::view::Neighbour;
use crate::names::NameRule;
use crate::settings::{self, Intent, LeaderSpec, Rule};
use k8s_openapi::api::core::v1::Service;

/// Other enabled sources of the namespace.
#[derive(Default)]
struct Sources(Vec<Service>);

impl Neighbours for Sources {
    fn service(&self, _: &str, _: &str) -> Option<Neighbour> {
        None
    }

    fn claimants(&self, _: &str, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn services_at_limit(&self, _: &str) -> Option<Reached> {
        None
    }

    fn synced(&self) -> bool {
        true
    }

    fn each_source(&self, _: &str, visit: &mut dyn FnMut(&str, &LabelPairs, &LeaderSpec)) {
        for service in &self.0 {
            if let Ok(Intent::On(spec)) = settings::read(service, NameRule::Dns1035) {
                let pairs = selector(service).map(|(key, value)| (key.into(), value.into()));
                let pairs: Vec<_> = pairs.collect();
                visit(service.metadata.name.as_deref().unwrap(), &pairs, &spec);
            }
        }
    }
}

/// An enabled source over the pods with these labels, which may take the leader of another.
fn source(name: &str, selector: &[(&str, &str)], same_leader_as: Option<&str>) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some(name.to_owned());
    let mut annotations = std::collections::BTreeMap::new();
    annotations.insert("zen-lead.io/enabled".to_owned(), "true".to_owned());
    if let Some(other) = same_leader_as {
        annotations.insert("zen-lead.io/same-leader-as".to_owned(), other.to_owned());
    }
    service.metadata.annotations = Some(annotations);
    service.spec = Some(ServiceSpec {
        selector: Some(selector.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
        ..ServiceSpec::default()
    });
    service
}

const WEB: &[(&str, &str)] = &[("app", "web")];

fn ask(old: Option<&Service>, new: &Service, others: Vec<Service>) -> Verdict {
    let question = Question {
        operation: if old.is_some() { Change::Update } else { Change::Create },
        old,
        new,
        namespace: "shop",
        name: new.metadata.name.as_deref().unwrap(),
        by_zen_lead: false,
    };
    verdict(&question, &Sources(others), NameRule::Dns1035)
}

fn messages(verdict: &Verdict) -> Vec<String> {
    assert!(verdict.violations.iter().all(|v| v.rule == Rule::SameLeader));
    verdict.violations.iter().map(ToString::to_string).collect()
}

const ADVICE: &str =
    "for one leader, set zen-lead.io/same-leader-as on one Service to the name of the other";

#[test]
fn two_sources_over_the_same_pods_are_warned_about_once() {
    let tcp = source("tcp", WEB, None);
    let udp = source("udp", WEB, None);
    let warned = ["Service \"tcp\" selects the same pods, and its leader may differ", ADVICE]
        .map(String::from);
    let created = ask(None, &udp, vec![tcp.clone(), udp.clone()]);
    assert_eq!(created, Verdict { violations: vec![], warnings: warned.to_vec() });
    // A selector that takes in more or fewer of the same pods.
    let narrow = source("narrow", &[("app", "web"), ("tier", "a")], None);
    assert_eq!(ask(None, &narrow, vec![tcp.clone()]).warnings, warned);
    let both = ask(None, &tcp, vec![udp.clone(), narrow.clone()]);
    assert_eq!(
        both.warnings,
        [
            "Service \"narrow\" (and 1 more) selects the same pods, and its leader may differ",
            ADVICE
        ]
    );
    // Other pods, and a change that has nothing to do with it.
    assert_eq!(
        ask(None, &source("db", &[("app", "db")], None), vec![tcp.clone()]).warnings,
        [""; 0]
    );
    let mut slower = udp.clone();
    let annotations = slower.metadata.annotations.as_mut().unwrap();
    annotations.insert("zen-lead.io/min-ready-duration".into(), "5s".into());
    assert_eq!(ask(Some(&udp), &slower, vec![tcp.clone()]), Verdict::default());
    // Another selector is asked about again.
    let moved = source("udp", &[("app", "web"), ("tier", "b")], None);
    assert_eq!(ask(Some(&udp), &moved, vec![tcp]).warnings, warned);
}

#[test]
fn who_takes_the_leader_of_the_other_is_not_warned() {
    let tcp = source("tcp", WEB, None);
    let udp = source("udp", WEB, Some("tcp"));
    let sctp = source("sctp", WEB, Some("tcp"));
    assert_eq!(ask(None, &udp, vec![tcp.clone(), sctp.clone()]), Verdict::default());
    assert_eq!(ask(None, &tcp, vec![udp, sctp]), Verdict::default());
}

#[test]
fn chains_and_circles_are_refused_from_both_ends() {
    let field = "metadata.annotations[zen-lead.io/same-leader-as]: Invalid value:";
    let on_tcp = source("udp", WEB, Some("tcp"));
    let circle = ask(None, &on_tcp, vec![source("tcp", WEB, Some("udp"))]);
    assert_eq!(
        messages(&circle),
        [format!(
            "{field} \"tcp\": Service \"tcp\" takes the leader of this one already; keep one of the \
             two annotations"
        )]
    );
    let chain = ask(None, &on_tcp, vec![source("tcp", WEB, Some("db")), source("db", WEB, None)]);
    assert_eq!(
        messages(&chain),
        [format!(
            "{field} \"tcp\": Service \"tcp\" takes the leader of \"db\"; write that name here"
        )]
    );
    let end = source("udp", WEB, None);
    let followed =
        ask(Some(&end), &on_tcp, vec![source("tcp", WEB, None), source("a", WEB, Some("udp"))]);
    assert_eq!(
        messages(&followed),
        [format!(
            "{field} \"tcp\": Service \"a\" takes the leader of this one; write \"tcp\" there too"
        )]
    );
    // What has nothing to do with it is not refused for it.
    let mut slower = on_tcp.clone();
    let annotations = slower.metadata.annotations.as_mut().unwrap();
    annotations.insert("zen-lead.io/min-ready-duration".into(), "5s".into());
    let later = ask(Some(&on_tcp), &slower, vec![source("tcp", WEB, Some("db"))]);
    assert_eq!(messages(&later), [""; 0]);
}

#[test]
fn a_leader_that_cannot_come_is_warned_about() {
    let udp = source("udp", WEB, Some("tcp"));
    assert_eq!(
        ask(None, &udp, vec![]).warnings,
        ["Service \"tcp\" is not enabled: no pod leads here before it is"]
    );
    let other = source("tcp", &[("app", "db")], None);
    assert_eq!(
        ask(None, &udp, vec![other]).warnings,
        ["Service \"tcp\" selects other pods: this one has no leader while they differ"]
    );
}

#[test]
fn warnings_about_the_longest_names_have_120_characters() {
    let long = "x".repeat(63);
    let named = source("udp", WEB, Some(&long));
    let plain = source("udp", WEB, None);
    let other = |selector| source(&long, selector, None);
    let many = || vec![other(WEB), source("y", WEB, None), source("z", WEB, None)];
    for (new, others) in
        [(&named, vec![]), (&named, vec![other(&[("app", "db")])]), (&plain, many())]
    {
        let warnings = ask(None, new, others).warnings;
        assert!(!warnings.is_empty());
        for warning in warnings {
            assert!(warning.len() <= 120, "{} in {warning}", warning.len());
        }
    }
}
