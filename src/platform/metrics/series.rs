//! The families of metrics about a Service: names, help texts, kinds and labels.
//!
//! No numbers here (`record`), no text (`text`). `metrics` decides what is counted when.

use strum::VariantArray;

/// A metric about a Service. The counters without further labels come first: `record` keeps them in an
/// array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub(super) enum SeriesFamily {
    ReconcileErrors,
    SelectionAttempts,
    StickyHits,
    StickyMisses,
    PortFailures,
    WriteErrors,
    WriteConflicts,
    Failovers,
    Reconciliations,
    RetryAttempts,
    RetrySuccesses,
    LeaderDuration,
    LeaderPodAge,
    PodsAvailable,
    LeaderEpoch,
    LeaderStable,
    WithoutEndpoints,
    LastReconcile,
    FailoverLatency,
}

/// The type of a family, as the exposition names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
}

impl FamilyKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

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

impl SeriesFamily {
    /// The number of counters without further labels.
    pub(super) const PLAIN: usize = 7;

    /// All families, in the order of the exposition.
    pub(super) const ALL: &[Self] = Self::VARIANTS;

    pub(super) fn definition(self) -> Definition {
        let of = |kind, name, help, labels| Definition { name, help, kind, labels };
        let counter = |name, help, labels| of(FamilyKind::Counter, name, help, labels);
        let gauge = |name, help| of(FamilyKind::Gauge, name, help, OF_SERVICE);
        match self {
            Self::ReconcileErrors => counter(
                "reconciliation_errors_total",
                "Reconciles of a Service that ended with an error.",
                OF_SERVICE,
            ),
            Self::SelectionAttempts => counter(
                "leader_selection_attempts_total",
                "Decisions in which a leader had to be chosen.",
                OF_SERVICE,
            ),
            Self::StickyHits => counter(
                "sticky_leader_hits_total",
                "Decisions in which an eligible incumbent stayed.",
                OF_SERVICE,
            ),
            Self::StickyMisses => counter(
                "sticky_leader_misses_total",
                "Decisions in which the incumbent could not stay.",
                OF_SERVICE,
            ),
            Self::PortFailures => counter(
                "port_resolution_failures_total",
                "Decisions in which a named port was not found on the leader.",
                OF_SERVICE,
            ),
            Self::WriteErrors => counter(
                "endpoint_write_errors_total",
                "Slice writes that failed for another reason than a conflict.",
                OF_SERVICE,
            ),
            Self::WriteConflicts => counter(
                "endpoint_write_conflicts_total",
                "Slice writes that met a newer version of the slice.",
                OF_SERVICE,
            ),
            Self::Failovers => counter(
                "failover_count_total",
                "Switches of the leader written by this replica, by reason.",
                &["namespace", "reason", "service"],
            ),
            Self::Reconciliations => counter(
                "reconciliations_total",
                "Reconciles of a Service, by result.",
                &["namespace", "result", "service"],
            ),
            Self::RetryAttempts => counter(
                "retry_attempts_total",
                "Attempts of API calls that failed for a transient reason, by attempt number (10+ stands for 10 and above).",
                &["attempt", "namespace", "operation", "service"],
            ),
            Self::RetrySuccesses => counter(
                "retry_success_after_retry_total",
                "API calls that succeeded after at least one retry.",
                &["namespace", "operation", "service"],
            ),
            Self::LeaderDuration => gauge(
                "leader_duration_seconds",
                "How long the current leader has led; 0 without a leader.",
            ),
            Self::LeaderPodAge => {
                gauge("leader_pod_age_seconds", "Age of the leader's pod; 0 without a leader.")
            }
            Self::PodsAvailable => gauge("pods_available", "Ready pods that could lead."),
            Self::LeaderEpoch => gauge("leader_epoch", "Number of the last switch; it only grows."),
            Self::LeaderStable => {
                gauge("leader_stable", "1 while a leader is routed and no timer is running.")
            }
            Self::WithoutEndpoints => gauge(
                "leader_service_without_endpoints",
                "1 while the leader Service routes to no pod.",
            ),
            Self::LastReconcile => gauge(
                "reconciliation_last_duration_seconds",
                "Duration of the last reconcile of a Service.",
            ),
            Self::FailoverLatency => of(
                FamilyKind::Histogram,
                "failover_latency_seconds",
                "Time from the event that ended a leadership to the slice write that named the next leader.",
                OF_SERVICE,
            ),
        }
    }
}
