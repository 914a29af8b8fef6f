//! The record of one Service: plain numbers that are dropped together, and the samples they give.
//!
//! One record is about 100 bytes; what most Services never have is in a box of its own. No locks and no
//! Services here (`services`), no names and help texts (`series`).

use std::time::Duration;

use jiff::Timestamp;

use super::FAILOVER_BUCKETS;
use super::series::{Definition, SeriesFamily};
use super::text::Sample;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::report::ServiceReport;

/// Values of the labels beyond namespace and service, in the order of the definition; empty if there are
/// fewer.
type More = [&'static str; 2];

/// The numbers of one Service.
#[derive(Default)]
pub(super) struct Record {
    report: Option<Reported>,
    plain: [u32; SeriesFamily::PLAIN],
    /// Sorted, and exactly as long as needed: most Services have two.
    labelled: Box<[Labelled]>,
    last_reconcile: Option<Duration>,
    /// From the first observation on.
    latency: Option<Box<Latency>>,
}

/// A counter with labels.
struct Labelled {
    family: SeriesFamily,
    more: More,
    count: u32,
}

/// Observations per bucket (not cumulative); the last bucket counts those above all bounds.
#[derive(Default)]
struct Latency {
    counts: [u32; FAILOVER_BUCKETS.len() + 1],
    sum: f64,
}

/// What the last reconcile reported.
struct Reported {
    /// Microseconds since 1970; 0 for none.
    leader_since: i64,
    leader_pod_created: i64,
    epoch: u64,
    pods_available: u32,
    slices: u32,
    routed: bool,
    stable: bool,
    leader_service: bool,
}

impl Record {
    /// Keeps the newest report, in place of the one before.
    pub(super) fn set(&mut self, report: &ServiceReport) {
        let micros = |at: Option<Timestamp>| at.map_or(0, Timestamp::as_microsecond);
        self.report = Some(Reported {
            leader_since: micros(report.leader_since),
            leader_pod_created: micros(report.leader_pod_created),
            epoch: report.epoch,
            pods_available: to_u32(report.pods_available),
            slices: to_u32(report.slices),
            routed: report.endpoints > 0,
            stable: report.stable,
            leader_service: report.leader_service,
        });
    }

    /// Leader Services and slices of the last report.
    pub(super) fn kept(&self) -> [i64; 2] {
        let report = self.report.as_ref();
        report.map_or([0; 2], |r| [i64::from(r.leader_service), i64::from(r.slices)])
    }

    /// Counts one more; `labels` are the values of the labels beyond namespace and service.
    pub(super) fn inc(&mut self, family: SeriesFamily, labels: &[&'static str]) {
        let count = match self.plain.get_mut(family as usize) {
            Some(count) => count,
            None => self.labelled(family, labels),
        };
        *count = count.saturating_add(1);
    }

    fn labelled(&mut self, family: SeriesFamily, labels: &[&'static str]) -> &mut u32 {
        let more = [labels.first().unwrap_or(&""), labels.get(1).unwrap_or(&"")].map(|v| *v);
        let at = self.labelled.binary_search_by(|l| (l.family, l.more).cmp(&(family, more)));
        let at = at.unwrap_or_else(|at| {
            let mut longer = std::mem::take(&mut self.labelled).into_vec();
            longer.reserve_exact(1);
            longer.insert(at, Labelled { family, more, count: 0 });
            self.labelled = longer.into_boxed_slice();
            at
        });
        &mut self.labelled[at].count
    }

    /// Keeps the duration of the last reconcile.
    pub(super) fn reconciled(&mut self, took: Duration) {
        self.last_reconcile = Some(took);
    }

    /// Observes how long a failover took.
    pub(super) fn failed_over(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let latency = self.latency.get_or_insert_default();
        let count = &mut latency.counts[FAILOVER_BUCKETS.partition_point(|bound| *bound < seconds)];
        *count = count.saturating_add(1);
        latency.sum += seconds;
    }

    /// Appends the samples of one family; none where there is nothing to say.
    pub(super) fn write(
        &self,
        family: SeriesFamily,
        key: &ServiceKey,
        now: Timestamp,
        out: &mut String,
    ) {
        use SeriesFamily as F;
        let definition = family.definition();
        let sample = |out| Sample::of(out, &definition, "", key, &[]);
        if let Some(count) = self.plain.get(family as usize) {
            if *count > 0 {
                sample(out).value(count);
            }
            return;
        }
        let report = self.report.as_ref();
        match (family, report) {
            (F::LeaderDuration, Some(r)) => sample(out).value(age(r.leader_since, now)),
            (F::LeaderPodAge, Some(r)) => sample(out).value(age(r.leader_pod_created, now)),
            (F::PodsAvailable, Some(r)) => sample(out).value(r.pods_available),
            (F::LeaderEpoch, Some(r)) => sample(out).value(r.epoch),
            (F::LeaderStable, Some(r)) => sample(out).value(u8::from(r.routed && r.stable)),
            (F::WithoutEndpoints, Some(r)) => {
                sample(out).value(u8::from(r.leader_service && !r.routed));
            }
            (F::LastReconcile, _) => {
                if let Some(took) = self.last_reconcile {
                    sample(out).value(took.as_secs_f64());
                }
            }
            (F::FailoverLatency, _) => {
                if let Some(latency) = &self.latency {
                    latency.write(&definition, key, out);
                }
            }
            _ => {
                for counter in self.labelled.iter().filter(|l| l.family == family) {
                    Sample::of(out, &definition, "", key, &counter.more).value(counter.count);
                }
            }
        }
    }
}

impl Latency {
    fn write(&self, family: &Definition, key: &ServiceKey, out: &mut String) {
        let mut total = 0_u64;
        for (n, count) in self.counts.iter().enumerate() {
            total += u64::from(*count);
            let bucket = Sample::of(out, family, "_bucket", key, &[]);
            match FAILOVER_BUCKETS.get(n) {
                Some(bound) => bucket.bound(bound).value(total),
                None => bucket.bound("+Inf").value(total),
            }
        }
        Sample::of(out, family, "_sum", key, &[]).value(self.sum);
        Sample::of(out, family, "_count", key, &[]).value(total);
    }
}

/// Seconds since a moment; 0 for none. The clock of another replica that wrote the moment may be ahead.
#[allow(clippy::cast_precision_loss, reason = "metric values are floats")]
fn age(since: i64, now: Timestamp) -> f64 {
    if since == 0 { 0.0 } else { (now.as_microsecond() - since).max(0) as f64 / 1e6 }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
