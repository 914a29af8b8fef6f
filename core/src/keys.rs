//! Every annotation, label and field-manager name that zen-lead reads or writes.
//!
//! Only constants live here, grouped by who may write them. No parsing, no judging: that is `settings`.

/// Prefix of every key that belongs to zen-lead.
pub const PREFIX: &str = "zen-lead.io/";

/// Settings that a user writes on the source Service.
pub mod setting {
    /// `true` turns leader routing on, `false` (or absence) off.
    pub const ENABLED: &str = "zen-lead.io/enabled";
    /// Name of the leader Service; default `<service>-leader`.
    pub const LEADER_SERVICE_NAME: &str = "zen-lead.io/leader-service-name";
    /// Order among the candidates.
    pub const STRATEGY: &str = "zen-lead.io/strategy";
    /// Whether an eligible incumbent stays.
    pub const STICKY: &str = "zen-lead.io/sticky";
    /// How long a pod must have been Ready before it may become leader.
    pub const MIN_READY_DURATION: &str = "zen-lead.io/min-ready-duration";
    /// How long an incumbent that is only NotReady is kept.
    pub const FAILOVER_MIN_DELAY: &str = "zen-lead.io/failover-min-delay";
    /// What happens to a named port the leader does not have.
    pub const PORTS_MODE: &str = "zen-lead.io/ports-mode";
    /// Type of the leader Service.
    pub const LEADER_TYPE: &str = "zen-lead.io/leader-type";
    /// Annotation keys copied to the leader Service.
    pub const COPY_ANNOTATIONS: &str = "zen-lead.io/copy-annotations";
    /// Label keys copied to the leader Service.
    pub const COPY_LABELS: &str = "zen-lead.io/copy-labels";
    /// Name of another source whose leader this one takes.
    pub const SAME_LEADER_AS: &str = "zen-lead.io/same-leader-as";

    /// All settings, in the order of the documentation.
    pub const ALL: [&str; 11] = [
        ENABLED,
        LEADER_SERVICE_NAME,
        STRATEGY,
        STICKY,
        MIN_READY_DURATION,
        FAILOVER_MIN_DELAY,
        PORTS_MODE,
        LEADER_TYPE,
        COPY_ANNOTATIONS,
        COPY_LABELS,
        SAME_LEADER_AS,
    ];
}

/// Requests that an admin writes on the Secret with the CA. Any text that was not there before counts.
pub mod request {
    /// Annotation: makes a new CA, with a new key, and rotates to it.
    pub const ROTATE_CA: &str = "zen-lead.io/rotate-ca";
    /// Annotation: makes every replica sign a new certificate, with a new key.
    pub const ROTATE_LEAF: &str = "zen-lead.io/rotate-leaf";
}

