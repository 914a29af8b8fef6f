//! Abuse of the webhook port: bodies that are too large, too slow, of the wrong kind, or too many. During
//! the abuse honest callers are answered, memory stays within the promised 300 MiB and refusals are
//! counted. After it the webhook serves as before.
//!
//! `ZEN_LEAD_ABUSE_ROUNDS` repeats the heavy ones.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::caller::{Caller, Line, head, response, review};
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{annotations, source, source_json};
use crate::support::product::allow_open_files;
use crate::support::waiting::{check, until, within};

/// The most memory that the process may use.
const MOST_MIB: u64 = 300;
/// Bodies of 3 MiB at once.
const AT_ONCE: usize = 200;
/// The limit of src/platform/server.rs.
const CONNECTIONS: usize = 2_000;
const MIB: usize = 1 << 20;
/// The uid of reviews that do not differ otherwise.
const UID: &str = "u";

pub fn tests() -> Vec<Test> {
    let deadline = Duration::from_secs(150) * rounds();
    macro_rules! heavy {
        ($($name:ident),* $(,)?) => {
            vec![$(Test::new(module_path!(), stringify!($name), $name).within(deadline)),*]
        };
    }
    heavy![
        two_hundred_bodies_of_3_mib_are_reviewed_within_300_mib,
        bodies_that_take_much_memory_are_reviewed_one_by_one_or_refused,
        bodies_beyond_the_limit_are_refused_unread,
        what_is_no_review_is_refused_and_what_is_one_is_answered_with_its_uid,
        slow_callers_cost_other_callers_nothing,
        heads_without_an_end_are_cut,
        a_flood_of_connections_keeps_no_caller_out,
    ]
}

fn rounds() -> u32 {
    std::env::var("ZEN_LEAD_ABUSE_ROUNDS").map_or(1, |n| n.parse().unwrap())
}

/// A replica under abuse, and an honest client that goes on calling it.
struct Abused {
    t: Arc<Case>,
    caller: Caller,
    over: Arc<AtomicBool>,
    honest: JoinHandle<Vec<Duration>>,
    before: BTreeMap<String, f64>,
}

