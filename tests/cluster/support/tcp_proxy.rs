//! A TCP proxy before the API server or the replicas: its connections can be cut, new ones led
//! elsewhere. TLS goes through it unread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Ends with its owner, and all its connections with it.
pub struct TcpProxy {
    port: u16,
    upstream: Arc<Mutex<SocketAddr>>,
    cut: Arc<Notify>,
    closed: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl TcpProxy {
    /// Forwards a free port of 127.0.0.1 to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_at(0, upstream).await
    }

    /// Forwards this port of 127.0.0.1 to `upstream`.
    pub async fn start_at(port: u16, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = Arc::new(Mutex::new(upstream));
        let cut = Arc::new(Notify::new());
        let closed = Arc::new(AtomicBool::new(false));
        let (to, cut_all, none_passes) = (upstream.clone(), cut.clone(), closed.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if none_passes.load(Ordering::Relaxed) {
                    continue;
                }
                let (cut, to) = (cut_all.clone(), *to.lock().unwrap());
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { port, upstream, cut, closed, accepting }
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

    /// Writes a copy of a kubeconfig that leads through a new proxy.
    pub async fn before(kubeconfig: &Path) -> (Self, PathBuf) {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let address = server.as_str().unwrap().trim_start_matches("https://");
        let proxy = Self::start(address.parse().unwrap()).await;
        *server = format!("https://127.0.0.1:{}", proxy.port).into();
        let path = kubeconfig.with_extension("proxied");
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
