//! The Secret with the CA, and the phases of a rotation in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::case::Case;

/// Its name.
pub const NAME: &str = "zen-lead-ca";
/// The longest time of a rotation, including the start of killed replicas.
pub const ROTATION: Duration = Duration::from_mins(1);

/// The Secret with the CA.
pub struct Ca {
    pub secrets: Api<Secret>,
}

impl Ca {
    pub fn of(t: &Case) -> Self {
        Self { secrets: Api::namespaced(t.admin(), &t.world.system) }
    }

    pub async fn value(&self, key: &str) -> Result<String, String> {
        let secret = self.secrets.get(NAME).await.map_err(|e| e.to_string())?;
        let value = secret.data.as_ref().and_then(|d| d.get(key));
        Ok(value.map(|v| String::from_utf8_lossy(&v.0).into_owned()).unwrap_or_default())
    }

    pub async fn phase(&self) -> String {
        self.value("phase").await.unwrap_or_default()
    }

    /// Waits for one of `phases`. It polls without pauses and may still miss one: the first phase ends
    /// after a few writes.
    pub async fn reaches(&self, phases: &[&str]) {
        let began = Instant::now();
        loop {
            let now = self.phase().await;
            if phases.contains(&now.as_str()) {
                return;
            }
            assert!(began.elapsed() < ROTATION, "the phase is {now:?} and not of {phases:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Removes the CA that an earlier test left: its lifetime may differ from the one given here.
    /// Call it only while no replica knows the CA.
    pub async fn empty(&self) {
        self.patch(&json!({"data": null})).await;
    }

    pub async fn patch(&self, patch: &Value) {
        let patch = Patch::Merge(patch);
        self.secrets.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    }
}
