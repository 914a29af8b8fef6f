//! Which webhook items need a new caBundle, and the patch that sets it.
//!
//! Pure, over the two kinds of configuration; `authority` makes the calls.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

use super::{MUTATE_ITEM, VALIDATE_ITEM};

/// What the two kinds of webhook configuration have in common.
pub(super) trait Configuration:
    Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// The kind as a metric label.
    const LABEL: &'static str;
    /// Name of zen-lead's item.
    const ITEM: &'static str;

    /// Name and client configuration of each item.
    fn items(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    const LABEL: &'static str = "validating";
    const ITEM: &'static str = VALIDATE_ITEM;

    fn items(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    const LABEL: &'static str = "mutating";
    const ITEM: &'static str = MUTATE_ITEM;

    fn items(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

/// The bundle of our item; `None` if there is no such item.
pub(super) fn carried<C: Configuration>(configuration: &C) -> Option<String> {
    let items = configuration.items();
    let (_, client) = items.into_iter().find(|(name, _)| *name == C::ITEM)?;
    let bytes = client.ca_bundle.as_ref().map_or(&[][..], |b| b.0.as_slice());
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// The server-side apply that sets the bundle of our item, or `None` if there is nothing to write.
///
/// uid and resourceVersion are preconditions, because the item is known to exist only in this version of
/// the object: applied to an object without it, the patch would create an incomplete item.
pub(super) fn patch<C: Configuration>(configuration: &C, bundle: &str) -> Option<Value> {
    if carried(configuration)? == bundle {
        return None;
    }
    let meta = configuration.meta();
    Some(json!({
        "apiVersion": C::api_version(&()),
        "kind": C::kind(&()),
        "metadata": {
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "webhooks": [{
            "name": C::ITEM,
            "clientConfig": { "caBundle": ByteString(bundle.as_bytes().to_vec()) },
        }],
    }))
}
