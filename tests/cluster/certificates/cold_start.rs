//! From nothing: no CA, no caBundle, no replica. Three replicas start together and agree on one CA.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::fleet::{Fleet, REPLICAS};
use super::try_write;
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::waiting::within;
use crate::support::webhook::{Hook, recorded, review};
use crate::support::world::START_AND_STOP;

pub fn tests() -> Vec<Test> {
    let name = "replicas_started_from_nothing_agree_on_one_ca";
    let test = Test::new("certificates", name, replicas_started_from_nothing_agree_on_one_ca);
    vec![test.within(2 * START_AND_STOP * u32::try_from(runs()).unwrap())]
}

fn runs() -> usize {
    std::env::var("ZEN_LEAD_COLD_STARTS").map_or(3, |n| n.parse().unwrap())
}

async fn replicas_started_from_nothing_agree_on_one_ca(t: Arc<Case>) {
    let (admin, system) = (t.admin(), t.world.system.clone());
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), &system);
    let body = recorded("create-enabled");
    let fleet = Fleet::new(&t.world, &[]).await;
    let mut times: [Vec<Duration>; 2] = Default::default();
    let mut before = String::new();
    for run in 0..runs() {
        // As the manifests create it, or missing.
        let _ = secrets.delete("zen-lead-ca", &DeleteParams::default()).await;
        if run % 2 == 0 {
            let empty = serde_json::from_value(json!({"metadata": {"name": "zen-lead-ca"}}));
            secrets.create(&PostParams::default(), &empty.unwrap()).await.unwrap();
        }
        for hook in Hook::BOTH {
            hook.wipe(&admin, &system).await;
        }

        let began = Instant::now();
        (0..REPLICAS).for_each(|n| fleet.spawn(n));
        within(START_AND_STOP, "the first good review", || try_write(&t)).await;
        times[0].push(began.elapsed());
        for n in 0..REPLICAS {
            fleet.until_ready(n).await;
        }
        times[1].push(began.elapsed());

        let secret = secrets.get("zen-lead-ca").await.unwrap();
        let data = secret.data.unwrap();
        let ca = String::from_utf8(data["ca.crt"].0.clone()).unwrap();
        assert_eq!(data["phase"].0, b"steady");
        assert_ne!(ca, before, "a start from nothing makes a CA of its own");
        for hook in Hook::BOTH {
            assert_eq!(hook.bundle(&admin, &system).await.unwrap(), ca, "run {run}, {hook:?}");
            for n in 0..REPLICAS {
                let reviewed = review(fleet.port(n), hook, &ca, &body).await;
                let answer = reviewed.unwrap_or_else(|e| panic!("run {run}, replica {n}: {e}"));
                assert_eq!(answer.response["allowed"], true);
            }
        }
        before = ca;
        fleet.end().await;
    }
    for times in &mut times {
        times.sort();
    }
    let figures = times.each_ref().map(|t| (t[t.len() / 2], t[t.len() - 1]));
    println!(
        "certificates: {} starts of {REPLICAS} replicas from nothing, each with one CA; median and \
         slowest: first good review {:?}, all ready {:?}",
        runs(),
        figures[0],
        figures[1]
    );
}
