//! Acts as the built-in controllers when they are late: it creates what they create for a selector that
//! is already gone.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, from_value, json};

use super::case::Case;
use super::waiting::{check, until};

/// Makes an `EndpointSlice` and Endpoints for `web-leader`, labelled and owned as those controllers do.
pub async fn make_late(t: &Case) {
    let leader = t.services().get("web-leader").await.unwrap();
    let labels = |more: Value| {
        let mut labels = json!(leader.labels());
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        labels
    };
    let slice: EndpointSlice = from_value(json!({
        "metadata": {
            "name": "web-leader-late",
            "labels": labels(json!({
                "kubernetes.io/service-name": "web-leader",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            })),
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web-leader", "uid": leader.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
    }))
    .unwrap();
    t.slices().create(&PostParams::default(), &slice).await.unwrap();
    let endpoints: Endpoints = from_value(json!({
        "metadata": {
            "name": "web-leader",
            "labels": labels(json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"})),
        },
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}],
    }))
    .unwrap();
    let api: Api<Endpoints> = t.api();
    api.create(&PostParams::default(), &endpoints).await.unwrap();
}

/// Waits until only zen-lead's slice is left of `web-leader`, and no Endpoints.
pub async fn until_gone(t: &Case) {
    until("slices and Endpoints of the built-in controllers are gone", || async {
        let labelled = ListParams::default().labels("kubernetes.io/service-name=web-leader");
        let slices = t.slices().list(&labelled).await.map_err(|e| e.to_string())?;
        let names: Vec<String> = slices.iter().map(ResourceExt::name_any).collect();
        check(names == ["web-leader-zen-lead-ipv4"], format!("{names:?}"))?;
        let left = t.api::<Endpoints>().get_opt("web-leader").await.map_err(|e| e.to_string())?;
        check(left.is_none(), format!("{left:?}"))
    })
    .await;
}
