//! Messages of conditions that are read back, so that two replicas do not undo each other's without end:
//! the part about one step, and whether two messages say the same but for numbers, times and names made
//! of digits.
//!
//! The server's words carry such (`current time ... is after ...`, `used: services=3`, the port of a
//! connection). What the messages say is composed in `blocks`.

/// What follows a refusal in each message, before the longest wait.
pub(super) const TRIED_AGAIN: &str = "tried again by itself within";

/// The part of a message that begins with one of these and ends with [`TRIED_AGAIN`] and the wait; `None`
/// where there is none.
pub(super) fn part<'a>(message: &'a str, begins: &[String]) -> Option<&'a str> {
    let from = begins.iter().filter_map(|begin| message.find(&**begin)).min()?;
    let rest = message.get(from..)?;
    let wait = rest.find(TRIED_AGAIN)? + TRIED_AGAIN.len();
    let end = rest.get(wait..)?.find(';').map_or(rest.len(), |more| wait + more);
    rest.get(..end)
}

/// The part of `present` that is about the same step as `mine`, whatever it says of it.
pub(super) fn about_the_same<'a>(present: &'a str, mine: &str) -> Option<&'a str> {
    let (step, _) = mine.split_once(": ")?;
    part(present, &[format!("{step}: ")])
}

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
    fn the_part_about_one_step_is_found_among_the_others() {
        let message = "bad port; create_slice shop/a: no; make room; tried again by itself within 300s; \
                       apply_service shop/a: denied; tried again by itself within 300s";
        let part = |begin: &str| part(message, &[begin.to_owned(), "Service \"a\": ".to_owned()]);
        assert_eq!(
            part("create_slice shop/a: "),
            Some("create_slice shop/a: no; make room; tried again by itself within 300s")
        );
        assert_eq!(
            part("apply_service shop/a: "),
            Some("apply_service shop/a: denied; tried again by itself within 300s")
        );
        assert_eq!(part("delete_service shop/a: "), None);
        assert_eq!(part("bad port"), Some(message.split("; apply").next().unwrap()));
        assert_eq!(super::part("create_slice shop/a: no", &["create_slice shop/a: ".into()]), None);
    }

    #[test]
    fn what_is_said_of_the_same_step_is_found_whatever_it_is() {
        let theirs =
            "bad port; create_slice shop/a: out of order; tried again by itself within 300s";
        let same = |mine: &str| about_the_same(theirs, mine);
        let part = "create_slice shop/a: out of order; tried again by itself within 300s";
        assert_eq!(same("create_slice shop/a: forbidden: by rule 7; more"), Some(part));
        assert_eq!(same("create_slice shop/b: out of order"), None);
        assert_eq!(same("create_slice shop/a"), None, "no step is named");
    }

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
