//! Tests of which connections calls use: after silence, over a network that swallows, when a server ends them.

mod server;

use futures::AsyncBufReadExt;
use futures::future::join_all;
use http::Version;
use kube::api::ListParams;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::proxied::head;
use super::*;
use crate::platform::api::connections::READ_BUFFER;
use crate::platform::api::proxy::{Proxy, Scheme};
use server::{IDLE, Seen, Server};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// Reads an object, with all retries.
async fn get(caller: &Caller, client: &Client, name: &str) -> Result<ConfigMap, CallError> {
    let (maps, key) = (maps(client.clone()), key());
    call(caller, Operation::GetSlice, Target::of(&key, name), || maps.get(name)).await
}

async fn get_at_once(caller: &Caller, client: &Client, name: &str, times: usize) {
    for got in join_all((0..times).map(|_| get(caller, client, name))).await {
        got.unwrap();
    }
}

fn retries(caller: &Caller) -> f64 {
    counted(caller, &["zen_lead_retry_attempts_total"])
}

#[tokio::test(start_paused = true)]
async fn after_a_long_silence_calls_need_no_new_connection() {
    for (protocols, version) in
        [(&BOTH[..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let (server, caller) = (Server::new(protocols, 100), caller());
        let client = server.client();
        get(&caller, &client, "x").await.unwrap();
        let mut warm = JoinSet::new();
        warm.spawn(keep_warm(client.clone(), caller.clone()));
        for _ in 0..3 {
            sleep(Duration::from_mins(20)).await;
            get(&caller, &client, "x").await.unwrap();
        }
        assert_eq!(server.connections(), 1, "{protocols:?}");
        assert!(server.seen().iter().all(|seen| seen.version == version), "{protocols:?}");

        // Without the small calls the server ends it, pings or not.
        warm.shutdown().await;
        sleep(IDLE * 2).await;
        get(&caller, &client, "x").await.unwrap();
        assert_eq!(server.connections(), 2, "{protocols:?}");
        assert!(close(retries(&caller), 0.0));
    }
}

#[tokio::test(start_paused = true)]
async fn lists_and_watches_have_connections_of_their_own_with_http1() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    let maps = maps(client.clone());
    maps.list(&ListParams::default()).await.unwrap();
    let watch = kube::api::WatchParams::default();
    drop(maps.watch(&watch, "1").await.unwrap());
    get(&caller, &client, "x").await.unwrap();
    let seen = server.seen();
    let over = |seen: &Seen| (seen.connection, seen.version);
    assert_eq!(over(&seen[0]), (0, Version::HTTP_2));
    assert_eq!(over(&seen[1]), (1, Version::HTTP_11));
    assert_eq!(seen[2].version, Version::HTTP_11);
    assert_eq!(over(&seen[3]), (0, Version::HTTP_2));
    assert_eq!(seen[0].path, "/prefix/api/v1/namespaces/team/configmaps/x");
}

/// What a connection has room for, it passes on in one piece.
#[tokio::test]
async fn a_long_list_leaves_a_small_buffer_to_the_watch_that_follows() {
    const LONG: usize = 4 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client = client(Config::new(uri), None).unwrap();
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        head(&mut socket).await;
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
        socket.write_all(begin.as_bytes()).await.unwrap();
        socket.write_all(&vec![b' '; LONG]).await.unwrap();
    };
    let read = async {
        let request = http::Request::get("/api/v1/services?limit=500").body(Vec::new()).unwrap();
        let mut body = std::pin::pin!(client.request_stream(request).await.unwrap());
        let (mut all, mut largest) = (0, 0);
        loop {
            let piece = body.fill_buf().await.unwrap().len();
            if piece == 0 {
                return (all, largest);
            }
            (all, largest) = (all + piece, largest.max(piece));
            body.consume_unpin(piece);
        }
    };
    let ((), (all, largest)) = tokio::join!(serve, read);
    assert_eq!(all, LONG);
    assert!(largest <= 2 * READ_BUFFER, "{largest}");
}

