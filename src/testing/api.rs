//! The fake API server: HTTP over the store, with faults on demand.

#[cfg(test)]
mod tests;
mod watching;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use watching::Watching;

use super::store::{Entry, Place, Refusal, Store, selects};
use crate::platform::api;
use crate::platform::clock::monotonic;

/// How a request fails.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers this HTTP status with plain text, as priority and fairness does.
    Plain(u16, Option<&'static str>),
    /// Answers this HTTP status with a Status of this reason and message.
    Status(u16, &'static str, &'static str),
    /// The connection breaks before the server has done anything.
    Reset,
    /// The server executes the request, and the connection breaks before the answer.
    ResetAfter,
    /// No answer, ever; nothing is done.
    Stall,
    /// The server executes the request and never answers.
    StallAfter,
    /// HTTP 200 with this body.
    Garbage(&'static str),
    /// The right answer, this much later.
    Late(Duration),
    /// This HTTP status with this body.
    Body(u16, &'static str),
    /// A mutating webhook takes this annotation out of what is written.
    Strip(&'static str),
}

/// A request the server has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `POST`, …; `WATCH` for watches.
    pub verb: String,
    /// Path without the query.
    pub path: String,
    /// Query parameters.
    pub query: HashMap<String, String>,
    /// Header User-Agent.
    pub agent: String,
}

struct Script {
    verb: &'static str,
    path: String,
    left: usize,
    fault: Fault,
}

/// Signals to all open watches of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signal {
    changes: u64,
    /// Watches opened before this number of `changes` end cleanly, or with an error.
    ended: u64,
    reset: bool,
    /// Watches opened before this number of `changes` send nothing more, and do not end.
    muted: u64,
}

struct Inner {
    store: Mutex<Store>,
    scripts: Mutex<Vec<Script>>,
    seen: Mutex<Vec<Seen>>,
    signal: watch::Sender<Signal>,
}

/// A double of the API server; clones share everything.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Inner>,
}

/// The connection broke: there is no answer.
struct Lost;

