//! A TCP proxy before the API server, whose connections can be cut. TLS goes through it unread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Ends with its owner, and all its connections with it.
pub struct TcpProxy {
    port: u16,
    cut: Arc<Notify>,
    closed: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl TcpProxy {
    /// Forwards a free port of 127.0.0.1 to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Notify::new());
        let closed = Arc::new(AtomicBool::new(false));
        let (cut_all, none_passes) = (cut.clone(), closed.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if none_passes.load(Ordering::Relaxed) {
                    continue;
                }
                let cut = cut_all.clone();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { port, cut, closed, accepting }
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
