//! What must hold for any bytes: one function for each target, which panics if it does not hold.
//!
//! No libFuzzer here, so that any program can try an input.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use zen_lead_core::admission::{self, Change, Neighbours, Outcome, Path, Question};
use zen_lead_core::index::Reached;
use zen_lead_core::index::view::Neighbour;
use zen_lead_core::keys::PREFIX;
use zen_lead_core::names::NameRule;
use zen_lead_core::settings::{self, Intent, duration};

const SELF: &str = "system:serviceaccount:zen-lead-system:zen-lead";
/// Longest refusal of a body, and longest sentence about one mistake, in bytes.
const MOST_WORDS: usize = 2_000;

/// Other Services: one of another owner, and a crowded namespace.
struct Town;

impl Neighbours for Town {
    fn service(&self, _: &str, name: &str) -> Option<Neighbour> {
        (name == "taken").then(Neighbour::default)
    }

    fn claimants(&self, _: &str, leader_name: &str) -> Vec<String> {
        if leader_name == "asked" { vec!["other".to_owned()] } else { Vec::new() }
    }

    fn services_at_limit(&self, namespace: &str) -> Option<Reached> {
        (namespace == "full").then_some(Reached { found: 9, bound: 9 })
    }

    fn synced(&self) -> bool {
        true
    }
}

/// The body of a review: it is answered with its uid, or refused in a few words.
pub fn review(body: &[u8]) {
    for path in [Path::Validate, Path::Mutate] {
        let review = match admission::judge(path, body, &Town, NameRule::Dns1123, SELF) {
            Ok(review) => review,
            Err(error) => {
                let words = error.to_string();
                assert!(!words.is_empty() && words.len() < MOST_WORDS, "{words}");
                continue;
            }
        };
        let answer: Value = serde_json::from_slice(&review.body).expect("an answer is JSON");
        let response = &answer["response"];
        assert!(!review.uid.is_empty());
        assert_eq!(response["uid"], review.uid.as_str());
        // Null if a field that zen-lead does not read is invalid JSON.
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if sent.is_object() && sent["request"].is_object() {
            assert_eq!(sent["request"]["uid"], review.uid.as_str());
        }
        let denied = review.outcome == Outcome::Denied;
        assert_eq!(response["allowed"], !denied);
        check_warnings(response);
        let status = &response["status"];
        assert_eq!(status.is_object(), denied);
        if denied {
            assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
            let causes = status["details"]["causes"].as_array().expect("causes");
            assert_eq!(causes.len(), review.rules.len());
            for cause in causes {
                let said = |field: &str| cause[field].as_str().is_some_and(|s| !s.is_empty());
                assert!(said("field") && said("message") && said("reason"), "{cause}");
            }
        }
        if let Some(patch) = response["patch"].as_str() {
            check_patch(patch, &sent);
        }
    }
}

/// At most 120 characters each, 4,096 together.
fn check_warnings(response: &Value) {
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let lengths: Vec<usize> =
        warnings.map(|w| w.as_str().map_or(0, |text| text.chars().count())).collect();
    assert!(lengths.iter().all(|length| (1..=120).contains(length)), "{lengths:?}");
    assert!(lengths.iter().sum::<usize>() <= 4_096, "{lengths:?}");
}

/// The patch only adds keys of ours, and a second review adds no further patch.
fn check_patch(patch: &str, sent: &Value) {
    let patch = STANDARD.decode(patch).expect("base64");
    let operations: Value = serde_json::from_slice(&patch).expect("a patch is JSON");
    for operation in operations.as_array().expect("operations") {
        let path = operation["path"].as_str().expect("a path");
        assert_eq!(operation["op"], "add");
        assert!(path.starts_with("/metadata/annotations/zen-lead.io~1"), "{path}");
    }
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut after = sent.clone();
    let Some(object) = after.pointer_mut("/request/object").filter(|o| o.is_object()) else {
        return;
    };
    json_patch::patch(object, &patch).expect("it can be applied");
    let review = admission::judge(
        Path::Mutate,
        after.to_string().as_bytes(),
        &Town,
        NameRule::Dns1123,
        SELF,
    );
    assert_eq!(review.expect("still a review").outcome, Outcome::Allowed);
}

