//! A small API server for the tests: one Secret and two webhook configurations, in memory.
//!
//! It supports resourceVersion and uid with the resulting 404s and 409s, and nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(super) const SECRET: &str = "/api/v1/namespaces/zen/secrets/zen-lead-ca";
pub(super) const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/zen-lead";
pub(super) const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zen-lead";

#[derive(Default)]
pub(super) struct World {
    objects: std::collections::BTreeMap<String, Value>,
    version: u64,
    /// `METHOD path -> status` of every call.
    pub(super) calls: Vec<String>,
    /// Every next CA that was ever stored.
    pub(super) nexts: std::collections::BTreeSet<String>,
    /// Status codes to answer the next calls of a method with.
    pub(super) failures: VecDeque<(Method, u16)>,
    /// No request is answered any more.
    pub(super) silent: bool,
}

#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<Mutex<World>>);

impl Fake {
    /// A server with an empty Secret and both configurations, as the manifests make them.
    pub(super) fn installed() -> Self {
        let fake = Self::default();
        fake.put(SECRET, json!({ "metadata": { "name": "zen-lead-ca", "labels": { "a": "b" } } }));
        for (path, item) in [(VALIDATING, super::VALIDATE_ITEM), (MUTATING, super::MUTATE_ITEM)] {
            fake.put(path, configuration(&[item, "other.example.com"]));
        }
        fake
    }

    pub(super) fn client(&self) -> Client {
        let world = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let world = Arc::clone(&world);
            async move {
                // Lets other replicas run between a read and the write that follows.
                tokio::task::yield_now().await;
                if world.lock().silent {
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = world.lock().handle(&head.method, &head.uri, &body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        Client::new(service, "zen")
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.0.lock().store(path, object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    pub(super) fn remove(&self, path: &str) {
        self.0.lock().objects.remove(path);
    }

    pub(super) fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut world = self.0.lock();
        let mut object = world.objects[path].clone();
        change(&mut object);
        world.store(path, object);
    }

    /// The decoded bundle of item number `item`.
    pub(super) fn bundle(&self, path: &str, item: usize) -> String {
        let object = self.get(path).unwrap();
        let text = object["webhooks"][item]["clientConfig"]["caBundle"].as_str().unwrap_or("");
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub(super) fn writes(&self) -> Vec<String> {
        let calls = &self.0.lock().calls;
        calls.iter().filter(|c| !c.starts_with("GET")).cloned().collect()
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

impl World {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let fresh = format!("uid-{}", self.version);
        let uid = self.objects.get(path).map_or(json!(fresh), |o| o["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if let Some(next) = object["data"]["next-ca.crt"].as_str() {
            self.nexts.insert(next.to_owned());
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn handle(&mut self, method: &Method, uri: &http::Uri, body: &[u8]) -> (StatusCode, Value) {
        let failing = self.failures.iter().position(|(m, _)| m == method);
        let (code, answer) = match failing.and_then(|at| self.failures.remove(at)) {
            Some((_, code)) => (code, status(code)),
            None => self.respond(method, uri, body),
        };
        self.calls.push(format!("{method} {} -> {code}", uri.path()));
        (StatusCode::from_u16(code).unwrap(), answer)
    }

    fn respond(&mut self, method: &Method, uri: &http::Uri, body: &[u8]) -> (u16, Value) {
        let path = uri.path().to_owned();
        let found = self.objects.get(&path).cloned();
        let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let meta = |key: &str| sent["metadata"][key].clone();
        match (method.as_str(), found) {
            ("POST", _) => {
                let path = format!("{path}/{}", meta("name").as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return (409, status(409));
                }
                (201, self.store(&path, sent))
            }
            (_, None) => (404, status(404)),
            ("GET", Some(object)) => (200, object),
            ("PUT" | "PATCH", Some(object))
                if ["uid", "resourceVersion"]
                    .iter()
                    .any(|k| !meta(k).is_null() && meta(k) != object["metadata"][k]) =>
            {
                (409, status(409))
            }
            ("PUT", Some(_)) => (200, self.store(&path, sent)),
            ("PATCH", Some(mut object)) => {
                let query = uri.query().unwrap();
                assert!(query.contains("force=true"), "{query}");
                assert!(query.contains("fieldManager=zen-lead-ca-bundle"), "{query}");
                for item in sent["webhooks"].as_array().unwrap() {
                    let held = object["webhooks"]
                        .as_array_mut()
                        .unwrap()
                        .iter_mut()
                        .find(|w| w["name"] == item["name"])
                        .expect("a patch must not name an item that does not exist");
                    held["clientConfig"]["caBundle"] = item["clientConfig"]["caBundle"].clone();
                }
                (200, self.store(&path, object))
            }
            (other, _) => panic!("{other} is not known here"),
        }
    }
}

fn status(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        403 => "Forbidden",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": format!("refused with {code}"), "reason": reason, "code": code,
    })
}
