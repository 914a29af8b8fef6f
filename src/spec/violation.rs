//! A broken rule: which field, which value, which rule, and what to write instead.
//!
//! No judging here (that is `spec` and `admission::verdict`), only the words.

/// The rules a Service can break; the label of `zen_lead_webhook_violations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A `zen-lead.io/` key that does not exist.
    UnknownKey,
}

impl Rule {
    /// The rule as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
        }
    }
}

/// One broken rule, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Field path, as Kubernetes writes it: `metadata.annotations[zen-lead.io/sticky]`.
    pub field: String,
    /// The rule that is broken.
    pub rule: Rule,
    /// One sentence: what was found, what is allowed, what to write instead.
    pub message: String,
}
