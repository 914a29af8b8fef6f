//! Changes of Services among others: what is judged, what is let through, and collisions.

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::settings::LeaderOf;

/// A namespace as the test describes it.
#[derive(Default)]
struct View {
    /// Name, and the source it is the leader Service of.
    services: Vec<(&'static str, Option<&'static str>)>,
    /// Leader name, and who asks for it.
    claims: Vec<(&'static str, &'static str)>,
    limit: Option<usize>,
    pods: Option<Reached>,
    unsynced: bool,
    /// Nothing may be compared with the selector of the Service.
    uncompared: bool,
}

impl Neighbours for View {
    fn service(&self, _: &str, name: &str) -> Option<Neighbour> {
        let (_, source) = self.services.iter().find(|(service, _)| *service == name)?;
        let leader_of = source.map(|source| LeaderOf { source: source.to_owned(), owned: true });
        Some(Neighbour { uid: None, leader_of })
    }

    fn claimants(&self, _: &str, leader_name: &str) -> Vec<String> {
        let claims = self.claims.iter().filter(|(name, _)| *name == leader_name);
        claims.map(|(_, source)| (*source).to_owned()).collect()
    }

    fn services_at_limit(&self, _: &str) -> Option<Reached> {
        self.limit.map(|bound| Reached { found: bound + 1, bound })
    }

    fn pods_beyond_limit(&self, _: &str, _: &Service) -> Option<Reached> {
        assert!(!self.uncompared, "the pods are compared");
        self.pods
    }

    fn each_source(&self, _: &str, _: &mut dyn FnMut(&str, &LabelPairs, &LeaderSpec)) {
        assert!(!self.uncompared, "the sources are compared");
    }

    fn on_host_network(&self, _: &str, _: &Service) -> bool {
        assert!(!self.uncompared, "the pods are compared");
        false
    }

    fn synced(&self) -> bool {
        !self.unsynced
    }
}

/// A good Service `web` with these annotations; a bare name stands for a key of ours.
fn web(annotations: &[(&str, &str)]) -> Service {
    let key = |key: &str| {
        if key.contains('/') { key.to_owned() } else { format!("zen-lead.io/{key}") }
    };
    let mut service = Service::default();
    service.metadata.name = Some("web".into());
    service.metadata.annotations =
        Some(annotations.iter().map(|(k, v)| (key(k), (*v).to_owned())).collect());
    service.spec = Some(ServiceSpec {
        selector: Some([("app".to_owned(), "web".to_owned())].into()),
        ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
        ..ServiceSpec::default()
    });
    service
}

/// The same Service with another port.
fn respecified(mut service: Service) -> Service {
    let ports = service.spec.as_mut().and_then(|spec| spec.ports.as_mut());
    ports.unwrap().push(ServicePort { port: 81, ..ServicePort::default() });
    service
}

/// The same Service without a selector.
fn unselected(mut service: Service) -> Service {
    service.spec.as_mut().unwrap().selector = None;
    service
}

fn labelled(mut service: Service, source: &str) -> Service {
    service.metadata.labels = Some([(status::SOURCE_SERVICE.to_owned(), source.to_owned())].into());
    service
}

fn ask(old: Option<&Service>, new: &Service, view: &View) -> Verdict {
    let question = Question {
        operation: if old.is_some() { Change::Update } else { Change::Create },
        old,
        new,
        namespace: "shop",
        name: new.metadata.name.as_deref().unwrap_or_default(),
        by_zen_lead: false,
    };
    verdict(&question, view, NameRule::Dns1035)
}

fn rules(verdict: &Verdict) -> Vec<Rule> {
    verdict.violations.iter().map(|violation| violation.rule).collect()
}

const ON: (&str, &str) = ("enabled", "true");
const OFF: (&str, &str) = ("enabled", "false");
const BAD: (&str, &str) = ("sticky", "yes");