/// Annotations, one in each line (`key=value`), on a Service: settings that are read can be written and read
/// again; a refusal is short, and admission refuses too. The same bytes are also a file for lint, which
/// must not panic.
pub fn annotations(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    // Reading a file is slow compared with the rest, and most inputs are not a manifest.
    if text.contains(": ") {
        let findings = zen_lead::cli::lint::lint(text, NameRule::Dns1123);
        assert!(findings.iter().all(|finding| !finding.message.is_empty()));
    }
    let annotations: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    // Lines that are not annotations choose the shape.
    let line = |wanted: &str| text.lines().any(|line| line == wanted);
    let kind = if line("mirrored") { "LoadBalancer" } else { "ClusterIP" };
    let name = if line("unnamed") { Value::Null } else { json!("web") };
    let document = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    let service: Service = serde_json::from_value(document).expect("a Service");
    for names in [NameRule::Dns1035, NameRule::Dns1123] {
        match settings::read(&service, names) {
            Ok(Intent::On(settings)) => {
                assert_eq!(read_again(&service, &settings, names), settings);
                for warning in settings::warnings(&service, &settings) {
                    assert!(warning.chars().count() <= 120, "{warning}");
                }
            }
            Ok(_) => {}
            Err(violations) => {
                assert!(!violations.is_empty());
                for violation in violations {
                    let words = violation.to_string();
                    assert!(words.len() < MOST_WORDS && !words.contains('\n'), "{words}");
                }
            }
        }
        let question = Question {
            operation: Change::Create,
            old: None,
            new: &service,
            namespace: "shop",
            name: service.metadata.name.as_deref().unwrap_or_default(),
            by_zen_lead: false,
        };
        let verdict = admission::verdict(&question, &Town, names);
        let refused = settings::read(&service, names).is_err();
        assert!(!refused || !verdict.violations.is_empty(), "admission accepts what is not read");
    }
}

/// The settings, read from their copy on the leader Service.
fn read_again(
    service: &Service,
    settings: &settings::LeaderSpec,
    names: NameRule,
) -> settings::LeaderSpec {
    let written: Value =
        serde_json::from_str(&settings::settings_json(settings)).expect("settings are JSON");
    let mut again = service.clone();
    let annotations = again.metadata.annotations.get_or_insert_default();
    for (key, value) in written.as_object().expect("an object") {
        let text = match value {
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.clone(),
            Value::Array(labels) if key == "copy-labels" => {
                labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            }
            Value::Array(_) => {
                // Annotations that were left out on purpose are not among the settings.
                let left_out = |key: &&str| key.starts_with('-');
                let list = annotations.get("zen-lead.io/copy-annotations");
                let list = list.map(String::as_str).unwrap_or_default();
                let entries = list.split(|c: char| c == ',' || c.is_whitespace());
                let kept = entries.filter(left_out).map(str::to_owned);
                settings.copy_annotations.iter().cloned().chain(kept).collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        };
        annotations.insert(format!("{PREFIX}{key}"), text);
    }
    match settings::read(&again, names) {
        Ok(Intent::On(settings)) => settings,
        other => panic!("{other:?} was read from {written}"),
    }
}

/// A duration: a value that is read can be written and read again. (Go itself is the oracle in
/// tests/durations.rs.)
pub fn duration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match duration::parse(text) {
        Ok(nanos) => {
            let written = duration::format(nanos);
            assert_eq!(duration::parse(&written), Ok(nanos), "{written}");
            assert_eq!(duration::format(nanos), written);
        }
        Err(error) => {
            let words = error.to_string();
            assert!(
                words.starts_with("time: ") && words.bytes().all(|b| (b' '..=0x7f).contains(&b))
            );
        }
    }
}
