//! Reads the Prometheus text format strictly: a text that a scraper would refuse or guess at is an error
//! here. Used by the tests of src/platform/metrics, of tests/cluster and of e2e.

use std::collections::{BTreeMap, BTreeSet};

/// The label that makes the buckets of a histogram.
const BOUND: &str = "le";

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A metric: its head and its samples, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// A scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
}

impl Exposition {
    /// The value of the samples of this name (also `..._count` of a histogram) that have at least these
    /// labels; the sum if there are several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.families.values().flat_map(|f| &f.samples);
        let fitting = samples.filter(|s| {
            s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|x| x == v))
        });
        fitting.map(|s| s.value).fold(None, |sum, v| Some(sum.unwrap_or(0.0) + v))
    }

    /// The names and labels of all samples: the series, without their values.
    pub fn series(&self) -> BTreeSet<(String, BTreeMap<String, String>)> {
        let samples = self.families.values().flat_map(|f| &f.samples);
        samples.map(|s| (s.name.clone(), s.labels.clone())).collect()
    }
}

impl Family {
    /// The sets of label names found, without the bound of a bucket.
    pub fn label_sets(&self) -> BTreeSet<BTreeSet<String>> {
        let names = |s: &Sample| s.labels.keys().filter(|k| *k != BOUND).cloned().collect();
        self.samples.iter().map(names).collect()
    }
}

/// Reads a scrape.
///
/// # Errors
/// The first line that breaks the format, and how.
pub fn parse(text: &str) -> Result<Exposition, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    let mut found = Exposition::default();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.split_terminator('\n') {
        let wrong = |why: &str| format!("{why}: {}", line.chars().take(200).collect::<String>());
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            let family = Family { help: help.to_owned(), ..Family::default() };
            if found.families.insert(name.to_owned(), family).is_some() {
                return Err(wrong("a second head"));
            }
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            let family = found.families.get_mut(name).filter(|f| f.kind.is_empty());
            let family = family.filter(|_| name == current).ok_or_else(|| wrong("TYPE here"))?;
            kind.clone_into(&mut family.kind);
        } else {
            let sample = sample(line).ok_or_else(|| wrong("not a sample"))?;
            let family = found.families.get_mut(&current).ok_or_else(|| wrong("no head"))?;
            if !belongs(&sample, &current, &family.kind) {
                return Err(wrong("not of the family above"));
            }
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(wrong("the series is there twice"));
            }
            family.samples.push(sample);
        }
    }
    Ok(found)
}

fn belongs(sample: &Sample, family: &str, kind: &str) -> bool {
    let bound = sample.labels.contains_key(BOUND);
    match (sample.name.strip_prefix(family), kind) {
        (Some(""), "counter" | "gauge") | (Some("_sum" | "_count"), "histogram") => !bound,
        (Some("_bucket"), "histogram") => bound,
        _ => false,
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Reads `name="value",...}` and returns what follows.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        if !is_name(name) || found.insert(name.to_owned(), value).is_some() {
            return None;
        }
        match rest.strip_prefix(',') {
            Some(rest) => text = rest,
            None => return Some((found, rest.strip_prefix('}')?)),
        }
    }
}

/// Reads to the closing quotation mark and returns what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
