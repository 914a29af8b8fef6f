//! Resource versions as numbers: how far a replica has seen, and the marks recorded on slices.
//!
//! Versions are comparable within one resource type only (KEP-5504). No I/O, no clock.

use std::fmt;

/// A `metadata.resourceVersion`; [`Rv::NONE`] is before every version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The version of an object's metadata; zero when it has none.
    pub fn of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Self {
        meta.resource_version.as_deref().and_then(Self::parse).unwrap_or_default()
    }
}

impl fmt::Display for Rv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a decision had seen, per resource type: the value of `zen-lead.io/decided-at`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Version of the Services seen.
    pub services: Rv,
    /// Version of the pods seen.
    pub pods: Rv,
}

impl Marks {
    /// Reads `services=RV,pods=RV`; what is missing or malformed counts as zero (nothing seen).
    pub fn parse(text: &str) -> Self {
        let mut marks = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("services", rv)) => marks.services = Rv::parse(rv).unwrap_or_default(),
                Some(("pods", rv)) => marks.pods = Rv::parse(rv).unwrap_or_default(),
                _ => {}
            }
        }
        marks
    }

    /// True when these marks lie behind `other` for any type.
    pub fn behind(&self, other: &Self) -> bool {
        self.services < other.services || self.pods < other.pods
    }

    /// True when these marks say nothing of a type that `other` knows: they were removed or changed.
    pub fn lack(&self, other: &Self) -> bool {
        let lacks = |own: Rv, other: Rv| own == Rv::NONE && other != Rv::NONE;
        lacks(self.services, other.services) || lacks(self.pods, other.pods)
    }

    /// The further of the two, type by type.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { services: self.services.max(other.services), pods: self.pods.max(other.pods) }
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "services={},pods={}", self.services, self.pods)
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

    #[test]
    fn marks_are_read_as_they_are_written() {
        let marks = Marks { services: Rv(12), pods: Rv(7) };
        assert_eq!(marks.to_string(), "services=12,pods=7");
        assert_eq!(Marks::parse("services=12,pods=7"), marks);
        assert_eq!(Marks::parse("pods=x,,nodes=3"), Marks::default());
    }

    #[test]
    fn marks_lack_a_type_that_others_know() {
        let marks = |services, pods| Marks { services: Rv(services), pods: Rv(pods) };
        assert!(marks(0, 5).lack(&marks(1, 1)) && marks(5, 0).lack(&marks(1, 1)));
        assert!(!marks(5, 0).lack(&marks(9, 0)) && !marks(1, 1).lack(&marks(9, 9)));
    }

    #[test]
    fn behind_in_one_type_is_behind() {
        let a = Marks { services: Rv(5), pods: Rv(9) };
        assert!(a.behind(&Marks { services: Rv(6), pods: Rv(1) }));
        assert!(!a.behind(&a));
        assert_eq!(
            a.max(Marks { services: Rv(6), pods: Rv(1) }),
            Marks { services: Rv(6), pods: Rv(9) }
        );
    }
}
