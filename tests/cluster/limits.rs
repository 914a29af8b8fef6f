//! Bounds: admission refuses what exceeds them; if it is stored anyway, condition, Event and metric report
//! it. Served Services keep their leaders, and the problem ends without a user.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use crate::support::case::{Case, Routed, epoch, refusal, routed};
use crate::support::harness::tests;
use crate::support::names;
use crate::support::objects::{annotations, source};
use crate::support::waiting::{check, until, within};

tests![
    services_beyond_the_bound_are_refused_reported_and_served_later,
    pods_beyond_the_bound_are_refused_reported_and_the_leader_stays,
    lower_bounds_after_a_restart_take_no_leader,
    idle_namespaces_are_dropped_by_number_and_by_age,
];

/// The longest time until namespaces of other tests are deleted.
const PATIENCE: Duration = Duration::from_mins(2);

/// Starts the first replica, which the webhooks call, with these bounds.
async fn start(t: &Case, flags: &[&str]) {
    t.world.product.stop_all().await;
    t.world.product.spawn(0, &[&["--cleanup-interval=200ms"], flags].concat());
    t.world.product.until_ready(0).await;
}

/// A metric, and the label that selects one of its series.
type Series<'a> = (&'a str, [(&'a str, &'a str); 1]);

fn size(resource: &str) -> Series<'_> {
    ("zen_lead_cache_size", [("resource", resource)])
}

fn evictions(reason: &str) -> Series<'_> {
    ("zen_lead_cache_evictions_total", [("reason", reason)])
}

/// The value of a series of the first replica, 0 where there is none yet.
async fn metric(t: &Case, (name, labels): Series<'_>) -> Result<f64, String> {
    Ok(t.world.product.scrape(0).await?.value(name, &labels).unwrap_or(0.0))
}

async fn until_refusals(t: &Case, limit: &str, wanted: f64) {
    until_metric(t, ("zen_lead_limit_refusals_total", [("limit", limit)]), wanted).await;
}

async fn until_metric(t: &Case, series: Series<'_>, wanted: f64) {
    until(format!("{series:?} is {wanted}"), || async {
        let now = metric(t, series).await?;
        check((now - wanted).abs() < 0.5, now.to_string())
    })
    .await;
}

/// Waits until no problem of a source is reported any more.
async fn until_untold(t: &Case, service: &str) {
    until(format!("no problem of {service} is reported"), || async {
        let now = t.condition(service).await;
        check(now.is_err(), format!("{now:?}"))
    })
    .await;
}

async fn services_beyond_the_bound_are_refused_reported_and_served_later(t: Arc<Case>) {
    start(&t, &["--max-services-per-namespace=2"]).await;
    let limit = "services_per_namespace";
    until_metric(&t, ("zen_lead_cache_limit", [("limit", limit)]), 2.0).await;
    for name in ["s1", "s2"] {
        t.create(&source(name, &json!({}))).await;
        t.until_condition(&format!("{name}-leader"), "False", "NoPodsFound").await;
    }
    let third = source("s3", &json!({}));
    let status = refusal(t.user_services().create(&PostParams::default(), &third).await);
    let advice = format!(
        "metadata.annotations[{}]: Forbidden: namespace \"{}\" has 2 enabled Services, and zen-lead \
         serves at most 2 there; turn another one off, or ask who runs zen-lead for a higher \
         --max-services-per-namespace",
        names::ENABLED,
        t.ns
    );
    assert!(status.code == 422 && status.message.contains(&advice), "{}", status.message);
    until_refusals(&t, limit, 1.0).await;

    // While admission is off it is stored, and reported.
    let t = t.outside().await;
    for name in ["s1", "s2", "s3"] {
        t.ready_pods(name, &[name]).await;
        t.create(&source(name, &json!({}))).await;
        if name != "s3" {
            t.until_led_by(&format!("{name}-leader"), name).await;
        }
    }
    let message = t.until_condition("s3", "False", "LimitReached").await;
    assert_eq!(
        message,
        "the namespace has more than 2 enabled Services: no leader Service is made; disable one or \
         raise --max-services-per-namespace"
    );
    assert_eq!(t.until_event("s3", "LimitReached").await, message);
    until_refusals(&t, limit, 2.0).await;
    assert!(t.services().get_opt("s3-leader").await.unwrap().is_none());
    for name in ["s1", "s2"] {
        assert!(t.condition(name).await.is_err(), "{name} was first");
        t.until_led_by(&format!("{name}-leader"), name).await;
    }
    t.delete_service("s1").await;
    t.until_led_by("s3-leader", "s3").await;
    until_untold(&t, "s3").await;
}

