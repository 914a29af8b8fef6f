//! Where texts become too long or too many: the last that is taken, and the first that is not.

use super::*;

fn messages(service: &Service) -> Vec<String> {
    let violations = read(service, NameRule::Dns1035).err().unwrap_or_default();
    violations.into_iter().map(|violation| violation.message).collect()
}

/// A Service `web` with this setting, which must be wrong; what is said of it.
fn said(key: &str, value: &str) -> String {
    let [message] = &messages(&service(&[(key, value)]))[..] else { panic!("{key}: {value}") };
    message.clone()
}

#[test]
fn thirty_two_annotations_can_be_named_to_be_copied_or_not() {
    let naming = |copied: usize, left_out: usize| {
        let keys = (0..copied).map(|n| format!("a.io/{n}"));
        let keys = keys.chain((0..left_out).map(|n| format!("-b.io/{n}")));
        messages(&service(&[(setting::COPY_ANNOTATIONS, &keys.collect::<Vec<_>>().join(" "))]))
    };
    for (copied, left_out) in [(32, 0), (0, 32), (20, 12)] {
        assert_eq!(naming(copied, left_out), Vec::<String>::new());
    }
    for (copied, left_out) in [(33, 0), (0, 33), (20, 13), (50, 50)] {
        let told = "Too many: must name at most 32 annotation keys";
        assert_eq!(naming(copied, left_out), [told], "{copied} and {left_out}");
    }
}

#[test]
fn an_annotation_to_be_copied_has_a_key_that_the_api_server_takes() {
    let long = |count: usize| "a".repeat(count);
    for (key, ok) in [
        ("a".to_owned(), true),
        ("a-b_c.D".to_owned(), true),
        ("a-".to_owned(), false),
        ("_a".to_owned(), false),
        ("a.io/A".to_owned(), true),
        ("a.io/-a".to_owned(), false),
        ("a.io/a.".to_owned(), false),
        ("a-.io/a".to_owned(), false),
        ("a.-io/a".to_owned(), false),
        ("a./a".to_owned(), false),
        (long(63), true),
        (long(64), false),
        (format!("a.io/{}", long(63)), true),
        (format!("a.io/{}", long(65)), false),
        (format!("{}.io/a", long(250)), true),
        (format!("{}.io/a", long(251)), false),
        (format!("{}.io/a", long(252)), false),
    ] {
        let expected: &[Rule] = if ok { &[] } else { &[Rule::CopyAnnotations] };
        assert_eq!(rules(&service(&[(setting::COPY_ANNOTATIONS, &key)])), expected, "{key}");
    }
}

#[test]
fn five_annotations_that_nobody_decided_about_are_named_and_the_rest_counted() {
    let with = |count: usize| {
        let keys: Vec<_> = (1..=count).map(|n| format!("azure.com/{n}")).collect();
        let mut annotations = vec![ON, (setting::LEADER_TYPE, "mirror")];
        annotations.extend(keys.iter().map(|key| (key.as_str(), "x")));
        let mut service = service(&annotations);
        service.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
        let message = provider::unnamed_reason(&unnamed_provider_annotations(&service));
        let (_, named) = message.split_once("who can reach it: ").unwrap();
        named.split_once("; name each of them").unwrap().0.to_owned()
    };
    let five = r#""azure.com/1", "azure.com/2", "azure.com/3", "azure.com/4", "azure.com/5""#;
    assert_eq!(with(1), r#""azure.com/1""#);
    assert_eq!(with(5), five);
    assert_eq!(with(6), format!("{five} and 1 more"));
    assert_eq!(with(9), format!("{five} and 4 more"));
}

#[test]
fn advice_is_given_for_what_is_not_too_long_to_be_meant() {
    let padded = |text: &str, length: usize| format!("{text:length$}");
    for (key, text, longest, advice) in [
        (setting::STICKY, "yes", 64, r#"; write "true""#),
        (setting::PORTS_MODE, "Strict", 64, r#"; write "strict""#),
        (setting::LEADER_SERVICE_NAME, "Front", 128, r#"; write "front""#),
    ] {
        for (length, advised) in [(longest, true), (longest + 1, false), (longest + 2, false)] {
            let said = said(key, &padded(text, length));
            assert_eq!(said.ends_with(advice), advised, "{length}: {said}");
        }
    }
    let zeros = |length: usize| said(setting::FAILOVER_MIN_DELAY, &"0".repeat(length));
    assert!(zeros(19).ends_with("; write \"0000000000000000000s\" for seconds"), "{}", zeros(19));
    assert!(zeros(20).ends_with("\"m\" and \"h\""), "{}", zeros(20));
}

#[test]
fn no_advice_leads_to_the_next_mistake() {
    let advice = |name: &str| said(setting::LEADER_SERVICE_NAME, name).contains("; write ");
    assert!(advice("Front"));
    assert!(!advice("Web"), "it is the name of the Service itself");
    assert!(!advice("1st"), "nothing better is known");
}

#[test]
fn labels_of_others_are_no_settings_in_the_wrong_place() {
    let with = |labels: &[&str]| {
        let mut service = service(&[(setting::ENABLED, "false")]);
        let labels = labels.iter().map(|label| ((*label).to_owned(), "x".to_owned()));
        service.metadata.labels = Some(labels.collect());
        idle_warnings(&service)
    };
    let told = ["label zen-lead.io/sticky has no effect; settings are annotations"];
    assert_eq!(with(&["app", "zen-lead", status::SOURCE_SERVICE]), Vec::<String>::new());
    assert_eq!(with(&["app", setting::STICKY, status::SOURCE_SERVICE]), told);
}
