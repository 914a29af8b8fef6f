//! Follows the logs of zen-lead's pods into files, so that they outlive the pods.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The time between two searches for new pods and restarted containers.
const LOOK: Duration = Duration::from_millis(500);

/// Follows until dropped; the files stay.
pub struct Logs {
    dir: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Logs {
    pub fn follow(pods: Api<Pod>, selector: &str, dir: &Path) -> Self {
        let task = tokio::spawn(look(pods, selector.to_owned(), dir.to_owned()));
        Self { dir: dir.to_owned(), task }
    }

    /// The files, newest pod first.
    pub fn files(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut files: Vec<_> = all
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        files.sort_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
        files.reverse();
        files
    }

    /// Every line of every pod that contains one of `texts`, ignoring case.
    pub fn lines_with(&self, texts: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.files() {
            let text = std::fs::read_to_string(&file).unwrap();
            found.extend(
                text.lines()
                    .filter(|line| {
                        let line = line.to_lowercase();
                        texts.iter().any(|t| line.contains(t))
                    })
                    .map(str::to_owned),
            );
        }
        found
    }
}

async fn look(pods: Api<Pod>, selector: String, dir: PathBuf) {
    let mut followed = BTreeSet::new();
    let params = ListParams::default().labels(&selector);
    loop {
        for pod in pods.list(&params).await.map(|l| l.items).unwrap_or_default() {
            let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            for status in statuses.filter(|s| s.started == Some(true)) {
                let Some(container) = status.container_id.clone() else { continue };
                if followed.insert(container) {
                    let path = dir.join(format!("{}.log", pod.name_any()));
                    tokio::spawn(copy(pods.clone(), pod.name_any(), path));
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// Copies the log of a container to its end.
async fn copy(pods: Api<Pod>, name: String, path: PathBuf) {
    let params = LogParams { follow: true, ..LogParams::default() };
    let Ok(stream) = pods.log_stream(&name, &params).await else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut lines = stream.lines();
    while let Some(Ok(line)) = lines.next().await {
        writeln!(file, "{line}").unwrap();
    }
}