impl Abused {
    async fn start(t: &Arc<Case>) -> Self {
        t.world.product.spawn(0, &[]);
        t.world.product.until_ready(0).await;
        let caller = Caller::new(t, 0).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut line = caller.connect().await.unwrap();
        let honest = tokio::spawn({
            let over = Arc::clone(&over);
            async move {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    honest_review(&mut line, &format!("honest-{}", took.len())).await;
                    took.push(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                took
            }
        });
        // The peak of the process is reset: memory counts from here on.
        fs::write(format!("/proc/{}/clear_refs", t.world.product.pid(0)), "5").unwrap();
        let before = rejected(t).await;
        Self { t: Arc::clone(t), caller, over, honest, before }
    }

    /// What was refused since the start, by reason.
    async fn refused(&self) -> BTreeMap<String, f64> {
        let mut now = rejected(&self.t).await;
        for (reason, count) in &self.before {
            *now.get_mut(reason).unwrap() -= count;
        }
        now.retain(|_, count| *count > 0.0);
        now
    }

    /// Every honest call was answered, memory was bounded, and a Service is served as before.
    async fn end(self, what: &str) {
        self.over.store(true, Ordering::Relaxed);
        let mut took = self.honest.await.expect("every honest call is answered");
        took.sort_unstable();
        let peak = memory(&self.t, "VmHWM:");
        println!(
            "abuse: {what}: peak {peak} MiB, {} MiB now; {} honest calls beside it, the slowest {:?}",
            memory(&self.t, "VmRSS:"),
            took.len(),
            took.last().unwrap()
        );
        assert!(!took.is_empty());
        assert!(peak <= MOST_MIB, "{peak} MiB, at most {MOST_MIB} are promised");
        let in_flight = || async {
            let now =
                self.t.world.product.scrape(0).await?.value("zen_lead_webhook_in_flight", &[]);
            check(now == Some(0.0), format!("{now:?}"))
        };
        until("nothing is in flight", in_flight).await;
        // Through the API server: refused and served as before.
        let bad = source("bad", &annotations(&[(names::STICKY, "maybe")]));
        until("a bad Service is refused", || async {
            let made = self.t.user_services().create(&PostParams::default(), &bad).await;
            let code = match made {
                Err(kube::Error::Api(status)) => status.code,
                other => panic!("{other:?}"),
            };
            check(code == 422, code.to_string())
        })
        .await;
        self.t.ready_pods("web", &["a"]).await;
        until("a Service is made", || async {
            let web = source("web", &json!({}));
            self.t.user_services().create(&PostParams::default(), &web).await
        })
        .await;
        self.t.until_led_by("web-leader", "a").await;
    }
}

/// Rejected bodies by reason.
async fn rejected(t: &Case) -> BTreeMap<String, f64> {
    let scrape = t.world.product.scrape(0).await.unwrap();
    // Absent as long as nothing was refused.
    let family = scrape.families.get("zen_lead_webhook_rejected_bodies_total");
    family
        .into_iter()
        .flat_map(|f| &f.samples)
        .map(|s| (s.labels["reason"].clone(), s.value))
        .collect()
}

/// A line of the process' status, in MiB.
fn memory(t: &Case, line: &str) -> u64 {
    t.world.product.memory(0, line) / 1024
}

async fn honest_review(line: &mut Line, uid: &str) {
    let body = review(uid, &source_json("web", &json!({}))).to_string();
    // In production it has one second; a busy machine is given more.
    let answer = line.ask(&head("/validate?timeout=5s", body.len()), body.as_bytes()).await;
    assert_eq!(response(&answer.unwrap(), uid)["allowed"], true);
}

/// A body of so many bytes: a good Service with one large annotation.
fn padded(bytes: usize) -> Vec<u8> {
    let note = |text: &str| review(UID, &source_json("web", &annotations(&[("note", text)])));
    let room = bytes - note("").to_string().len();
    note(&"x".repeat(room)).to_string().into_bytes()
}

/// Sends a body on this many connections, on each one again until it is reviewed, as users would.
async fn all_reviewed(caller: &Caller, at_once: usize, body: &[u8]) {
    let reviewed = (0..at_once).map(|n| async move {
        within(Duration::from_secs(100), format!("body {n} is reviewed"), || async {
            let answer = caller.review("/validate?timeout=10s", body).await?;
            check(answer.code == 200, format!("{:.300}", answer.body))?;
            let review = response(&answer, UID);
            // A Service with too many values is refused by its verdict.
            let too_large =
                review["status"]["message"].to_string().contains("zen-lead reads at most");
            check(review["allowed"] == true || too_large, answer.body)
        })
        .await;
    });
    join_all(reviewed).await;
}

async fn two_hundred_bodies_of_3_mib_are_reviewed_within_300_mib(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    let body = padded(3 * MIB);
    for _ in 0..rounds() {
        all_reviewed(&abused.caller, AT_ONCE, &body).await;
    }
    // The largest body that is read.
    all_reviewed(&abused.caller, 1, &padded(7 * MIB)).await;
    abused.end("200 bodies of 3 MiB at once").await;
}

/// A review of a Service with this text for a field, which is given as a patch with "FIELD" in it.
fn crowded(patch: &Value, text: &str) -> Vec<u8> {
    let review = review(UID, &source_json("web", patch)).to_string();
    review.replace("\"FIELD\"", text).into_bytes()
}

async fn bodies_that_take_much_memory_are_reviewed_one_by_one_or_refused(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    let managed = json!({"metadata": {"managedFields": "FIELD"}});
    let ports = json!({"spec": {"ports": "FIELD"}});
    let notes = json!({"metadata": {"annotations": "FIELD"}});
    // Seven bytes a map, three a port, distinct keys: the most that are read, and far more.
    let maps = |n: usize| format!("[{{\"fieldsV1\":[{}{{}}]}}]", "{\"\":0},".repeat(n));
    let empty = |n: usize| format!("[{}{{}}]", "{},".repeat(n));
    let keys = |n: usize| {
        let keys: Vec<String> = (0..n).map(|n| format!("\"{n:x}\":\"\"")).collect();
        format!("{{{}}}", keys.join(","))
    };
    for _ in 0..rounds() {
        for most in [
            crowded(&managed, &maps(249_900)),
            crowded(&ports, &empty(249_900)),
            crowded(&notes, &keys(499_900)),
        ] {
            all_reviewed(&abused.caller, 3, &most).await;
        }
    }
    println!("abuse: the most values that are read: {} MiB", memory(&t, "VmHWM:"));
    let more = [crowded(&managed, &maps(400_000)), crowded(&ports, &empty(2 * MIB))];
    let refused = join_all((0..10).map(|n| {
        let (caller, body) = (&abused.caller, &more[n % 2]);
        async move { caller.review("/mutate?timeout=10s", body).await.unwrap() }
    }));
    for answer in refused.await {
        // Or there was no memory for it before its caller gave up.
        assert!([400, 504].contains(&answer.code), "{answer:?}");
    }
    assert!(abused.refused().await["too_many_values"] >= 2.0);
    abused.end("bodies of many small values").await;
}

async fn bodies_beyond_the_limit_are_refused_unread(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    for length in [7 * MIB + 1, 1 << 40] {
        // Nothing of the body is ever sent.
        let answer = abused.caller.ask(&head("/validate", length), b"").await.unwrap();
        let words = format!("the body has {length} bytes; the limit is 7340032");
        assert_eq!(answer.code, 413);
        assert!(answer.body.contains(&words), "{}", answer.body);
    }
    // Without a length: the connection is cut as soon as the body is too large.
    let unannounced = (0..20).map(|_| async {
        let mut line = abused.caller.connect().await.unwrap();
        let head = head("/validate?timeout=10s", 0)
            .replace("Content-Length: 0", "Transfer-Encoding: chunked");
        line.send(head.as_bytes()).await.unwrap();
        let chunk = [b"10000\r\n", vec![b' '; 0x10000].as_slice(), b"\r\n"].concat();
        for sent in 0..1_600 {
            if line.send(&chunk).await.is_err() {
                return sent;
            }
        }
        panic!("100 MiB were taken");
    });
    let sent = join_all(unannounced).await;
    let most = sent.into_iter().max().unwrap();
    println!("abuse: without a length: closed after {most} chunks of 64 KiB");
    // 7 MiB are read; the kernel's buffers at both ends take up to 10 more on their own.
    assert!(most <= 24 * 16, "{most} chunks of 64 KiB were taken");
    let counted = || async {
        let refused = abused.refused().await;
        let all: f64 = refused.values().sum();
        check(all > 21.5 && refused.contains_key("too_large"), format!("{refused:?}"))
    };
    until("they are counted", counted).await;
    abused.end("bodies beyond 7 MiB").await;
}

/// Method and target, content type, body; the answer's code, and the reason counted.
type Row<'a> = (&'a str, &'a str, Vec<u8>, u16, &'a str);

