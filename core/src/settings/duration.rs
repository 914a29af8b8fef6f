//! Durations exactly as Go's time.ParseDuration reads them and Duration.String writes them.
//!
//! Users know the grammar from every other Kubernetes field, so verdict, value and error text are
//! Go's (read in go1.26.8, src/time/format.go). No bounds of zen-lead here: that is `settings::values`.

use thiserror::Error;

/// What is wrong with a string that is no Go duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationFault {
    /// Not in the grammar, or outside of 64 bits of nanoseconds.
    #[error("invalid")]
    Invalid,
    /// A number without a unit behind it.
    #[error("missing unit in")]
    MissingUnit,
    /// The unit that Go does not know.
    #[error("unknown unit {} in", quote(.0))]
    UnknownUnit(String),
}

/// A string that Go refuses; displays as Go's own error text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("time: {fault} duration {}", quote(input))]
pub struct ParseError {
    /// What is wrong with it.
    pub fault: DurationFault,
    /// The whole string.
    pub input: String,
}

/// Go's own quoting (not strconv.Quote): bytes outside of printable ASCII become `\xNN`.
fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail"),
        }
    }
    out.push('"');
    out
}

/// One past the largest number of nanoseconds: the magnitude of `i64::MIN`.
const LIMIT: u64 = 1 << 63;

/// Nanoseconds of a unit of Go.
fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // U+00B5 (micro sign) and U+03BC (Greek letter mu), as in Go.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Splits off the leading digits as an integer; `None` when they pass 2^63.
fn leading_int(s: &str) -> Option<(u64, &str)> {
    let end = s.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(s.len());
    let mut value = 0u64;
    for digit in s[..end].bytes() {
        if value > LIMIT / 10 {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
        if value > LIMIT {
            return None;
        }
    }
    Some((value, &s[end..]))
}

/// Splits off the leading digits as a fraction and its scale; digits past 2^63 are dropped.
fn leading_fraction(s: &str) -> (u64, f64, &str) {
    let end = s.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(s.len());
    let (mut value, mut scale) = (0u64, 1f64);
    for digit in s[..end].bytes() {
        if value > LIMIT / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > LIMIT {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value, scale, &s[end..])
}

/// Reads a duration as Go's time.ParseDuration does, in nanoseconds.
///
/// # Errors
/// What Go refuses, for Go's reason.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Go computes fractions in float64, and the same nanosecond needs the same arithmetic"
)]
pub fn parse(input: &str) -> Result<i64, ParseError> {
    let fail = |fault| Err(ParseError { fault, input: input.to_owned() });
    let (negative, mut rest) = match input.as_bytes().first() {
        Some(b'-') => (true, &input[1..]),
        Some(b'+') => (false, &input[1..]),
        _ => (false, input),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return fail(DurationFault::Invalid);
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let Some((mut value, after_int)) = leading_int(rest) else {
            return fail(DurationFault::Invalid);
        };
        let mut digits = after_int.len() != rest.len();
        rest = after_int;
        let (mut fraction, mut scale) = (0, 1.0);
        if let Some(after_point) = rest.strip_prefix('.') {
            (fraction, scale, rest) = leading_fraction(after_point);
            digits |= rest.len() != after_point.len();
        }
        if !digits {
            return fail(DurationFault::Invalid);
        }
        let end = rest.bytes().position(|b| b == b'.' || b.is_ascii_digit()).unwrap_or(rest.len());
        if end == 0 {
            return fail(DurationFault::MissingUnit);
        }
        let unit;
        (unit, rest) = rest.split_at(end);
        let Some(nanos) = unit_nanos(unit) else {
            return fail(DurationFault::UnknownUnit(unit.to_owned()));
        };
        if value > LIMIT / nanos {
            return fail(DurationFault::Invalid);
        }
        value *= nanos;
        if fraction > 0 {
            value += (fraction as f64 * (nanos as f64 / scale)) as u64;
            if value > LIMIT {
                return fail(DurationFault::Invalid);
            }
        }
        // Go wraps here: twice 2^63 ns is read as 0.
        total = total.wrapping_add(value);
        if total > LIMIT {
            return fail(DurationFault::Invalid);
        }
    }
    if negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).or_else(|_| fail(DurationFault::Invalid))
}

/// Writes nanoseconds as Go's Duration.String does: `0s`, `1.5ms`, `1h30m0s`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    match size {
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", decimal(size, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(size, 6)),
        // Nothing at all is no seconds, and has no sign.
        _ => {
            let minutes = size / 60_000_000_000;
            let seconds = decimal(size % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value` divided by ten to the `places`, without trailing zeros.
fn decimal(value: u64, places: usize) -> String {
    let one = 10u64.pow(u32::try_from(places).expect("at most nine places"));
    let fraction = format!("{:0places$}", value % one);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", value / one)
}

#[cfg(test)]
mod tests;
