//! The borders of the code that no type can hold: what the core must not touch, how files open,
//! that none is orphaned, and how long they may get.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

mod rooms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the core must not touch: values in, values out. That it has no client and no runtime is the
/// business of core/Cargo.toml.
const BANNED: [&str; 6] =
    [".await", "async fn", "std::env", "std::time::Instant", "SystemTime", "Timestamp::now"];
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
fn the_core_touches_nothing_outside() {
    let mut faults = Vec::new();
    for path in rust_files("core/src").iter().filter(|path| !is_test(path)) {
        let (name, code) = (shown(path), code(path));
        faults.extend(
            BANNED.iter().filter(|b| code.contains(**b)).map(|b| format!("{name} mentions {b}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let manifest = fs::read_to_string(root().join("core/Cargo.toml")).unwrap();
    let depends = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for outside in ["kube =", "kube-client", "tokio", "prometheus", "tracing", "opentelemetry"] {
        assert!(!depends.contains(outside), "core/Cargo.toml depends on {outside}");
    }
}

#[test]
fn every_file_opens_with_what_lives_there() {
    let mut faults = Vec::new();
    for folder in ["core", "src", "tests", "e2e", "fuzz/src"] {
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
    for path in ["core", "src", "tests", "e2e"].into_iter().flat_map(rust_files) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST {
            faults.push(format!("{} has {lines} lines", shown(&path)));
        }
    }
    assert!(faults.is_empty(), "split, at most {LONGEST} lines:\n{}", faults.join("\n"));
}

/// Whether Cargo.toml or Cargo itself knows the file, so that no `mod` line has to name it.
fn is_target(path: &Path) -> bool {
    let root_file = path.ends_with("main.rs") || path.ends_with("lib.rs");
    root_file || path.ends_with("e2e/bench.rs") || path.parent() == Some(&root().join("tests"))
}

/// The files that the `mod` lines of a file name.
fn modules(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    let below = if is_target(path) { folder.to_owned() } else { path.with_extension("") };
    let mut elsewhere = None;
    let mut found = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let line = line.trim().trim_start_matches("pub(crate) ");
        let line = line.trim_start_matches("pub(super) ").trim_start_matches("pub ");
        if let Some(file) = line.strip_prefix("#[path = \"") {
            elsewhere = Some(folder.join(file.trim_end_matches("\"]")));
        } else if let Some(name) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
            let file = elsewhere.take().unwrap_or_else(|| below.join(format!("{name}.rs")));
            found.push(file.canonicalize().unwrap_or(file));
        }
    }
    found
}

#[test]
fn no_file_is_orphaned() {
    let folders = ["core/src", "core/tests", "src", "tests", "e2e"];
    let files: Vec<PathBuf> = folders.into_iter().flat_map(rust_files).collect();
    let named: BTreeSet<PathBuf> = files.iter().flat_map(|path| modules(path)).collect();
    let orphans: Vec<String> = files
        .iter()
        .filter(|path| !is_target(path) && !named.contains(&path.canonicalize().unwrap()))
        .map(|path| shown(path))
        .collect();
    assert!(orphans.is_empty(), "in no mod list:\n{}", orphans.join("\n"));
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let mut tests = String::new();
    for folder in ["core", "src", "tests", "e2e"] {
        for path in rust_files(folder) {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let hazards = fs::read_to_string(root().join("docs/contributing/hazards.md")).unwrap();
    let named: BTreeSet<&str> = hazards
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_')
                && word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
        })
        .collect();
    let scripts = ["e2e/test_manifests.sh", "e2e/lib/own_account.sh"];
    let manifests = scripts.map(|path| fs::read_to_string(root().join(path)).unwrap()).concat();
    let gone: Vec<&&str> = named
        .iter()
        .filter(|name| {
            !tests.contains(&format!("fn {name}(")) && !manifests.contains(&format!("{name}()"))
        })
        .collect();
    assert!(named.len() > 40, "the table names only {} tests", named.len());
    assert!(
        gone.is_empty(),
        "docs/contributing/hazards.md names tests that do not exist: {gone:?}"
    );
}

/// Methods of kube's `Api` and `Client` that talk to the API server.
const CALLS: [&str; 17] = [
    "get",
    "get_opt",
    "get_metadata",
    "list",
    "list_metadata",
    "create",
    "replace",
    "replace_status",
    "patch",
    "patch_metadata",
    "patch_status",
    "delete",
    "delete_collection",
    "watch",
    "request",
    "request_text",
    "apiserver_version",
];

/// Names of a file that are an `Api` or a `Client`: what is declared or bound as one, and functions
/// that return one.
fn callers(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        let tail = text.trim_end().trim_end_matches(':').trim_end();
        let start = tail.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        tail[start..].to_owned()
    };
    let mut found = BTreeSet::from(["client".to_owned()]);
    for line in code.lines() {
        for kind in ["Api<", "&Api<", "Client", "&Client"] {
            for (at, _) in line.match_indices(&format!(": {kind}")) {
                found.insert(word(&line[..at]));
            }
        }
        if let Some((function, returned)) = line.split_once("->")
            && (returned.trim_start().starts_with("Api<"))
            && let Some((name, _)) = function.split_once('(')
        {
            found.insert(word(name));
        }
        if let Some((name, value)) = line.trim_start().trim_start_matches("let ").split_once('=')
            && value.trim_start().starts_with("Api::")
        {
            found.insert(word(name));
        }
    }
    // What is bound to the result of such a function.
    let functions = found.clone();
    for line in code.lines() {
        if let Some((name, value)) = line.trim_start().trim_start_matches("let ").split_once('=')
            && functions.iter().any(|f| value.contains(&format!("self.{f}(")))
        {
            found.extend(
                name.split([',', '(', ')']).map(str::trim).filter(|n| !n.is_empty()).map(word),
            );
        }
    }
    found.remove("");
    found
}

/// The text before the arguments in parentheses that it ends with, if it does.
fn without_arguments(text: &str) -> &str {
    if !text.ends_with(')') {
        return text;
    }
    let mut depth = 0;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// The calls of a file that are not given to `platform::api` as a closure, or as the future of
/// `api::attempt`.
fn direct_calls(code: &str) -> Vec<String> {
    let callers = callers(code);
    // A call over several lines is one line here.
    let flat = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" .", ".");
    let mut faults = Vec::new();
    for call in CALLS {
        for (at, _) in flat.match_indices(&format!(".{call}(")) {
            let before = &flat[..at];
            let receiver = without_arguments(before);
            let part = |c: char| c.is_alphanumeric() || "_.:<>".contains(c);
            let start = receiver.rfind(|c: char| !part(c)).map_or(0, |i| i + 1);
            let path = &receiver[start..];
            let name = path.rsplit('.').next().unwrap_or_default();
            if !path.starts_with("Api::") && !callers.contains(name) {
                continue;
            }
            let lead = receiver[..start].trim_end();
            let closure = lead.ends_with("||") || lead.ends_with("|| async {");
            let attempt =
                lead.rfind("api::attempt(").is_some_and(|from| !lead[from..].contains(';'));
            if !closure && !attempt {
                faults.push(format!("{path}.{call}("));
            }
        }
    }
    faults
}

#[test]
fn the_api_server_is_called_through_one_module_alone() {
    for (code, wrong) in [
        ("let api: Api<Pod> = x; let p = api.get(\"a\").await?;", true),
        ("let pods: Api<Pod> = x;\nlet p = pods\n    .list(&all)\n    .await?;", true),
        ("let api = Api::<Pod>::all(c);\nlet p = timeout(T, api.get_opt(\"a\")).await;", true),
        ("fn secrets(&self) -> Api<Secret> {}\nself.secrets().create(&p, &s).await", true),
        (
            "fn secrets(&self) -> Api<Secret> {}\nlet held = self.secrets();\nheld.create(&p, &s).await",
            true,
        ),
        ("fn services(&self, k: &K) -> Api<S> {}\nself.services(key).get(\"a\").await", true),
        ("Api::<Pod>::namespaced(client.clone(), ns).list(&all).await", true),
        ("self.client.apiserver_version().await", true),
        ("let api: Api<Pod> = x;\nlet f = || api.get(\"a\");\napi::call(c, o, t, f).await", false),
        (
            "let api: Api<Pod> = x;\napi::call(c, o, t, || async { api.get(\"a\").await }).await",
            false,
        ),
        ("fn f(map: &HashMap<String, String>) { map.get(\"a\"); }", false),
    ] {
        assert_eq!(!direct_calls(code).is_empty(), wrong, "{code}");
    }
    let mut faults = Vec::new();
    let mut files = 0;
    for path in rust_files("src") {
        let name = shown(&path);
        // `page` is what the closure given to api::call calls; nothing else there does.
        let exempt =
            ["src/platform/pki/fake.rs", "src/control/watch/page.rs"].contains(&name.as_str());
        let code = code(&path);
        if exempt || is_test(&path) || !code.contains("kube::") {
            continue;
        }
        files += 1;
        faults.extend(direct_calls(&code).into_iter().map(|call| format!("{name}: {call}")));
    }
    assert!(files > 10, "only {files} files speak of kube");
    assert!(faults.is_empty(), "called past src/platform/api:\n{}", faults.join("\n"));
    let spaced = |file: &str| {
        let code = code(&root().join(file));
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(spaced("src/control/watch/page.rs").matches("request_stream(").count(), 1);
    for (file, call) in [
        ("src/control/watch/list.rs", "|| page(&client"),
        ("src/control/reader.rs", "|| { page::page(&self.client"),
    ] {
        let code = spaced(file);
        assert!(code.contains(call), "{file}: a page is called past src/platform/api");
        assert_eq!(code.matches("page(&").count(), 1, "{file}");
    }
}

/// `cargo test` does not run a target that says `test = false`: `make test` has to.
#[test]
fn make_runs_each_test_that_cargo_leaves_out() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let recipe = makefile.split("\ntest: ").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut left_out = Vec::new();
    for manifest in ["Cargo.toml", "core/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let targets = text.split("[[test]]\n").skip(1).filter_map(|t| t.split("\n\n").next());
        let out = targets.filter(|target| target.contains("test = false"));
        left_out.extend(out.map(|t| t.split('"').nth(1).unwrap().to_owned()));
    }
    assert_eq!(left_out, ["model"]);
    for name in left_out {
        let script = format!("scripts/{name}.sh");
        assert!(recipe.contains(&script), "`make test` does not call {script}");
        let text = fs::read_to_string(root().join(&script)).unwrap();
        assert!(text.contains(&format!("--test {name}")), "{script} does not run {name}");
    }
}
