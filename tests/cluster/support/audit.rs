//! Follows the audit log of the API server: what zen-lead wrote. Each read takes only the new lines,
//! because the log of a run has many megabytes. The tests decide what the writes mean.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The writes of one user.
pub struct Audit {
    path: PathBuf,
    user: String,
    /// The position in the log, and the writes found so far.
    read: Mutex<(u64, Vec<Value>)>,
}

impl Audit {
    /// From now on.
    pub fn follow(path: &Path, user: &str) -> Self {
        let end = std::fs::metadata(path).map_or(0, |m| m.len());
        Self { path: path.to_owned(), user: user.to_owned(), read: Mutex::new((end, Vec::new())) }
    }

    /// All so far.
    pub fn writes(&self) -> Vec<Value> {
        let mut read = self.read.lock().unwrap();
        let (from, found) = &mut *read;
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(*from)).unwrap();
        let mut new = Vec::new();
        file.read_to_end(&mut new).unwrap();
        // The last line may be incomplete: the next read takes it.
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *from += whole as u64;
        let text = std::str::from_utf8(&new[..whole]).unwrap();
        found.extend(text.lines().filter(|l| l.contains(&self.user)).filter_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let written = WRITES.iter().any(|verb| entry["verb"] == *verb);
            (written && entry["user"]["username"] == self.user.as_str()).then_some(entry)
        }));
        found.clone()
    }
}
