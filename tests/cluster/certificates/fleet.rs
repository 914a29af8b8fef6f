//! Three replicas behind one address, as behind a Service: which are ready, which one the API server
//! calls, and how each ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::RwLock;

use crate::support::product::Product;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::world::World;

/// Replicas of a fleet.
pub const REPLICAS: usize = 3;

/// One replica.
struct Replica {
    product: Arc<Product>,
    /// Its number in `product`.
    number: usize,
    /// Whether a Service would route to it.
    ready: AtomicBool,
    /// Every call under way holds it.
    calls: RwLock<()>,
}

/// The replicas, and the address that the webhook configurations name.
pub struct Fleet {
    replicas: Vec<Replica>,
    flags: Vec<String>,
    front: TcpProxy,
    called: AtomicUsize,
}

impl Fleet {
    /// Starts all of them with these flags; the API server calls the first.
    pub async fn start(world: &World, flags: &[&str]) -> Arc<Self> {
        let fleet = Self::new(world, flags).await;
        (0..REPLICAS).for_each(|n| fleet.spawn(n));
        for n in 0..REPLICAS {
            fleet.until_ready(n).await;
        }
        fleet
    }

    /// A fleet without running replicas.
    pub async fn new(world: &World, flags: &[&str]) -> Arc<Self> {
        let pairs = [world.product.elsewhere("a"), world.product.elsewhere("b")].map(Arc::new);
        let replica = |n: usize| Replica {
            product: pairs[n / 2].clone(),
            number: n % 2,
            ready: AtomicBool::new(false),
            calls: RwLock::default(),
        };
        let replicas: Vec<_> = (0..REPLICAS).map(replica).collect();
        let first = address(replicas[0].port());
        let front = TcpProxy::start_at(world.product.webhook_port(0), first).await;
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        Arc::new(Self { replicas, flags, front, called: AtomicUsize::new(0) })
    }

    /// The replica that the API server calls.
    pub fn called(&self) -> usize {
        self.called.load(Ordering::Relaxed)
    }

    pub fn product(&self, n: usize) -> (&Product, usize) {
        (&self.replicas[n].product, self.replicas[n].number)
    }

    pub fn port(&self, n: usize) -> u16 {
        self.replicas[n].port()
    }

    pub fn is_ready(&self, n: usize) -> bool {
        self.replicas[n].ready.load(Ordering::Relaxed)
    }

    /// Starts a replica; it may not be ready yet.
    pub fn spawn(&self, n: usize) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.replicas[n].product.spawn(self.replicas[n].number, &flags);
    }

    /// Waits until a replica says that it is ready, and takes it in.
    pub async fn until_ready(&self, n: usize) {
        let replica = &self.replicas[n];
        replica.product.until_ready(replica.number).await;
        replica.ready.store(true, Ordering::Relaxed);
    }

    /// Calls a replica, if it is ready; a kill waits for the answer.
    pub async fn call<T>(&self, n: usize, call: impl Future<Output = T>) -> Option<T> {
        let replica = &self.replicas[n];
        let _on_its_way = replica.calls.read().await;
        if self.is_ready(n) { Some(call.await) } else { None }
    }

    /// kill -9 of a replica without a call under way.
    pub async fn kill(&self, n: usize) {
        assert_ne!(n, self.called(), "the API server is calling it");
        let replica = &self.replicas[n];
        replica.ready.store(false, Ordering::Relaxed);
        let _no_calls = replica.calls.write().await;
        replica.product.kill(replica.number);
    }

    /// SIGTERM during its calls: new calls go to `next` from now on.
    pub async fn hand_over(&self, next: usize) {
        let n = self.called.swap(next, Ordering::Relaxed);
        let replica = &self.replicas[n];
        self.front.lead_to(address(self.port(next)));
        replica.ready.store(false, Ordering::Relaxed);
        let ended = replica.product.stop(replica.number).await;
        assert!(ended.is_some_and(|s| s.success()), "replica {n} ended with {ended:?}");
    }

    /// Ends all of them.
    pub async fn end(&self) {
        for replica in &self.replicas {
            replica.ready.store(false, Ordering::Relaxed);
            replica.product.stop(replica.number).await;
        }
    }
}

impl Replica {
    fn port(&self) -> u16 {
        self.product.webhook_port(self.number)
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
