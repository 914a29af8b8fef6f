//! Checked names: the key of a Service, and what Kubernetes allows as a Service name.
//!
//! No annotation parsing (`settings`), no lookups (`index`).

use std::fmt;
use std::sync::Arc;

/// Longest Service name, in characters (it must fit a DNS label, RFC 1123).
pub const MAX_SERVICE_NAME: usize = 63;

/// Namespace and name of a Service: the unit of work of the reconcile loop.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// Builds a key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which Service names the API server accepts.
///
/// Before Kubernetes 1.36 a Service name is a DNS-1035 label (it starts with a letter); from then
/// on a DNS-1123 label (it may start with a digit), see KEP-5311.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NameRule {
    /// Starts with a letter: every server.
    #[default]
    Dns1035,
    /// May start with a digit: Kubernetes 1.36 or newer.
    Dns1123,
}

impl NameRule {
    /// Says what is wrong with `name`, or `None` when it is a valid Service name.
    pub fn fault(self, name: &str) -> Option<String> {
        if name.is_empty() {
            return Some("must not be empty".into());
        }
        if name.len() > MAX_SERVICE_NAME {
            return Some(format!(
                "must be no more than {MAX_SERVICE_NAME} characters (it has {})",
                name.len()
            ));
        }
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !name.bytes().all(label) {
            return Some(
                "must consist of lower case letters, digits or '-' (for example 'my-leader')"
                    .into(),
            );
        }
        if name.starts_with('-') || name.ends_with('-') {
            return Some("must start and end with a letter or digit".into());
        }
        if self == Self::Dns1035 && name.as_bytes()[0].is_ascii_digit() {
            return Some(
                "must start with a letter (a digit needs Kubernetes 1.36 or newer)".into(),
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_judged_as_the_api_server_does() {
        let long = "a".repeat(64);
        for (name, rule, ok) in [
            ("web", NameRule::Dns1035, true),
            ("web-1", NameRule::Dns1035, true),
            ("1web", NameRule::Dns1035, false),
            ("1web", NameRule::Dns1123, true),
            ("Web", NameRule::Dns1123, false),
            ("web.a", NameRule::Dns1123, false),
            ("-web", NameRule::Dns1123, false),
            ("web-", NameRule::Dns1123, false),
            ("", NameRule::Dns1123, false),
            (long.as_str(), NameRule::Dns1123, false),
            (&long[..63], NameRule::Dns1123, true),
        ] {
            assert_eq!(rule.fault(name).is_none(), ok, "{name:?} under {rule:?}");
        }
    }
}