async fn pods_beyond_the_bound_are_refused_reported_and_the_leader_stays(t: Arc<Case>) {
    start(&t, &["--max-pods-per-service=2"]).await;
    let limit = "pods_per_service";
    t.ready_pods("web", &["z"]).await;
    t.web(&[]).await;
    let before = t.until_led_by("web-leader", "z").await;
    t.ready_pods("web", &["b"]).await;
    let recorder = t.record().await;
    t.ready_pods("web", &["a"]).await;
    let message = t.until_condition("web", "False", "LimitReached").await;
    assert_eq!(
        message,
        "the selector matches more than 2 pods: only the first 2 by name and the present leader are \
         looked at; narrow it, run fewer pods, or raise --max-pods-per-service"
    );
    assert_eq!(t.until_event("web", "LimitReached").await, message);
    until_refusals(&t, limit, 1.0).await;
    assert_eq!(epoch(&t.until_led_by("web-leader", "z").await), epoch(&before));
    assert_eq!(recorder.finish().await.leaders("web-leader"), ["z"]);

    // Another Service of these pods is refused, and so is a selector that matches them.
    let api = source("api", &json!({"spec": {"selector": {"app": "web"}}}));
    let status = refusal(t.user_services().create(&PostParams::default(), &api).await);
    let advice = format!(
        "spec.selector: Too many: it matches 3 pods in namespace \"{}\", and zen-lead takes Services \
         of at most 2; narrow the selector, or ask who runs zen-lead for a higher \
         --max-pods-per-service",
        t.ns
    );
    assert!(status.code == 422 && status.message.contains(&advice), "{}", status.message);
    t.patch_service("web", &annotations(&[(names::STICKY, "true")])).await;
    until_refusals(&t, limit, 2.0).await;

    // It fails over among the pods within the bound, and recovers when there are fewer pods.
    t.ready_pods("web", &["c", "d"]).await;
    t.vanish("z").await;
    let leader = until("one of the first two leads", || async {
        let pods = routed(&t.slice("web-leader", "IPv4").await?);
        let found = ["a", "b"].into_iter().find(|name| pods == [Routed::ready(name)]);
        found.ok_or_else(|| format!("{pods:?}"))
    })
    .await;
    assert_eq!(t.until_condition("web", "False", "LimitReached").await, message);
    for name in ["c", "d"] {
        t.vanish(name).await;
    }
    until_untold(&t, "web").await;
    t.until_led_by("web-leader", leader).await;

    // A Service that is stored while admission is off is not served before it fits.
    let t = t.outside().await;
    t.ready_pods("new", &["a", "b", "c"]).await;
    t.create(&source("new", &json!({}))).await;
    let message = t.until_condition("new", "False", "LimitReached").await;
    assert!(message.contains("no leader Service is made"), "{message}");
    assert!(t.services().get_opt("new-leader").await.unwrap().is_none());
    t.vanish("b").await;
    t.until_led_by("new-leader", "a").await;
    until_untold(&t, "new").await;
}

async fn lower_bounds_after_a_restart_take_no_leader(t: Arc<Case>) {
    start(&t, &[]).await;
    t.ready_pods("web", &["z"]).await;
    let services = ["s1", "s2", "s3"];
    for name in services {
        t.create(&source(name, &json!({"spec": {"selector": {"app": "web"}}}))).await;
        t.until_led_by(&format!("{name}-leader"), "z").await;
    }
    t.ready_pods("web", &["b", "c"]).await;
    let recorder = t.record().await;
    start(&t, &["--max-services-per-namespace=1", "--max-pods-per-service=1"]).await;
    for name in services {
        t.until_condition(name, "False", "LimitReached").await;
        t.until_led_by(&format!("{name}-leader"), "z").await;
    }
    t.set_ready("z", false).await;
    for name in services {
        t.until_led_by(&format!("{name}-leader"), "b").await;
    }
    let history = recorder.finish().await;
    for name in services {
        let leader = format!("{name}-leader");
        assert_eq!(history.leaders(&leader), ["z", "b"], "{leader}");
        history.never_empty(&leader);
    }
    start(&t, &[]).await;
    for name in services {
        until_untold(&t, name).await;
        t.until_routed(&format!("{name}-leader"), &[Routed::ready("b")]).await;
    }
}

async fn idle_namespaces_are_dropped_by_number_and_by_age(t: Arc<Case>) {
    let [idle, watches, pods] = ["idle_namespaces", "pod_watches", "pods"].map(size);
    start(&t, &["--namespace-idle-ttl=0s"]).await;
    // The other tests have ended, but the deletion of their namespaces may still run.
    within(PATIENCE, "no other namespace is watched", || async {
        let now = metric(&t, watches).await?;
        check(now < 0.5, now.to_string())
    })
    .await;
    start(&t, &["--max-idle-namespaces=1", "--namespace-idle-ttl=1h"]).await;
    let other = t.outside().await;
    for t in [&*t, &other] {
        t.ready_pods("web", &["a"]).await;
        t.web(&[]).await;
        t.until_led_by("web-leader", "a").await;
    }
    until_metric(&t, watches, 2.0).await;
    t.delete_service("web").await;
    until_metric(&t, idle, 1.0).await;
    until_metric(&t, evictions("idle_limit"), 0.0).await;
    other.delete_service("web").await;
    until_metric(&t, evictions("idle_limit"), 1.0).await;
    until_metric(&t, watches, 1.0).await;
    until_metric(&t, pods, 1.0).await;
    // The namespace that was used last is kept, and can be used again at once.
    assert!(other.services().get("web").await.is_err());
    other.web(&[]).await;
    other.until_led_by("web-leader", "a").await;
    until_metric(&t, idle, 0.0).await;

    start(&t, &["--namespace-idle-ttl=300ms"]).await;
    until_metric(&t, watches, 1.0).await;
    assert!(other.services().get("web").await.unwrap().uid().is_some());
    other.delete_service("web").await;
    until_metric(&t, evictions("idle_ttl"), 1.0).await;
    until_metric(&t, watches, 0.0).await;
    until_metric(&t, pods, 0.0).await;
}
