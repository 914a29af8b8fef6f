//! Files in, findings and exit codes out.

use super::*;

/// The findings, a line each.
fn lines(documents: &str) -> Vec<String> {
    lint(documents, NameRule::Dns1035).iter().map(ToString::to_string).collect()
}

const GOOD: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations:
    zen-lead.io/enabled: "true"
spec:
  selector: {app: web}
  ports: [{port: 80}]
"#;

/// [`GOOD`] under another name and with another line of annotations.
fn service(name: &str, annotation: &str) -> String {
    let named = GOOD.replace("name: web", &format!("name: {name}"));
    named.replace("annotations:", &format!("annotations:\n    {annotation}"))
}

#[test]
fn good_files_have_no_findings() {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {annotations: {zen-lead.io/enabled: yes}}";
    let knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {annotations: {zen-lead.io/x: y}}";
    for documents in ["", "---\n---\n", "# nothing\n", GOOD, other, knative, "[1, 2]", "just text"]
    {
        assert_eq!(lines(documents), Vec::<String>::new(), "{documents}");
    }
    let json = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": []}).to_string();
    assert_eq!(lines(&json), Vec::<String>::new());
}

#[test]
fn mistakes_are_named_with_file_document_and_service() {
    let documents = format!("{GOOD}---\n{}", service("api", "zen-lead.io/stikcy: \"false\""));
    assert_eq!(
        lines(&documents),
        ["-: document 2: Service shop/api: error: metadata.annotations[zen-lead.io/stikcy]: \
          Unsupported value: \"zen-lead.io/stikcy\": no such key; did you mean \"zen-lead.io/sticky\"?"]
    );
}

#[test]
fn lists_and_json_are_looked_into() {
    let item = |kind: serde_json::Value| {
        let mut item = serde_json::json!({
            "metadata": {"name": "web", "annotations": {"zen-lead.io/sticky": "no"}},
        });
        for (key, value) in kind.as_object().unwrap() {
            item[key] = value.clone();
        }
        item
    };
    let whole = item(serde_json::json!({"apiVersion": "v1", "kind": "Service"}));
    let bare = item(serde_json::json!({}));
    let list = |kind: &str, items: &[&serde_json::Value]| serde_json::json!({"apiVersion": "v1", "kind": kind, "items": items});
    let nested = list("List", &[&list("List", &[&whole])]);
    for (documents, findings) in [
        (whole.to_string(), 1),
        (list("List", &[&whole]).to_string(), 1),
        (list("List", &[&bare]).to_string(), 0),
        (list("ServiceList", &[&bare]).to_string(), 1),
        (nested.to_string(), 1),
        (format!("---\n{whole}\n---\n{whole}\n"), 2),
    ] {
        assert_eq!(lines(&documents).len(), findings, "{documents}");
    }
    assert_eq!(
        lines(&whole.to_string()),
        ["-: document 1: Service web: error: metadata.annotations[zen-lead.io/sticky]: \
          Invalid value: \"no\": must be \"true\" or \"false\"; write \"false\""]
    );
}

#[test]
fn values_without_quotes_get_advice_to_quote_them() {
    for written in
        ["true", "yes", "off", "5", "0123", "1e3", "0x1F", "1_000", "1.10", "0123 # a comment"]
    {
        let bad = service("web", &format!("zen-lead.io/leader-service-name: {written}"));
        let text = written.split(' ').next().unwrap();
        assert_eq!(
            lines(&bad),
            [format!(
                "-: document 1: Service shop/web: error: \
                 metadata.annotations[zen-lead.io/leader-service-name]: Invalid value: {text}: must \
                 be a string; write \"{text}\", with the quotes"
            )]
        );
        let list = bad.replace('\n', "\n  ");
        let list =
            format!("apiVersion: v1\nkind: List\nitems:\n-{}", list.trim_start_matches('\n'));
        let list = list.replace("-  apiVersion", "- apiVersion");
        assert_eq!(lines(&list), lines(&bad), "{list}");
    }
    // The same for JSON, with the text as written.
    let json = "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\",\
                \"labels\":{\"a\":1.10},\"annotations\":{\"b\":\"yes\"}}}";
    assert_eq!(
        lines(json),
        ["-: document 1: Service web: error: metadata.labels[a]: Invalid value: 1.10: must be a \
          string; write \"1.10\", with the quotes"]
    );
    // Strings for kubectl too, dates among them.
    for text in ["2026-01-02", "\"0123\"", "'yes'", "web-1", "!!str 5"] {
        assert_eq!(lines(&service("web", &format!("example.com/a: {text}"))), Vec::<String>::new());
    }
    assert_eq!(
        lines(&service("web", "zen-lead.io/sticky:")),
        ["-: document 1: Service shop/web: error: metadata.annotations[zen-lead.io/sticky]: \
          Invalid value: null: must be a string; write a value, or leave the key out"]
    );
    assert_eq!(
        lines(&service("web", "zen-lead.io/sticky: [a]")),
        ["-: document 1: Service shop/web: error: metadata.annotations[zen-lead.io/sticky]: \
          Invalid value: must be a string, not a list or a map"]
    );
}

