//! Whether two messages say the same but for numbers, times and names made of digits.
//!
//! The server's words carry such (`current time ... is after ...`, `used: services=3`, the port of a
//! connection). Two replicas that each write theirs would undo each other's condition without end.

/// The part of `present` that says what `mine` says, in its own numbers; `None` where there is none.
pub(super) fn as_said<'a>(present: &'a str, mine: &str) -> Option<&'a str> {
    let wanted: Vec<&str> = mine.split_whitespace().collect();
    let there: Vec<&str> = present.split_whitespace().collect();
    let same = |(a, b): (&&str, &&str)| a == b || (numbered(a) && numbered(b));
    let at = there.windows(wanted.len().max(1)).position(|w| w.iter().zip(&wanted).all(same))?;
    let (first, last) = (there.get(at)?, there.get(at + wanted.len().checked_sub(1)?)?);
    let start = first.as_ptr() as usize - present.as_ptr() as usize;
    let end = last.as_ptr() as usize - present.as_ptr() as usize + last.len();
    Some(present.get(start..end)?.trim_end_matches(';'))
}

fn numbered(word: &str) -> bool {
    word.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_numbers_only_is_taken_as_it_is_said_already() {
        let mine =
            "x509: current time 2026-01-02T03:04:05Z is after 2026-01-01T00:00:00Z; within 300s";
        let said =
            "x509: current time 2026-01-02T03:09:59Z is after 2026-01-01T00:00:00Z; within 300s";
        assert_eq!(as_said(said, mine), Some(said));
        assert_eq!(as_said(&format!("a leads; {said}; b: standby"), mine), Some(said));
        assert_eq!(as_said("x509: certificate signed by unknown authority", mine), None);
        assert_eq!(as_said("", mine), None);
        assert_eq!(as_said("anything", ""), None);
    }
}
