//! One refusal tells all: a table of mistakes, each alone and many together, and every key misspelt.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::super::{Outcome, Path};
use super::{causes, judged, review, service};
use crate::keys::setting;

/// Values that are wrong for a setting, and what is said: the end of the message.
const WRONG: &[(&str, &str, &str)] = &[
    (setting::ENABLED, "yes", r#"write "true""#),
    (setting::ENABLED, "TRUE", r#"write "true""#),
    (setting::ENABLED, "off", r#"write "false""#),
    (setting::ENABLED, "2", r#"must be "true" or "false""#),
    (setting::LEADER_SERVICE_NAME, "", "leave the annotation out for the default"),
    (setting::LEADER_SERVICE_NAME, "-front", "must start and end with a letter or digit"),
    (setting::LEADER_SERVICE_NAME, "front-", "must start and end with a letter or digit"),
    (setting::LEADER_SERVICE_NAME, "Front", r#"write "front""#),
    (setting::LEADER_SERVICE_NAME, "front end", r#"write "front-end""#),
    (setting::LEADER_SERVICE_NAME, "shop/front", r#"write "shop-front""#),
    (setting::LEADER_SERVICE_NAME, "front.shop", r#"write "front-shop""#),
    (setting::LEADER_SERVICE_NAME, "fr\u{f6}nt", "(for example 'my-leader')"),
    (setting::LEADER_SERVICE_NAME, "web", r#"a second one, for example "web-leader""#),
    (setting::STRATEGY, "", r#"supported values: "oldest-ready""#),
    (setting::STRATEGY, "newest", r#"supported values: "oldest-ready""#),
    (setting::STRATEGY, "oldest", r#"supported values: "oldest-ready""#),
    (setting::STRATEGY, "oldest-raedy", r#"write "oldest-ready""#),
    (setting::STRATEGY, "OLDEST-READY", r#"write "oldest-ready""#),
    (setting::STRATEGY, "oldestready", r#"write "oldest-ready""#),
    (setting::STRATEGY, "oldest_ready ", r#"write "oldest-ready""#),
    (setting::STICKY, "", r#"must be "true" or "false""#),
    (setting::STICKY, "1", r#"write "true""#),
    (setting::STICKY, "0", r#"write "false""#),
    (setting::STICKY, "no", r#"write "false""#),
    (setting::STICKY, "Y", r#"write "true""#),
    (setting::STICKY, "disabled", r#"write "false""#),
    (setting::STICKY, "\"true\"", r#"write "true""#),
    (setting::STICKY, "maybe", r#"must be "true" or "false""#),
    (setting::MIN_READY_DURATION, "", r#"such as "30s", "1m30s" or "2h""#),
    (setting::MIN_READY_DURATION, "soon", r#"such as "30s", "1m30s" or "2h""#),
    (setting::MIN_READY_DURATION, "30", r#"write "30s" for seconds"#),
    (setting::MIN_READY_DURATION, "1h30", r#""ns", "us", "ms", "s", "m" and "h""#),
    (setting::MIN_READY_DURATION, "5d", r#"such as "1m30s""#),
    (setting::MIN_READY_DURATION, "5 s", r#"such as "1m30s""#),
    (setting::MIN_READY_DURATION, " 5s", r#"without spaces; write "5s""#),
    (setting::MIN_READY_DURATION, "1e3s", r#"such as "1m30s""#),
    (setting::MIN_READY_DURATION, "-1ns", r#"must not be negative; write "0s""#),
    (setting::MIN_READY_DURATION, "24h1ns", r#"must be at most "24h0m0s""#),
    (setting::MIN_READY_DURATION, "9999999h", r#"such as "30s", "1m30s" or "2h""#),
    (setting::FAILOVER_MIN_DELAY, "5", r#"write "5s" for seconds"#),
    (setting::FAILOVER_MIN_DELAY, "1m-0s", r#"such as "1m30s""#),
    (setting::FAILOVER_MIN_DELAY, "-5ms", r#"must not be negative; write "0s""#),
    (setting::FAILOVER_MIN_DELAY, "61m", r#"must be at most "1h0m0s""#),
    (setting::FAILOVER_MIN_DELAY, "never", r#"such as "30s", "1m30s" or "2h""#),
    (setting::PORTS_MODE, "", r#"supported values: "strict", "partial""#),
    (setting::PORTS_MODE, "loose", r#"supported values: "strict", "partial""#),
    (setting::PORTS_MODE, "Strict", r#"write "strict""#),
    (setting::PORTS_MODE, "strikt", r#"write "strict""#),
    (setting::PORTS_MODE, "partail", r#"write "partial""#),
    (setting::PORTS_MODE, "'partial'", r#"write "partial""#),
    (setting::LEADER_TYPE, "", r#"supported values: "ClusterIP", "mirror""#),
    (setting::LEADER_TYPE, "clusterip", r#"write "ClusterIP""#),
    (setting::LEADER_TYPE, "Mirror", r#"write "mirror""#),
    (setting::LEADER_TYPE, "miror", r#"write "mirror""#),
    (setting::LEADER_TYPE, "NodePort", r#"write "mirror""#),
    (setting::LEADER_TYPE, "loadbalancer", r#"write "mirror""#),
    (setting::LEADER_TYPE, "ExternalName", r#"supported values: "ClusterIP", "mirror""#),
    (setting::COPY_ANNOTATIONS, "a, zen-lead.io/sticky", "is zen-lead's own; leave it out"),
    (setting::COPY_ANNOTATIONS, "-", "start and end with a letter or digit"),
    (setting::COPY_ANNOTATIONS, "a//b", "start and end with a letter or digit"),
    (setting::COPY_ANNOTATIONS, "a_b.c/x", r#"a DNS name, such as "example.com""#),
    (setting::COPY_ANNOTATIONS, "x -x", r#"(with "-") not to be; keep one"#),
];

/// Spellings of every setting within two edits, and of each one that is three away.
fn misspelt() -> Vec<(String, Option<&'static str>)> {
    let mut all = Vec::new();
    for key in setting::ALL {
        let at = "zen-lead.io/".len() + 2;
        let (front, back) = key.split_at(at);
        let swapped: String = {
            let mut letters: Vec<char> = back.chars().collect();
            letters.swap(0, 1);
            front.chars().chain(letters).collect()
        };
        for near in [
            format!("{front}{}", &back[1..]),
            format!("{front}x{back}"),
            format!("{front}x{}", &back[1..]),
            format!("{key}s"),
            format!("{front}{}", &back[2..]),
            format!("{key}yz"),
            swapped,
            key.replacen("io/", "io/x", 1),
        ] {
            all.push((near, Some(key)));
        }
        all.push((key[..key.len() - 1].to_owned() + "xqw", None));
    }
    all
}

/// The cause of a value.
fn cause(causes: &[String], key: &str) -> String {
    let field = format!(" | metadata.annotations[{key}] | ");
    let found: Vec<_> = causes.iter().filter(|cause| cause.contains(&field)).collect();
    assert_eq!(found.len(), 1, "{key}: {causes:?}");
    found[0].clone()
}

fn refused(annotations: &[(&str, &str)]) -> Vec<String> {
    let body = review("CREATE", &service(annotations), &Value::Null);
    let (judged, answer) = judged(Path::Validate, &body);
    assert_eq!(judged.outcome, Outcome::Denied, "{annotations:?}");
    let status = &answer["response"]["status"];
    assert_eq!((&status["code"], &status["reason"]), (&422.into(), &"Invalid".into()));
    let causes = causes(&answer);
    assert_eq!(judged.rules.len(), causes.len());
    // The message has all of them too, for those who show nothing else.
    for cause in &causes {
        let told = cause.rsplit(" | ").next().unwrap();
        assert!(status["message"].as_str().unwrap().contains(told), "{status}");
    }
    causes
}

#[test]
fn every_wrong_value_is_refused_with_field_value_and_advice() {
    for (key, value, advice) in WRONG {
        let on = [(setting::ENABLED, "true")];
        let on = on.into_iter().filter(|(on, _)| on != key);
        let causes = refused(&on.chain([(*key, *value)]).collect::<Vec<_>>());
        assert_eq!(causes.len(), 1, "{causes:?}");
        let cause = cause(&causes, key);
        let shown = format!("value: {}", crate::settings::violation::quoted(value));
        assert!(cause.contains(&shown), "{cause}: no {shown}");
        assert!(cause.ends_with(advice), "{cause}");
    }
}

#[test]
fn a_misspelt_key_is_recognised_within_two_edits() {
    for (key, meant) in misspelt() {
        let causes = refused(&[(setting::ENABLED, "true"), (&key, "x")]);
        let cause = cause(&causes, &key);
        match meant {
            Some(meant) => {
                assert!(cause.ends_with(&format!("did you mean \"{meant}\"?")), "{cause}");
            }
            None => {
                assert!(
                    cause.contains("no such key; the known keys are \"zen-lead.io/"),
                    "{cause}"
                );
            }
        }
    }
}

#[test]
fn the_tables_have_more_than_a_hundred_cases() {
    assert!(WRONG.len() + misspelt().len() > 100, "{} + {}", WRONG.len(), misspelt().len());
}

proptest! {
    #[test]
    fn mistakes_that_come_together_are_told_together(
        wrong in proptest::collection::vec(select(WRONG), 1..12),
        typo in proptest::option::of(select(misspelt())),
    ) {
        // Of several values for one setting the last one counts.
        let mut annotations = std::collections::BTreeMap::from([(setting::ENABLED, "true")]);
        annotations.extend(wrong.iter().map(|(key, value, _)| (*key, *value)));
        let typo = typo.map(|(key, _)| key);
        annotations.extend(typo.iter().map(|key| (key.as_str(), "x")));
        let causes = refused(&annotations.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
        let mistakes = annotations.len() - usize::from(annotations[setting::ENABLED] == "true");
        prop_assert_eq!(causes.len(), mistakes, "{:?}", causes);
        for (key, value) in annotations {
            if (key, value) != (setting::ENABLED, "true") {
                cause(&causes, key);
            }
        }
    }
}
