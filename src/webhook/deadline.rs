//! How long a review may take: the caller's `?timeout=`, less a margin for the way back.
//!
//! kube-apiserver sends `timeoutSeconds` of the webhook as a Go duration, `?timeout=1s`.

use std::time::Duration;

/// The longest a review may take, and how long it may take when the caller says nothing.
pub(super) const CAP: Duration = Duration::from_secs(10);
/// Kept back so that our answer, rather than silence, reaches the caller; at most a tenth.
const MARGIN: Duration = Duration::from_millis(100);

/// The time for a request with this query string.
pub(super) fn of(query: Option<&str>) -> Duration {
    let asked = query
        .into_iter()
        .flat_map(|q| q.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(go_duration)
        .filter(|d| !d.is_zero())
        .map_or(CAP, |d| d.min(CAP));
    asked.saturating_sub(MARGIN.min(asked / 10))
}

/// Reads what Go's `time.Duration.String` writes for a positive duration.
///
/// Anything else is ignored by the caller, so this may be stricter than `spec::duration`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| end + at);
        seconds += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_timeout_less_a_margin_is_the_deadline() {
        let ms = Duration::from_millis;
        for (query, want) in [
            (None, ms(9_900)),
            (Some(""), ms(9_900)),
            (Some("timeout="), ms(9_900)),
            (Some("timeout=1s"), ms(900)),
            (Some("timeout=2s"), ms(1_900)),
            (Some("a=b&timeout=1.5s"), ms(1_400)),
            (Some("timeout=500ms"), ms(450)),
            (Some("timeout=30s"), ms(9_900)),
            (Some("timeout=1m0s"), ms(9_900)),
            (Some("timeout=0s"), ms(9_900)),
            (Some("timeout=-1s"), ms(9_900)),
            (Some("timeout=1"), ms(9_900)),
            (Some("timeout=1d"), ms(9_900)),
            (Some("timeout=99999999999999999999999999999h"), ms(9_900)),
            (Some("timeout=.s"), ms(9_900)),
        ] {
            assert_eq!(of(query), want, "{query:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_query_gives_a_deadline_within_the_cap(query in ".{0,40}") {
            for query in [query.clone(), format!("timeout={query}")] {
                let got = of(Some(&query));
                proptest::prop_assert!(got <= CAP);
            }
        }
    }
}
