//! The wiring: what is made in which order, and which task runs what. Decides nothing.

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::Kubeconfig;
use kube::{Client, Config};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::cli::explain::Explained;
use crate::config::{Cli, Command, Serve};
use crate::control::apply::Applier;
use crate::control::events;
use crate::control::feeds::Feeds;
use crate::control::leftovers::{self, Remover};
use crate::control::pressure::Pressure;
use crate::control::queue::Queue;
use crate::control::reader::Reader;
use crate::control::reconcile::{Memories, Reconciler, Room, Turns};
use crate::control::record::{self, Recorder};
use crate::platform::api::proxy::Proxy;
use crate::platform::api::{self, Caller};
use crate::platform::clock::{self, Clock};
use crate::platform::files;
use crate::platform::health::{Gate, Health};
use crate::platform::lifecycle::{self, Times, UnixSignals};
use crate::platform::metrics::Metrics;
use crate::platform::operation::{Operation, Target};
use crate::platform::pki;
use crate::platform::runtime::Runtime;
use crate::platform::server::tls::{Clients, Followed};
use crate::platform::server::{self, ServerLimits, Token, admin, tls};
use crate::platform::shutdown::Shutdown;
use crate::platform::supervise::Supervisor;
use crate::platform::telemetry;
use crate::platform::telemetry::otlp::Tracing;
use crate::webhook::verdicts::Verdicts;
use crate::{cli, config, webhook};
use zen_lead_core::index::{Index, Limit};
use zen_lead_core::names::{NameRule, ServiceKey};

/// The longest pause a Service is left alone on the API server's word.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Time for requests in flight once nothing new is accepted.
const REQUESTS: Duration = Duration::from_secs(5);
/// Time for the workers after that.
const WORKERS: Duration = Duration::from_secs(5);
/// Time for the last spans, once everything else has ended.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Runs a subcommand to its end.
///
/// # Errors
/// What kept it from running, with advice.
pub fn main(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Command::Lint { paths, files, allow_no_service } => {
            let mut out = io::stdout().lock();
            let paths = [paths, files].concat();
            Ok(cli::lint::run(&paths, NameRule::Dns1123, allow_no_service, &mut out)?)
        }
        Command::Serve(args) => runtime.block_on(serve(*args)),
        Command::Explain { service, bounds } => runtime.block_on(async {
            let cluster = connect(Arc::new(Metrics::new()?)).await?;
            let (client, caller) = (cluster.client.clone(), cluster.caller.clone());
            let names = name_rule(&client, &caller).await;
            let reader = Reader::new(client, caller, names, bounds.limits());
            let now = Clock::system().now();
            let said = cli::explain::run(&service, &reader, now).await;
            match said.map_err(|error| cluster.explained(error))? {
                Explained::Found(text) => {
                    cli::print(&text)?;
                    Ok(ExitCode::SUCCESS)
                }
                Explained::Missing(why) => {
                    eprintln!("zen-lead: {why}");
                    Ok(ExitCode::from(1))
                }
            }
        }),
        Command::Status { output, namespace } => runtime.block_on(async {
            let cluster = connect(Arc::new(Metrics::new()?)).await?;
            let (client, namespace) = (cluster.client.clone(), namespace.as_deref());
            let report = cli::status::run(client, &cluster.caller, namespace, output).await;
            let report = report.map_err(|error| cluster.explained(error))?;
            cli::print(&report.text)?;
            for object in &report.unreadable {
                eprintln!("zen-lead: cannot read {object}");
            }
            Ok(ExitCode::SUCCESS)
        }),
    }
}

/// The way to the API server.
struct Cluster {
    client: Client,
    caller: Caller,
    proxy: Option<Proxy>,
}

impl Cluster {
    /// What failed on the way, with the proxy that it went through.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.proxy {
            None => error,
            Some(proxy) => error.context(format!("through the proxy {proxy}")),
        }
    }
}

