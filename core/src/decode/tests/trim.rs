//! What is kept of an object, and that nothing is decided otherwise without the rest.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, prop_assert_eq, proptest};
use proptest::{collection, sample};

use super::*;
use crate::decode::trim::{MOST_ANNOTATIONS, MOST_BYTES};
use crate::keys::{self, kubernetes, setting, status};
use crate::names::NameRule;
use crate::settings;

fn trimmed<K: Shape + Resource + Trim>(value: &Value) -> Decoded<K> {
    decode::<K>(&value.to_string()).trimmed()
}

fn kept(value: &Value) -> Service {
    trimmed(value).object().unwrap()
}

/// Why a Service is not read, and what is known of it.
fn too_large(value: &Value) -> (String, ObjectMeta) {
    match trimmed::<Service>(value) {
        Decoded::Unreadable(found) => (found.error.clone(), found.metadata.clone()),
        Decoded::Object(_) => panic!("it is read"),
    }
}

fn many(number: usize) -> Value {
    let keys = (0..number).map(|n| (format!("example.com/{n}"), json!("x")));
    Value::Object(keys.collect())
}

#[test]
fn of_a_service_without_settings_only_its_name_is_kept() {
    let mut plain = with(service(), "/metadata/annotations", many(40_000));
    plain["metadata"]["labels"] = json!({"team": "a"});
    let kept = kept(&plain);
    assert_eq!((kept.spec, kept.status), (None, None));
    assert_eq!(kept.metadata.name.as_deref(), Some("web"));
    assert_eq!(kept.metadata.uid.as_deref(), Some("u1"));
    assert_eq!(kept.metadata.annotations, Some(BTreeMap::new()));
    assert_eq!(kept.metadata.labels, None);
}

#[test]
fn of_a_source_the_names_of_other_annotations_are_kept_and_the_values_of_copied_ones() {
    let annotations = json!({
        "zen-lead.io/enabled": "true", "zen-lead.io/copy-annotations": "a.example/x, -a.example/y",
        "zen-lead.io/copy-labels": "team", "a.example/x": "1", "a.example/y": "2", "a.example/z": "3",
    });
    let mut source = with(service(), "/metadata/annotations", annotations.clone());
    source["metadata"]["labels"] =
        json!({"team": "a", "other": "b", "zen-lead.io/source-service": "c"});
    let kept = kept(&source);
    let mut want = annotations;
    want["a.example/z"] = json!("");
    assert_eq!(json!(kept.metadata.annotations), want);
    let labels = json!({"team": "a", "zen-lead.io/source-service": "c"});
    assert_eq!(json!(kept.metadata.labels), labels);
    assert_eq!(json!(kept.spec), json!(object::<Service>(&service()).spec));
}

#[test]
fn a_leader_service_keeps_what_was_copied_to_it() {
    let annotations = json!({"zen-lead.io/copied-annotations": "a.example/x", "a.example/x": "1"});
    let leader = with(service(), "/metadata/annotations", annotations.clone());
    assert_eq!(json!(kept(&leader).metadata.annotations), annotations);
}

#[test]
fn a_source_that_is_too_large_cannot_be_read_and_says_why() {
    let mut source = with(service(), "/metadata/annotations", many(MOST_ANNOTATIONS));
    source["metadata"]["annotations"]["zen-lead.io/enabled"] = json!("true");
    let (error, metadata) = too_large(&source);
    assert_eq!(error, "it has 257 annotations, and zen-lead reads at most 256; remove some");
    assert_eq!(json!(metadata.annotations), json!({"zen-lead.io/enabled": "true"}));
    source["metadata"]["annotations"].as_object_mut().unwrap().remove("example.com/0");
    kept(&source);

    let mut source = service();
    source["metadata"]["annotations"]["zen-lead.io/enabled"] = json!("true");
    let pairs: serde_json::Map<_, _> = (0..65).map(|n| (format!("k{n}"), json!("x"))).collect();
    source["spec"]["selector"] = json!(pairs);
    let (error, _) = too_large(&source);
    assert_eq!(error, "its selector has 65 pairs, and zen-lead reads at most 64; remove some");
    source["spec"]["selector"].as_object_mut().unwrap().remove("k0");
    kept(&source);

    let name = "x".repeat(MOST_BYTES);
    let mut source = service();
    source["metadata"]["annotations"]["zen-lead.io/strategy"] = json!(name);
    let (error, metadata) = too_large(&source);
    assert!(
        error.ends_with("bytes of JSON, and zen-lead reads at most 32768; make them shorter"),
        "{error}"
    );
    assert_eq!(json!(metadata.annotations), json!({"zen-lead.io/enabled": "true"}));
    assert_eq!(metadata.name.as_deref(), Some("web"));
}

