//! How far a list or a watch has seen: the resourceVersion of Kubernetes as a number.
//!
//! Versions of one resource type can be compared (KEP-5504, stable since Kubernetes 1.35); versions
//! of two types cannot, and nothing here stops a caller from trying.

use std::fmt;

/// A resourceVersion; `Rv::NONE` is before every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rv(pub u64);

impl Rv {
    /// Nothing has been seen yet.
    pub const NONE: Self = Self(0);

    /// Reads the text of a resourceVersion: decimal digits, no sign, not zero.
    ///
    /// `None` for everything else: a version that cannot be compared must not be taken for one.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|c| c.is_ascii_digit()) || text.starts_with('0') {
            return None;
        }
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Rv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimals_are_versions() {
        for (text, version) in [
            ("1", Some(Rv(1))),
            ("184467", Some(Rv(184_467))),
            ("18446744073709551615", Some(Rv(u64::MAX))),
            ("18446744073709551616", None),
            ("", None),
            ("0", None),
            ("01", None),
            ("+1", None),
            ("-1", None),
            ("1a", None),
        ] {
            assert_eq!(Rv::parse(text), version, "{text:?}");
        }
    }

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        assert!(Rv(9) < Rv(10) && Rv::NONE < Rv(1));
        assert_eq!(Rv(10).to_string(), "10");
    }
}
