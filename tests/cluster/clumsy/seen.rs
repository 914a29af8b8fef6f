//! What is routed in a namespace, and what zen-lead says about it. `rules` checks it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::raw::{self, Hand, Kind, WEB};
use super::tidy::is_squatted;
use crate::support::case::Case;
use crate::support::names;

/// A namespace at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub source: Option<Value>,
    pub leader: Option<Value>,
    pub leader_name: String,
    /// Pods that the slices of the leader Service name as ready: name and uid.
    pub routed: Vec<(String, String)>,
    /// Whether some of the endpoints were not written by zen-lead.
    pub foreign: bool,
    pub pods: Vec<Value>,
}

impl Seen {
    pub async fn look(admin: &Hand) -> Result<Self, String> {
        let words = |(code, text): (u16, String)| format!("{code} {text}");
        let services = admin.list(Kind::Service).await.map_err(words)?;
        let named =
            |name: &str| services.iter().find(|s| raw::text(s, "/metadata/name") == name).cloned();
        let source = named(WEB.1);
        let wanted = source.as_ref().map(|s| raw::annotation(s, names::LEADER_NAME).to_owned());
        let leader_name =
            wanted.filter(|n| !n.is_empty()).unwrap_or_else(|| "web-leader".to_owned());
        let leader = named(&leader_name);
        let slices = admin.list(Kind::Slice).await.map_err(words)?;
        let mut seen = Self { source, leader, leader_name, ..Self::default() };
        for slice in
            slices.iter().filter(|s| raw::label(s, names::SERVICE_NAME) == seen.leader_name)
        {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] == false {
                    continue;
                }
                let uid = raw::text(endpoint, "/targetRef/uid").to_owned();
                let name = raw::text(endpoint, "/targetRef/name").to_owned();
                seen.foreign |= uid.is_empty() || is_squatted(slice);
                if !seen.routed.iter().any(|(_, u)| *u == uid) {
                    seen.routed.push((name, uid));
                }
            }
        }
        seen.pods = admin.list(Kind::Pod).await.map_err(words)?;
        Ok(seen)
    }

    /// The ready pod that is routed, if there is exactly one and it lives.
    pub fn truth(&self) -> Option<&str> {
        let [(name, uid)] = self.routed.as_slice() else { return None };
        let pod = self.pods.iter().find(|p| raw::text(p, "/metadata/uid") == uid)?;
        is_ready(pod).then_some(name.as_str())
    }

    /// Whether the leader Service is provably ours: most of its marks exist.
    pub fn is_ours(&self) -> bool {
        let (Some(leader), Some(source)) = (&self.leader, &self.source) else { return false };
        let uid = raw::text(source, "/metadata/uid");
        let owners = leader["metadata"]["ownerReferences"].as_array();
        let signs = [
            raw::label(leader, names::MANAGED_BY) == "zen-lead",
            raw::label(leader, names::SOURCE_LABEL) == "web",
            owners.is_some_and(|o| o.iter().any(|o| o["uid"] == uid)),
        ];
        signs.iter().filter(|s| **s).count() >= 2
    }

    pub fn enabled(&self) -> bool {
        self.source.as_ref().is_some_and(|s| {
            raw::annotation(s, names::ENABLED) == "true"
                && s["metadata"]["deletionTimestamp"].is_null()
        })
    }
}

