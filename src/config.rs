//! Command line and environment. Every flag is also an environment variable. Apart from these, only the
//! variables of OpenTelemetry (`traces`) and those that name a proxy (`proxy`) are read.
//!
//! Values only. docs/configuration.md and the modules that use a value say what it means.

pub mod callers;
pub mod certificates;
pub mod proxy;
pub mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use zen_lead_core::index::Limits;
use zen_lead_core::settings::duration;

/// Routes a Service to exactly one ready pod.
#[derive(Debug, Parser)]
#[command(name = "zen-lead", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the admission webhook and the controller.
    Serve(Box<Serve>),
    /// Check manifests offline, by the rules of the webhook.
    Lint {
        /// Files to read, `-` for standard input; of a directory, all files below it that end with .yaml, .yml or .json.
        #[arg(value_name = "PATH", required_unless_present = "files")]
        paths: Vec<String>,
        /// The same, as kubectl names it.
        #[arg(short = 'f', long = "filename", value_name = "PATH")]
        files: Vec<String>,
        /// Succeed even if no file contains a Service.
        #[arg(long)]
        allow_no_service: bool,
    },
    /// Explain which pod leads for a Service, why, and what would happen next.
    Explain {
        /// The source Service, as NAMESPACE/NAME.
        #[arg(value_name = "NAMESPACE/SERVICE")]
        service: String,
        /// The bounds that zen-lead uses in the cluster.
        #[command(flatten)]
        bounds: Bounds,
    },
    /// List the leader Services of the cluster.
    Status {
        /// Output format.
        #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Only this namespace.
        #[arg(short = 'n', long)]
        namespace: Option<String>,
    },
}

/// How `status` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    Table,
    /// JSON.
    Json,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line: `ts`, `level`, `msg`, `target`, the ids of the trace and span if the
    /// trace is sampled, then the fields of the event and of the spans around it.
    Json,
    /// Text.
    Text,
}

/// Flags of `zen-lead serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Address of the webhook (HTTPS).
    #[arg(long, env = "ZEN_LEAD_WEBHOOK_BIND", default_value = "0.0.0.0:9443")]
    pub webhook_bind: SocketAddr,
    /// Address of metrics and probes (HTTP).
    #[arg(long, env = "ZEN_LEAD_ADMIN_BIND", default_value = "0.0.0.0:8080")]
    pub admin_bind: SocketAddr,
    /// Namespace zen-lead runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "zen-lead-system")]
    pub namespace: String,
    /// Name of this replica's pod.
    #[arg(long, env = "POD_NAME", default_value = "zen-lead")]
    pub pod_name: String,
    /// zen-lead's own Service; its ready endpoints are the replicas.
    #[arg(long, env = "ZEN_LEAD_SERVICE_NAME", default_value = "zen-lead")]
    pub service_name: String,
    /// Secret that holds the CA all replicas share.
    #[arg(long, env = "ZEN_LEAD_CA_SECRET", default_value = "zen-lead-ca")]
    pub ca_secret: String,
    /// ValidatingWebhookConfiguration that gets the caBundle.
    #[arg(long, env = "ZEN_LEAD_VALIDATING_WEBHOOK", default_value = "zen-lead")]
    pub validating_webhook: String,
    /// MutatingWebhookConfiguration that gets the caBundle.
    #[arg(long, env = "ZEN_LEAD_MUTATING_WEBHOOK", default_value = "zen-lead")]
    pub mutating_webhook: String,
    /// Directory with tls.crt and tls.key, instead of self-made certificates. Others then write the caBundle.
    #[arg(long, env = "ZEN_LEAD_CERT_DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Additional DNS names or IP addresses in the self-made certificate.
    #[arg(long, env = "ZEN_LEAD_EXTRA_SAN", value_delimiter = ',')]
    pub extra_san: Vec<String>,
    /// Lifetimes and waits of the self-made certificates.
    #[command(flatten)]
    pub certificates: certificates::Certificates,
    /// Who may call the servers, and how much.
    #[command(flatten)]
    pub callers: callers::Callers,
    /// Service account zen-lead acts as; the webhook does not review its own writes.
    #[arg(long, env = "POD_SERVICE_ACCOUNT", default_value = "zen-lead")]
    pub service_account: String,
    /// User name zen-lead acts as, instead of that of its service account.
    #[arg(long, env = "ZEN_LEAD_USERNAME")]
    pub username: Option<String>,
    /// Bounds on the work for one namespace and one Service.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Namespaces whose pods are watched one by one; above this number, one cluster-wide watch is used. 0: always the cluster-wide watch.
    #[arg(long, env = "ZEN_LEAD_MAX_NAMESPACE_WATCHES", default_value_t = 50, value_parser = count)]
    pub max_namespace_watches: usize,
    /// How long the pods of a namespace without an enabled Service are kept in memory. 0s: they are dropped at once.
    #[arg(long, env = "ZEN_LEAD_NAMESPACE_IDLE_TTL", default_value = "10m", value_parser = go)]
    pub namespace_idle_ttl: Duration,
    /// Namespaces without an enabled Service whose pods are kept in memory; above this number, the least recently used are dropped. 0: no bound.
    #[arg(long, env = "ZEN_LEAD_MAX_IDLE_NAMESPACES", default_value_t = 10, value_parser = count)]
    pub max_idle_namespaces: usize,
    /// How often idle namespaces are cleaned up and the sizes in the metrics are updated.
    #[arg(long, env = "ZEN_LEAD_CLEANUP_INTERVAL", default_value = "15s", value_parser = interval)]
    pub cleanup_interval: Duration,
    /// Services reconciled at the same time.
    #[arg(long, env = "ZEN_LEAD_WORKERS", default_value_t = 16, value_parser = at_least_one)]
    pub workers: usize,
    /// How long a stopping replica reports unready before it stops accepting calls.
    #[arg(long, env = "ZEN_LEAD_DRAIN_DELAY", default_value = "3s", value_parser = go)]
    pub drain_delay: Duration,
    /// Format of the log.
    #[arg(long, env = "ZEN_LEAD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Level of the log: a level, or tracing directives such as `info,zen_lead::control::watch=debug`.
    #[arg(long, env = "ZEN_LEAD_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Where traces go, and how many.
    #[command(flatten)]
    pub traces: traces::Traces,
}