#[test]
fn an_update_is_judged_for_what_it_changes() {
    let foreign = ("example.com/x", "y");
    for (what, old, new, expected) in vec![
        ("enabling", web(&[]), web(&[ON]), &[][..]),
        ("enabling a bad one", web(&[BAD]), web(&[BAD, ON]), &[Rule::Boolean]),
        ("a bad value", web(&[ON]), web(&[ON, BAD]), &[Rule::Boolean]),
        (
            "another key while one is bad",
            web(&[ON, BAD]),
            web(&[ON, BAD, ("strategy", "oldest-ready")]),
            &[Rule::Boolean],
        ),
        ("repairing", web(&[ON, BAD]), web(&[ON, ("sticky", "true")]), &[]),
        ("nothing", web(&[ON, BAD]), web(&[ON, BAD]), &[]),
        ("a foreign annotation", web(&[ON, BAD]), web(&[ON, BAD, foreign]), &[]),
        (
            "removing a key, the rest is bad",
            web(&[ON, BAD, ("ports-mode", "x")]),
            web(&[ON, BAD]),
            &[],
        ),
        ("opting out by false", web(&[ON, BAD]), web(&[OFF, BAD]), &[]),
        ("opting out by removal", web(&[ON, BAD]), web(&[BAD]), &[]),
        ("opting out with a new mistake", web(&[ON]), web(&[OFF, BAD]), &[Rule::Boolean]),
        ("opting out by a wrong word", web(&[ON]), web(&[("enabled", "no")]), &[Rule::Boolean]),
        ("a good spec", web(&[ON]), respecified(web(&[ON])), &[]),
        ("a bad spec", web(&[ON]), unselected(web(&[ON])), &[Rule::NoSelector]),
        ("a bad spec while off", web(&[OFF]), unselected(web(&[OFF])), &[]),
        ("a spec no worse than before", web(&[ON, BAD]), respecified(web(&[ON, BAD])), &[]),
        (
            "a spec worse than before",
            web(&[ON, BAD]),
            unselected(web(&[ON, BAD])),
            &[Rule::NoSelector],
        ),
        ("a status key", web(&[ON]), web(&[ON, ("leader-epoch", "1")]), &[Rule::StatusKey]),
        (
            "another status",
            web(&[("leader-epoch", "1")]),
            web(&[("leader-epoch", "2")]),
            &[Rule::StatusKey],
        ),
        ("a status key removed", web(&[ON, ("leader-epoch", "1")]), web(&[ON]), &[]),
        ("the label of leaders", web(&[]), labelled(web(&[]), "api"), &[Rule::StatusKey]),
        (
            "a key on a leader",
            labelled(web(&[]), "api"),
            labelled(web(&[ON]), "api"),
            &[Rule::SourceIsLeader],
        ),
        (
            "a leader without its label",
            labelled(web(&[]), "api"),
            web(&[ON]),
            &[Rule::SourceIsLeader],
        ),
    ] {
        assert_eq!(rules(&ask(Some(&old), &new, &View::default())), expected, "{what}");
    }
}

/// The same Service with this type.
fn of_type(mut service: Service, type_: &str) -> Service {
    service.spec.as_mut().unwrap().type_ = Some(type_.to_owned());
    service
}

