//! A whole list, page by page: each page is a call with its retries and deadline, and so is the list.
//!
//! What fails beyond that is begun again by the loop (`watch`).

use kube::Api;
use kube::api::ListParams;
use kube::core::Request;

use super::{Watched, times};
use crate::control::watch::page::page;
use crate::platform::api::{self, CallError, Caller};
use crate::platform::operation::{Operation, Target};
use zen_lead_core::version::Rv;

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
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{operation}: the list of the API server has the version {text:?}, which is no number")]
    Version { operation: Operation, text: String },
}

/// Reads all pages. The first is a consistent read (no resourceVersion), so nothing that was
/// written before the call is missed; `resourceVersion=0` could be served from a lagging cache.
pub(super) async fn all<K: Watched, T>(
    api: &Api<K>,
    caller: &Caller,
    operation: Operation,
    selector: &ListParams,
    trim: impl Fn(K) -> T,
) -> Result<Listed<T>, ListError> {
    let about = Target::own(api.resource_url());
    let pages = pages(api, caller, operation, selector, trim);
    api::collection(&caller.metrics, operation, about, times::LIST, pages).await
}

async fn pages<K: Watched, T>(
    api: &Api<K>,
    caller: &Caller,
    operation: Operation,
    selector: &ListParams,
    trim: impl Fn(K) -> T,
) -> Result<Listed<T>, ListError> {
    let client = api.clone().into_client();
    let request = Request::new(api.resource_url());
    let about = Target::own(api.resource_url());
    let mut params = selector.clone().limit(PAGE_SIZE);
    let mut listed = Listed { objects: Vec::new(), version: Rv::NONE, malformed: Vec::new() };
    loop {
        let some = |object| Some(trim(object));
        let (objects, page) =
            api::call(caller, operation, about, || page(&client, &request, &params, some)).await?;
        if listed.version == Rv::NONE {
            // All pages are of the version of the first one.
            let text = page.version;
            listed.version = Rv::parse(&text).ok_or(ListError::Version { operation, text })?;
        }
        listed.objects.extend(objects);
        listed.malformed.extend(page.malformed);
        params.continue_token = page.next;
        if params.continue_token.is_none() {
            return Ok(listed);
        }
    }
}
