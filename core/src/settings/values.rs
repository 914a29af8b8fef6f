//! The value of each setting: one small reader a type, each with its words of refusal.
//!
//! Nothing here looks at another annotation or at the Service's shape (`settings`).

use std::time::Duration;

use strum::VariantArray;

use super::duration::{self, DurationFault};
use super::violation::{Cause, Rule, Violation, annotation_field, quoted};
use super::{LeaderType, PortsMode, Strategy};
use crate::names::NameRule;

/// Longest min-ready-duration.
pub const MAX_MIN_READY: Duration = Duration::from_hours(24);
/// Longest failover-min-delay.
pub const MAX_FAILOVER_DELAY: Duration = Duration::from_hours(1);

/// A setting with a closed list of values, each with the text that it is written as.
pub(super) trait Keyword: VariantArray + Copy + Into<&'static str> {
    /// The value meant by what people write instead (in lower case), where spelling does not tell.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
}

impl Keyword for Strategy {}

impl Keyword for PortsMode {}

impl Keyword for LeaderType {
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("nodeport", "mirror"), ("loadbalancer", "mirror")];
}

/// Reads `true` or `false`, nothing else.
pub(super) fn boolean(key: &str, value: &str) -> Result<bool, Violation> {
    let meant = match value {
        "true" => return Ok(true),
        "false" => return Ok(false),
        other => match plain_form(other).as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" | "enabled" | "enable" => Some("true"),
            "false" | "f" | "no" | "n" | "off" | "0" | "disabled" | "disable" => Some("false"),
            _ => None,
        },
    };
    let hint = meant.map(|meant| format!("; write \"{meant}\"")).unwrap_or_default();
    let detail = format!("must be \"true\" or \"false\"{hint}");
    Err(invalid(key, Rule::Boolean, value, &detail))
}

/// Reads a value of a closed list.
pub(super) fn choice<T: Keyword>(key: &str, value: &str) -> Result<T, Violation> {
    let texts = T::VARIANTS.iter().map(|choice| (*choice).into());
    if let Some(place) = texts.clone().position(|text| text == value) {
        return Ok(T::VARIANTS[place]);
    }
    let listed: Vec<_> = texts.clone().map(|text| format!("\"{text}\"")).collect();
    let plain = plain_form(value);
    let alias = T::ALIASES.iter().find(|(text, _)| *text == plain).map(|(_, meant)| *meant);
    let meant = alias.or_else(|| nearest(&plain, texts));
    let hint = meant.map(|meant| format!("; write \"{meant}\"")).unwrap_or_default();
    Err(Violation::of_value(
        annotation_field(key),
        Rule::Choice,
        Cause::NotSupported,
        value,
        format!("supported values: {}{hint}", listed.join(", ")),
    ))
}

/// Reads a Go duration between zero and `max`.
pub(super) fn span(key: &str, value: &str, max: Duration) -> Result<Duration, Violation> {
    let nanos = duration::parse(value).map_err(|error| {
        let detail = match error.fault {
            DurationFault::Invalid if value.trim() != value => {
                format!("must be a duration without spaces; write {}", quoted(value.trim()))
            }
            DurationFault::Invalid => {
                "must be a duration such as \"30s\", \"1m30s\" or \"2h\"".into()
            }
            DurationFault::MissingUnit => missing_unit(value),
            DurationFault::UnknownUnit(unit) => format!(
                "unknown unit {}; units are \"ns\", \"us\", \"ms\", \"s\", \"m\" and \"h\", \
                 such as \"1m30s\"",
                quoted(&unit)
            ),
        };
        invalid(key, Rule::DurationSyntax, value, &detail)
    })?;
    match u64::try_from(nanos).map(Duration::from_nanos) {
        Ok(span) if span <= max => Ok(span),
        Ok(_) => {
            let detail = format!("must be at most \"{}\"", format(max));
            Err(invalid(key, Rule::DurationRange, value, &detail))
        }
        Err(_) => {
            Err(invalid(key, Rule::DurationRange, value, "must not be negative; write \"0s\""))
        }
    }
}

