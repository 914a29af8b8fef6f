//! What a run ran on: versions, binaries and the machine, for the file of the results.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::support::world::World;

/// For `results::begin`. What cannot be found out is null.
pub async fn of(world: &World, binaries: Option<&[PathBuf; 2]>) -> Map<String, Value> {
    let kubernetes = world.admin.apiserver_version().await.ok().map(|v| v.git_version);
    let root = env!("CARGO_MANIFEST_DIR");
    let commit = said(Command::new("git").args(["-C", root, "describe", "--always", "--dirty"]));
    let mut versions = Map::new();
    let mut put = |name: &str, value: Value| versions.insert(name.to_owned(), value);
    put("kubernetes", json!(kubernetes));
    put("zen-lead", json!(env!("CARGO_PKG_VERSION")));
    put("commit", json!(commit));
    put("cores", json!(std::thread::available_parallelism().ok().map(usize::from)));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    put("kernel", json!(kernel.map(|k| k.trim().to_owned())));
    for (label, path) in ["binary A", "binary B"].into_iter().zip(binaries.into_iter().flatten()) {
        put(label, binary(path));
    }
    versions
}

fn binary(path: &Path) -> Value {
    json!({
        "path": path,
        "bytes": path.metadata().ok().map(|m| m.len()),
        "version": said(Command::new(path).arg("--version")),
        "sha256": said(Command::new("sha256sum").arg(path))
            .and_then(|line| line.split(' ').next().map(str::to_owned)),
    })
}

/// What a program prints, if it succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
