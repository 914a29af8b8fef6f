//! The traces of the model without a rule, as docs/contributing/testing.md holds them.

const DOCUMENT: &str = include_str!("../../../docs/contributing/testing.md");

/// The document has this text for this rule; `ZEN_LEAD_MODEL_TRACES=DIR` writes it there instead
/// (scripts/traces.sh puts it into the document).
pub fn documented(rule: &str, text: &str) {
    #[allow(clippy::disallowed_methods, reason = "the environment says whether the test writes")]
    let directory = std::env::var("ZEN_LEAD_MODEL_TRACES");
    if let Ok(directory) = directory {
        std::fs::write(format!("{directory}/{rule}.md"), text).unwrap();
        return;
    }
    let begin = format!("<!-- trace {rule} -->\n");
    let documented =
        DOCUMENT.split_once(&begin).and_then(|(_, rest)| rest.split_once("<!-- end -->"));
    assert_eq!(
        documented.map(|(held, _)| held),
        Some(text),
        "docs/contributing/testing.md has another trace for {rule}; if the new one is right, run scripts/traces.sh"
    );
}
