//! The report of a test that failed.

use std::fmt::Write;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::Value;

use super::case::Case;

impl Case {
    /// Writes Services, slices, pods, events and logs to a file, and returns a summary.
    pub async fn dump(&self) -> String {
        let all = ListParams::default();
        let services = self.services().list(&all).await.map(|l| l.items).unwrap_or_default();
        let slices = self.slices().list(&all).await.map(|l| l.items).unwrap_or_default();
        let pods = self.pods().list(&all).await.map(|l| l.items).unwrap_or_default();
        let events = self.api::<Event>().list(&all).await.map(|l| l.items).unwrap_or_default();

        let mut short = String::new();
        for service in &services {
            let conditions = service.status.as_ref().and_then(|s| s.conditions.clone());
            for c in conditions.unwrap_or_default() {
                let (name, message) = (service.name_any(), &c.message);
                let _ =
                    writeln!(short, "  {name}: {}={} {} {message}", c.type_, c.status, c.reason);
            }
        }
        for slice in &slices {
            let _ = writeln!(short, "  {}: {}", slice.name_any(), endpoints(slice));
        }
        // The kubelet writes many events about the pods of the end-to-end tests: they are in the file.
        let of_services =
            |e: &&Event| e.regarding.as_ref().is_some_and(|r| r.kind.as_deref() == Some("Service"));
        for event in events.iter().filter(of_services) {
            let about = event.regarding.as_ref().and_then(|r| r.name.clone()).unwrap_or_default();
            let (reason, note) = (event.reason.as_deref(), event.note.as_deref());
            let _ = writeln!(short, "  {about}: {} {}", reason.unwrap_or(""), note.unwrap_or(""));
        }
        for replica in self.world.product.replicas() {
            let lines = self.world.product.lines_about(replica, &self.ns, 12);
            let _ = writeln!(short, "  zl-{replica}: {}", lines.replace('\n', "\n        "));
        }

        let mut full = String::new();
        for (title, text) in [
            ("Services", yaml(&services)),
            ("EndpointSlices", yaml(&slices)),
            ("Pods", yaml(&pods)),
            ("Events", yaml(&events)),
        ] {
            let _ = writeln!(full, "==== {title}\n{text}");
        }
        for replica in self.world.product.replicas() {
            let text = self.world.product.tail(replica, 200);
            let _ = writeln!(full, "==== zl-{replica}\n{text}");
        }
        let path = self.world.dir.join(format!("{}.txt", self.ns));
        match std::fs::write(&path, full) {
            Ok(()) => format!("{short}  everything: {}", path.display()),
            Err(e) => format!("{short}  {}: {e}", path.display()),
        }
    }
}

/// The endpoints of a slice of any owner: slices of others may have no conditions.
fn endpoints(slice: &EndpointSlice) -> String {
    let all = slice.endpoints.iter().flatten().map(|e| {
        let name = e.target_ref.as_ref().and_then(|t| t.name.clone());
        let name = name.unwrap_or_else(|| e.addresses.join(","));
        let c = e.conditions.clone().unwrap_or_default();
        let (ready, serving, terminating) = (c.ready, c.serving, c.terminating);
        format!("{name} ready={ready:?} serving={serving:?} terminating={terminating:?}")
    });
    all.collect::<Vec<_>>().join("; ")
}

/// Without managedFields, which are not needed.
fn yaml<K: Serialize>(objects: &[K]) -> String {
    let mut value = serde_json::to_value(objects).unwrap();
    for object in value.as_array_mut().into_iter().flatten() {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    serde_saphyr::to_string(&value).unwrap()
}
