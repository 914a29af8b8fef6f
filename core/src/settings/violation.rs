//! A broken rule: which field, which value, which rule, and what to write instead.
//!
//! No judging here (that is `settings` and `admission::verdict`), only the words. They follow the ones
//! of Kubernetes (apimachinery, util/validation/field/errors.go), so that ours read like its own.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};
use thiserror::Error;

/// Longest piece of a user's value that is repeated in a message, in characters.
const MAX_QUOTED: usize = 64;
/// Longest annotation key that is repeated in a field path, in characters.
const MAX_KEY: usize = 128;

/// The rules a Service can break; the label of `zen_lead_webhook_violations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Rule {
    /// A `zen-lead.io/` key that does not exist.
    UnknownKey,
    /// A key that only zen-lead writes.
    StatusKey,
    /// A value that is neither `true` nor `false`.
    Boolean,
    /// A value outside of a closed list.
    Choice,
    /// A string that Go does not read as a duration.
    DurationSyntax,
    /// A duration below zero or above the limit.
    DurationRange,
    /// A leader name that is no Service name.
    LeaderName,
    /// The default leader name would be too long.
    DefaultLeaderName,
    /// A leader name that is the Service's own.
    LeaderNameSelf,
    /// A list of annotation keys that cannot be copied.
    CopyAnnotations,
    /// A list of label keys that cannot be copied.
    CopyLabels,
    /// A Service that cannot take the leader of another one.
    SameLeader,
    /// A mirrored Service with a provider annotation that copy-annotations does not name.
    ProviderAnnotation,
    /// The source is an ExternalName Service.
    ExternalName,
    /// The source selects no pods.
    NoSelector,
    /// The source has no ports.
    NoPorts,
    /// The source is itself a leader Service.
    SourceIsLeader,
    /// The leader name belongs to a Service that is not ours.
    NameTaken,
    /// The leader name belongs to another source.
    NameClaimed,
    /// The Service's own name is the leader name of another source.
    OwnNameClaimed,
    /// The namespace has as many enabled Services as zen-lead serves.
    NamespaceLimit,
    /// The selector matches more pods than zen-lead looks at.
    PodLimit,
    /// The Service is larger than zen-lead reads.
    TooLarge,
    /// A value that is not a string (only in files; the API server does not let it through).
    NotAString,
    /// A document that cannot be read as a Service (only in files).
    Unreadable,
}

/// Why Kubernetes says a field is wrong: the `reason` of a StatusCause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(prefix = "FieldValue")]
pub enum Cause {
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`.
    NotSupported,
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueForbidden`.
    Forbidden,
    /// `FieldValueTooMany`.
    TooMany,
}

impl Cause {
    /// How a message of this cause begins.
    fn lead(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooMany => "Too many",
        }
    }
}

crate::texts!(Cause);
crate::texts!(all Rule);

/// One broken rule, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct Violation {
    /// Field path, as Kubernetes writes it: `metadata.annotations[zen-lead.io/sticky]`.
    pub field: String,
    /// The rule that is broken.
    pub rule: Rule,
    /// What Kubernetes calls the mistake.
    pub cause: Cause,
    /// One sentence: what was found, what is allowed, what to write instead.
    pub message: String,
}

impl Violation {
    /// A violation whose message repeats the (cut) value: `Invalid value: "yes": must be ...`.
    pub fn of_value(
        field: impl Into<String>,
        rule: Rule,
        cause: Cause,
        value: &str,
        detail: impl fmt::Display,
    ) -> Self {
        let message = format!("{}: {}: {detail}", cause.lead(), quoted(value));
        Self { field: field.into(), rule, cause, message }
    }

    /// A violation that is not about a value: `Required value: ...`, `Forbidden: ...`.
    pub fn plain(
        field: impl Into<String>,
        rule: Rule,
        cause: Cause,
        detail: impl fmt::Display,
    ) -> Self {
        Self { field: field.into(), rule, cause, message: format!("{}: {detail}", cause.lead()) }
    }
}

/// Field path of an annotation; very long keys are cut.
pub fn annotation_field(key: &str) -> String {
    format!("metadata.annotations[{}]", cut(key, MAX_KEY))
}

/// Field path of a label; very long keys are cut.
pub fn label_field(key: &str) -> String {
    format!("metadata.labels[{}]", cut(key, MAX_KEY))
}

/// The value in quotes, escaped, and cut so that no message carries a megabyte of input.
pub fn quoted(value: &str) -> String {
    if value.chars().nth(MAX_QUOTED).is_none() {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(MAX_QUOTED).collect();
    format!("{start:?}... ({} bytes)", value.len())
}

/// The text without control characters, and not longer than `limit` characters.
fn cut(text: &str, limit: usize) -> String {
    let mut out: String = text.chars().take(limit).flat_map(char::escape_debug).collect();
    if text.chars().nth(limit).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_has_its_own_metric_label() {
        let labels: HashSet<_> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
        assert_eq!(labels.len(), Rule::ALL.len());
        for label in labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        }
    }

    #[test]
    fn values_are_escaped_and_cut() {
        assert_eq!(quoted("yes"), r#""yes""#);
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
        assert_eq!(quoted(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
        let megabyte = "\u{e9}".repeat(1 << 20);
        assert_eq!(quoted(&megabyte), format!("\"{}\"... (2097152 bytes)", "\u{e9}".repeat(64)));
        let field = annotation_field(&format!("zen-lead.io/{}", "k".repeat(1 << 20)));
        assert_eq!(field, format!("metadata.annotations[zen-lead.io/{}...]", "k".repeat(116)));
        assert_eq!(label_field("a\u{1b}[0m"), r"metadata.labels[a\u{1b}[0m]");
    }
}
