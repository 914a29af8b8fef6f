//! A real Prometheus that scrapes the replicas, and queries to it. The tests choose the queries.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster;
use super::http;
use super::product::free_port;
use super::waiting::{check, within};

/// Where `e2e/cluster.sh build prometheus` puts it, when it has.
pub fn program() -> Result<PathBuf, String> {
    cluster::program("PROMETHEUS", "prometheus")
}

/// A running server; it ends with its owner.
pub struct Prometheus {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Prometheus {
    /// Starts it with these rules, scraping `replicas` (pod name, port) every second, as the
    /// ServiceMonitor has them scraped: with the labels of the operator, and its honorLabels.
    pub async fn start(dir: &Path, system: &str, rules: &Path, replicas: &[(&str, u16)]) -> Self {
        let monitor = include_str!("../../../deploy/monitoring/servicemonitor.yaml");
        let monitor: Value = serde_saphyr::from_str(monitor).unwrap();
        let endpoint = &monitor["spec"]["endpoints"][0];
        let targets: Vec<Value> = replicas
            .iter()
            .map(|(pod, port)| {
                let labels =
                    json!({"namespace": system, "service": "zen-lead-metrics", "pod": pod});
                json!({"targets": [format!("127.0.0.1:{port}")], "labels": labels})
            })
            .collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "zen-lead-metrics",
                "metrics_path": endpoint["path"],
                "honor_labels": endpoint["honorLabels"] == true,
                "static_configs": targets,
            }],
        });
        let dir = dir.join("prometheus");
        std::fs::create_dir_all(&dir).unwrap();
        let (file, log) = (dir.join("prometheus.yml"), dir.join("prometheus.log"));
        std::fs::write(&file, config.to_string()).unwrap();
        let port = free_port();
        let out = File::create(&log).unwrap();
        // The kernel ends it with us, as it does the replicas.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program().unwrap())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--log.level=warn"])
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        let server = Self { child, port, log };
        within(Duration::from_secs(30), "Prometheus is ready", || async {
            let answer =
                http::get(server.port, "/-/ready").await.map_err(|e| server.failure(&e))?;
            check(answer.code == 200, server.failure(&answer.body))
        })
        .await;
        server
    }

    fn failure(&self, what: &str) -> String {
        format!("{what}; its log: {}", std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = http::get(self.port, path).await?;
        let body: Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
        check(body["status"] == "success", format!("{path}: {body}"))?;
        Ok(body["data"].clone())
    }

    /// The series of an expression over a time (seconds since 1970), without those that are not a
    /// number all the time.
    pub async fn range(
        &self,
        expr: &str,
        (start, end): (f64, f64),
        step: f64,
    ) -> Result<Vec<Value>, String> {
        let query = encoded(expr);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}");
        let data = self.ask(&path).await?;
        let series = data["result"].as_array().unwrap().clone();
        let number = |sample: &Value| sample[1].as_str().is_some_and(|v| v != "NaN");
        let is_number =
            |series: &Value| series["values"].as_array().is_some_and(|v| v.iter().any(number));
        Ok(series.into_iter().filter(is_number).collect())
    }

    /// The series of an expression now, without those that are not a number.
    pub async fn now(&self, expr: &str) -> Result<Vec<Value>, String> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(expr))).await?;
        let series = data["result"].as_array().unwrap().clone();
        Ok(series.into_iter().filter(|s| s["value"][1] != "NaN").collect())
    }

    /// Every rule with its state, by name.
    pub async fn rules(&self) -> Result<Vec<Value>, String> {
        let data = self.ask("/api/v1/rules").await?;
        let groups = data["groups"].as_array().unwrap();
        Ok(groups.iter().flat_map(|g| g["rules"].as_array().unwrap().clone()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As part of a URL's query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
