//! The replicas under test: processes of the real binary, started, killed and stopped by pid.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::exposition::{Exposition, parse};
use super::http;
use super::waiting::{check, within};
use super::world::START_AND_STOP;

/// Ports of one replica on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub webhook: u16,
    pub admin: u16,
}

impl Ports {
    /// Two free ports.
    pub fn free() -> Self {
        Self { webhook: free_port(), admin: free_port() }
    }
}

/// A free port that no other process will get: a replica that is restarted needs the same port again.
/// The kernel gives ports above 32767 to outgoing connections (`net.ipv4.ip_local_port_range`), and
/// ports from 30000 on belong to Services (`NodePort`).
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const NUMBER: u32 = 18_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Runs beside this one begin elsewhere.
    let start = std::process::id().wrapping_mul(97);
    loop {
        let n = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % NUMBER;
        let port = FIRST + u16::try_from(n).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Lets this process, and replicas that it starts from now on, open so many files. Only the soft limit changes:
/// a lower hard limit could not be raised again.
pub fn allow_open_files(number: u32) {
    let (pid, limit) = (std::process::id().to_string(), format!("--nofile={number}:"));
    let raised = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(raised.success(), "{number} open files are needed (ulimit -Hn)");
}

/// The replicas, two of them unless a test asks for more.
pub struct Product {
    dir: PathBuf,
    system: String,
    kubeconfig: PathBuf,
    replicas: Vec<Replica>,
    starting: tokio::sync::Mutex<()>,
    starts: AtomicUsize,
}

/// The place of a replica, and the process in it.
struct Replica {
    ports: Ports,
    running: Mutex<Option<Child>>,
}

/// What every replica watches.
pub const WATCHED: [&str; 3] = ["services", "endpointslices", "pods"];

impl Product {
    pub fn new(dir: &Path, system: &str, kubeconfig: &Path, ports: &[Ports]) -> Self {
        let place = |ports: &Ports| Replica { ports: *ports, running: Mutex::default() };
        Self {
            dir: dir.to_owned(),
            system: system.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            replicas: ports.iter().map(place).collect(),
            starting: tokio::sync::Mutex::default(),
            starts: AtomicUsize::new(0),
        }
    }

    /// The same replicas, reaching the API server as another kubeconfig says. Not while the
    /// originals run: they would use the same ports.
    pub fn through(&self, kubeconfig: &Path) -> Self {
        Self::new(&self.dir, &self.system, kubeconfig, &self.ports())
    }

    /// The same replicas and more, up to `n`. Not while the originals run. A replica that is not listed
    /// (`World::list_replicas`) comes last in rank.
    pub fn of(&self, n: usize) -> Self {
        let mut ports = self.ports();
        ports.resize_with(n, Ports::free);
        Self::new(&self.dir, &self.system, &self.kubeconfig, &ports)
    }

    fn ports(&self) -> Vec<Ports> {
        self.replicas.iter().map(|r| r.ports).collect()
    }

    /// Their numbers; the names are `zl-0`, `zl-1`, …
    pub fn replicas(&self) -> Range<usize> {
        0..self.replicas.len()
    }

    /// Two more replicas, with ports and logs of their own.
    pub fn elsewhere(&self, name: &str) -> Self {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self::new(&dir, &self.system, &self.kubeconfig, &[Ports::free(), Ports::free()])
    }

    pub fn webhook_port(&self, replica: usize) -> u16 {
        self.replicas[replica].ports.webhook
    }

    pub fn admin_port(&self, replica: usize) -> u16 {
        self.replicas[replica].ports.admin
    }

    /// Starts what does not run, and waits until all are ready.
    pub async fn ensure_started(&self) {
        let _one = self.starting.lock().await;
        for replica in self.replicas() {
            if !self.runs(replica) {
                self.kill(replica);
                self.spawn(replica, &[]);
            }
        }
        for replica in self.replicas() {
            self.until_ready(replica).await;
        }
    }

    /// The credentials of zen-lead and the address of the API server.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Starts one replica with further flags; it may not be ready yet.
    pub fn spawn(&self, replica: usize, more: &[&str]) {
        self.spawn_with(replica, &self.kubeconfig, more, &[]);
    }

    /// How often a replica was started so far.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// As [`Self::spawn`], with another kubeconfig (the way to the API server leads elsewhere) and
    /// with variables.
    pub fn spawn_with(
        &self,
        replica: usize,
        kubeconfig: &Path,
        more: &[&str],
        variables: &[(&str, &str)],
    ) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let Ports { webhook, admin } = self.replicas[replica].ports;
        // Another one, as the static binary of the image, where one is named.
        let binary = std::env::var_os("ZEN_LEAD_BINARY");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_zen-lead").into());
        // The kernel ends it when this process ends, for whatever reason. util-linux is on every
        // Linux machine.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args([binary, "serve".into()])
            .args(["--webhook-bind", &format!("127.0.0.1:{webhook}")])
            .args(["--admin-bind", &format!("127.0.0.1:{admin}")])
            .args(["--namespace", &self.system])
            .args(["--pod-name", &format!("zl-{replica}")])
            .args(["--extra-san", "127.0.0.1"])
            .args(["--validating-webhook", &self.system])
            .args(["--mutating-webhook", &self.system])
            .args(more)
            .env_clear()
            // A flag among `more` has precedence.
            .env("ZEN_LEAD_DRAIN_DELAY", "200ms")
            .env("ZEN_LEAD_LOG_FORMAT", "text")
            .env("ZEN_LEAD_LOG_LEVEL", "info,zen_lead=debug")
            .envs(variables.iter().copied())
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(self.log(replica))
            .stderr(self.log(replica));
        // LLVM_PROFILE_FILE: where a binary built for `make coverage` writes its counters.
        let passed = |name: &str| {
            ["PATH", "LLVM_PROFILE_FILE"].contains(&name) || name.starts_with("MALLOC_")
        };
        command.envs(std::env::vars().filter(|(name, _)| passed(name)));
        let child = command.spawn().expect("setpriv (util-linux) starts the replicas");
        let before = self.process(replica).replace(child);
        assert!(before.is_none(), "replica {replica} was started twice");
    }

    pub async fn until_ready(&self, replica: usize) {
        self.until_ready_within(replica, START_AND_STOP).await;
    }

    pub async fn until_ready_within(&self, replica: usize, limit: Duration) {
        within(limit, format!("replica {replica} is ready"), || async {
            assert!(self.runs(replica), "replica {replica} ended: {}", self.tail(replica, 30));
            let answer = http::get(self.admin_port(replica), "/readyz").await?;
            check(answer.code == 200, format!("{answer:?}"))
        })
        .await;
    }

    /// Waits until a replica reports by name that it has lost its watches of these resources. Its
    /// metrics must report it too, and stay available.
    pub async fn until_lost(&self, replica: usize, resources: &[&str], limit: Duration) {
        within(limit, format!("replica {replica} says that its watches are lost"), || async {
            let answer = http::get(self.admin_port(replica), "/readyz").await?;
            check(answer.code == 503, format!("{answer:?}"))?;
            let scrape = self.scrape(replica).await?;
            for resource in resources {
                // Of pods there may be one a namespace.
                let gate = if *resource == "pods" { "watches" } else { "watch" };
                check(answer.body.contains(&format!("\"{resource}-{gate}\"")), &answer.body)?;
                let up = scrape.value("zen_lead_watch_up", &[("resource", resource)]);
                check(up == Some(0.0), format!("zen_lead_watch_up of {resource} is {up:?}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
    }

    /// The text that a replica answers to a scrape.
    pub async fn metrics(&self, replica: usize) -> Result<String, String> {
        let answer = http::get(self.admin_port(replica), "/metrics").await?;
        check(answer.code == 200, format!("{answer:?}"))?;
        Ok(answer.body)
    }

    /// A scrape of a replica.
    pub async fn scrape(&self, replica: usize) -> Result<Exposition, String> {
        parse(&self.metrics(replica).await?)
    }

    fn process(&self, replica: usize) -> MutexGuard<'_, Option<Child>> {
        self.replicas[replica].running.lock().unwrap()
    }

    /// True while the process lives.
    pub fn runs(&self, replica: usize) -> bool {
        let mut running = self.process(replica);
        running.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Process id of a replica that runs.
    pub fn pid(&self, replica: usize) -> u32 {
        let running = self.process(replica);
        running.as_ref().map(Child::id).expect("a replica that runs")
    }

    /// kill -9.
    /// A line of the status of a replica's process, such as `VmRSS:`, in KiB (proc(5)).
    pub fn memory(&self, replica: usize, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid(replica));
        let status = std::fs::read_to_string(path).unwrap();
        let kib = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        kib.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn kill(&self, replica: usize) {
        if let Some(mut child) = self.process(replica).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal by name, as STOP or CONT.
    pub fn signal(&self, replica: usize, name: &str) {
        let pid = self.pid(replica).to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// SIGTERM, and the exit status it ends with; killed when it does not end.
    pub async fn stop(&self, replica: usize) -> Option<ExitStatus> {
        if !self.runs(replica) {
            self.kill(replica);
            return None;
        }
        self.signal(replica, "TERM");
        let ended = || async {
            let mut running = self.process(replica);
            let status = running.as_mut().and_then(|child| child.try_wait().unwrap());
            status.ok_or("it still runs")
        };
        let status = within(START_AND_STOP, format!("replica {replica} ends"), ended).await;
        self.kill(replica);
        Some(status)
    }

    pub async fn stop_all(&self) {
        for replica in self.replicas() {
            self.stop(replica).await;
        }
    }

    /// SIGTERM to all; a process that does not end is killed. Never panics.
    pub async fn end_all(&self) {
        let running = || self.replicas().filter(|replica| self.runs(*replica));
        running().for_each(|replica| self.signal(replica, "TERM"));
        let started = Instant::now();
        while running().next().is_some() && started.elapsed() < START_AND_STOP {
            sleep(Duration::from_millis(50)).await;
        }
        self.kill_all().await;
    }

    pub async fn kill_all(&self) {
        for replica in self.replicas() {
            self.kill(replica);
        }
    }

    fn log_path(&self, replica: usize) -> PathBuf {
        self.dir.join(format!("zl-{replica}.log"))
    }

    fn log(&self, replica: usize) -> File {
        OpenOptions::new().create(true).append(true).open(self.log_path(replica)).unwrap()
    }

    /// The last lines of a replica's log.
    pub fn tail(&self, replica: usize, lines: usize) -> String {
        self.lines_about(replica, "", lines)
    }

    /// The last lines of a replica's log that mention `text`.
    pub fn lines_about(&self, replica: usize, text: &str, lines: usize) -> String {
        let log = std::fs::read_to_string(self.log_path(replica)).unwrap_or_default();
        let found: Vec<&str> = log.lines().filter(|l| l.contains(text)).collect();
        found[found.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        for replica in self.replicas() {
            self.kill(replica);
        }
    }
}