type Answer = Result<Response<Body>, Lost>;

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeApi {
    /// An empty server; its first write gets version 101.
    pub fn new() -> Self {
        let mut store = Store::default();
        store.version = 100;
        let inner = Inner {
            store: Mutex::new(store),
            scripts: Mutex::default(),
            seen: Mutex::default(),
            signal: watch::Sender::new(Signal::default()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A client that talks to the server in memory: tokio's time may be paused.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let answer = api.answer(request.map(Body::new)).await;
                let answer = answer.map_err(|Lost| {
                    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset")
                })?;
                api::keep_retry_after(answer).await
            }
        });
        Client::new(service, "default")
    }

    /// Serves on 127.0.0.1 while the returned future is polled.
    pub async fn listen(&self) -> (http::Uri, impl Future<Output = ()> + Send + use<>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let api = self.clone();
        let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let api = api.clone();
            async move {
                // Over HTTP, a body that fails makes hyper close the connection.
                let broken = || std::io::Error::other("cut");
                api.answer(request).await.unwrap_or_else(|Lost| {
                    let error = futures::stream::iter([Err::<Vec<u8>, _>(broken())]);
                    Response::new(Body::from_stream(error))
                })
            }
        });
        (uri, async move { axum::serve(listener, router).await.unwrap() })
    }

    /// Makes the next `times` requests fail that have this verb (`WATCH` for watches) and whose path
    /// contains `path`. Faults apply in the order in which they were added.
    pub fn fail(&self, verb: &'static str, path: &str, times: usize, fault: Fault) {
        self.inner.scripts.lock().push(Script { verb, path: path.into(), left: times, fault });
    }

    /// As [`FakeApi::fail`], for exactly this path.
    pub fn fail_exactly(&self, verb: &'static str, path: &str, times: usize, fault: Fault) {
        self.fail(verb, &format!("={path}"), times, fault);
    }

    /// Forgets that requests were seen after the first `number`.
    pub fn forget_seen_after(&self, number: usize) {
        self.inner.seen.lock().truncate(number);
    }

    /// Forgets all faults that have not happened yet.
    pub fn forgive(&self) {
        self.inner.scripts.lock().clear();
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }

    /// Number of requests so far with this verb.
    pub fn count(&self, verb: &str) -> usize {
        self.inner.seen.lock().iter().filter(|s| s.verb == verb).count()
    }

    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.inner.store.lock().version
    }

    /// Sets the version back, as restoring a backup does; the objects do not change.
    pub fn set_version(&self, version: u64) {
        self.inner.store.lock().rewind(version);
    }

    /// Creates or replaces an object without a request; `collection` is its request path without the name.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut place = Place::parse(collection).unwrap();
        place.name = Some(name);
        let written = {
            let mut store = self.inner.store.lock();
            match store.get(&place) {
                Ok(_) => store.replace(&place, object).unwrap(),
                Err(_) => store.create(&place, object).unwrap(),
            }
        };
        self.changed();
        written
    }

    /// Reads an object by its full path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.inner.store.lock().get(&Place::parse(path).unwrap()).ok()
    }

    /// All objects of a collection.
    pub fn all(&self, collection: &str) -> Vec<Value> {
        let place = Place::parse(collection).unwrap();
        let listed = self.list(&place, &HashMap::new()).unwrap_or_default();
        listed["items"].as_array().cloned().unwrap_or_default()
    }

    /// All objects of a kind that were ever written or deleted, in the order of the changes.
    pub fn written(&self, collection: &str) -> Vec<Value> {
        let place = Place::parse(collection).unwrap();
        let store = self.inner.store.lock();
        let changes = store.history(&place.resource).iter();
        changes
            .filter_map(|entry| match entry {
                Entry::Changed { object, .. } => Some(object.clone()),
                Entry::Raw(_) | Entry::Void => None,
            })
            .collect()
    }

    /// Deletes an object by its full path.
    pub fn remove(&self, path: &str) {
        self.inner.store.lock().delete(&Place::parse(path).unwrap(), &Value::Null).unwrap();
        self.changed();
    }

    /// Sends a raw line to all watches of a collection.
    pub fn say(&self, collection: &str, line: impl Into<String>) {
        let place = Place::parse(collection).unwrap();
        self.inner.store.lock().raw(&place.resource, line.into());
        self.changed();
    }

    /// Forgets the history: watches from older versions are answered 410.
    pub fn compact(&self) {
        let mut store = self.inner.store.lock();
        store.compacted = store.version;
    }

    /// Refuses the next continue token as too old, as after a compaction between two pages.
    pub fn expire_continue(&self) {
        self.inner.store.lock().expire_continue = true;
    }

    /// Ends every open watch, cleanly or by breaking its connection.
    pub fn end_watches(&self, reset: bool) {
        self.inner.signal.send_modify(|s| {
            s.changes += 1;
            s.ended = s.changes;
            s.reset = reset;
        });
    }

    /// Kills the connection of every open watch silently: nothing is sent, nothing ends.
    pub fn mute_watches(&self) {
        self.inner.signal.send_modify(|s| {
            s.changes += 1;
            s.muted = s.changes;
        });
    }

    fn changed(&self) {
        self.inner.signal.send_modify(|s| s.changes += 1);
    }

    fn fault(&self, verb: &str, path: &str) -> Option<Fault> {
        let mut scripts = self.inner.scripts.lock();
        let fits = |s: &Script| match s.path.strip_prefix('=') {
            Some(exact) => path == exact,
            None => path.contains(&s.path),
        };
        let script = scripts.iter_mut().find(|s| s.left > 0 && s.verb == verb && fits(s))?;
        script.left -= 1;
        Some(script.fault.clone())
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let query: HashMap<String, String> = parts.uri.query().map_or_else(HashMap::new, decode);
        let is_watch = query.get("watch").is_some_and(|w| w == "true" || w == "1");
        let verb = if is_watch { "WATCH" } else { parts.method.as_str() }.to_owned();
        let path = parts.uri.path().to_owned();
        let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
        let agent = header(http::header::USER_AGENT).unwrap_or_default().to_owned();
        let content = header(http::header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let seen = Seen { verb, path, query, agent };
        self.inner.seen.lock().push(seen.clone());
        let body = to_bytes(body, usize::MAX).await.map_err(|_| Lost)?;
        let fault = self.fault(&seen.verb, &seen.path);
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let annotations = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        if let (Some(Fault::Strip(key)), Some(annotations)) = (&fault, annotations) {
            annotations.remove(*key);
        }

        let run = || self.run(&parts.method, &seen, &content, body);
        match fault {
            None | Some(Fault::Strip(_)) => Ok(run()),
            Some(Fault::Plain(code, retry_after)) => {
                let mut answer = Response::builder().status(code);
                if let Some(seconds) = retry_after {
                    answer = answer.header("Retry-After", seconds);
                }
                Ok(answer.body(Body::from("Too many requests, please try again later.")).unwrap())
            }
            Some(Fault::Status(code, reason, message)) => {
                Ok(refuse((code, reason, message.to_owned())))
            }
            Some(Fault::Reset) => Err(Lost),
            Some(Fault::ResetAfter) => {
                run();
                Err(Lost)
            }
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::StallAfter) => {
                run();
                std::future::pending().await
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                Ok(run())
            }
            Some(Fault::Body(code, body)) => {
                Ok(Response::builder().status(code).body(Body::from(body)).unwrap())
            }
            Some(Fault::Garbage(body)) => Ok(Response::new(Body::from(body))),
        }
    }

    fn run(&self, method: &Method, seen: &Seen, content: &str, body: Value) -> Response<Body> {
        let Some(place) = Place::parse(&seen.path) else {
            return refuse((404, "NotFound", "the server could not find the resource".into()));
        };
        let result = match (method.as_str(), place.name.is_some()) {
            ("GET", false) if seen.verb == "WATCH" => return self.watch(place, &seen.query),
            ("GET", false) => self.list(&place, &seen.query),
            ("GET", true) => self.inner.store.lock().get(&place),
            ("POST", false) => self.inner.store.lock().create(&place, body),
            ("PUT", true) => self.inner.store.lock().replace(&place, body),
            ("PATCH", true) => {
                let apply = content.starts_with("application/apply-patch");
                self.inner.store.lock().patch(&place, body, apply)
            }
            ("DELETE", true) => self.inner.store.lock().delete(&place, &body),
            _ => Err((405, "MethodNotAllowed", format!("{method} is not supported here"))),
        };
        if method != Method::GET && result.is_ok() {
            self.changed();
        }
        let created = method == Method::POST;
        match result {
            Ok(value) => Response::builder()
                .status(if created { 201 } else { 200 })
                .header("Content-Type", "application/json")
                .body(Body::from(value.to_string()))
                .unwrap(),
            Err(refusal) => refuse(refusal),
        }
    }

    fn list(&self, place: &Place, query: &HashMap<String, String>) -> Result<Value, Refusal> {
        let mut store = self.inner.store.lock();
        // A continue token is "version:offset"; pages are cut from the present objects, which is
        // correct as long as a test does not write between two pages.
        let (version, offset) = match query.get("continue").map(|t| t.split_once(':').unwrap()) {
            None => (store.version, 0),
            Some((version, offset)) => {
                (version.parse::<u64>().unwrap(), offset.parse::<usize>().unwrap())
            }
        };
        let expired = offset > 0 && std::mem::take(&mut store.expire_continue);
        if version < store.compacted || expired {
            let message = "The provided continue parameter is too old";
            return Err((410, "Expired", message.into()));
        }
        let of = |key: &str| query.get(key).map_or("", String::as_str);
        let all = store.list(place, |o| selects(of("labelSelector"), of("fieldSelector"), o));
        let limit = query.get("limit").map_or(usize::MAX, |l| l.parse().unwrap());
        let page: Vec<_> = all.iter().skip(offset).take(limit).cloned().collect();
        let next = offset + page.len();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if next < all.len() {
            metadata["continue"] = json!(format!("{version}:{next}"));
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": page}))
    }

    fn watch(&self, place: Place, query: &HashMap<String, String>) -> Response<Body> {
        let of = |key: &str| query.get(key).cloned().unwrap_or_default();
        let from = of("resourceVersion").parse().unwrap_or(0);
        let timeout = Duration::from_secs(of("timeoutSeconds").parse().unwrap_or(300));
        let (opened, skip) = {
            let store = self.inner.store.lock();
            // Raw lines reach only the watches that are open when they are sent.
            let raw = |e: &&Entry| matches!(e, Entry::Raw(_));
            let skip = store.history(&place.resource).iter().filter(raw).count();
            (self.inner.signal.borrow().changes, skip)
        };
        let state = Watching {
            api: self.clone(),
            place,
            labels: of("labelSelector"),
            fields: of("fieldSelector"),
            from,
            sent: from,
            cursor: 0,
            skip_raw: skip,
            opened,
            ends: monotonic() + timeout,
            bookmarked: false,
            over: false,
            signal: self.inner.signal.subscribe(),
        };
        let lines = futures::stream::unfold(state, |mut state| async move {
            state.next().await.map(|line| (line, state))
        });
        Response::new(Body::from_stream(lines))
    }
}

/// A bookmark line.
pub fn bookmark(version: u64) -> String {
    let metadata = json!({"resourceVersion": version.to_string()});
    let object = json!({"apiVersion": "v1", "kind": "Bookmark", "metadata": metadata});
    json!({"type": "BOOKMARK", "object": object}).to_string()
}

fn status((code, reason, message): Refusal) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let code = refusal.0;
    Response::builder().status(code).body(Body::from(status(refusal).to_string())).unwrap()
}

/// Decodes a query string.
fn decode(query: &str) -> HashMap<String, String> {
    let uri = format!("http://double/?{query}").parse().unwrap();
    axum::extract::Query::<HashMap<String, String>>::try_from_uri(&uri).unwrap().0
}
