//! Dry runs and second applies change nothing: etcd itself and kubectl are the evidence.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::kubectl::As;
use crate::support::objects::{annotations, source, source_json};
use crate::support::waiting::{check, until, within};
use crate::support::{http, names};

/// The number of dry runs.
const DRY_RUNS: usize = 1_000;

pub fn tests() -> Vec<Test> {
    let name = "a_thousand_dry_runs_leave_no_trace_in_etcd";
    let dry = Test::new(module_path!(), name, a_thousand_dry_runs_leave_no_trace_in_etcd);
    let name = "kubectl_diff_after_apply_is_empty";
    let diff = Test::new(module_path!(), name, kubectl_diff_after_apply_is_empty);
    vec![dry.within(Duration::from_mins(3)).needs(etcd_port()), diff.within(Duration::from_mins(2))]
}

fn etcd_port() -> Result<u16, String> {
    let port = std::env::var("ETCD_PORT").ok().and_then(|port| port.parse().ok());
    port.ok_or_else(|| "ETCD_PORT is not set; e2e/cluster.sh up writes it".to_owned())
}

/// The revision of etcd, and the keys that were written after another one.
async fn written_after(revision: i64) -> (i64, Vec<String>) {
    let range = json!({
        "key": STANDARD.encode("/registry/"),
        "range_end": STANDARD.encode("/registry0"),
        "keys_only": true,
        "min_mod_revision": (revision + 1).to_string(),
    });
    let answer = http::post(etcd_port().unwrap(), "/v3/kv/range", &range.to_string()).await;
    let answer = answer.unwrap();
    assert_eq!(answer.code, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let key = |kv: &Value| {
        String::from_utf8(STANDARD.decode(kv["key"].as_str().unwrap()).unwrap()).unwrap()
    };
    let keys = answer["kvs"].as_array().into_iter().flatten().map(key).collect();
    (answer["header"]["revision"].as_str().unwrap().parse().unwrap(), keys)
}

/// Whether a key is renewed by the cluster's own components all the time, or belongs to another test.
fn is_noise(t: &Case, key: &str) -> bool {
    let renewed = [
        "/registry/leases/",
        "/registry/masterleases/",
        "/registry/peerserverleases/",
        "/registry/minions/",
    ];
    let other_test = key.contains(&format!("-{}", t.world.run)) && !key.contains(&t.ns);
    renewed.iter().any(|prefix| key.starts_with(prefix)) || other_test
}

/// One of five kinds: creations good and bad, changes of annotations and of the selector, an apply.
async fn dry_run(services: &Api<Service>, n: usize) -> kube::Result<Service> {
    let create = PostParams { dry_run: true, ..PostParams::default() };
    let patch = PatchParams { dry_run: true, ..PatchParams::default() };
    let name = format!("dry-{n}");
    match n % 5 {
        0 => services.create(&create, &source(&name, &json!({}))).await,
        1 => services.create(&create, &source(&name, &annotations(&[(names::STICKY, "no")]))).await,
        2 => {
            let change = annotations(&[(names::STICKY, "false")]);
            services.patch("web", &patch, &Patch::Merge(change)).await
        }
        3 => {
            let change = json!({"spec": {"selector": {"app": "x"}}});
            services.patch("web", &patch, &Patch::Merge(change)).await
        }
        _ => {
            let apply = PatchParams { field_manager: Some("dry".into()), ..patch };
            services.patch(&name, &apply, &Patch::Apply(source_json(&name, &json!({})))).await
        }
    }
}

async fn a_thousand_dry_runs_leave_no_trace_in_etcd(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    // Waits until all writes that follow from the creations are done.
    let before = within(Duration::from_mins(3), "nothing is written for 3 s", || async {
        let (now, all) = written_after(0).await;
        // A busy controller manager writes the Endpoints of the source many seconds later.
        let endpoints = format!("/registry/services/endpoints/{}/web", t.ns);
        check(all.contains(&endpoints), format!("{endpoints} is missing"))?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (_, later) = written_after(now).await;
        let of_us: Vec<_> = later.into_iter().filter(|key| !is_noise(&t, key)).collect();
        check(of_us.is_empty(), format!("{of_us:?}"))?;
        Ok::<_, String>(now)
    })
    .await;

    let run = |n: usize| {
        let services = t.user_services();
        until(format!("dry run {n}"), move || {
            let services = services.clone();
            async move {
                let made = dry_run(&services, n).await;
                match (&made, n % 5) {
                    (Err(kube::Error::Api(status)), 1) if status.code == 422 => Ok(()),
                    (Ok(_), n) if n != 1 => Ok(()),
                    _ => Err(format!("{made:?}")),
                }
            }
        })
    };
    futures::stream::iter((0..DRY_RUNS).map(run)).buffer_unordered(8).collect::<Vec<()>>().await;
    // A replica that reacted to it would have done so before a later Service is led.
    let (after, keys) = written_after(before).await;
    let ours: Vec<_> = keys.iter().filter(|key| !is_noise(&t, key)).collect();
    println!("dry runs: {DRY_RUNS}, revision {before} -> {after}, written meanwhile: {keys:?}");
    assert!(ours.is_empty(), "written during dry runs: {ours:?}");

    t.ready_pods("later", &["b"]).await;
    t.create(&source("later", &json!({}))).await;
    t.until_led_by("later-leader", "b").await;
    let (_, keys) = written_after(before).await;
    // The name of the namespace contains these words too.
    let of = |key: &str, name: &str| {
        key.contains(&t.ns) && key.rsplit('/').next().is_some_and(|last| last.starts_with(name))
    };
    let traces: Vec<_> = keys.iter().filter(|key| of(key, "dry-") || of(key, "web")).collect();
    assert!(traces.is_empty(), "{traces:?}");
}

async fn kubectl_diff_after_apply_is_empty(t: Arc<Case>) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a"]).await;
    let manifest = source_json("web", &annotations(&[(names::MIN_READY, "0s")]));
    for side in ["--server-side=false", "--server-side=true"] {
        let apply = ["apply", side, "--force-conflicts=true", "-f", "-"];
        // Only the server side accepts it.
        let apply = if side.ends_with("true") { &apply[..] } else { &["apply", side, "-f", "-"] };
        let said = t.kubectl(As::Alice, apply, Some(&manifest)).await;
        assert_eq!(said.code, 0, "{said:?}");
        t.until_led_by("web-leader", "a").await;
        t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
        let before = t.services().get("web").await.unwrap().metadata.resource_version;
        let said = t.kubectl(As::Alice, &["diff", side, "-f", "-"], Some(&manifest)).await;
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{side}: {said:?}");
        let said = t.kubectl(As::Alice, apply, Some(&manifest)).await;
        assert_eq!(said.code, 0, "{said:?}");
        let after = t.services().get("web").await.unwrap().metadata.resource_version;
        assert_eq!(before, after, "{side}: applying twice changes nothing");
    }
}