async fn connect(metrics: Arc<Metrics>) -> anyhow::Result<Cluster> {
    let config = Config::infer()
        .await
        .context("no cluster: set KUBECONFIG, or run inside a pod with a service account")?;
    let proxy_url = kubeconfig_proxy(&config);
    let proxy = config::proxy::variables();
    let proxy = api::proxy::choose(&config.cluster_url, proxy_url.as_deref(), &proxy)?;
    let client = api::client(config, proxy.as_ref());
    let client = client.context("cannot make a client for the cluster")?;
    Ok(Cluster { client, caller: Caller::new(metrics), proxy })
}

/// The `proxy-url` of the cluster in the kubeconfig that is in use. kube mixes it with the variables, to
/// which other rules apply.
fn kubeconfig_proxy(config: &Config) -> Option<String> {
    // Only kube's configuration of a pod names a file.
    if config.root_cert_file.is_some() {
        return None;
    }
    let file = Kubeconfig::read().ok()?;
    let current = file.current_context?;
    let context = file.contexts.into_iter().find(|c| c.name == current)?.context?;
    let cluster = file.clusters.into_iter().find(|c| c.name == context.cluster)?.cluster?;
    cluster.proxy_url
}

/// Which Service names the server takes (KEP-5311: digits first from 1.36 on); the strict rule
/// where it does not say.
async fn name_rule(client: &Client, caller: &Caller) -> NameRule {
    let version = || client.apiserver_version();
    let asked = api::call(caller, Operation::GetVersion, Target::own("/version"), version);
    let info = match asked.await {
        Ok(info) => info,
        Err(error) => {
            tracing::warn!(
                "{error}; until zen-lead is started again it takes no leader-service-name that \
                 begins with a digit, which Kubernetes allows from 1.36 on"
            );
            return NameRule::Dns1035;
        }
    };
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    };
    if (number(&info.major), number(&info.minor)) >= (1, 36) {
        NameRule::Dns1123
    } else {
        NameRule::Dns1035
    }
}

async fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    let variables = config::traces::variables().map_err(anyhow::Error::msg)?;
    let wanted = telemetry::settings::read(&args.traces, &variables)?;
    args.validate().map_err(anyhow::Error::msg)?;
    let (clients, token) = (clients(&args)?, token(&args)?);
    telemetry::init(args.log_format, &args.log_level)?;
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new()?);
    let shutdown = Shutdown::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let signals = UnixSignals::new()?;
    let health = Health::new(Gate::ALL, metrics.clone());
    // Bound first: a taken port must not be found out after everything else has started.
    let webhook_socket = server::bind(args.webhook_bind)?;
    let admin_socket = server::bind(args.admin_bind)?;
    start_admin(&args, (admin_socket, token), &metrics, &health, &shutdown, &supervisor);

    let Cluster { client, mut caller, proxy } = connect(metrics.clone()).await?;
    if let Some(proxy) = proxy {
        tracing::info!(%proxy, "the API server is reached through a proxy");
    }
    let sending = wanted
        .map(|s| telemetry::otlp::start(&s, &args.pod_name, &args.namespace, metrics.clone()))
        .transpose()?;
    let tracer = sending.as_ref().map(telemetry::otlp::Tracing::tracer).unwrap_or_default();
    caller.tracer = tracer.clone();
    let runtime = Runtime { client, caller, clock, metrics, health, supervisor, shutdown };
    run(args, runtime, sending, (webhook_socket, clients), signals).await
}

/// The clients of the webhook, if they have to present a certificate.
fn clients(args: &Serve) -> anyhow::Result<Option<Arc<Clients>>> {
    let callers = &args.callers;
    let Some(file) = &callers.webhook_client_ca_file else { return Ok(None) };
    let names = callers.webhook_client_names.clone();
    Clients::load(file.clone(), names).map(Some).context("--webhook-client-ca-file")
}

/// The token of scrapes, if they have to carry one.
fn token(args: &Serve) -> anyhow::Result<Option<Arc<Token>>> {
    let Some(file) = &args.callers.metrics_token_file else { return Ok(None) };
    Token::load(file.clone()).map(Some).context("--metrics-token-file")
}

fn limits(args: &Serve) -> ServerLimits {
    let connections_per_address = args.callers.max_connections_per_address;
    ServerLimits { connections_per_address, ..ServerLimits::default() }
}

