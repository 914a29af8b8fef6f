//! A whole list, page by page, each page with its deadline.
//!
//! No retries (`watch`): a list that fails on the way is begun again.

use kube::api::ListParams;
use kube::core::{DeserializeGuard, ObjectList, Request};
use kube::{Api, Client};

use super::{Selector, Watched, times};
use crate::retry::with_causes;
use crate::version::Rv;

/// Objects a page.
const PAGE_SIZE: u32 = 500;

/// A whole list.
pub(super) struct Listed<T> {
    pub(super) objects: Vec<T>,
    pub(super) version: Rv,
    /// What is wrong with each object that was skipped.
    pub(super) malformed: Vec<String>,
}

/// Why a list failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("cannot list: {}", with_causes(.0))]
    Kube(kube::Error),
    #[error("cannot list: no answer within {:?}", times::PAGE)]
    Deadline,
    #[error("cannot list: the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("cannot list: {0:?} is not a version")]
    Version(String),
}

/// Reads all pages. The first is a consistent read (no resourceVersion), so nothing that was
/// written before the call is missed; `resourceVersion=0` could be served from a lagging cache.
pub(super) async fn all<K: Watched, T>(
    api: &Api<K>,
    selector: &Selector,
    trim: impl Fn(K) -> T,
) -> Result<Listed<T>, ListError> {
    let client = api.clone().into_client();
    let request = Request::new(api.resource_url());
    let mut params = ListParams {
        label_selector: selector.labels.clone(),
        field_selector: selector.fields.clone(),
        limit: Some(PAGE_SIZE),
        ..ListParams::default()
    };
    let mut listed = Listed { objects: Vec::new(), version: Rv::NONE, malformed: Vec::new() };
    loop {
        let text = tokio::time::timeout(times::PAGE, page(&client, &request, &params))
            .await
            .map_err(|_| ListError::Deadline)?
            .map_err(ListError::Kube)?;
        let page = read::<K>(&text, &mut listed.malformed)?;
        drop(text);
        if listed.version == Rv::NONE {
            // All pages are of the version of the first one.
            let text = page.metadata.resource_version.unwrap_or_default();
            listed.version = Rv::parse(&text).ok_or(ListError::Version(text))?;
        }
        listed.objects.extend(page.items.into_iter().map(&trim));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(listed);
        }
    }
}

async fn page(client: &Client, request: &Request, params: &ListParams) -> kube::Result<String> {
    let request = request.list(params).map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await
}

/// Reads a page; only if that fails, again object by object, because that is several times slower.
fn read<K: Watched>(
    text: &str,
    malformed: &mut Vec<String>,
) -> Result<ObjectList<K>, serde_json::Error> {
    if let Ok(page) = serde_json::from_str::<ObjectList<K>>(text) {
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
