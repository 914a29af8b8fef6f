//! The borders of the code that no type can hold: what the pure core must not touch, how files open,
//! that none is orphaned, and how long they may get.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Values in, values out: no await, no client, no clock, no environment.
const PURE: [&str; 7] = [
    "src/spec",
    "src/index",
    "src/decide",
    "src/replica",
    "src/version",
    "src/names",
    "src/admission",
];
/// What would make them impure.
const BANNED: [&str; 8] = [
    ".await",
    "async fn",
    "kube::Client",
    "kube::Api",
    "tokio::",
    "clock::monotonic",
    "std::env",
    "Clock",
];
/// Lines after which a file has to be split.
const LONGEST: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn is_test(path: &Path) -> bool {
    let name = shown(path);
    name.contains("/tests") || name.contains("fixtures") || name.contains("testing")
}

/// The code of a file without comments and without its in-file tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_pure_core_touches_nothing_outside() {
    let mut faults = Vec::new();
    for path in rust_files("src") {
        let name = shown(&path);
        let pure =
            PURE.iter().any(|p| name == format!("{p}.rs") || name.starts_with(&format!("{p}/")));
        if !pure || is_test(&path) {
            continue;
        }
        let code = code(&path);
        faults.extend(
            BANNED.iter().filter(|b| code.contains(**b)).map(|b| format!("{name} mentions {b}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_opens_with_what_lives_there() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "e2e", "benches"] {
        if !root().join(folder).is_dir() {
            continue;
        }
        for path in rust_files(folder) {
            let text = fs::read_to_string(&path).unwrap();
            if !text.starts_with("//!") {
                faults.push(shown(&path));
            }
        }
    }
    assert!(faults.is_empty(), "do not open with //!:\n{}", faults.join("\n"));
}

#[test]
fn no_file_outgrows_a_reader() {
    let mut faults = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST {
            faults.push(format!("{} has {lines} lines", shown(&path)));
        }
    }
    assert!(faults.is_empty(), "split, at most {LONGEST} lines:\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_orphaned() {
    let files = rust_files("src");
    let declared: BTreeSet<String> = files
        .iter()
        .flat_map(|path| {
            fs::read_to_string(path)
                .unwrap()
                .lines()
                .filter_map(|line| {
                    let line = line.trim().trim_start_matches("pub(crate) ");
                    let line = line.trim_start_matches("pub(super) ").trim_start_matches("pub ");
                    Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
                })
                .collect::<Vec<_>>()
        })
        .collect();
    for path in files {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let root_file = matches!(stem.as_str(), "main" | "lib");
        assert!(root_file || declared.contains(&stem), "{} is in no mod list", shown(&path));
    }
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let mut tests = String::new();
    for folder in ["src", "tests", "e2e"] {
        for path in rust_files(folder) {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let hazards = fs::read_to_string(root().join("docs/hazards.md")).unwrap();
    let named: BTreeSet<&str> = hazards
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_')
                && word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
        })
        .collect();
    let manifests = fs::read_to_string(root().join("e2e/test_manifests.sh")).unwrap();
    let gone: Vec<&&str> = named
        .iter()
        .filter(|name| {
            !tests.contains(&format!("fn {name}(")) && !manifests.contains(&format!("{name}()"))
        })
        .collect();
    assert!(named.len() > 40, "the table names only {} tests", named.len());
    assert!(gone.is_empty(), "docs/hazards.md names tests that do not exist: {gone:?}");
}