#[test]
fn a_slice_of_others_may_be_large_and_ours_may_not() {
    let mut large = slice();
    let endpoint = large["endpoints"][0].clone();
    large["endpoints"] = json!(vec![endpoint; 1000]);
    let mut foreign = large.clone();
    foreign["metadata"]["annotations"] = json!({"example.com/note": "x"});
    assert!(matches!(trimmed::<EndpointSlice>(&foreign), Decoded::Object(_)));
    large["metadata"]["labels"] = many(4_000);
    large["metadata"]["labels"][kubernetes::SERVICE_NAME] = json!("web-leader");
    large["metadata"]["labels"][kubernetes::SLICE_MANAGED_BY] = json!(keys::MANAGER);
    let Decoded::Unreadable(found) = trimmed::<EndpointSlice>(&large) else { panic!("it is read") };
    let labels = json!({
        kubernetes::SERVICE_NAME: "web-leader", kubernetes::SLICE_MANAGED_BY: keys::MANAGER,
    });
    assert_eq!(json!(found.metadata.labels), labels);
    assert_eq!(json!(found.metadata.annotations), json!({"zen-lead.io/leader-epoch": "5"}));
    assert_eq!(found.metadata.owner_references.map(|all| all.len()), Some(1));
}

#[test]
fn a_pod_keeps_its_labels_up_to_a_bound() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = many(40_000);
    let Decoded::Object(kept) = trimmed::<Pod>(&pod) else { panic!("it cannot be read") };
    assert_eq!(kept.metadata.annotations, None);
    // Which Services select it is known even of one that cannot be read.
    let odd = with(pod.clone(), "/status/phase", json!(3));
    let Decoded::Unreadable(found) = trimmed::<Pod>(&odd) else { panic!("it is read") };
    assert_eq!(json!(found.metadata.labels), json!({"app": "web"}));
    pod["metadata"]["labels"] = many(4_000);
    let Decoded::Unreadable(found) = trimmed::<Pod>(&pod) else { panic!("it is read") };
    assert_eq!(found.metadata.labels, Some(BTreeMap::new()));
}

#[test]
fn trimming_twice_changes_nothing() {
    for whole in [service(), with(service(), "/metadata/annotations", many(3))] {
        let once = trimmed::<Service>(&whole);
        assert_eq!(once.clone().trimmed(), once);
    }
}

/// Keys that are read in one way or another, and one that is not.
fn keys() -> impl Strategy<Value = String> {
    let providers =
        ["service.beta.kubernetes.io/aws-load-balancer-type", "kube-vip.io/loadbalancerIPs"];
    let others = ["example.com/team", "kubectl.kubernetes.io/last-applied-configuration"];
    let all = setting::ALL.into_iter().chain(status::ALL).chain(providers).chain(others);
    sample::select(all.map(str::to_owned).collect::<Vec<_>>())
}

fn values() -> impl Strategy<Value = String> {
    let some = [
        "true",
        "mirror",
        "web",
        "5s",
        "example.com/team",
        "-kube-vip.io/loadbalancerIPs,example.com/team",
    ];
    sample::select(some.map(str::to_owned).to_vec())
}

proptest! {
    /// The settings are read alike from what is kept.
    #[test]
    fn what_is_kept_asks_for_the_same(
        annotations in collection::btree_map(keys(), values(), 1..8),
        labels in collection::btree_map(keys(), values(), 0..3),
        balanced: bool,
    ) {
        let mut whole = object::<Service>(&service());
        whole.metadata.annotations = Some(annotations);
        whole.metadata.labels = Some(labels);
        if balanced {
            whole.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
        }
        let kept = Decoded::Object(whole.clone()).trimmed().object().unwrap();
        let rule = NameRule::Dns1123;
        let asked = settings::read(&whole, rule);
        prop_assert_eq!(&settings::read(&kept, rule), &asked);
        if let Ok(settings::Intent::On(spec)) = asked {
            prop_assert_eq!(settings::warnings(&kept, &spec), settings::warnings(&whole, &spec));
        }
    }
}
