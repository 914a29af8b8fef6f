//! A page of a list as the API server answers it, and what is wrong with those of its objects that
//! cannot be read.
//!
//! One object with a field out of range must not hide all others. How
//! pages make a list, and what is retried, is the business of `watch` and `reader`.

use kube::Client;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, ObjectList, Request};

use crate::control::watch::Watched;
use zen_lead_core::keys::kubernetes;

/// Selects the slices that the built-in controller did not write: all that are read to route and to judge.
pub fn not_built_in() -> String {
    format!("{}!={}", kubernetes::SLICE_MANAGED_BY, kubernetes::SLICE_CONTROLLER)
}

/// Asks for one page.
///
/// # Errors
/// What the client or the API server says.
pub async fn page(client: &Client, request: &Request, params: &ListParams) -> kube::Result<String> {
    let request = request.list(params).map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await
}

/// Reads a page; only if that fails, again object by object, because that is several times slower.
/// What is wrong with each object that cannot be read is added to `malformed`, whether it is in the
/// page all the same (`decode`) or was skipped.
///
/// # Errors
/// Something that is no list at all.
pub fn read<K: Watched>(
    text: &str,
    malformed: &mut Vec<String>,
) -> Result<ObjectList<K>, serde_json::Error> {
    if let Ok(page) = serde_json::from_str::<ObjectList<K>>(text) {
        malformed.extend(page.items.iter().filter_map(Watched::unreadable));
        return Ok(page);
    }
    let page = serde_json::from_str::<ObjectList<DeserializeGuard<K>>>(text)?;
    let mut items = Vec::with_capacity(page.items.len());
    for DeserializeGuard(object) in page.items {
        match object {
            Ok(object) => items.push(object),
            Err(invalid) => {
                let name = |part: Option<String>| part.unwrap_or_default();
                let meta = invalid.metadata;
                let (namespace, name) = (name(meta.namespace), name(meta.name));
                malformed.push(format!("{namespace}/{name}: {}", invalid.error));
            }
        }
    }
    Ok(ObjectList { types: page.types, metadata: page.metadata, items })
}
