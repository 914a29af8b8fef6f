//! How long a review may take: the caller's `?timeout=`, minus a margin for the answer to arrive.
//!
//! kube-apiserver sends `timeoutSeconds` of the webhook as a Go duration, `?timeout=1s`.

use std::time::Duration;

use zen_lead_core::settings::duration;

/// The longest time for a review, also used if the caller sends no timeout.
pub(super) const CAP: Duration = Duration::from_secs(10);
/// Subtracted so that the answer reaches the caller in time; at most a tenth of the timeout.
const MARGIN: Duration = Duration::from_millis(100);

/// The deadline for a request with this query string.
pub(super) fn of(query: Option<&str>) -> Duration {
    let asked = query
        .into_iter()
        .flat_map(|q| q.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(positive)
        .map_or(CAP, |d| d.min(CAP));
    asked.saturating_sub(MARGIN.min(asked / 10))
}

/// A positive duration in Go's notation; `None` for any other text.
fn positive(text: &str) -> Option<Duration> {
    let nanos = u64::try_from(duration::parse(text).ok()?).ok()?;
    (nanos > 0).then(|| Duration::from_nanos(nanos))
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
