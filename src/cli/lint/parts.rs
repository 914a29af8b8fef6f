//! Splits a file into its documents, as kubectl counts them, and reads each into its own value.
//!
//! So a document that cannot be read does not affect the others, and a message about it has the number and
//! the lines that its author sees. Nothing here knows Kubernetes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Part {
    /// Its number in the file, from 1. Every document between `---` lines counts, also one without
    /// content, and so does every JSON object of several without a separator.
    pub(super) number: usize,
    /// Its values, or why it cannot be read.
    pub(super) values: Result<Vec<(Value, Written)>, String>,
}

/// Labels and annotations as written in the file: the text of each plain scalar, that is, one without
/// quotes. A key that is not in the map was quoted, or its text is unknown.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) items: Vec<Written>,
}

/// A section of the file and the number of lines before it.
struct Stretch<'a> {
    lines_before: usize,
    text: &'a str,
}

/// Splits and reads a file.
pub(super) fn read(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for stretch in stretches(text.trim_start_matches('\u{feff}')) {
        let found = objects(&stretch).unwrap_or_else(|| vec![stretch]);
        for stretch in found {
            let number = parts.len() + 1;
            parts.push(Part { number, values: values(&stretch) });
        }
    }
    parts
}

/// Splits at the lines that begin with `---`. Blank lines before the first one are not a document.
fn stretches(text: &str) -> Vec<Stretch<'_>> {
    let mut found = Vec::new();
    let (mut from, mut at, mut line, mut lines_before) = (0, 0, 0, 0);
    let separates = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    for text_line in text.split_inclusive('\n') {
        if separates(text_line) {
            if from > 0 || separates(text) || !text[..at].trim().is_empty() {
                found.push(Stretch { lines_before, text: &text[from..at] });
            }
            (from, lines_before) = (at, line);
        }
        at += text_line.len();
        line += 1;
    }
    found.push(Stretch { lines_before, text: &text[from..] });
    // The section before a separator on the first line is empty.
    found.retain(|stretch| !stretch.text.is_empty());
    found
}

/// Splits consecutive JSON objects, as kubectl reads them; `None` for anything else.
fn objects<'a>(stretch: &Stretch<'a>) -> Option<Vec<Stretch<'a>>> {
    let whole = stretch.text.strip_prefix("---").unwrap_or(stretch.text);
    let skipped = stretch.text.len() - whole.len();
    if !whole.trim_start().starts_with('{') {
        return None;
    }
    let mut objects = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(whole).into_iter::<IgnoredAny>();
    let mut from = 0;
    while let Some(object) = reader.next() {
        if object.is_err() {
            break;
        }
        objects.push((from, reader.byte_offset()));
        from = reader.byte_offset();
    }
    if !whole[from..].trim().is_empty() {
        // With no object before it, this may be YAML.
        (!objects.is_empty()).then(|| objects.push((from, whole.len())))?;
    }
    let lines = |end: usize| stretch.text[..end].matches('\n').count();
    let cut = |(from, to): (usize, usize)| Stretch {
        lines_before: stretch.lines_before + lines(skipped + from),
        text: &whole[from..to],
    };
    Some(objects.into_iter().map(cut).collect())
}

/// True if the text has only comments, directives and markers.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "..."
    })
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options)
}

fn values(stretch: &Stretch<'_>) -> Result<Vec<(Value, Written)>, String> {
    if is_blank(stretch.text) {
        return Ok(Vec::new());
    }
    let values: Vec<Value> = match yaml(stretch.text) {
        Ok(values) => values,
        Err(error) => {
            let error = error.to_string();
            // JSON that is not YAML: indented with tabs. JSON with a duplicate key is refused too.
            let json = serde_json::from_str(stretch.text).ok();
            return match json.filter(|_| !error.contains("duplicate")) {
                Some(value) => Ok(vec![(value, Written::default())]),
                None => Err(explained(stretch, error)),
            };
        }
    };
    let mut trees = yaml::<Tree>(stretch.text).unwrap_or_default().into_iter();
    let mut with = |value| {
        let tree = trees.next().unwrap_or_default();
        (value, written(tree, stretch.text))
    };
    Ok(values.into_iter().map(&mut with).collect())
}

/// The error, with line numbers of the file instead of the document.
fn explained(stretch: &Stretch<'_>, error: String) -> String {
    if stretch.lines_before == 0 {
        return error;
    }
    let whole = "\n".repeat(stretch.lines_before) + stretch.text;
    yaml::<Value>(&whole).err().map_or(error, |error| error.to_string())
}

/// Read in a second pass, for the positions of labels and annotations.
#[derive(Default, Deserialize)]
struct Tree {
    #[serde(default)]
    metadata: Option<Meta>,
    #[serde(default)]
    items: Option<Vec<Tree>>,
}

type Places = Option<BTreeMap<String, Spanned<IgnoredAny>>>;

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    labels: Places,
    #[serde(default)]
    annotations: Places,
}

