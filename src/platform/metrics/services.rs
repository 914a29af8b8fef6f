//! All metrics about single Services, one record each, so that the cost of forgetting one does not depend
//! on the number of others.
//!
//! Gauges are computed at scrape time from the report of the last reconcile, so ages grow without writes.
//! `record` has the numbers of one Service, `scrape` writes them all; docs/decisions/service-series.md says
//! why none of this is a vector of the prometheus crate.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};

use super::record::Record;
use super::register::registered;
use super::series::SeriesFamily;
use crate::platform::clock::Clock;
use zen_lead_core::names::ServiceKey;
use zen_lead_core::report::ServiceReport;

/// All Services that are tracked; clones share them.
///
/// Only `Services::track` creates the record of a Service. What is recorded about a Service that is not
/// tracked, or not tracked any more, has no effect.
#[derive(Clone)]
pub struct Services {
    /// In the order of the names, so that a scrape can go on after the last one that it wrote. What belongs
    /// to no tracked Service but must be counted is under a key of two empty names.
    known: Arc<Mutex<BTreeMap<ServiceKey, Record>>>,
    /// The sums over all Services: leader Services and slices.
    totals: [IntGauge; 2],
    clock: Clock,
}

impl Services {
    pub(super) fn new(r: &Registry, clock: Clock) -> prometheus::Result<Self> {
        let totals = [
            IntGauge::new("leader_services", "Leader Services kept by zen-lead."),
            IntGauge::new("endpointslices", "EndpointSlices kept by zen-lead."),
        ];
        let [leaders, slices] = totals.map(|total| registered(r, total));
        Ok(Self { known: Arc::default(), totals: [leaders?, slices?], clock })
    }

    /// Keeps a record for a Service from now on, until it is forgotten.
    pub(super) fn track(&self, key: &ServiceKey) {
        let mut known = self.known.lock();
        if !known.contains_key(key) {
            known.insert(key.clone(), Record::default());
        }
    }

    /// Drops a Service with its record.
    pub(super) fn forget(&self, key: &ServiceKey) {
        let mut known = self.known.lock();
        if let Some(gone) = known.remove(key) {
            self.add_to_totals(gone.kept().map(|n| -n));
        }
    }

    /// Keeps the newest report of a tracked Service.
    pub fn set(&self, key: &ServiceKey, report: &ServiceReport) {
        self.record(key, |record| {
            let before = record.kept();
            record.set(report);
            let now = record.kept();
            self.add_to_totals([now[0] - before[0], now[1] - before[1]]);
        });
    }

    fn add_to_totals(&self, more: [i64; 2]) {
        for (total, more) in self.totals.iter().zip(more) {
            total.add(more);
        }
    }

    /// Records something about a tracked Service; does nothing for any other.
    pub(super) fn record(&self, key: &ServiceKey, what: impl FnOnce(&mut Record)) {
        if let Some(record) = self.known.lock().get_mut(key) {
            what(record);
        }
    }

    /// Records something that counts even if its Service is not tracked; the labels are then empty.
    pub(super) fn record_always(&self, key: &ServiceKey, what: impl FnOnce(&mut Record)) {
        let mut known = self.known.lock();
        match known.get_mut(key) {
            Some(record) => what(record),
            None => what(known.entry(ServiceKey::new("", "")).or_default()),
        }
    }

    /// The time for the ages of a scrape.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Appends samples of one family, of the Services after `after`, until there are `bytes` more or `most`
    /// Services were looked at. Returns the last of those, or none if there is no Service left.
    pub(super) fn write(
        &self,
        family: SeriesFamily,
        after: Option<&ServiceKey>,
        now: Timestamp,
        (bytes, most): (usize, usize),
        out: &mut String,
    ) -> Option<ServiceKey> {
        let known = self.known.lock();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let full = out.len() + bytes;
        for (n, (key, record)) in known.range((after, Bound::Unbounded)).enumerate() {
            record.write(family, key, now, out);
            if out.len() >= full || n + 1 >= most {
                return Some(key.clone());
            }
        }
        None
    }
}