/// Everything that needs the API server.
async fn run(
    args: Serve,
    runtime: Runtime,
    sending: Option<Tracing>,
    webhook_door: (TcpListener, Option<Arc<Clients>>),
    signals: UnixSignals,
) -> anyhow::Result<ExitCode> {
    let Runtime { client, caller, clock, metrics, supervisor, shutdown, .. } = &runtime;
    let names = name_rule(client, caller).await;
    let limits = args.bounds.limits();
    for (limit, bound) in [
        (Limit::ServicesPerNamespace.as_str(), limits.services_per_namespace),
        (Limit::PodsPerService.as_str(), limits.pods_per_service),
        ("namespace_watches", args.max_namespace_watches),
        ("idle_namespaces", args.max_idle_namespaces),
    ] {
        metrics.set_cache_limit(limit, bound);
    }
    let index = Arc::new(RwLock::new(Index::new(names, limits).compact()));
    let pressure = Arc::<Pressure>::default();
    let queue: Queue<ServiceKey> = Queue::new(metrics.clone(), pressure.clone(), args.workers);
    let replicas = Arc::new(RwLock::new(Vec::new()));

    let certificates_changed = Arc::new(Notify::new());
    let watches = Feeds::start(
        &args,
        &runtime,
        index.clone(),
        queue.clone(),
        replicas.clone(),
        certificates_changed.clone(),
    );
    let (publisher, writer) = events::Publisher::new(
        client.clone(),
        caller.clone(),
        args.pod_name.clone(),
        clock.clone(),
        pressure.clone(),
    );
    let until = shutdown.clone();
    supervisor.spawn("events", async move { writer.run(until.stopping()).await });

    let services = watches.clone();
    let synced = Box::new(move || services.services_live());
    let verdicts =
        Verdicts::new(index.clone(), synced, names, args.own_username(), metrics.clone());
    start_webhook(&args, &runtime, webhook_door, verdicts, certificates_changed)?;

    let wake = queue.clone();
    let started = clock.now();
    let applier = Applier::new(client.clone(), caller.clone(), &args.pod_name, started);
    let reconciler = Arc::new(Reconciler {
        index,
        applier: Arc::new(applier),
        reader: Arc::new(Reader::new(client.clone(), caller.clone(), names, limits)),
        metrics: metrics.clone(),
        recorder: Recorder::new(metrics.clone(), publisher, started),
        clock: clock.clone(),
        me: args.pod_name.clone(),
        replicas,
        trust: Box::new(move |namespace| watches.trust(namespace)),
        wake: Box::new(move |key| wake.add_now(key)),
        tracer: caller.tracer.clone(),
        turns: Turns::of(args.workers),
        room: Room::of(args.workers),
        pressure,
        known: Memories::default(),
    });
    let remover = Remover {
        index: reconciler.index.clone(),
        reader: reconciler.reader.clone(),
        applier: reconciler.applier.clone(),
        me: args.pod_name.clone(),
        replicas: reconciler.replicas.clone(),
    };
    leftovers::start(client, remover, metrics, supervisor);
    supervisor
        .spawn_until_stopping("warm connection", api::keep_warm(client.clone(), caller.clone()));
    for _ in 0..args.workers {
        supervisor.spawn("worker", work(reconciler.clone(), queue.clone()));
    }
    let closing = (queue, shutdown.clone());
    supervisor.spawn("queue", async move {
        closing.1.stopping().await;
        closing.0.close();
    });

    let times = Times { propagation: args.drain_delay, requests: REQUESTS, workers: WORKERS };
    let ended =
        lifecycle::run(shutdown, supervisor, &runtime.health, &times, metrics, signals).await;
    match &ended {
        lifecycle::Ended::Failed(failed) => tracing::error!(%failed, "ended with a failure"),
        other => tracing::info!(?other, "ended"),
    }
    if let Some(sending) = sending.filter(|_| ended != lifecycle::Ended::Aborted) {
        sending.flush(LAST_SPANS).await;
    }
    Ok(ExitCode::from(ended.exit_code()))
}

