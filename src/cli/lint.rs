//! `zen-lead lint`: the rules of admission, offline, over YAML or JSON files.
//!
//! The rules are the core's (`settings`, `admission::verdict`). Here files become Services, the other
//! Services in the same files become their neighbours, and findings become lines of text.

mod documents;
mod files;
mod parts;
mod scalars;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;

use super::{key_of, unless_closed};
use crate::shared::SharedView;
use documents::{Document, Unit};
use zen_lead_core::admission::verdict::{Change, Neighbours, Question, verdict};
use zen_lead_core::index::{Index, Limits};
use zen_lead_core::names::NameRule;
use zen_lead_core::settings::{self, Rule, Violation};

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// Allowed but unwise.
    Warning,
    /// Admission would refuse it.
    Error,
    /// It cannot be checked.
    Unreadable,
}

/// A problem in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, `-` for standard input.
    pub file: String,
    /// Number of the document in the file, from 1; 0 when the file could not be opened.
    pub document: usize,
    /// The Service, as `namespace/name` or `name`; empty if unknown.
    pub service: String,
    /// How severe it is.
    pub severity: Severity,
    /// The rule that is violated; `None` for a warning.
    pub rule: Option<Rule>,
    /// Field path; empty if the finding is about the whole object.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if self.document > 0 {
            write!(f, "document {}: ", self.document)?;
        }
        if !self.service.is_empty() {
            write!(f, "Service {}: ", self.service)?;
        }
        write!(f, "{}: ", self.severity)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A failure of lint itself.
#[derive(Debug, Error)]
pub enum LintError {
    /// No file was named.
    #[error("no files to lint; name files or directories, or - for standard input")]
    NoFiles,
    /// No file has a Service.
    #[error(
        "no Service in {}: nothing was checked; a Service has apiVersion: v1 and kind: Service; \
         with --allow-no-service this is no error",
        .0.join(", ")
    )]
    NoService(Vec<String>),
    /// The findings could not be written.
    #[error("cannot write the findings: {0}")]
    Output(#[source] io::Error),
}

/// Checks all Services in YAML documents or JSON.
pub fn lint(documents: &str, names: NameRule) -> Vec<Finding> {
    lint_files(&[("-".to_owned(), documents.to_owned())], names)
}

/// Checks all Services of several files (name and text) together, because they may conflict.
pub fn lint_files(files: &[(String, String)], names: NameRule) -> Vec<Finding> {
    check_all(&documents(files), names)
}

fn documents(files: &[(String, String)]) -> Vec<Document> {
    files.iter().flat_map(|(file, text)| documents::read(file, text)).collect()
}

fn check_all(documents: &[Document], names: NameRule) -> Vec<Finding> {
    let index = Arc::new(RwLock::new(index_of(documents, names)));
    let others = SharedView { index: &index, synced: true };
    documents.iter().flat_map(|document| check(document, &others, names)).collect()
}

/// Reads the files (`-` is standard input) and those below directories, and prints the findings.
///
/// Exit code 0: admission would refuse nothing (there may be warnings); 1: it would refuse something; 2: a
/// file or document cannot be read. A reader that closes the pipe early (`| head -1`) does not change it.
///
/// # Errors
/// If no file was named, no file has a Service (unless `may_lack_services`), or the findings cannot be
/// written.
pub fn run(
    paths: &[String],
    names: NameRule,
    may_lack_services: bool,
    out: &mut dyn Write,
) -> Result<ExitCode, LintError> {
    if paths.is_empty() {
        return Err(LintError::NoFiles);
    }
    let mut files = Vec::new();
    let mut findings = Vec::new();
    for (path, text) in paths.iter().flat_map(|path| files::read(path)) {
        match text {
            Ok(text) => files.push((path, text)),
            Err(message) => findings.push(Finding {
                file: path,
                document: 0,
                service: String::new(),
                severity: Severity::Unreadable,
                rule: Some(Rule::Unreadable),
                field: String::new(),
                message,
            }),
        }
    }
    let documents = documents(&files);
    findings.extend(check_all(&documents, names));
    let printed = findings.iter().try_for_each(|finding| writeln!(out, "{finding}"));
    unless_closed(printed.and_then(|()| out.flush())).map_err(LintError::Output)?;
    if documents.is_empty() && findings.is_empty() && !may_lack_services {
        return Err(LintError::NoService(paths.to_vec()));
    }
    Ok(match findings.iter().map(|finding| finding.severity).max() {
        None | Some(Severity::Warning) => ExitCode::SUCCESS,
        Some(Severity::Error) => ExitCode::from(1),
        Some(Severity::Unreadable) => ExitCode::from(2),
    })
}

/// All findings of one document.
fn check(document: &Document, others: &dyn Neighbours, names: NameRule) -> Vec<Finding> {
    let finding = |severity, rule, field: &str, message: &str| Finding {
        file: document.file.clone(),
        document: document.number,
        service: document.label(),
        severity,
        rule,
        field: field.to_owned(),
        message: message.to_owned(),
    };
    let refusal = |violation: &Violation| {
        finding(Severity::Error, Some(violation.rule), &violation.field, &violation.message)
    };
    let warned =
        document.warnings.iter().map(|(field, text)| finding(Severity::Warning, None, field, text));
    let mut findings = match &document.unit {
        Unit::Unreadable(why) => {
            vec![finding(Severity::Unreadable, Some(Rule::Unreadable), "", why)]
        }
        Unit::Misspelt(violations) => violations.iter().map(refusal).collect(),
        // zen-lead's own leader Service, in an export of a live cluster.
        Unit::Service(service) if settings::leader_of(service).is_some_and(|of| of.owned) => {
            Vec::new()
        }
        Unit::Service(service) => {
            let (namespace, name) = key_of(service);
            let question = Question {
                operation: Change::Create,
                old: None,
                new: service,
                namespace: &namespace,
                name: &name,
                by_zen_lead: false,
            };
            let verdict = verdict(&question, others, names);
            let refused = verdict.violations.iter().map(refusal);
            let unwise =
                verdict.warnings.iter().map(|text| finding(Severity::Warning, None, "", text));
            refused.chain(unwise).collect()
        }
    };
    findings.extend(warned);
    findings
}

/// The Services of the files, as neighbours of each other.
fn index_of(documents: &[Document], names: NameRule) -> Index {
    let mut index = Index::new(names, Limits::NONE);
    for document in documents {
        let Unit::Service(service) = &document.unit else { continue };
        let mut service = (**service).clone();
        // What only the API server adds may be absent. Of two Services with one name, the last one counts.
        let metadata = &mut service.metadata;
        metadata.namespace.get_or_insert_default();
        metadata.name.get_or_insert_default();
        metadata.uid.get_or_insert_default();
        metadata.resource_version = None;
        index.apply_service(service);
    }
    index
}

#[cfg(test)]
mod tests;