/// What to write instead of a number without a unit.
fn missing_unit(value: &str) -> String {
    if value.len() < 20 && value.bytes().all(|b| b.is_ascii_digit()) {
        return format!("has no unit; write {} for seconds", quoted(&format!("{value}s")));
    }
    "has a number without a unit; units are \"ns\", \"us\", \"ms\", \"s\", \"m\" and \"h\"".into()
}

/// Reads the name of the leader Service of the Service `own`.
pub(super) fn leader_name(
    key: &str,
    value: &str,
    own: &str,
    names: NameRule,
) -> Result<String, Violation> {
    if value.is_empty() {
        let detail = "must not be empty; leave the annotation out for the default";
        return Err(invalid(key, Rule::LeaderName, value, detail));
    }
    if let Some(fault) = names.fault(value) {
        let meant = service_name_form(value);
        let hint = match names.fault(&meant) {
            None if meant != own => format!("; write \"{meant}\""),
            _ => String::new(),
        };
        return Err(invalid(key, Rule::LeaderName, value, &format!("{fault}{hint}")));
    }
    if value == own {
        let detail = format!(
            "must not be the Service itself; the leader Service is a second one, for example {}",
            quoted(&super::default_leader_name(own))
        );
        return Err(invalid(key, Rule::LeaderNameSelf, value, &detail));
    }
    Ok(value.to_owned())
}

/// Reads the name of another source: its own Service name would be a circle.
pub(super) fn other_source(
    key: &str,
    value: &str,
    own: &str,
    names: NameRule,
) -> Result<String, Violation> {
    if let Some(fault) = names.fault(value) {
        let detail = format!("is no name of a Service: it {fault}");
        return Err(invalid(key, Rule::SameLeader, value, &detail));
    }
    if value == own {
        let detail = "must not be the Service itself; name another enabled Service of this \
                      namespace, or leave the annotation out";
        return Err(invalid(key, Rule::SameLeader, value, detail));
    }
    Ok(value.to_owned())
}

/// The nearest of `candidates`, if it is within two edits of `text`.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        // Lengths first: comparing a megabyte with each key would cost seconds.
        .filter(|candidate| candidate.len().abs_diff(text.len()) <= 8)
        .map(|candidate| (strsim::osa_distance(&plain_form(candidate), text), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A duration as Go writes it.
pub(super) fn format(span: Duration) -> String {
    duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// The value without the differences people do not mean: case and outer spaces or quotes.
fn plain_form(value: &str) -> String {
    // Longer than anything that could be meant, so that no megabyte is copied.
    if value.len() > 64 {
        return String::new();
    }
    value.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'').to_ascii_lowercase()
}

/// The nearest thing to a Service name that the value contains.
fn service_name_form(value: &str) -> String {
    if value.len() > 128 {
        return String::new();
    }
    value.trim().to_ascii_lowercase().replace(['_', '.', ' ', '/'], "-")
}

/// An annotation with an invalid value.
pub(super) fn invalid(key: &str, rule: Rule, value: &str, detail: &str) -> Violation {
    Violation::of_value(annotation_field(key), rule, Cause::Invalid, value, detail)
}

/// Says what keeps a text from being the key of an annotation or label, or `None`.
///
/// As the API server judges annotations: an optional DNS subdomain and `/`, then at most 63 letters,
/// digits, `-`, `_` or `.` that start and end with a letter or digit. The subdomain of a label must
/// be in lower case too.
pub(super) fn qualified_name_fault(key: &str) -> Option<&'static str> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    let edges = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if let Some(domain) = domain {
        let label = |label: &str| {
            edges(label) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if domain.len() > 253 || !domain.split('.').all(label) {
            return Some("before the \"/\" there must be a DNS name, such as \"example.com\"");
        }
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() > 63 {
        return Some("the name must be no more than 63 characters");
    }
    if !edges(name) || !name.bytes().all(allowed) {
        return Some(
            "the name must consist of letters, digits, \"-\", \"_\" or \".\", and start and end \
             with a letter or digit",
        );
    }
    None
}
