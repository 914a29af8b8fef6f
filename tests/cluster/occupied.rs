//! A client without credentials holds thousands of connections to both replicas. Annotated writes are reviewed
//! all the same, while it opens new ones for those that are closed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::api::PostParams;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::caller::{Caller, Line};
use crate::support::case::{Case, refusal};
use crate::support::harness::Test;
use crate::support::names;
use crate::support::objects::{source, source_set};
use crate::support::product::allow_open_files;
use crate::support::waiting::{check, until};

/// More than a replica takes (src/platform/server.rs).
const SILENT: usize = 2_200;
/// After their handshake, which costs both ends time.
const SHAKEN: usize = 200;
/// How often all connections are opened again, at most.
const ROUNDS: usize = 60;
/// Writes that have to be reviewed during each flood.
const WRITES: usize = 5;
const REPLICAS: [usize; 2] = [0, 1];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(module_path!(), "connections_keep_no_write_out", connections_keep_no_write_out)
            .within(Duration::from_mins(5)),
    ]
}

#[allow(dead_code, reason = "held, not read")]
enum Held {
    Silent(TcpStream),
    Shaken(Box<Line>),
}

/// Opens connections from these addresses until it is told to end, but not without end. Whether it was told.
async fn flood(caller: Caller, port: u16, from: &[[u8; 4]], over: Arc<AtomicBool>) -> bool {
    let tcp = |n: usize| async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind((IpAddr::from(from[n % from.len()]), 0).into())?;
        socket.connect(([127, 0, 0, 1], port).into()).await
    };
    // Those of the round before are held until all of the next one are open.
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..ROUNDS {
        if over.load(Ordering::Relaxed) {
            return true;
        }
        let mut now = Vec::new();
        let silent = futures::stream::iter(0..SILENT).map(tcp);
        let silent: Vec<_> = silent.buffer_unordered(64).collect().await;
        now.extend(silent.into_iter().flatten().map(Held::Silent));
        let shaken = futures::stream::iter(0..SHAKEN).map(|n| {
            let (caller, tcp) = (&caller, tcp(n));
            // Some are closed for others during their handshake.
            async move { caller.over(tcp.await?).await }
        });
        let shaken: Vec<_> = shaken.buffer_unordered(8).collect().await;
        now.extend(shaken.into_iter().flatten().map(|line| Held::Shaken(Box::new(line))));
        drop(std::mem::replace(&mut held, now));
        // Shorter than the time of a first request.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    over.load(Ordering::Relaxed)
}

/// What was closed to keep places free.
async fn closed(t: &Case, replica: usize) -> Result<f64, String> {
    let scrape = t.world.product.scrape(replica).await?;
    let family = scrape.families.get("zen_lead_connections_closed_total");
    let samples = family.into_iter().flat_map(|family| &family.samples);
    Ok(samples.filter(|s| s.labels["server"] == "webhook").map(|s| s.value).sum())
}

async fn connections_keep_no_write_out(t: Arc<Case>) {
    // Both ends need file descriptors: the replicas have the limits of the process that starts them.
    allow_open_files(12_288);
    t.world.product.ensure_started().await;
    // Other addresses, which fill all places together, and the one of the API server.
    let others: &[[u8; 4]] = &[[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]];
    for (name, from) in [("other", others), ("same", &[[127, 0, 0, 1]])] {
        let over = Arc::new(AtomicBool::new(false));
        let mut floods = Vec::new();
        let mut before = [0.0; 2];
        for replica in REPLICAS {
            before[replica] = until("a scrape", || closed(&t, replica)).await;
            let caller = Caller::new(&t, replica).await;
            let port = t.world.product.webhook_port(replica);
            floods.push(tokio::spawn(flood(caller, port, from, Arc::clone(&over))));
        }
        for replica in REPLICAS {
            until("more connections than it takes are open", || async {
                let closed = closed(&t, replica).await? - before[replica];
                check(closed >= 200.0, closed.to_string())
            })
            .await;
        }
        for n in 0..WRITES {
            let (good, bad) = (format!("{name}-{n}"), format!("{name}-bad-{n}"));
            // A busy machine may need more than the second that the API server gives the webhook.
            until("an annotated write passes", || async {
                t.user_services().create(&PostParams::default(), &source(&good, &json!({}))).await
            })
            .await;
            until("a mistake is refused", || async {
                let bad = source_set(&bad, &[(names::STICKY, "perhaps")]);
                let made = t.user_services().create(&PostParams::default(), &bad).await;
                let code = refusal(made).code;
                check(code == 422, code.to_string())
            })
            .await;
            println!("occupied: {name}: write {n} is reviewed");
        }
        over.store(true, Ordering::Relaxed);
        for flood in floods {
            assert!(flood.await.unwrap(), "{name}: it ended before the writes");
        }
    }
}