#[test]
fn services_of_the_same_files_collide() {
    let api = service("api", "zen-lead.io/leader-service-name: web-leader");
    let plain = "apiVersion: v1\nkind: Service\nmetadata: {name: web-leader, namespace: shop}\n";
    let elsewhere = plain.replace("namespace: shop", "namespace: other");
    assert_eq!(
        lines(&format!("{GOOD}---\n{api}")),
        [
            "-: document 1: Service shop/web: error: \
             metadata.annotations[zen-lead.io/leader-service-name]: Duplicate value: \
             \"web-leader\": asked for as leader name by Service \"api\" already; set another name \
             with this annotation",
            "-: document 2: Service shop/api: error: \
             metadata.annotations[zen-lead.io/leader-service-name]: Duplicate value: \
             \"web-leader\": asked for as leader name by Service \"web\" already; choose another name",
        ]
    );
    assert_eq!(
        lines(&format!("{GOOD}---\n{plain}")),
        [
            "-: document 1: Service shop/web: error: \
             metadata.annotations[zen-lead.io/leader-service-name]: Duplicate value: \
             \"web-leader\": Service \"web-leader\" exists in namespace \"shop\" and was not made by \
             zen-lead; set another name with this annotation, or delete that Service first",
            "-: document 2: Service shop/web-leader: error: metadata.name: Duplicate value: \
             \"web-leader\": this is the name of the leader Service of \"web\"; choose another name",
        ]
    );
    assert_eq!(lines(&format!("{GOOD}---\n{elsewhere}")), Vec::<String>::new());
    // The same Service twice (two overlays) is not a conflict.
    assert_eq!(lines(&format!("{GOOD}---\n{GOOD}")), Vec::<String>::new());
}

#[test]
fn an_export_of_a_live_cluster_is_clean() {
    let leader = r#"
apiVersion: v1
kind: Service
metadata:
  name: web-leader
  namespace: shop
  labels: {app.kubernetes.io/managed-by: zen-lead, zen-lead.io/source-service: web}
  annotations: {zen-lead.io/leader-epoch: "1764000000000"}
  ownerReferences:
  - {apiVersion: v1, kind: Service, name: web, uid: u1, controller: true}
spec:
  ports: [{port: 80}]
"#;
    assert_eq!(lines(&format!("{GOOD}---\n{leader}")), Vec::<String>::new());
    let copied = leader.replace("controller: true", "controller: false");
    assert_eq!(
        lint(&copied, NameRule::Dns1035).iter().map(|finding| finding.rule).collect::<Vec<_>>(),
        [Some(Rule::StatusKey), Some(Rule::StatusKey)]
    );
}

#[test]
fn what_cannot_be_read_is_said_so() {
    let found = lint("a: b\n  c: {{ .Values.x }}\n", NameRule::Dns1035);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].rule), (Severity::Unreadable, Some(Rule::Unreadable)));
    assert!(found[0].message.starts_with("neither YAML nor JSON: "), "{}", found[0].message);
    let wrong = lines(&GOOD.replace("[{port: 80}]", "http"));
    assert_eq!(wrong.len(), 1);
    assert!(
        wrong[0].starts_with(
            "-: document 1: Service shop/web: unreadable: not a Service: invalid type: string \"http\""
        ),
        "{}",
        wrong[0]
    );
    let mut deep = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": []});
    for _ in 0..6 {
        deep = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [deep]});
    }
    assert_eq!(
        lines(&deep.to_string()),
        ["-: document 1: unreadable: lists nested more than 4 deep"]
    );
}

