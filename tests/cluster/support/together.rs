//! Several dual-stack sources of the same pods, whose leaders all move at once. Tests with faults watch
//! them.

use std::time::Duration;

use serde_json::json;

use super::case::Case;
use super::objects::{hollow, source};
use super::recorder::History;

/// Enough Services that each of a few replicas is the first in rank for some.
pub const SIX: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

/// The sources of a test.
pub struct Together<'a> {
    t: &'a Case,
    names: &'static [&'static str],
}

impl<'a> Together<'a> {
    /// Makes these sources of the pods of `app: web`.
    pub async fn create(t: &'a Case, names: &'static [&'static str]) -> Self {
        let dual =
            json!({"spec": {"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack"}});
        for name in names {
            t.create(&source(name, &dual)).await;
        }
        Self { t, names }
    }

    /// As [`Self::create`], after pods of these names; waits until the first of them leads.
    pub async fn led(
        t: &'a Case,
        names: &'static [&'static str],
        pods: &[&str],
        limit: Duration,
    ) -> Self {
        for pod in pods {
            t.pod(hollow(pod, "web").dual()).await;
        }
        let made = Self::create(t, names).await;
        made.until_led_by(pods[0], limit).await;
        made
    }

    /// The leader Services.
    pub fn leaders(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| format!("{name}-leader"))
    }

    /// Waits until a pod leads for all of them in both families, and their conditions say so.
    pub async fn until_led_by(&self, pod: &str, limit: Duration) {
        for leader in self.leaders() {
            self.t.until_both_led_by(&leader, pod, limit).await;
        }
    }

    /// Each of them was led by these pods in this order and by no other, never by two at once, and each
    /// switch has one Event.
    pub async fn were_led_by<P>(&self, history: &History, order: &[P])
    where
        String: PartialEq<P>,
        P: std::fmt::Debug,
    {
        for leader in self.leaders() {
            history.holds(&leader);
            history.families_agree(&leader);
            assert_eq!(history.leaders(&leader), order, "{leader}");
            self.t.until_reported(&leader, history.switches(&leader).len()).await;
        }
    }

    /// From the first leader on, a pod was ready all the time.
    pub fn were_never_empty(&self, history: &History) {
        for leader in self.leaders() {
            history.never_empty(&leader);
        }
    }
}