fn written(tree: Tree, text: &str) -> Written {
    let plain = |places: Places| {
        let texts = places.into_iter().flatten().filter_map(|(key, place)| {
            let span = place.defined.span();
            let from = usize::try_from(span.byte_offset()?).ok()?;
            let to = from + usize::try_from(span.byte_len()?).ok()?;
            let scalar = text.get(from..to)?.trim();
            let quoted = scalar.starts_with(['"', '\'', '*', '[', '{']);
            (!quoted && !is_marked(&text[..from])).then(|| (key, scalar.to_owned()))
        });
        texts.collect()
    };
    let meta = tree.metadata.unwrap_or_default();
    let items = tree.items.unwrap_or_default();
    Written {
        labels: plain(meta.labels),
        annotations: plain(meta.annotations),
        items: items.into_iter().map(|item| written(item, text)).collect(),
    }
}

/// Whether the text before a scalar makes it a string: a tag (`!!str`) or a block indicator (`|`).
fn is_marked(before: &str) -> bool {
    let line = before.trim_end().rsplit('\n').next().unwrap_or_default();
    let line = line.split(" #").next().unwrap_or_default();
    let last = line.split_whitespace().rfind(|token| !token.starts_with('&'));
    last.is_some_and(|token| token.starts_with(['!', '|', '>']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number and names of the documents that can be read, or the text of the error.
    fn numbered(text: &str) -> Vec<(usize, String)> {
        let shown = |part: Part| match part.values {
            Ok(values) => {
                let names: Vec<String> = values.iter().map(|(v, _)| v.to_string()).collect();
                (part.number, names.join(" "))
            }
            Err(why) => (part.number, why),
        };
        read(text).into_iter().map(shown).collect()
    }

    #[test]
    fn documents_are_counted_as_the_separators_say() {
        let one = |n: usize, text: &str| (n, text.to_owned());
        for (text, wanted) in [
            ("", vec![]),
            ("a: 1", vec![one(1, r#"{"a":1}"#)]),
            ("---\na: 1\n", vec![one(1, r#"{"a":1}"#)]),
            ("\n---\na: 1\n", vec![one(1, r#"{"a":1}"#)]),
            ("# x\n---\na: 1\n", vec![one(1, ""), one(2, r#"{"a":1}"#)]),
            (
                "a: 1\n---\n# x\n---\nb: 1\n",
                vec![one(1, r#"{"a":1}"#), one(2, ""), one(3, r#"{"b":1}"#)],
            ),
            (
                "a: 1\n---\n---\r\nb: 1\n",
                vec![one(1, r#"{"a":1}"#), one(2, ""), one(3, r#"{"b":1}"#)],
            ),
            ("---\n---\nb: 1\n", vec![one(1, ""), one(2, r#"{"b":1}"#)]),
            ("--- {a: 1}\n", vec![one(1, r#"{"a":1}"#)]),
            ("%YAML 1.2\n---\na: 1\n", vec![one(1, ""), one(2, r#"{"a":1}"#)]),
            ("{a: 1}", vec![one(1, r#"{"a":1}"#)]),
            (
                "{\"a\": 1}{\"b\": 1}\n\n{\"c\": 1}\n",
                vec![one(1, r#"{"a":1}"#), one(2, r#"{"b":1}"#), one(3, r#"{"c":1}"#)],
            ),
            (
                "---\n{\"a\": 1}\n{\"b\": 1}\n---\nc: 1\n",
                vec![one(1, r#"{"a":1}"#), one(2, r#"{"b":1}"#), one(3, r#"{"c":1}"#)],
            ),
            ("{\n\t\"a\": 1\n}\n", vec![one(1, r#"{"a":1}"#)]),
        ] {
            assert_eq!(numbered(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_spoils_only_itself_and_names_its_line() {
        let found = numbered("a: 1\n---\nb: 1\nb: 2\n---\nc: 1\n");
        assert_eq!(found.len(), 3);
        assert_eq!(
            (&found[0].1, &found[2].1),
            (&r#"{"a":1}"#.to_owned(), &r#"{"c":1}"#.to_owned())
        );
        assert!(
            found[1].1.contains("duplicate") && found[1].1.contains("line 4"),
            "{}",
            found[1].1
        );
        let found = numbered("{\"a\": 1}\n{\"b\": 1, \"b\": 2}\n{\"c\": 1}\n");
        assert!(
            found[1].1.contains("duplicate") && found[1].1.contains("line 2"),
            "{}",
            found[1].1
        );
        assert_eq!(found[2].1, r#"{"c":1}"#);
        let found = numbered("{\"a\": 1}\n{\"b\": \n");
        assert_eq!((found.len(), found[1].0), (2, 2), "{found:?}");
    }

    #[test]
    fn plain_scalars_keep_their_text() {
        let text = "metadata:\n  annotations:\n    a: 0123\n    b: \"0123\"\n    c: é\n    d: 1e3 # x\n    \
                    e: 'x'\n    f: | # x\n      12\n    g: !!str 5\n    h: &h 7\n    i:\n      8\n  labels: {x: 1_000, y: yes}\n";
        let parts = read(text);
        let (_, written) = &parts[0].values.as_ref().unwrap()[0];
        let shown = |m: &BTreeMap<String, String>| format!("{m:?}");
        assert_eq!(
            shown(&written.annotations),
            r#"{"a": "0123", "c": "é", "d": "1e3", "h": "7", "i": "8"}"#
        );
        assert_eq!(shown(&written.labels), r#"{"x": "1_000", "y": "yes"}"#);
    }
}
