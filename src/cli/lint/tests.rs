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
fn values_without_quotes_are_told_to_have_them() {
    for (written, value) in [("true", "true"), ("yes", "true"), ("5", "5")] {
        let bad = service("web", &format!("zen-lead.io/sticky: {written}"));
        assert_eq!(
            lines(&bad),
            [format!(
                "-: document 1: Service shop/web: error: metadata.annotations[zen-lead.io/sticky]: \
                 Invalid value: {value}: must be a string; write \"{value}\", with the quotes"
            )]
        );
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
    // The same Service twice (two overlays) is no collision.
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
    let dir = std::env::temp_dir().join(format!("zen-lead-lint-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", GOOD);
    let unwise = file("unwise.yaml", &service("web", "zen-lead.io/sticky: \"false\""));
    let bad = file("bad.yaml", &service("api", "zen-lead.io/sticky: \"no\""));
    let broken = file("broken.yaml", "a: [");
    let missing = dir.join("missing.yaml").to_str().unwrap().to_owned();
    for (paths, code, printed) in [
        (vec![&good], 0, 0),
        (vec![&unwise], 0, 1),
        (vec![&good, &bad], 1, 1),
        (vec![&good, &broken], 2, 1),
        (vec![&bad, &missing], 2, 2),
    ] {
        let paths: Vec<String> = paths.into_iter().cloned().collect();
        let mut out = Vec::new();
        let found = run(&paths, NameRule::Dns1035, &mut out).unwrap();
        assert_eq!(found, ExitCode::from(code), "{paths:?}");
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), printed, "{paths:?}");
    }
    let none = run(&[], NameRule::Dns1035, &mut Vec::new()).unwrap_err();
    assert_eq!(none.to_string(), "no files to lint; name files, or - for standard input");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let mut out = Vec::new();
    let code = run(&["/nowhere/x.yaml".into()], NameRule::Dns1035, &mut out).unwrap();
    assert_eq!(code, ExitCode::from(2));
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("/nowhere/x.yaml: unreadable: No such file or directory"), "{text}");
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