impl Serve {
    /// Checks flags that depend on each other.
    ///
    /// # Errors
    /// If they contradict each other, with what to change.
    pub fn validate(&self) -> Result<(), String> {
        self.certificates.validate()
    }

    /// The user name under which the API server knows zen-lead's own writes.
    /// Service accounts: kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
    pub fn own_username(&self) -> String {
        let account =
            || format!("system:serviceaccount:{}:{}", self.namespace, self.service_account);
        self.username.clone().unwrap_or_else(account)
    }
}

/// Bounds on the work for one namespace and one Service.
#[derive(Clone, Copy, Debug, Args)]
pub struct Bounds {
    /// Maximum number of enabled Services in one namespace; more are refused. 0: no bound.
    #[arg(long, env = "ZEN_LEAD_MAX_SERVICES_PER_NAMESPACE", default_value_t = Limits::default().services_per_namespace, value_parser = count)]
    pub max_services_per_namespace: usize,
    /// Pods considered for one Service; if the selector matches more, only the first ones by name and the current leader are considered. 0: no bound.
    #[arg(long, env = "ZEN_LEAD_MAX_PODS_PER_SERVICE", default_value_t = Limits::default().pods_per_service, value_parser = count)]
    pub max_pods_per_service: usize,
}

impl Bounds {
    /// Bounds of the index.
    pub fn limits(&self) -> Limits {
        Limits {
            services_per_namespace: self.max_services_per_namespace,
            pods_per_service: self.max_pods_per_service,
        }
    }
}

/// A number, zero included.
fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("must be a whole number from 0 to {}", usize::MAX))
}

/// A number of at least one.
fn at_least_one(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number from 1".to_owned())
}

/// A duration between two runs of a periodic task.
fn interval(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_millis(100);
    let every = go(text)?;
    if every < shortest { Err("must be at least 100ms".to_owned()) } else { Ok(every) }
}

/// A duration in Go's notation, not negative.
fn go(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).map_err(|e| e.to_string())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "must not be negative".to_owned())
}