#[test]
fn a_provider_annotation_is_refused_where_the_change_brings_it() {
    let mirror = ("leader-type", "mirror");
    let internal = ("cloud.google.com/l4-rbs", "enabled");
    let altered = ("cloud.google.com/l4-rbs", "disabled");
    let named = ("copy-annotations", "cloud.google.com/l4-rbs");
    let sticky = ("sticky", "false");
    let balancer = |annotations: &[(&str, &str)]| of_type(web(annotations), "LoadBalancer");
    let refused = &[Rule::ProviderAnnotation][..];
    for (what, old, new, expected) in [
        ("created", None, balancer(&[ON, mirror, internal]), refused),
        ("created and named", None, balancer(&[ON, mirror, internal, named]), &[]),
        (
            "another setting, after a controller wrote it",
            Some(balancer(&[ON, mirror, internal])),
            balancer(&[ON, mirror, internal, sticky]),
            &[],
        ),
        (
            "another port, after a controller wrote it",
            Some(balancer(&[ON, mirror, internal])),
            respecified(balancer(&[ON, mirror, internal])),
            &[],
        ),
        (
            "added beside a setting",
            Some(balancer(&[ON, mirror])),
            balancer(&[ON, mirror, internal, sticky]),
            refused,
        ),
        (
            "added beside a port",
            Some(balancer(&[ON, mirror])),
            respecified(balancer(&[ON, mirror, internal])),
            refused,
        ),
        (
            "altered",
            Some(balancer(&[ON, mirror, internal])),
            balancer(&[ON, mirror, altered, sticky]),
            refused,
        ),
        (
            "turned on",
            Some(balancer(&[OFF, mirror, internal])),
            balancer(&[ON, mirror, internal]),
            refused,
        ),
        ("mirrored", Some(balancer(&[ON, internal])), balancer(&[ON, mirror, internal]), refused),
        (
            "published",
            Some(web(&[ON, mirror, internal])),
            balancer(&[ON, mirror, internal]),
            refused,
        ),
        (
            "no longer named",
            Some(balancer(&[ON, mirror, internal, named])),
            balancer(&[ON, mirror, internal, ("copy-annotations", "a")]),
            refused,
        ),
        (
            "named at last",
            Some(balancer(&[ON, mirror, internal])),
            balancer(&[ON, mirror, internal, named]),
            &[],
        ),
        (
            "a controller's report",
            None,
            balancer(&[ON, mirror, ("kubernetes.digitalocean.com/load-balancer-id", "x")]),
            &[],
        ),
        ("a word in a value", None, balancer(&[ON, mirror, ("example.com/team", "private")]), &[]),
    ] {
        assert_eq!(rules(&ask(old.as_ref(), &new, &View::default())), expected, "{what}");
    }
    // Only what the change brings is named.
    let two = [ON, mirror, internal, ("azure.com/x", "y"), sticky];
    let verdict = ask(Some(&balancer(&[ON, mirror, internal])), &balancer(&two), &View::default());
    assert_eq!(
        verdict.violations[0].to_string(),
        "metadata.annotations[zen-lead.io/copy-annotations]: Required value: leader-type \"mirror\" \
         makes a second load balancer, and these annotations of the Service may say who can reach \
         it: \"azure.com/x\"; name each of them, or with a leading \"-\" where it must not be copied"
    );
    // What is let through is warned about.
    let later = ask(
        Some(&balancer(&[ON, mirror, internal])),
        &balancer(&[ON, mirror, internal, ("ports-mode", "partial")]),
        &View::default(),
    );
    assert_eq!(
        later.warnings,
        ["the leader Service is not published anew: 1 provider annotations are not in \
          zen-lead.io/copy-annotations"]
    );
    assert!(later.warnings[0].len() <= 117);
}

#[test]
fn zen_lead_itself_and_deletions_are_let_through() {
    let mut bad = web(&[ON, BAD, ("leader-epoch", "1")]);
    assert_eq!(rules(&ask(None, &bad, &View::default())), [Rule::StatusKey, Rule::Boolean]);
    let question = Question {
        operation: Change::Create,
        old: None,
        new: &bad,
        namespace: "shop",
        name: "web",
        by_zen_lead: true,
    };
    assert_eq!(verdict(&question, &View::default(), NameRule::Dns1035), Verdict::default());
    bad.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(ask(Some(&web(&[])), &bad, &View::default()), Verdict::default());
}