#[test]
fn the_exit_code_says_how_bad_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", GOOD);
    let unwise = file("unwise.yaml", &service("web", "zen-lead.io/sticky: \"false\""));
    let bad = file("bad.yaml", &service("api", "zen-lead.io/sticky: \"no\""));
    let broken = file("broken.yaml", "a: [");
    let other = file("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    let empty = file("empty.yaml", "");
    let missing = dir.path().join("missing.yaml").to_str().unwrap().to_owned();
    for (paths, code, printed) in [
        (vec![&good], 0, 0),
        (vec![&unwise], 0, 1),
        (vec![&good, &bad], 1, 1),
        (vec![&good, &broken], 2, 1),
        (vec![&bad, &missing], 2, 2),
        // All files count together: one of them may have no Service.
        (vec![&good, &other], 0, 0),
    ] {
        let paths: Vec<String> = paths.into_iter().cloned().collect();
        let mut out = Vec::new();
        let found = run(&paths, NameRule::Dns1035, false, &mut out).unwrap();
        assert_eq!(found, ExitCode::from(code), "{paths:?}");
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), printed, "{paths:?}");
    }
    for paths in [vec![empty.clone()], vec![other.clone()], vec![empty, other]] {
        let none = run(&paths, NameRule::Dns1035, false, &mut Vec::new()).unwrap_err();
        let names = paths.join(", ");
        assert_eq!(
            none.to_string(),
            format!(
                "no Service in {names}: nothing was checked; a Service has apiVersion: v1 and kind: \
                 Service; with --allow-no-service this is no error"
            )
        );
        let allowed = run(&paths, NameRule::Dns1035, true, &mut Vec::new()).unwrap();
        assert_eq!(allowed, ExitCode::SUCCESS);
    }
    let none = run(&[], NameRule::Dns1035, false, &mut Vec::new()).unwrap_err();
    assert_eq!(
        none.to_string(),
        "no files to lint; name files or directories, or - for standard input"
    );
}

/// Accepts this many writes, and behaves like a closed pipe afterwards.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (annotation, code) in [("sticky: \"false\"", 0), ("sticky: \"no\"", 1)] {
        let path = dir.path().join("many.yaml");
        let one = service("web", &format!("zen-lead.io/{annotation}"));
        std::fs::write(&path, format!("{one}---\n").repeat(5)).unwrap();
        let paths = [path.to_str().unwrap().to_owned()];
        let found = run(&paths, NameRule::Dns1035, false, &mut Pipe(1)).unwrap();
        assert_eq!(found, ExitCode::from(code), "{annotation}");
    }
}

#[test]
fn each_document_is_checked_alone_under_the_number_that_users_see() {
    let bad = |name: &str| service(name, "zen-lead.io/sticky: \"no\"");
    let twice = GOOD.replace("  name: web\n", "  name: web\n  name: web\n");
    let documents =
        format!("# a header\n---\n{}---\n{twice}---\n# nothing\n---\n{}", bad("a"), bad("b"));
    let found = lines(&documents);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("-: document 2: Service shop/a: error: "), "{}", found[0]);
    assert!(
        found[1].starts_with("-: document 3: unreadable: neither YAML nor JSON: "),
        "{}",
        found[1]
    );
    // The header and two separators, 13 lines of the first Service, one separator, and the fifth line of this one.
    assert!(found[1].contains("duplicate") && found[1].contains("line 21"), "{}", found[1]);
    assert!(found[2].starts_with("-: document 5: Service shop/b: error: "), "{}", found[2]);
}

