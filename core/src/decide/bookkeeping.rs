//! The signs by which a leader Service is known to be ours, and the patch that puts back what was lost.
//!
//! Which signs prove it is `index::service`'s; how the rest of it should look is `desired`'s.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use crate::index::evidence::controller;
use crate::keys::{self, kubernetes, status};
use crate::settings::owner::is_service;

/// The controller owner of a leader Service (its source) or of a slice (its leader Service).
///
/// blockOwnerDeletion stays unset: it needs rights on finalizers where
/// OwnerReferencesPermissionEnforcement is on, and would make the owner wait for us.
pub fn owner(service: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: service.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// The JSON merge patch that puts labels and owner of a leader Service back; `None` where all are there.
///
/// Labels and owners of others stay. The owner is not put back while the source `leaves` its dependents
/// behind ([`is_orphaning`](crate::index::evidence::is_orphaning)).
pub fn repair(leader: &Service, source: &str, uid: &str, leaves: bool) -> Option<Value> {
    let present = leader.labels();
    let wanted = [(kubernetes::MANAGED_BY, keys::MANAGER), (status::SOURCE_SERVICE, source)];
    let labels: Map<String, Value> = wanted
        .into_iter()
        .filter(|(key, value)| present.get(*key).is_none_or(|v| v != value))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let mut metadata = Map::new();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    let right = |o: &OwnerReference| o.uid == uid && o.name == source && is_service(o);
    if !leaves && !controller(&leader.metadata).is_some_and(right) {
        // A merge patch replaces the whole list.
        let others = leader.metadata.owner_references.iter().flatten();
        let mut owners: Vec<_> = others.filter(|o| o.controller != Some(true)).cloned().collect();
        owners.push(owner(source, uid));
        metadata.insert("ownerReferences".to_owned(), json!(owners));
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

/// Two merge patches as one; where both set a field, the second counts.
pub fn both(first: Option<Value>, second: Option<Value>) -> Option<Value> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            add(&mut first, second);
            Some(first)
        }
        (first, second) => first.or(second),
    }
}

fn add(first: &mut Value, second: Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            for (key, value) in second {
                add(first.entry(key).or_insert(Value::Null), value);
            }
        }
        (first, second) => *first = second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Object, ServiceFixture, service};

    #[test]
    fn what_was_lost_is_put_back_and_the_rest_stays() {
        let whole = service("web-leader").leading("web", "u1");
        assert_eq!(repair(&whole, "web", "u1", false), None);
        let owner = json!({
            "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u1", "controller": true,
        });
        let managed = whole.clone().label(kubernetes::MANAGED_BY, "Helm").label("team", "blue");
        let labels = json!({"metadata": {"labels": {kubernetes::MANAGED_BY: "zen-lead"}}});
        assert_eq!(repair(&managed, "web", "u1", false), Some(labels));
        let mut bare = whole.clone();
        (bare.metadata.labels, bare.metadata.owner_references) = (None, None);
        let all = json!({"metadata": {
            "labels": {kubernetes::MANAGED_BY: "zen-lead", status::SOURCE_SERVICE: "web"},
            "ownerReferences": [owner],
        }});
        assert_eq!(repair(&bare, "web", "u1", false), Some(all.clone()));
        let labels = json!({"metadata": {"labels": all["metadata"]["labels"]}});
        assert_eq!(repair(&bare, "web", "u1", true), Some(labels));
        let mut shared = whole.owned_by("ConfigMap", "theirs", "u9");
        shared.metadata.owner_references.as_mut().unwrap()[0].controller = None;
        let theirs =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "u9"});
        let owners = json!({"metadata": {"ownerReferences": [theirs, owner]}});
        assert_eq!(repair(&shared, "web", "u1", false), Some(owners));
        let renamed = service("web-leader").leading("web", "u1").owned_by("Service", "else", "u1");
        let owners = json!({"metadata": {"ownerReferences": [owner]}});
        assert_eq!(repair(&renamed, "web", "u1", false), Some(owners));
    }

    #[test]
    fn two_patches_are_one_patch() {
        let (a, b) = (json!({"metadata": {"labels": {"x": "1"}}}), json!({"spec": {"type": "y"}}));
        let c = json!({"metadata": {"labels": {"x": "2", "z": null}}});
        let all = json!({"metadata": {"labels": {"x": "2", "z": null}}, "spec": {"type": "y"}});
        assert_eq!(both(both(Some(a), Some(b)), Some(c)), Some(all));
        assert_eq!(both(None, None), None);
    }
}