/// Keys that only zen-lead writes; refused when a user sets them.
pub mod status {
    /// Annotation, leader Service: namespace/name of the pod that leads, empty when none does.
    pub const CURRENT_LEADER: &str = "zen-lead.io/current-leader";
    /// Annotation, leader Service and slice: name of the last pod that became leader.
    pub const LEADER_POD_NAME: &str = "zen-lead.io/leader-pod-name";
    /// Annotation, leader Service and slice: uid of the last pod that became leader.
    pub const LEADER_POD_UID: &str = "zen-lead.io/leader-pod-uid";
    /// Annotation, leader Service and slice: RFC 3339 time of the last switch.
    pub const LAST_SWITCH_TIME: &str = "zen-lead.io/leader-last-switch-time";
    /// Annotation, leader Service and slice: number of the last switch; it only grows.
    pub const LEADER_EPOCH: &str = "zen-lead.io/leader-epoch";
    /// Annotation, slice: why the last switch happened.
    pub const SWITCH_REASON: &str = "zen-lead.io/switch-reason";
    /// Annotation, slice: replica (pod name) that wrote it.
    pub const WRITER: &str = "zen-lead.io/writer";
    /// Annotation, slice: random id of the write, to settle a write whose answer was lost.
    pub const WRITE_ID: &str = "zen-lead.io/write-id";
    /// Annotation, slice: how far the decision had seen, `services=RV,pods=RV`.
    pub const DECIDED_AT: &str = "zen-lead.io/decided-at";
    /// Annotation, slice: hash of what the source asked for when this was decided.
    pub const ASKED: &str = "zen-lead.io/asked";
    /// Annotation, slice: RFC 3339 time of the write that took the incumbent out for being NotReady.
    pub const NOT_READY_SINCE: &str = "zen-lead.io/not-ready-since";
    /// Annotation, slice and leader Service: version of the decision rules of the writer.
    pub const DECISION_VERSION: &str = "zen-lead.io/decision-version";
    /// Annotation, leader Service: effective settings as JSON.
    pub const SETTINGS: &str = "zen-lead.io/effective-settings";
    /// Annotation, leader Service: keys of the annotations copied from the source, so that one no
    /// longer named is taken off again.
    pub const COPIED: &str = "zen-lead.io/copied-annotations";
    /// Annotation, leader Service: keys of the labels copied from the source; see [`COPIED`].
    pub const COPIED_LABELS: &str = "zen-lead.io/copied-labels";
    /// Annotation, leader Service of type LoadBalancer: the class that was asked for, empty for none.
    /// What the server or a webhook filled in where none was asked for is not drift.
    pub const BALANCER_CLASS: &str = "zen-lead.io/load-balancer-class";
    /// Label, leader Service and slice: name of the source Service.
    pub const SOURCE_SERVICE: &str = "zen-lead.io/source-service";

    /// All status keys.
    pub const ALL: [&str; 17] = [
        CURRENT_LEADER,
        LEADER_POD_NAME,
        LEADER_POD_UID,
        LAST_SWITCH_TIME,
        LEADER_EPOCH,
        SWITCH_REASON,
        WRITER,
        WRITE_ID,
        DECIDED_AT,
        ASKED,
        NOT_READY_SINCE,
        DECISION_VERSION,
        SETTINGS,
        COPIED,
        COPIED_LABELS,
        BALANCER_CLASS,
        SOURCE_SERVICE,
    ];
}

/// Keys and values of Kubernetes itself.
pub mod kubernetes {
    /// Label that says which tool made an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Label that ties a slice to its Service.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// Label that names the writer of a slice.
    pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    /// Value of [`SLICE_MANAGED_BY`] of the built-in EndpointSlice controller.
    pub const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
    /// Annotation read by kube-proxy for its programming-latency SLI.
    pub const LAST_CHANGE_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
    /// Label that hands a Service to another proxy than kube-proxy.
    pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
    /// Label of Services and slices that kube-proxy does not look at.
    pub const HEADLESS: &str = "service.kubernetes.io/headless";
    /// Finalizer of a deletion that leaves the dependents behind: the garbage collector takes the owner
    /// off each of them before it lets the object go (Kubernetes docs, "Garbage Collection").
    pub const ORPHAN: &str = "orphan";
    /// Label of pods (and nodes) that names the zone.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Label of pods made by a Deployment: the revision.
    pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
    /// Label of pods made by a StatefulSet or DaemonSet: the revision.
    pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
    /// Label of Endpoints objects made by the built-in controller.
    pub const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
    /// Value of [`ENDPOINTS_MANAGED_BY`] of the built-in Endpoints controller.
    pub const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";
}

/// Value of the managed-by labels on everything zen-lead makes.
pub const MANAGER: &str = "zen-lead";
/// Field manager of leader Services, their mirror of the truth and slices.
pub const FIELD_MANAGER: &str = "zen-lead";
/// Field manager of the conditions on source Services.
pub const FIELD_MANAGER_SOURCE: &str = "zen-lead-source";
/// Field manager of the `caBundle` fields.
pub const FIELD_MANAGER_CA: &str = "zen-lead-ca-bundle";
/// Condition type on leader and source Services: a leader is routed.
pub const CONDITION_LEADER_READY: &str = "zen-lead.io/LeaderReady";