#[tokio::test(start_paused = true)]
async fn a_call_into_a_black_hole_is_repeated_over_another_connection() {
    for (protocols, name) in
        [(&BOTH[..], "x"), (&BOTH, "torn"), (&["http/1.1"], "x"), (&["http/1.1"], "torn")]
    {
        let (server, caller) = (Server::new(protocols, 100), caller());
        let client = server.client();
        get(&caller, &client, "x").await.unwrap();
        if name == "x" {
            server.swallow();
        }
        let started = monotonic();
        get(&caller, &client, name).await.unwrap();
        let took = monotonic() - started;
        assert!(took < caller.policy.deadline, "{protocols:?} {name}: {took:?}");
        assert_eq!(server.connections(), 2, "{protocols:?} {name}");
        assert!(close(retries(&caller), 1.0), "{protocols:?} {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_calls_into_a_black_hole_all_succeed_before_their_deadline() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    server.swallow();
    get_at_once(&caller, &client, "x", 50).await;
    assert!(close(retries(&caller), 50.0));
    // One of them is in use from now on.
    let opened = server.connections();
    get_at_once(&caller, &client, "x", 50).await;
    assert_eq!(server.connections(), opened);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_in_silence_delays_no_call() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    sleep(Duration::from_secs(12)).await;
    server.swallow();
    // The next ping is sent within 10 s, and 5 s later it counts as lost.
    sleep(Duration::from_secs(16)).await;
    let started = monotonic();
    get(&caller, &client, "x").await.unwrap();
    assert!(monotonic() - started < Duration::from_secs(1));
    assert_eq!(server.connections(), 2);
    assert!(close(retries(&caller), 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_ends_no_other_call() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    let given_up = async {
        let limit = Duration::from_millis(500);
        assert!(tokio::time::timeout(limit, get(&caller, &client, "slow")).await.is_err());
        get(&caller, &client, "x").await.unwrap();
    };
    let (slow, ()) = tokio::join!(get(&caller, &client, "slow"), given_up);
    slow.unwrap();
    let connections: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1], "only calls that begin later use another one");
    assert!(close(retries(&caller), 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_the_connection_costs_no_call() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    for round in 1..=3 {
        // GOAWAY comes while these are under way, and while others begin.
        let later = async {
            for _ in 0..50 {
                get_at_once(&caller, &client, "x", 4).await;
                sleep(Duration::from_millis(30)).await;
            }
        };
        let ends = get(&caller, &client, "ends");
        let under_way = get_at_once(&caller, &client, "slow", 20);
        let ((), ends, ()) = tokio::join!(under_way, ends, later);
        ends.unwrap();
        assert!(server.connections() > round, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_streams_wait_for_each_other() {
    let (server, caller) = (Server::new(&BOTH, 4), caller());
    let client = server.client();
    get(&caller, &client, "x").await.unwrap();
    get_at_once(&caller, &client, "slow", 16).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_begin_together_agree_on_one_connection() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    get_at_once(&caller, &client, "x", 16).await;
    let opened = server.connections();
    assert!(opened <= 16, "{opened}");
    get_at_once(&caller, &client, "x", 16).await;
    assert_eq!(server.connections(), opened);
    assert!(close(retries(&caller), 0.0));
}

#[tokio::test(start_paused = true)]
async fn the_small_call_goes_on_through_failures_and_opens_a_connection_again() {
    let (server, caller) = (Server::new(&BOTH, 100), caller());
    let client = server.client();
    let mut warm = JoinSet::new();
    warm.spawn(keep_warm(client.clone(), caller.clone()));
    sleep(Duration::from_secs(31)).await;
    server.swallow();
    // Noticed by a ping; the next small call opens another one.
    sleep(Duration::from_secs(31)).await;
    assert_eq!(server.connections(), 2);
    get(&caller, &client, "x").await.unwrap();
    assert_eq!(server.connections(), 2);
    assert!(warm.try_join_next().is_none());
}

/// One call over real sockets, and the proxy's part where there is one.
async fn over_sockets(protocols: &[&str], through_proxy: bool) -> Seen {
    let (server, caller) = (Server::new(protocols, 100), caller());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = through_proxy.then(|| Proxy {
        scheme: Scheme::Http,
        address: format!("http://{address}/").parse().unwrap(),
        credentials: None,
        set_by: "test",
    });
    let client = client(server.config(&format!("https://{address}")), proxy.as_ref()).unwrap();
    let accept = async {
        let mut stream = listener.accept().await.unwrap().0;
        if through_proxy {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
        }
        server.serve(stream);
    };
    let (got, ()) = tokio::join!(get(&caller, &client, "x"), accept);
    got.unwrap();
    server.seen().remove(0)
}

#[tokio::test]
async fn the_protocol_is_agreed_on_over_sockets_and_through_a_proxy() {
    for through_proxy in [false, true] {
        let seen = over_sockets(&BOTH, through_proxy).await;
        assert_eq!(seen.version, Version::HTTP_2, "{through_proxy}");
        let seen = over_sockets(&["http/1.1"], through_proxy).await;
        assert_eq!(seen.version, Version::HTTP_11, "{through_proxy}");
    }
}