async fn what_is_no_review_is_refused_and_what_is_one_is_answered_with_its_uid(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    let good = review(UID, &source_json("web", &json!({})));
    let with = |pointer: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    let json = "application/json";
    let plain = good.to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_inside = crowded(&json!({"spec": {"ports": "FIELD"}}), &deep);
    let twice = plain.replacen("\"kind\"", "\"kind\":\"AdmissionReview\",\"kind\"", 1);
    let long = "u".repeat(MIB);
    let (long_uid, long_name) =
        (with("/request/uid", json!(long)), with("/request/name", json!(long)));
    let no_utf8 = plain.replace("alice", "AL").into_bytes();
    let no_utf8: Vec<u8> = no_utf8.iter().map(|b| if *b == b'L' { 0xff } else { *b }).collect();
    let bytes = |text: &str| text.as_bytes().to_vec();
    let rows: Vec<Row<'_>> = vec![
        ("POST /validate", json, bytes(&plain), 200, ""),
        ("POST /mutate", "application/json; charset=utf-8", bytes(&plain), 200, ""),
        ("POST /validate?timeout=nonsense", json, bytes(&plain), 200, ""),
        ("POST /validate", "text/plain", bytes(&plain), 415, "content_type"),
        ("POST /validate", "", bytes(&plain), 415, "content_type"),
        ("POST /validate", "application/yaml", bytes(&plain), 415, "content_type"),
        ("POST /mutate", "application/vnd.kubernetes.protobuf", bytes("k8s"), 415, "content_type"),
        ("GET /validate", json, vec![], 405, "method"),
        ("DELETE /mutate", json, vec![], 405, "method"),
        ("POST /", json, bytes(&plain), 404, "path"),
        ("POST /validate/x", json, bytes(&plain), 404, "path"),
        ("POST /validate", json, vec![], 400, "malformed"),
        ("POST /validate", json, bytes("null"), 400, "malformed"),
        ("POST /validate", json, bytes("[]"), 400, "malformed"),
        ("POST /validate", json, bytes("{}"), 400, "wrong_kind"),
        ("POST /validate", json, bytes(&plain[..plain.len() - 1]), 400, "malformed"),
        ("POST /validate", json, bytes(&format!("{plain} x")), 400, "malformed"),
        ("POST /validate", json, bytes(&twice), 400, "malformed"),
        ("POST /validate", json, bytes(&deep), 400, "malformed"),
        ("POST /validate", json, deep_inside, 400, "bad_object"),
        ("POST /validate", json, no_utf8, 400, "malformed"),
        (
            "POST /validate",
            json,
            with("/apiVersion", json!("admission.k8s.io/v1beta1")).into(),
            400,
            "wrong_kind",
        ),
        (
            "POST /validate",
            json,
            with("/apiVersion", json!("admission.k8s.io/v2")).into(),
            400,
            "wrong_kind",
        ),
        ("POST /validate", json, with("/apiVersion", json!(1)).into(), 400, "malformed"),
        ("POST /mutate", json, with("/kind", json!("ConversionReview")).into(), 400, "wrong_kind"),
        ("POST /validate", json, with("/request", json!(null)).into(), 400, "no_request"),
        ("POST /validate", json, with("/request/uid", json!(null)).into(), 400, "no_uid"),
        ("POST /validate", json, with("/request/uid", json!("")).into(), 400, "no_uid"),
        ("POST /validate", json, with("/request/uid", json!(7)).into(), 400, "malformed"),
        (
            "POST /validate",
            json,
            with("/request/operation", json!("PATCH")).into(),
            400,
            "malformed",
        ),
        ("POST /validate", json, with("/request/operation", json!(null)).into(), 400, "malformed"),
        ("POST /validate", json, with("/request/object", json!(null)).into(), 400, "no_object"),
        ("POST /validate", json, with("/request/object", json!("web")).into(), 400, "bad_object"),
        ("POST /mutate", json, with("/request/object/spec", json!([1])).into(), 400, "bad_object"),
        (
            "POST /validate",
            json,
            with("/request/object/metadata/annotations", json!({"a": 1})).into(),
            400,
            "bad_object",
        ),
        ("POST /validate", json, with("/request/kind", json!(null)).into(), 400, "no_kind"),
        ("POST /validate", json, with("/request/userInfo", json!(null)).into(), 200, ""),
        ("POST /validate", json, with("/request/name", json!(null)).into(), 200, ""),
        ("POST /validate", json, with("/request/operation", json!("DELETE")).into(), 200, ""),
        ("POST /validate", json, bytes(&long_name), 200, ""),
        ("POST /validate", json, bytes(&long_uid), 200, ""),
    ];
    let mut counted: BTreeMap<String, f64> = BTreeMap::new();
    for (line, kind, body, code, reason) in rows {
        let what = format!("{line} {kind} {:.80}", String::from_utf8_lossy(&body));
        let kind =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let head = format!(
            "{line} HTTP/1.1\r\nHost: zen-lead\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let answer =
            abused.caller.ask(&head, &body).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer.code, code, "{what}: {:.300}", answer.body);
        let reply: Value = serde_json::from_str(&answer.body).unwrap();
        if code == 200 {
            let uid = reply["response"]["uid"].as_str().unwrap();
            assert!(uid == UID || uid == long, "{what}: {uid:.80}");
        } else {
            assert_eq!(
                (&reply["kind"], &reply["code"]),
                (&json!("Status"), &json!(code)),
                "{what}"
            );
            assert!(answer.body.len() < 1_000, "{what}: {} bytes", answer.body.len());
            *counted.entry(reason.to_owned()).or_default() += 1.0;
        }
    }
    assert_eq!(abused.refused().await, counted);
    abused.end("what is no review").await;
}