#[test]
fn a_leader_name_belongs_to_one_source() {
    let taken = "Duplicate value: \"web-leader\": Service \"web-leader\" exists in namespace \"shop\" \
                 and was not made by zen-lead; set another name with this annotation, or delete that \
                 Service first";
    let claimed = "Duplicate value: \"web-leader\": this is the leader Service of Service \"api\" \
                   already; set another name with this annotation";
    let asked = "Duplicate value: \"web-leader\": asked for as leader name by Service \"api\", \
                 \"db\" already; set another name with this annotation";
    let own_name = "Duplicate value: \"web\": this is the name of the leader Service of \"w\"; \
                    choose another name";
    let web_field = "metadata.annotations[zen-lead.io/leader-service-name]";
    for (services, claims, expected) in [
        (vec![], vec![], None),
        (vec![("web-leader", None)], vec![], Some((web_field, Rule::NameTaken, taken))),
        (vec![("web-leader", Some("api"))], vec![], Some((web_field, Rule::NameClaimed, claimed))),
        // Its own, also that of a source of the same name that was deleted.
        (vec![("web-leader", Some("web"))], vec![("web-leader", "web")], None),
        (
            vec![],
            vec![("web-leader", "db"), ("web-leader", "web"), ("web-leader", "api")],
            Some((web_field, Rule::NameClaimed, asked)),
        ),
        (vec![], vec![("web", "w")], Some(("metadata.name", Rule::OwnNameClaimed, own_name))),
        (vec![("other", None)], vec![("other", "api")], None),
    ] {
        let view = View { services, claims, ..View::default() };
        let verdict = ask(None, &web(&[ON]), &view);
        let found: Vec<_> = verdict
            .violations
            .iter()
            .map(|violation| (violation.field.as_str(), violation.rule, violation.message.as_str()))
            .collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn collisions_are_looked_for_where_a_name_is_asked_for_anew() {
    let view = View { services: vec![("web-leader", None)], ..View::default() };
    let on = web(&[ON]);
    assert_eq!(rules(&ask(None, &web(&[OFF]), &view)), []);
    assert_eq!(rules(&ask(Some(&web(&[OFF])), &on, &view)), [Rule::NameTaken]);
    assert_eq!(rules(&ask(Some(&on), &web(&[ON, ("sticky", "true")]), &view)), [Rule::NameTaken]);
    assert_eq!(rules(&ask(Some(&on), &respecified(on.clone()), &view)), []);
    assert_eq!(rules(&ask(Some(&on), &on, &view)), []);
    // A Service that exists is not refused for its own name, which it had first.
    let claimed = View { claims: vec![("web", "w")], ..View::default() };
    assert_eq!(rules(&ask(Some(&web(&[])), &on, &claimed)), []);
    // One that comes is, also when it asks for no leader itself.
    assert_eq!(rules(&ask(None, &web(&[OFF]), &claimed)), [Rule::OwnNameClaimed]);
    // All mistakes at once: one broken setting does not hide the collision.
    assert_eq!(rules(&ask(None, &web(&[ON, BAD]), &view)), [Rule::Boolean, Rule::NameTaken]);
}

#[test]
fn nothing_is_refused_for_anothers_sake_from_an_incomplete_view() {
    let view = View {
        services: vec![("web-leader", None), ("web", Some("w"))],
        claims: vec![("web-leader", "api"), ("web", "w")],
        limit: Some(3),
        pods: Some(Reached { found: 12, bound: 10 }),
        unsynced: true,
        ..View::default()
    };
    let unsure = "zen-lead has just started and could not check for name collisions; \
                  a collision will be reported as an event";
    let verdict = ask(None, &web(&[ON]), &view);
    assert_eq!(verdict, Verdict { violations: vec![], warnings: vec![unsure.to_owned()] });
    assert!(unsure.len() <= 120);
    assert_eq!(ask(None, &web(&[OFF]), &view), Verdict::default());
    assert_eq!(rules(&ask(None, &web(&[ON, BAD]), &view)), [Rule::Boolean]);
}

#[test]
fn the_limit_refuses_new_work_only() {
    let full = View { limit: Some(3), ..View::default() };
    let verdict = ask(None, &web(&[ON]), &full);
    assert_eq!(
        verdict.violations[0].to_string(),
        "metadata.annotations[zen-lead.io/enabled]: Forbidden: namespace \"shop\" has 4 enabled \
         Services, and zen-lead serves at most 3 there; turn another one off, or ask who runs \
         zen-lead for a higher --max-services-per-namespace"
    );
    assert_eq!(rules(&ask(Some(&web(&[OFF])), &web(&[ON]), &full)), [Rule::NamespaceLimit]);
    assert_eq!(rules(&ask(Some(&web(&[ON])), &web(&[ON, ("sticky", "true")]), &full)), []);
    assert_eq!(rules(&ask(None, &web(&[OFF]), &full)), []);
}

#[test]
fn too_many_pods_are_refused_where_they_are_newly_selected() {
    let many = View { pods: Some(Reached { found: 12, bound: 10 }), ..View::default() };
    let verdict = ask(None, &web(&[ON]), &many);
    assert_eq!(
        verdict.violations[0].to_string(),
        "spec.selector: Too many: it matches 12 pods in namespace \"shop\", and zen-lead takes \
         Services of at most 10; narrow the selector, or ask who runs zen-lead for a higher \
         --max-pods-per-service"
    );
    let other = |mut service: Service| {
        service.spec.as_mut().unwrap().selector =
            Some([("app".to_owned(), "api".to_owned())].into());
        service
    };
    let on = web(&[ON]);
    assert_eq!(rules(&ask(Some(&web(&[OFF])), &on, &many)), [Rule::PodLimit]);
    assert_eq!(rules(&ask(Some(&on), &other(on.clone()), &many)), [Rule::PodLimit]);
    // What is served already, and what is not asked for, is left in peace.
    assert_eq!(rules(&ask(Some(&on), &web(&[ON, ("sticky", "true")]), &many)), []);
    assert_eq!(rules(&ask(Some(&on), &respecified(on.clone()), &many)), []);
    assert_eq!(rules(&ask(None, &web(&[OFF]), &many)), []);
}

#[test]
fn a_service_that_is_too_large_to_be_read_is_refused_unless_it_was_before() {
    let large = |mut service: Service| {
        let many = (0..300).map(|n| (format!("example.com/{n}"), String::new()));
        service.metadata.annotations.as_mut().unwrap().extend(many);
        service
    };
    let none = View::default();
    assert_eq!(
        ask(None, &large(web(&[ON])), &none).violations[0].to_string(),
        "metadata: Too many: it has 301 annotations, and zen-lead reads at most 256; remove some"
    );
    assert_eq!(rules(&ask(Some(&large(web(&[OFF]))), &large(web(&[ON])), &none)), [Rule::TooLarge]);
    let sticky = large(web(&[ON, ("sticky", "true")]));
    assert_eq!(rules(&ask(Some(&large(web(&[ON]))), &sticky, &none)), []);
    assert_eq!(rules(&ask(None, &large(web(&[OFF])), &none)), []);
}

/// The caller decides how long a selector is, and how long it would be compared with all others.
#[test]
fn a_long_selector_is_refused_and_compared_with_nothing() {
    let long = |annotations: &[(&str, &str)]| {
        let mut service = web(annotations);
        let pairs = (0..64).map(|n| (format!("k{n}"), String::new()));
        service.spec.as_mut().unwrap().selector.as_mut().unwrap().extend(pairs);
        service
    };
    let same = ("same-leader-as", "other");
    let view = View { uncompared: true, ..View::default() };
    let new = long(&[ON, same]);
    let refused = ask(None, &new, &view);
    assert_eq!(
        refused.violations[0].to_string(),
        "metadata: Too many: its selector has 65 pairs, and zen-lead reads at most 64; remove some"
    );
    // One that was there before is compared with nothing either.
    let sticky = long(&[ON, same, ("sticky", "true")]);
    assert_eq!(rules(&ask(Some(&new), &sticky, &view)), []);
}

#[test]
fn a_leader_that_the_index_knows_cannot_become_a_source() {
    let view = View { services: vec![("web", Some("api"))], ..View::default() };
    let verdict = ask(Some(&web(&[])), &web(&[ON]), &view);
    assert_eq!(
        verdict.violations[0].to_string(),
        "metadata.annotations[zen-lead.io/enabled]: Invalid value: \"true\": this Service is a \
         leader Service that zen-lead made; enable its source instead"
    );
}

#[test]
fn who_loses_a_leader_service_is_told() {
    let view = View::default();
    let gone = ["leader Service \"web-leader\" goes away; its clients must move"];
    let on = web(&[ON]);
    assert_eq!(ask(Some(&on), &web(&[OFF]), &view).warnings, gone);
    assert_eq!(ask(Some(&on), &web(&[]), &view).warnings, gone);
    let renamed = web(&[ON, ("leader-service-name", "x")]);
    assert_eq!(ask(Some(&on), &renamed, &view).warnings, gone);
    let named = web(&[ON, ("leader-service-name", "web-leader")]);
    assert_eq!(ask(Some(&on), &named, &view).warnings, Vec::<String>::new());
    // Not where the change is refused: then nothing goes away.
    let refused = web(&[ON, BAD, ("leader-service-name", "x")]);
    assert_eq!(ask(Some(&on), &refused, &view).warnings, Vec::<String>::new());
    let longest = "x".repeat(63);
    let long = web(&[ON, ("leader-service-name", &longest)]);
    let warnings = ask(Some(&long), &on, &view).warnings;
    assert!(warnings[0].len() <= 120, "{}", warnings[0]);
}

#[test]
fn idle_settings_and_unwise_ones_are_warned_about() {
    let idle = ask(None, &web(&[("sticky", "true")]), &View::default());
    assert_eq!(
        idle.warnings,
        ["zen-lead.io annotations have no effect without zen-lead.io/enabled: \"true\""]
    );
    let unwise = ask(None, &web(&[ON, ("sticky", "false")]), &View::default());
    assert_eq!(unwise.warnings.len(), 1);
    assert!(unwise.violations.is_empty());
    // Once, and not with every change of something else.
    let off = web(&[OFF, ("sticky", "true")]);
    let on = web(&[ON, ("sticky", "false")]);
    let foreign = web(&[ON, ("sticky", "false"), ("example.com/x", "y")]);
    for (old, new) in [(&off, &respecified(off.clone())), (&on, &foreign)] {
        assert_eq!(ask(Some(old), new, &View::default()), Verdict::default());
    }
}
