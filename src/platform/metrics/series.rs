//! The families of metrics about a Service: names, help texts, kinds and labels.
//!
//! No numbers here (`record`), no text (`text`). `metrics` decides what is counted when.

use strum::{IntoStaticStr, VariantArray};

/// The type of a family, as the exposition names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
}

zen_lead_core::texts!(FamilyKind);

/// Name, help text, kind and labels of a family.
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: FamilyKind,
    /// Sorted. The values of all but namespace and service come from closed enums.
    pub(super) labels: &'static [&'static str],
}

/// The labels of most families.
const OF_SERVICE: &[&str] = &["namespace", "service"];

macro_rules! families {
    ($($family:ident: $kind:ident, $name:literal, $labels:expr, $help:literal;)*) => {
        /// A metric about a Service. The counters without further labels come first: `record` keeps them in
        /// an array.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
        pub(super) enum SeriesFamily { $($family,)* }

        impl SeriesFamily {
            pub(super) fn definition(self) -> Definition {
                let of = |kind, name, labels, help| Definition { name, help, kind, labels };
                match self {
                    $(Self::$family => of(FamilyKind::$kind, $name, $labels, $help),)*
                }
            }
        }
    };
}

families! {
    ReconcileErrors: Counter, "reconciliation_errors_total", OF_SERVICE,
        "Reconciles of a Service that ended with an error.";
    SelectionAttempts: Counter, "leader_selection_attempts_total", OF_SERVICE,
        "Decisions in which a leader had to be chosen.";
    StickyHits: Counter, "sticky_leader_hits_total", OF_SERVICE,
        "Decisions in which an eligible incumbent stayed.";
    StickyMisses: Counter, "sticky_leader_misses_total", OF_SERVICE,
        "Decisions in which the incumbent could not stay.";
    PortFailures: Counter, "port_resolution_failures_total", OF_SERVICE,
        "Decisions in which a named port was not found on the leader.";
    WriteErrors: Counter, "endpoint_write_errors_total", OF_SERVICE,
        "Slice writes that failed for another reason than a conflict.";
    WriteConflicts: Counter, "endpoint_write_conflicts_total", OF_SERVICE,
        "Slice writes that met a newer version of the slice.";
    Failovers: Counter, "failover_count_total", &["namespace", "reason", "service"],
        "Switches of the leader written by this replica, by reason.";
    Reconciliations: Counter, "reconciliations_total", &["namespace", "result", "service"],
        "Reconciles of a Service, by result.";
    RetryAttempts: Counter, "retry_attempts_total", &["attempt", "namespace", "operation", "service"],
        "Attempts of API calls that failed for a transient reason, by attempt number (10+ stands for 10 and above).";
    RetrySuccesses: Counter, "retry_success_after_retry_total", &["namespace", "operation", "service"],
        "API calls that succeeded after at least one retry.";
    LeaderDuration: Gauge, "leader_duration_seconds", OF_SERVICE,
        "How long the current leader has led; 0 without a leader.";
    LeaderPodAge: Gauge, "leader_pod_age_seconds", OF_SERVICE,
        "Age of the leader's pod; 0 without a leader.";
    PodsAvailable: Gauge, "pods_available", OF_SERVICE, "Ready pods that could lead.";
    LeaderEpoch: Gauge, "leader_epoch", OF_SERVICE, "Number of the last switch; it only grows.";
    LeaderStable: Gauge, "leader_stable", OF_SERVICE,
        "1 while a leader is routed and no timer is running.";
    WithoutEndpoints: Gauge, "leader_service_without_endpoints", OF_SERVICE,
        "1 while the leader Service routes to no pod.";
    LastReconcile: Gauge, "reconciliation_last_duration_seconds", OF_SERVICE,
        "Duration of the last reconcile of a Service.";
    FailoverLatency: Histogram, "failover_latency_seconds", OF_SERVICE,
        "Time from the event that ended a leadership to the slice write that named the next leader.";
}

impl SeriesFamily {
    /// The number of counters without further labels.
    pub(super) const PLAIN: usize = 7;

    /// All families, in the order of the exposition.
    pub(super) const ALL: &[Self] = Self::VARIANTS;
}