async fn slow_callers_cost_other_callers_nothing(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    let caller = &abused.caller;
    let body = review("slow", &source_json("web", &json!({}))).to_string();
    // A byte now and then: of the handshake, of the head, of the body.
    let silent = join_all((0..100).map(|_| caller.tcp())).await;
    let lines = || futures::stream::iter(0..100).map(|_| async { caller.connect().await.unwrap() });
    let slow = head("/validate?timeout=5s", body.len());
    let mut first: Vec<Line> = lines().buffer_unordered(8).collect().await;
    for line in &mut first {
        // On a busy machine the first ones may have been cut.
        let _ = line.send(&slow.as_bytes()[..20]).await;
    }
    let name = "zen_lead_webhook_connection_errors_total";
    let late = "zen_lead_connections_closed_total";
    within(Duration::from_secs(30), "connections without a request are cut", || async {
        let scrape = t.world.product.scrape(0).await?;
        let silent = scrape.value(name, &[("reason", "handshake_timeout")]);
        check(silent >= Some(100.0), format!("{silent:?}"))?;
        let late = scrape.value(late, &[("server", "webhook"), ("reason", "first_request")]);
        check(late >= Some(100.0), format!("{late:?}"))
    })
    .await;
    drop((silent, first));

    // After their first request, slow heads may take longer: their callers may be API servers.
    let mut heads: Vec<Line> = lines().buffer_unordered(8).take(20).collect().await;
    for line in &mut heads {
        honest_review(line, "early").await;
    }
    let bodies = futures::stream::iter(0..300).map(|_| async {
        let mut line = caller.connect().await.unwrap();
        line.send(head("/validate?timeout=3s", body.len()).as_bytes()).await.unwrap();
        for byte in body.as_bytes().chunks(1).take(20) {
            // On a busy machine the answer may arrive before all bytes are sent.
            if line.send(byte).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        line.answer().await.unwrap().code
    });
    let codes: Vec<u16> = bodies.buffer_unordered(50).collect().await;
    assert!(codes.iter().all(|code| *code == 504), "{codes:?}");
    assert_eq!(abused.refused().await, BTreeMap::from([("deadline".to_owned(), 300.0)]));
    for byte in slow.as_bytes().chunks(1).take(20) {
        for line in &mut heads {
            line.send(byte).await.unwrap();
        }
    }
    for line in &mut heads {
        line.send(&slow.as_bytes()[20..]).await.unwrap();
        line.send(body.as_bytes()).await.unwrap();
        assert_eq!(line.answer().await.unwrap().code, 200, "a head that came slowly is answered");
    }
    abused.end("dawdlers").await;
}

async fn heads_without_an_end_are_cut(t: Arc<Case>) {
    let abused = Abused::start(&t).await;
    let caller = &abused.caller;
    // All open at once: hyper would keep about 400 KiB for each.
    let filled = futures::stream::iter(0..800).map(|_| async {
        let mut line = caller.connect().await.unwrap();
        let _ = line.send(b"POST /validate HTTP/1.1\r\nHost: zen-lead\r\nX-Long: ").await;
        let _ = line.send(&vec![b'x'; 380 * 1024]).await;
        line
    });
    let mut lines: Vec<Line> = filled.buffer_unordered(8).collect().await;
    for line in &mut lines {
        let mut said = Vec::new();
        let ended = timeout(Duration::from_secs(20), line.0.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "the webhook waits for a head of 380 KiB");
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 431"), "{said:?}");
    }
    abused.end("800 heads without an end").await;
}

async fn a_flood_of_connections_keeps_no_caller_out(t: Arc<Case>) {
    // Both ends need file descriptors: the replica has the limits of the process that starts it.
    allow_open_files(8_192);
    let abused = Abused::start(&t).await;
    // Not faster than they are accepted: the kernel would delay some of them.
    let flood = futures::stream::iter(0..CONNECTIONS + 300).map(|_| abused.caller.tcp());
    let flood: Vec<_> = flood.buffer_unordered(64).collect().await;
    assert!(flood.iter().all(Result::is_ok), "the kernel accepts them all");
    let over = [("server", "webhook"), ("reason", "address_limit")];
    until("connections above the limit are closed and counted", || async {
        let scrape = t.world.product.scrape(0).await?;
        let cut = scrape.value("zen_lead_connections_closed_total", &over);
        check(cut >= Some(300.0), format!("{cut:?}"))
    })
    .await;
    until("a new connection is served beside them", || async {
        let body = review("new", &source_json("web", &json!({}))).to_string();
        let answer = abused.caller.review("/validate?timeout=10s", body.as_bytes()).await?;
        check(answer.code == 200, answer.body)
    })
    .await;
    drop(flood);
    abused.end("a flood of connections").await;
}
