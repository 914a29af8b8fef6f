//! The proxy variables and NO_PROXY in the environment of the process: `serve`, `status` and `explain`
//! reach the API server in the same way as kubectl.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::case::Case;
use crate::support::cli::{Said, zen_lead};
use crate::support::harness::tests;

tests![
    no_proxy_leads_past_a_dead_proxy,
    a_proxy_is_used_where_no_proxy_does_not_match,
    the_proxy_of_a_kubeconfig_is_used_whatever_no_proxy_says,
    a_proxy_that_cannot_be_used_is_named,
];

/// An address without a listener.
const DEAD: &str = "http://127.0.0.1:9";
/// No name server knows this name: only the proxy reaches it. The API server's certificate does not name
/// it either.
const UNKNOWN: &str = "api.zen-lead.invalid";

/// The message about a proxy that speaks TLS itself.
const UNUSABLE: &str = "zen-lead: HTTPS_PROXY names a proxy that cannot be used: the scheme https:// is not \
                        supported; write for example http://proxy.example.com:3128 or \
                        socks5://proxy.example.com:1080; or add the API server to NO_PROXY";

/// The address by which other machines reach the API server. The variables do not apply to loopback
/// addresses.
async fn advertised(t: &Case) -> SocketAddr {
    let slices: Api<EndpointSlice> = Api::namespaced(t.admin(), "default");
    let slice = slices.get("kubernetes").await.unwrap();
    let endpoint = &slice.endpoints.unwrap_or_default()[0];
    let port = slice.ports.unwrap_or_default()[0].port.unwrap();
    let address = SocketAddr::new(endpoint.addresses[0].parse().unwrap(), port.try_into().unwrap());
    assert!(!address.ip().is_loopback(), "{address}");
    address
}

/// zen-lead's kubeconfig with another address of the server, and with a `proxy-url` if one is given.
fn kubeconfig(t: &Case, name: &str, server: &str, proxy_url: Option<&str>) -> PathBuf {
    let text = std::fs::read_to_string(t.world.product.kubeconfig()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    cluster["server"] = server.into();
    cluster["tls-server-name"] = json!("localhost");
    if let Some(url) = proxy_url {
        cluster["proxy-url"] = url.into();
    }
    let path = t.world.dir.join(format!("kubeconfig-{name}"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A proxy that accepts CONNECT and sends everything to the API server.
struct ConnectProxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl ConnectProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(client.read_u8().await?);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    seen.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
                    let mut upstream = TcpStream::connect(server).await?;
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                    copy_bidirectional(&mut client, &mut upstream).await
                });
            }
        });
        Self { url, asked, accepting }
    }

    /// Returns the requests so far and clears the list.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// `status` and `explain` both report the leader of a Service with these variables.
async fn both_report_the_leader(t: &Case, kubeconfig: &Path, variables: &[(&str, &str)]) {
    let status = zen_lead(&["status", "-n", &t.ns], kubeconfig, variables).await;
    assert_eq!((status.code, &*status.err), (0, ""), "{status:?}");
    let row = status.out.lines().nth(1).unwrap_or_default().to_owned();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..5], [&t.ns, "web", "web-leader", "a", "true"], "{status:?}");
    let explained = zen_lead(&["explain", &format!("{}/web", t.ns)], kubeconfig, variables).await;
    assert_eq!((explained.code, &*explained.err), (0, ""), "{explained:?}");
    assert!(explained.out.contains("leader Service: web-leader"), "{explained:?}");
}

/// Whether a replica becomes ready with these variables.
async fn serves(t: &Case, kubeconfig: &Path, variables: &[(&str, &str)]) {
    let product = &t.world.product;
    product.spawn_with(0, kubeconfig, &[], variables);
    product.until_ready(0).await;
    product.stop(0).await;
}

async fn led(t: &Case) {
    t.world.product.ensure_started().await;
    t.ready_pods("web", &["a"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    t.world.product.stop_all().await;
}

async fn no_proxy_leads_past_a_dead_proxy(t: Arc<Case>) {
    led(&t).await;
    let server = advertised(&t).await;
    let path = kubeconfig(&t, "no-proxy", &format!("https://{server}"), None);
    let exactly = server.to_string();
    let range = format!("{}/24", server.ip());
    for none in [&*exactly, "*", &range] {
        let variables = [("HTTPS_PROXY", DEAD), ("NO_PROXY", none)];
        both_report_the_leader(&t, &path, &variables).await;
    }
    both_report_the_leader(&t, &path, &[("https_proxy", DEAD), ("no_proxy", &exactly)]).await;
    serves(&t, &path, &[("HTTPS_PROXY", DEAD), ("NO_PROXY", &exactly)]).await;
    // This proves that NO_PROXY is the reason.
    let other = [("HTTPS_PROXY", DEAD), ("NO_PROXY", "example.com")];
    let Said { code, err, .. } = zen_lead(&["status", "-n", &t.ns], &path, &other).await;
    assert_eq!(code, 2, "{err}");
    assert!(
        err.starts_with("zen-lead: through the proxy http://127.0.0.1:9 (HTTPS_PROXY): "),
        "{err}"
    );
}

async fn a_proxy_is_used_where_no_proxy_does_not_match(t: Arc<Case>) {
    led(&t).await;
    let proxy = ConnectProxy::start(advertised(&t).await).await;
    let path = kubeconfig(&t, "proxy", &format!("https://{UNKNOWN}:6443"), None);
    let variables = [("HTTPS_PROXY", &*proxy.url), ("NO_PROXY", "10.96.0.0/12,.svc,invalid:1")];
    both_report_the_leader(&t, &path, &variables).await;
    let wanted = format!("CONNECT {UNKNOWN}:6443 HTTP/1.1");
    let asked = proxy.take();
    assert!(asked.len() >= 2 && asked.iter().all(|line| *line == wanted), "{asked:?}");
    serves(&t, &path, &variables).await;
    let asked = proxy.take();
    assert!(!asked.is_empty() && asked.iter().all(|line| *line == wanted), "{asked:?}");
}

async fn the_proxy_of_a_kubeconfig_is_used_whatever_no_proxy_says(t: Arc<Case>) {
    led(&t).await;
    let proxy = ConnectProxy::start(advertised(&t).await).await;
    let server = format!("https://{UNKNOWN}:6443");
    let path = kubeconfig(&t, "proxy-url", &server, Some(&proxy.url));
    both_report_the_leader(&t, &path, &[("HTTPS_PROXY", DEAD), ("NO_PROXY", "*")]).await;
    assert!(proxy.take().len() >= 2);
}

async fn a_proxy_that_cannot_be_used_is_named(t: Arc<Case>) {
    let path = kubeconfig(&t, "scheme", &format!("https://{UNKNOWN}:6443"), None);
    let variables = [("HTTPS_PROXY", "https://bob:secret@proxy.example.com")];
    let example = format!("{}/web", t.ns);
    let serve = ["serve", "--admin-bind=127.0.0.1:0", "--webhook-bind=127.0.0.1:0"];
    for args in [&["status"][..], &["explain", &example], &serve] {
        let said = zen_lead(args, &path, &variables).await;
        // `serve` has written to its log by then.
        let last = said.err.lines().last().unwrap_or_default();
        assert_eq!((said.code, last), (2, UNUSABLE), "{args:?}: {said:?}");
    }
}
