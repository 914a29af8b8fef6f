//! A TCP proxy in front of the API server or the replicas: it can cut connections, make them silent, or
//! send new ones elsewhere. It does not read TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Ends with its owner, and all its connections with it.
pub struct TcpProxy {
    address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    cut: Arc<Notify>,
    closed: Arc<AtomicBool>,
    silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl TcpProxy {
    /// Forwards this port of 127.0.0.1 to `upstream`.
    pub async fn start_at(port: u16, upstream: SocketAddr) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, port), upstream).await
    }

    async fn start_on(here: (Ipv4Addr, u16), upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(here).await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Mutex::new(upstream));
        let cut = Arc::new(Notify::new());
        let closed = Arc::new(AtomicBool::new(false));
        let (silent, silence) = watch::channel(false);
        let (to, cut_all, none_passes) = (upstream.clone(), cut.clone(), closed.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if none_passes.load(Ordering::Relaxed) {
                    continue;
                }
                let (cut, silence) = (cut_all.clone(), silence.clone());
                let to = *to.lock().unwrap();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = forward(client, to, silence) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { address, upstream, cut, closed, silent, accepting }
    }

    /// New connections go here from now on; those that are open stay where they are, as those of a
    /// Service do.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap() = upstream;
    }

    /// Cuts every connection that is open now; new ones are let through.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Cuts every connection, and every new one at once until this is called with `false`.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
        self.cut();
    }

    /// From now on nothing passes and nothing is closed: sent bytes are acknowledged, connections are
    /// accepted, and no answer comes. A call with `false` lets the held bytes pass, late.
    pub fn swallow(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Writes a copy of a kubeconfig that leads through a new proxy.
    pub async fn before(kubeconfig: &Path) -> (Self, PathBuf) {
        Self::before_on(Ipv4Addr::LOCALHOST, kubeconfig).await
    }

    /// As [`Self::before`], with the proxy on another loopback address.
    pub async fn before_on(on: Ipv4Addr, kubeconfig: &Path) -> (Self, PathBuf) {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        let cluster = &mut config["clusters"][0]["cluster"];
        let address = cluster["server"].as_str().unwrap().trim_start_matches("https://");
        let proxy = Self::start_on((on, 0), address.parse().unwrap()).await;
        cluster["server"] = format!("https://{}", proxy.address).into();
        // Its certificate does not name every loopback address.
        cluster["tls-server-name"] = json!("localhost");
        let path = kubeconfig.with_extension(format!("proxied-{}", proxy.address.port()));
        std::fs::write(&path, config.to_string()).unwrap();
        (proxy, path)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut.notify_waiters();
    }
}

async fn forward(
    mut client: TcpStream,
    upstream: SocketAddr,
    silence: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = pump(from_client, to_server, silence.clone());
    let back = pump(from_server, to_client, silence);
    tokio::try_join!(there, back).map(|_| ())
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silence: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if silence.wait_for(|silent| !silent).await.is_err() {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
