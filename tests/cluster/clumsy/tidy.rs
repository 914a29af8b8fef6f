//! Removes disturbances at the end of a walk.

use std::time::Duration;

use serde_json::{Value, json};

use super::act::Ground;
use super::draw::STRANGER;
use super::moves::{Move, PodMove, Who};
use super::raw::{self, Answer, Kind, On, WEB};
use crate::support::names;
use crate::support::objects::hollow;

impl Ground {
    /// Removes disturbances and makes the source valid again. Objects of zen-lead stay as they are:
    /// zen-lead has to repair them.
    pub async fn tidy(&mut self) -> Result<(), String> {
        let words = |(code, text): (u16, String)| format!("{code} {text}");
        self.act(&Move::Unhook).await.map_err(words)?;
        self.act(&Move::Unquota).await.map_err(words)?;
        for kind in [Kind::Service, Kind::Slice] {
            for object in self.admin.list(kind).await.map_err(words)? {
                let name = raw::text(&object, "/metadata/name");
                let at = format!("{}/{name}", kind.path(&self.admin.ns));
                if object["metadata"]["finalizers"].to_string().contains("example.com/hold") {
                    let patch = json!({"metadata": {"finalizers": null}});
                    let merge = "application/merge-patch+json";
                    let _ = self.hand(Who::Glass).call("PATCH", &at, merge, &patch).await;
                }
                let strange =
                    is_squatted(&object) || is_left_over(&object) || is_unproved(kind, &object);
                if strange {
                    let _ = self.admin.call("DELETE", &at, "application/json", &Value::Null).await;
                }
            }
        }
        for pod in ["p1", "p2"] {
            let on = On(Kind::Pod, pod);
            if self.admin.get(on).await.map_err(words)?.is_none() {
                self.t.pod(hollow(pod, "web").dual()).await;
            }
            let _ = self.pod(pod, PodMove::Relabel(true)).await;
            self.pod(pod, PodMove::Ready(true)).await.map_err(words)?;
        }
        self.good_source().await
    }

    /// Removes finalizers, so that the namespace can be deleted.
    pub async fn release(&self) -> Answer<()> {
        for kind in [Kind::Service, Kind::Slice] {
            for object in self.admin.list(kind).await? {
                let name = raw::text(&object, "/metadata/name");
                let at = format!("{}/{name}", kind.path(&self.admin.ns));
                let patch = json!({"metadata": {"finalizers": null}});
                let merge = "application/merge-patch+json";
                let _ = self.hand(Who::Glass).call("PATCH", &at, merge, &patch).await;
            }
        }
        Ok(())
    }

    async fn good_source(&self) -> Result<(), String> {
        for _ in 0..200 {
            let source = self.admin.get(WEB).await.map_err(|e| e.1)?;
            let Some(source) = source else {
                self.source(&json!({})).await.map_err(|e| e.1)?;
                return Ok(());
            };
            if source["metadata"]["deletionTimestamp"].is_null() {
                let patch = json!({
                    "metadata": {"annotations": {names::ENABLED: "true", names::LEADER_NAME: "web-leader"}},
                    "spec": {"selector": {"app": "web"}},
                });
                let alice = self.hand(Who::Alice);
                let done = self.insisting(|| alice.merge(WEB, &patch)).await;
                return done.map(drop).map_err(|e| format!("alice may not set web right: {}", e.1));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("web is still being deleted".to_owned())
    }
}

/// True for objects that strangers created with names of ours, even if they were changed since.
pub fn is_squatted(object: &Value) -> bool {
    !raw::annotation(object, STRANGER).is_empty()
}

/// True for objects that the built-in controller made for a Service that was deleted without them.
fn is_left_over(slice: &Value) -> bool {
    raw::label(slice, names::SLICE_MANAGED_BY) == "endpointslice-controller.k8s.io"
        && raw::label(slice, names::SERVICE_NAME).ends_with("-leader")
        && slice["metadata"]["ownerReferences"].is_null()
}

/// True for objects that zen-lead made and cannot prove to be its own any more, because two of their signs
/// were changed (docs/decisions/evidence.md): zen-lead does not touch them and reports that they have to
/// be deleted.
fn is_unproved(kind: Kind, object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owned = owners.is_some_and(|all| all.iter().any(|o| o["controller"] == true));
    let of_source = raw::label(object, names::SOURCE_LABEL) == "web";
    let stamped = !raw::annotation(object, names::EPOCH).is_empty()
        || !raw::annotation(object, names::WRITE_ID).is_empty()
        || !raw::annotation(object, "zen-lead.io/decision-version").is_empty();
    let name = raw::text(object, "/metadata/name");
    match kind {
        Kind::Service => name == "web-leader" && !owned && !(of_source && stamped),
        Kind::Slice => {
            let managed = raw::label(object, names::SLICE_MANAGED_BY) == "zen-lead";
            name.starts_with("web-leader-zen-lead-")
                && !owned
                && !(stamped && (managed || of_source))
        }
        _ => false,
    }
}
