//! Which plain scalars kubectl does not read as a string.
//!
//! The rules are those of YAML 1.1 as kubectl's parser implements them (go.yaml.in/yaml/v2, resolve.go:
//! `resolveTable`, `resolveMap`, `resolve`), independent of the parser of this program.

/// Texts for a boolean, null, infinity, or not a number.
const WORDS: [&str; 40] = [
    "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no", "No",
    "NO", "false", "False", "FALSE", "off", "Off", "OFF", "~", "null", "Null", "NULL", ".nan",
    ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
    "", "<<",
];

/// True if a scalar without quotes is a string.
pub(super) fn is_string(plain: &str) -> bool {
    !WORDS.contains(&plain) && !is_number(plain)
}

fn is_number(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return false;
    }
    let text = text.replace('_', "");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text).to_ascii_lowercase();
    let all =
        |digits: &str, base: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    for (prefix, base) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return all(digits, base);
        }
    }
    let (mantissa, exponent) =
        digits.split_once('e').map_or((&*digits, None), |(m, e)| (m, Some(e)));
    let exponent = exponent.is_none_or(|e| all(e.strip_prefix(['+', '-']).unwrap_or(e), 10));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = |digits: &str| digits.is_empty() || all(digits, 10);
    exponent && some(whole) && some(fraction) && (!whole.is_empty() || !fraction.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_read_as_kubectl_reads_them() {
        for text in [
            "0", "5", "-1", "+1", "0123", "09", "1_000", "0x1F", "0X1f", "-0x1", "0b11", "0o17",
            "1.10", "1.", ".5", "1e3", "1E+3", "1.5e-3", "1_0.5", "yes", "off", "y", "~", "",
            ".inf", ".NaN",
        ] {
            assert!(!is_string(text), "{text}");
        }
        for text in [
            "5s",
            "1h30m",
            "web",
            "0xg",
            "0x",
            "1.2.3",
            "1e",
            "e3",
            "-",
            ".",
            "+",
            "1-2",
            "2026-01-02",
            "10.0.0.0/8",
            "Y es",
            "yEs",
            "_1",
            "1:30",
            "0b12",
            "nan",
            "infinity",
        ] {
            assert!(is_string(text), "{text}");
        }
    }
}
