//! How many values a body has, told without reading it: the memory that reading it would take.
//!
//! A glance at bytes. What is no JSON is `review`'s to refuse; up to its mistake it is counted right.

/// Whether there are at most `most` values: commas and opening brackets outside of strings.
pub(super) fn is_within(body: &[u8], most: usize) -> bool {
    // Every value but the first has a byte that is counted.
    if body.len() <= most {
        return true;
    }
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b',' | b'{' | b'[' => values += 1,
            _ => {}
        }
    }
    values <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_strings_are_not() {
        for (text, values) in [
            ("{}", 1),
            (r#"{"a":1,"b":[2,3]}"#, 4),
            (r#"[",,,,[[[[", "{\"{\\", {}]"#, 4),
            (r#""\\",[]"#, 2),
        ] {
            let padded = format!("{text}{}", " ".repeat(20));
            assert!(is_within(padded.as_bytes(), values), "{text}");
            assert!(!is_within(padded.as_bytes(), values - 1), "{text}");
        }
        assert!(is_within(b"[,,,", 4), "too short to have more");
    }
}
