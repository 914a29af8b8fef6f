//! Tests of the double itself: the rules of versions and preconditions that other tests rely on.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};

use super::*;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn writes_keep_to_versions_and_preconditions() {
    let api = FakeApi::new();
    let maps: Api<ConfigMap> = Api::namespaced(api.client(), "a");
    let first = maps.create(&PostParams::default(), &map("x")).await.unwrap();
    assert_eq!(first.metadata.resource_version.as_deref(), Some("101"));
    let code = |e: kube::Error| match e {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    };
    let again = maps.create(&PostParams::default(), &map("x")).await.unwrap_err();
    assert_eq!(code(again), (409, "AlreadyExists".into()));

    let mut second = first.clone();
    second.data = Some([("k".into(), "v".into())].into());
    let second = maps.replace("x", &PostParams::default(), &second).await.unwrap();
    assert_eq!(second.metadata.resource_version.as_deref(), Some("102"));
    let stale = maps.replace("x", &PostParams::default(), &first).await.unwrap_err();
    assert_eq!(code(stale), (409, "Conflict".into()));
    let same = maps.replace("x", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version.as_deref(), Some("102"), "a no-op is no write");

    let wrong = Preconditions { uid: Some("other".into()), resource_version: None };
    let wrong = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    assert_eq!(code(maps.delete("x", &wrong).await.unwrap_err()), (409, "Conflict".into()));
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(maps.get("x").await.unwrap_err()), (404, "NotFound".into()));
}

#[tokio::test]
async fn lists_are_paged_and_selected() {
    let api = FakeApi::new();
    for name in ["a", "b", "c"] {
        let labels = json!({"first": (name == "a").to_string()});
        let object = json!({"metadata": {"name": name, "labels": labels}});
        api.put("/api/v1/namespaces/n/configmaps", object);
    }
    let maps: Api<ConfigMap> = Api::all(api.client());
    let page = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let token = page.metadata.continue_.unwrap();
    let rest = maps.list(&ListParams::default().continue_token(&token)).await.unwrap();
    assert_eq!((rest.items.len(), rest.metadata.continue_), (1, None));
    assert_eq!(rest.metadata.resource_version, page.metadata.resource_version);
    let others = maps.list(&ListParams::default().labels("first!=true")).await.unwrap();
    assert_eq!(others.items.len(), 2);
}