#[test]
fn json_objects_without_separator_are_documents() {
    let one = |name: &str, sticky: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name,
                "annotations": {"zen-lead.io/sticky": sticky, "zen-lead.io/enabled": "true"},
            },
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        })
    };
    let documents = format!("{}\n{:#}{}", one("a", "no"), one("b", "true"), one("c", "no"));
    let found = lines(&documents);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("-: document 1: Service a: error: "), "{}", found[0]);
    assert!(found[1].starts_with("-: document 3: Service c: error: "), "{}", found[1]);
}

#[test]
fn a_key_without_value_is_reported() {
    let labelled =
        GOOD.replace("  annotations:", "  labels: {team: }\n  annotations:\n    example.com/a:");
    let what = |field: &str| {
        format!(
            "-: document 1: Service shop/web: warning: {field}: has no value: the API server stores \"\" \
             for it, and kubectl apply removes the key where it exists; write \"\", or leave the key \
             out"
        )
    };
    assert_eq!(
        lines(&labelled),
        [what("metadata.labels[team]"), what("metadata.annotations[example.com/a]")]
    );
}

#[test]
fn what_was_meant_as_a_service_is_reported() {
    let with = |kind: &str, version: &str| {
        GOOD.replace("kind: Service", &format!("kind: {kind}")).replace("apiVersion: v1", version)
    };
    for (kind, version, field, found, right) in [
        ("service", "apiVersion: v1", "kind", "service", "Service"),
        ("Serivce", "apiVersion: v1", "kind", "Serivce", "Service"),
        ("Services", "apiVersion: v1", "kind", "Services", "Service"),
        ("Service", "apiVersion: V1", "apiVersion", "V1", "v1"),
        ("Service", "apiVersion: v2", "apiVersion", "v2", "v1"),
        ("Service", "apiVersion: apps/v1", "apiVersion", "apps/v1", "v1"),
        ("Service", "apiversion: v1", "apiVersion", "", "v1"),
    ] {
        assert_eq!(
            lines(&with(kind, version)),
            [format!(
                "-: document 1: Service shop/web: error: {field}: Unsupported value: \"{found}\": this is \
                 not a Service for the API server; write {right}"
            )]
        );
    }
    for (kind, version) in [
        ("Secret", "v1"),
        ("ServiceAccount", "v1"),
        ("Service", "serving.knative.dev/v1"),
        ("Service", "core.example.com/v1"),
    ] {
        assert_eq!(lines(&with(kind, &format!("apiVersion: {version}"))), Vec::<String>::new());
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let mut out = Vec::new();
    let code = run(&["/nowhere/x.yaml".into()], NameRule::Dns1035, false, &mut out).unwrap();
    assert_eq!(code, ExitCode::from(2));
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("/nowhere/x.yaml: unreadable: No such file or directory"), "{text}");
}

#[test]
fn of_a_directory_all_manifests_below_it_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let bad = GOOD.replace("name: web", "name: api").replace("zen-lead.io/", "zen-lead.io/x-");
    std::fs::create_dir_all(at("apps/empty")).unwrap();
    std::fs::write(at("web.yaml"), GOOD).unwrap();
    std::fs::write(at("apps/api.yml"), &bad).unwrap();
    std::fs::write(at("notes.txt"), &bad).unwrap();
    std::os::unix::fs::symlink(dir.path(), at("apps/circle")).unwrap();
    let linted = |path: std::path::PathBuf| {
        let mut out = Vec::new();
        let code = run(&[path.display().to_string()], NameRule::Dns1035, false, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    let (code, text) = linted(dir.path().to_owned());
    assert_eq!(code, ExitCode::from(1), "{text}");
    let place = format!("{}: document 1: ", at("apps/api.yml").display());
    assert!(!text.is_empty() && text.lines().all(|line| line.starts_with(&place)), "{text}");
    let (code, text) = linted(at("apps/empty"));
    assert_eq!(code, ExitCode::from(2));
    assert!(
        text.contains("the directory has no file that ends with .yaml, .yml or .json"),
        "{text}"
    );
}

proptest::proptest! {
    #[test]
    fn no_document_panics(text in "[-a-z:{}\\[\\]&*#|>\"' \n]{0,80}", any in ".{0,80}") {
        for text in [text, any] {
            for finding in lint(&text, NameRule::Dns1035) {
                proptest::prop_assert!(finding.message.len() < 2_000);
            }
        }
    }
}
