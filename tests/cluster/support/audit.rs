//! Follows the audit log of the API server: what zen-lead called and wrote. Each read takes only the new
//! lines, because the log of a run has many megabytes. The tests decide what the calls mean.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The entries of one user, each returned once.
pub struct Tail {
    path: PathBuf,
    user: String,
    /// The position in the log.
    from: u64,
}

impl Tail {
    /// From now on.
    pub fn follow(path: &Path, user: &str) -> Self {
        let end = std::fs::metadata(path).map_or(0, |m| m.len());
        Self { path: path.to_owned(), user: user.to_owned(), from: end }
    }

    /// The entries since the last call.
    pub fn entries(&mut self) -> Vec<Value> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut new = Vec::new();
        file.read_to_end(&mut new).unwrap();
        // The last line may be incomplete: the next read takes it.
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.from += whole as u64;
        let text = std::str::from_utf8(&new[..whole]).unwrap();
        let lines = text.lines().filter(|line| line.contains(&self.user));
        let entries = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["user"]["username"] == self.user.as_str()).collect()
    }
}

/// The writes of one user.
pub struct Audit {
    /// The log, and the writes found so far.
    read: Mutex<(Tail, Vec<Value>)>,
}

impl Audit {
    /// From now on.
    pub fn follow(path: &Path, user: &str) -> Self {
        Self { read: Mutex::new((Tail::follow(path, user), Vec::new())) }
    }

    /// All so far.
    pub fn writes(&self) -> Vec<Value> {
        let mut read = self.read.lock().unwrap();
        let (tail, found) = &mut *read;
        let written = |entry: &Value| WRITES.iter().any(|verb| entry["verb"] == *verb);
        found.extend(tail.entries().into_iter().filter(written));
        found.clone()
    }
}
