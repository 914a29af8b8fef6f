//! Durations against what go1.26.8 prints for the same strings.

use proptest::prelude::*;

use super::*;

/// Strings, and value and text as Go reads and writes them.
const GOOD: &[(&str, i64, &str)] = &[
    ("0", 0, "0s"),
    ("+0", 0, "0s"),
    ("-0", 0, "0s"),
    ("5s", 5_000_000_000, "5s"),
    ("+5s", 5_000_000_000, "5s"),
    ("-5s", -5_000_000_000, "-5s"),
    (".5s", 500_000_000, "500ms"),
    ("5.s", 5_000_000_000, "5s"),
    ("1h0m0.5s", 3_600_500_000_000, "1h0m0.5s"),
    ("1\u{b5}s", 1_000, "1\u{b5}s"),
    ("1\u{3bc}s", 1_000, "1\u{b5}s"),
    ("1us", 1_000, "1\u{b5}s"),
    ("1ns", 1, "1ns"),
    ("1ms", 1_000_000, "1ms"),
    ("1.5h", 5_400_000_000_000, "1h30m0s"),
    ("9223372036854775807ns", i64::MAX, "2562047h47m16.854775807s"),
    ("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s"),
    ("9223372036854775808ns9223372036854775808ns", 0, "0s"),
    ("-9223372036854775808ns9223372036854775808ns", 0, "0s"),
    ("9223372036.854775807s", i64::MAX, "2562047h47m16.854775807s"),
    ("-9223372036.854775808s", i64::MIN, "-2562047h47m16.854775808s"),
    ("2562047h47m16.854775807s", i64::MAX, "2562047h47m16.854775807s"),
    ("0.9223372036854775807h", 3_320_413_933_267, "55m20.413933267s"),
    ("0.830103483285477580700h", 2_988_372_539_827, "49m48.372539827s"),
    ("0.000000000000000000000000000000001s", 0, "0s"),
    ("0.100000000000000000000h", 360_000_000_000, "6m0s"),
    ("0.0s", 0, "0s"),
    ("1m30s", 90_000_000_000, "1m30s"),
    ("100\u{b5}s5ns", 100_005, "100.005\u{b5}s"),
    ("9007199254.740993ms", 9_007_199_254_740_993, "2501h59m59.254740993s"),
];

/// Strings that Go refuses, and its words.
const BAD: &[(&str, &str)] = &[
    ("5s-3s", r#"time: unknown unit "s-" in duration "5s-3s""#),
    ("922337203685477580700s", r#"time: invalid duration "922337203685477580700s""#),
    ("", r#"time: invalid duration """#),
    ("-", r#"time: invalid duration "-""#),
    ("+", r#"time: invalid duration "+""#),
    ("--5s", r#"time: invalid duration "--5s""#),
    ("+-5s", r#"time: invalid duration "+-5s""#),
    ("5s0", r#"time: missing unit in duration "5s0""#),
    ("1h0", r#"time: missing unit in duration "1h0""#),
    ("1m-0s", r#"time: unknown unit "m-" in duration "1m-0s""#),
    ("5d", r#"time: unknown unit "d" in duration "5d""#),
    ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
    ("-9223372036854775809ns", r#"time: invalid duration "-9223372036854775809ns""#),
    ("9223372036.854775808s", r#"time: invalid duration "9223372036.854775808s""#),
    (
        "9223372036854775808ns9223372036.9s",
        r#"time: invalid duration "9223372036854775808ns9223372036.9s""#,
    ),
    (".s", r#"time: invalid duration ".s""#),
    ("s", r#"time: invalid duration "s""#),
    ("3", r#"time: missing unit in duration "3""#),
    ("3.", r#"time: missing unit in duration "3.""#),
    ("1e3s", r#"time: unknown unit "e" in duration "1e3s""#),
    ("1 s", r#"time: unknown unit " s" in duration "1 s""#),
    (" 1s", r#"time: invalid duration " 1s""#),
    ("1s ", r#"time: unknown unit "s " in duration "1s ""#),
    ("1H", r#"time: unknown unit "H" in duration "1H""#),
    ("1hour", r#"time: unknown unit "hour" in duration "1hour""#),
    ("0s0", r#"time: missing unit in duration "0s0""#),
    ("00", r#"time: missing unit in duration "00""#),
    ("0xffs", r#"time: unknown unit "xffs" in duration "0xffs""#),
    ("1.2.3s", r#"time: missing unit in duration "1.2.3s""#),
    ("\u{e9}5s", r#"time: invalid duration "\xc3\xa95s""#),
    ("5\u{e9}", r#"time: unknown unit "\xc3\xa9" in duration "5\xc3\xa9""#),
    ("3000000h", r#"time: invalid duration "3000000h""#),
    ("\"5s", r#"time: invalid duration "\"5s""#),
    ("5s\n", r#"time: unknown unit "s\x0a" in duration "5s\x0a""#),
];

#[test]
fn reads_and_writes_what_go_reads_and_writes() {
    for (text, nanos, written) in GOOD {
        assert_eq!(parse(text), Ok(*nanos), "{text:?}");
        assert_eq!(format(*nanos), *written, "{text:?}");
    }
}

#[test]
fn refuses_what_go_refuses_in_its_words() {
    for (text, words) in BAD {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), *words, "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(nanos in any::<i64>()) {
        prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
    }

    #[test]
    fn short_durations_are_read_back_too(nanos in -5_000_000_000i64..5_000_000_000) {
        prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
    }

    #[test]
    fn no_string_panics(text in r"[-+0-9.hmsnu\u{b5}\u{3bc} e]{0,40}", any in ".*") {
        for text in [text, any] {
            if let Err(error) = parse(&text) {
                prop_assert!(error.to_string().starts_with("time: "));
            }
        }
    }
}