/// One worker: keys one after the other, until the queue is closed.
async fn work(reconciler: Arc<Reconciler>, queue: Queue<ServiceKey>) {
    while let Some(held) = queue.pop().await {
        let key = held.key().clone();
        let noticed = clock::monotonic() - held.waited;
        match reconciler.reconcile(&key, noticed).await {
            Ok(next) => next.let_go(held),
            Err(error) => {
                let asked = error.retry_after.map(|pause| pause.min(MAX_RETRY_AFTER));
                let wait = held.fail(asked.map(|pause| clock::monotonic() + pause));
                tracing::warn!(%key, "{}", record::failure(&error, wait));
            }
        }
    }
}

fn start_admin(
    args: &Serve,
    (socket, token): (TcpListener, Option<Arc<Token>>),
    metrics: &Arc<Metrics>,
    health: &Health,
    shutdown: &Shutdown,
    supervisor: &Supervisor,
) {
    let control = server::Control::new();
    if let Some(token) = &token {
        supervisor.spawn_until_stopping("token of scrapes", files::keep_reading(token.clone()));
    }
    let router = admin::router(metrics.clone(), health.clone(), token);
    let (running, limits, metrics) = (control.clone(), limits(args), metrics.clone());
    supervisor.spawn("admin server", async move {
        server::http(socket, router, running, &limits, metrics).await
    });
    let (health, ending) = (health.clone(), shutdown.clone());
    let listening = control.clone();
    supervisor.spawn("admin server gate", async move {
        health.set(Gate::AdminSocket, listening.listening().await.is_some());
        // Metrics and probes to the very end.
        ending.stopping().await;
        control.stop(Duration::from_millis(200));
    });
}

fn start_webhook(
    args: &Serve,
    runtime: &Runtime,
    (socket, clients): (TcpListener, Option<Arc<Clients>>),
    verdicts: Verdicts,
    certificates_changed: Arc<Notify>,
) -> anyhow::Result<()> {
    let Runtime { client, caller, clock, metrics, health, supervisor, shutdown } = runtime;
    let source = tls::CertificateSource::new(metrics.clone());
    let config = tls::server_config(source.clone(), clients.clone()).context("TLS set-up")?;
    if let Some(clients) = clients {
        supervisor
            .spawn_until_stopping("CAs of clients", files::keep_reading(Followed::from(clients)));
    }
    if let Some(directory) = &args.cert_dir {
        let mounted = tls::Mounted::new(directory.clone(), source.clone(), clock.clone());
        supervisor.spawn_until_stopping("certificate directory", files::keep_reading(mounted));
        // The tool that mounts certificates (cert-manager) publishes their CA too.
        health.set(Gate::CaBundle, true);
        let (source, health, until) = (source, health.clone(), shutdown.clone());
        supervisor.spawn("certificate gate", async move {
            while !until.is_closing() {
                health.set(Gate::Certificate, source.is_loaded());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    } else {
        let settings = pki::PkiSettings {
            namespace: args.namespace.clone(),
            secret: args.ca_secret.clone(),
            service: args.service_name.clone(),
            extra_names: args.extra_san.clone(),
            validating: args.validating_webhook.clone(),
            mutating: args.mutating_webhook.clone(),
            times: args.certificates.clone(),
        };
        let authority =
            pki::Authority::new(client.clone(), settings, source, clock.clone(), metrics.clone());
        let gates = health.clone();
        supervisor.spawn_until_stopping("certificates", async move {
            let report = move |report: &pki::RotationReport| {
                gates.set(Gate::Certificate, report.serving);
                gates.set(Gate::CaBundle, report.published);
            };
            authority.run(certificates_changed, report).await;
        });
    }

    let control = server::Control::new();
    let router = webhook::router(Arc::new(verdicts), metrics.clone(), caller.tracer.clone());
    let (running, metrics) = (control.clone(), metrics.clone());
    let (serving, limits) = (shutdown.serving(), limits(args));
    supervisor.spawn("webhook server", async move {
        let ended = server::https(socket, router, config, running, &limits, metrics).await;
        drop(serving);
        ended
    });
    let (health, phases) = (health.clone(), shutdown.clone());
    supervisor.spawn("webhook server gate", async move {
        health.set(Gate::WebhookSocket, control.listening().await.is_some());
        phases.draining().await;
        control.drain();
        phases.closing().await;
        control.stop(REQUESTS);
    });
    Ok(())
}
