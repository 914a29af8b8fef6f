//! The API server of these tests: one Secret and two webhook configurations in the double of `testing`.
//!
//! Adds what only these tests ask for: the answer to each write, and a pause in which other replicas run.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{MUTATE_ITEM, VALIDATE_ITEM};
use crate::testing::{FakeApi, Fault};

pub(super) const SECRET: &str = "/api/v1/namespaces/zen/secrets/zen-lead-ca";
pub(super) const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/zen-lead";
pub(super) const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zen-lead";

#[derive(Clone, Default)]
pub(super) struct Fake {
    api: FakeApi,
    /// `METHOD path -> status` of every write.
    writes: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// A server with an empty Secret and both configurations, as the manifests make them.
    pub(super) fn installed() -> Self {
        let fake = Self::default();
        fake.put(SECRET, json!({ "metadata": { "name": "zen-lead-ca", "labels": { "a": "b" } } }));
        for (path, item) in [(VALIDATING, VALIDATE_ITEM), (MUTATING, MUTATE_ITEM)] {
            fake.put(path, configuration(&[item, "other.example.com"]));
        }
        fake
    }

    pub(super) fn client(&self) -> Client {
        let (api, writes) = (self.api.client(), Arc::clone(&self.writes));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, writes) = (api.clone(), Arc::clone(&writes));
            async move {
                // Lets other replicas run between a read and the write that follows.
                tokio::task::yield_now().await;
                let reads = request.method() == Method::GET;
                let call = format!("{} {}", request.method(), request.uri().path());
                let query = request.uri().query().unwrap_or_default().to_owned();
                if request.method() == Method::PATCH {
                    assert!(query.contains("force=true"), "{query}");
                    assert!(query.contains("fieldManager=zen-lead-ca-bundle"), "{query}");
                }
                let answer = api.send(request).await?;
                if !reads {
                    writes.lock().push(format!("{call} -> {}", answer.status().as_u16()));
                }
                Ok::<_, kube::Error>(answer)
            }
        });
        Client::new(service, "zen")
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        let (collection, _) = path.rsplit_once('/').unwrap();
        self.api.put(collection, object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.api.get(path)
    }

    pub(super) fn remove(&self, path: &str) {
        self.api.remove(path);
    }

    pub(super) fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.put(path, object);
    }

    /// The next `times` requests with this verb are answered with this status.
    pub(super) fn fail(&self, verb: &'static str, times: usize, code: u16) {
        let reason = match code {
            404 => "NotFound",
            409 => "Conflict",
            403 => "Forbidden",
            _ => "InternalError",
        };
        self.api.fail(verb, "", times, Fault::Status(code, reason, "refused"));
    }

    /// Answers no request, or answers all again.
    pub(super) fn silence(&self, silent: bool) {
        self.api.forgive();
        for verb in ["GET", "POST", "PUT", "PATCH"].into_iter().filter(|_| silent) {
            self.api.fail(verb, "", usize::MAX, Fault::Stall);
        }
    }

    /// The decoded bundle of item number `item`.
    pub(super) fn bundle(&self, path: &str, item: usize) -> String {
        let object = self.get(path).unwrap();
        let text = object["webhooks"][item]["clientConfig"]["caBundle"].as_str().unwrap_or("");
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// How many different next CAs were ever stored.
    pub(super) fn nexts(&self) -> usize {
        let stored = self.api.written("/api/v1/namespaces/zen/secrets");
        let next = |secret: &Value| secret["data"]["next-ca.crt"].as_str().map(str::to_owned);
        stored.iter().filter_map(next).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn writes(&self) -> Vec<String> {
        self.writes.lock().clone()
    }
}

pub(super) fn configuration(items: &[&str]) -> Value {
    let items: Vec<Value> = items
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": { "service": { "namespace": "zen", "name": "zen-lead" } },
            })
        })
        .collect();
    json!({ "metadata": { "name": "zen-lead" }, "webhooks": items })
}