/// What the leader Service and its slices should have from the source, but do not have.
pub async fn not_as_asked(admin: &Hand) -> Result<Vec<String>, String> {
    let seen = Seen::look(admin).await?;
    let (Some(source), Some(leader)) = (&seen.source, &seen.leader) else { return Ok(Vec::new()) };
    // Held back on purpose, and reported.
    let held =
        raw::condition(source).is_some_and(|c| c["message"].to_string().contains(names::COPY));
    if held || !seen.enabled() {
        return Ok(Vec::new());
    }
    let mut wrong = Vec::new();
    let mut same = |what: &str, wanted: &Value, found: &Value| {
        if wanted != found {
            wrong.push(format!(
                "{what} of the leader Service is {found}, the source asks for {wanted}"
            ));
        }
    };
    let mirrors = raw::annotation(source, names::LEADER_TYPE) == "mirror";
    let (asked, has) = (&source["spec"], &leader["spec"]);
    let cluster_ip = json!("ClusterIP");
    same("type", if mirrors { &asked["type"] } else { &cluster_ip }, &has["type"]);
    for field in ["loadBalancerClass", "loadBalancerSourceRanges"] {
        same(field, if mirrors { &asked[field] } else { &Value::Null }, &has[field]);
    }
    for field in ["sessionAffinity", "internalTrafficPolicy", "ipFamilies"] {
        same(field, &asked[field], &has[field]);
    }
    same("selector", &Value::Null, &has["selector"]);
    let proxy = &source["metadata"]["labels"][PROXY_NAME];
    same(PROXY_NAME, proxy, &leader["metadata"]["labels"][PROXY_NAME]);
    for key in raw::annotation(source, names::COPY).split(',').map(str::trim) {
        let of = |object: &Value| object["metadata"]["annotations"][key].clone();
        if !key.is_empty() && !key.starts_with('-') {
            same(key, &of(source), &of(leader));
        }
    }
    let slices = admin.list(Kind::Slice).await.map_err(|e| e.1)?;
    for slice in slices.iter().filter(|s| raw::label(s, names::SERVICE_NAME) == seen.leader_name) {
        let found = &slice["metadata"]["labels"][PROXY_NAME];
        if found != proxy {
            let name = raw::text(slice, "/metadata/name");
            wrong.push(format!("{PROXY_NAME} of slice {name} is {found}, the source has {proxy}"));
        }
    }
    Ok(wrong)
}

/// The label that gives a Service to another proxy than kube-proxy.
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// The pod lives and is Ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Runs zen-lead as an admin does; returns its exit code and output.
pub async fn zen_lead(t: &Case, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-lead"));
    command.args(args).env_clear().env("KUBECONFIG", &t.world.cluster.kubeconfig);
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The false statements in the reports (rule c); empty if all agree.
pub async fn lies(t: &Case, admin: &Hand, status_is_refused: bool) -> Result<Vec<String>, String> {
    let seen = Seen::look(admin).await?;
    let mut lies = Vec::new();
    let Some(leader) = seen.leader.as_ref().filter(|_| seen.is_ours()) else { return Ok(lies) };
    if !leader["metadata"]["deletionTimestamp"].is_null() || !seen.enabled() || seen.foreign {
        return Ok(lies);
    }
    let truth = seen.truth();
    let routed = truth.unwrap_or("no pod");
    let condition = raw::condition(leader);
    let says_true = condition.is_some_and(|c| c["status"] == "True");
    let current = raw::annotation(leader, names::CURRENT);
    if !status_is_refused {
        if says_true && truth.is_none() {
            let message = condition.map(|c| c["message"].to_string()).unwrap_or_default();
            lies.push(format!("LeaderReady is True ({message}), routed is {routed}"));
        }
        let right = truth.map(|pod| format!("{}/{pod}", t.ns)).unwrap_or_default();
        if !current.is_empty() && current != right {
            lies.push(format!("current-leader is {current:?}, routed is {routed}"));
        }
    }
    for replica in t.world.product.replicas() {
        let scrape = t.world.product.scrape(replica).await?;
        let labels = [("namespace", t.ns.as_str()), ("service", "web")];
        let empty = scrape.value("zen_lead_leader_service_without_endpoints", &labels);
        match empty {
            None => lies.push(format!("replica {replica} has no series, routed is {routed}")),
            Some(value) if (value > 0.0) != truth.is_none() => lies.push(format!(
                "without_endpoints of replica {replica} is {value}, routed is {routed}"
            )),
            Some(_) => {}
        }
    }
    let (_, text) = zen_lead(t, &["status", "-n", &t.ns, "-o", "json"]).await;
    let rows: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!([text]));
    let row = rows.as_array().into_iter().flatten().find(|r| r["service"] == "web");
    match row {
        None => lies.push(format!("status has no row for web, routed is {routed}")),
        Some(row) => {
            let (ready, pod) = (row["ready"] == true, row["leader"].as_str().unwrap_or_default());
            if ready != truth.is_some() || (ready && pod != routed) {
                lies.push(format!("status says ready={ready} leader={pod:?}, routed is {routed}"));
            }
        }
    }
    let (_, text) = zen_lead(t, &["explain", &format!("{}/web", t.ns)]).await;
    if truth.is_none() && text.contains("all is as it should be") {
        lies.push(format!("explain says that all is as it should be, routed is {routed}"));
    }
    Ok(lies)
}
