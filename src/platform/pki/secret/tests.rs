//! Tests of the codec: round trips, and invalid data of every kind.

use std::time::Duration;

use proptest::prelude::*;

use super::super::state::{Facts, RotationStep};
use super::*;

const YEAR: Duration = Duration::from_hours(365 * 24);

fn t0() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn ca() -> Ca {
    Ca::generate(t0(), YEAR, None).unwrap()
}

fn states() -> Vec<RotationState> {
    let steady = RotationState::first(ca(), t0(), None);
    let asked = Facts { asked: Some("2026-01-01, key may have leaked".into()), ..Facts::default() };
    let introducing = steady.after(RotationStep::Introduce, t0(), &asked, Some(ca()));
    let introduced = introducing.after(RotationStep::Carried, t0(), &Facts::default(), None);
    let retiring = introduced.after(RotationStep::Switch, t0(), &Facts::default(), None);
    vec![steady, introducing, introduced, retiring]
}

fn set(data: &mut Data, key: &str, text: &str) {
    data.insert(key.into(), ByteString(text.as_bytes().to_vec()));
}

/// The result as text, with the phase if there is one.
fn outcome(data: &Data) -> String {
    match decode(data, t0()) {
        Found::Empty => "empty".into(),
        Found::RotationState { state, repaired } => format!(
            "{}{}{}{}",
            state.phase.as_str(),
            if state.next.is_some() { " next" } else { "" },
            if state.previous.is_some() { " old" } else { "" },
            if repaired { " repaired" } else { "" },
        ),
        Found::Rubbish(error) => error.to_string(),
    }
}

#[test]
fn every_state_comes_back_as_it_was_written_and_foreign_keys_stay() {
    for state in states() {
        let mut before = Data::new();
        set(&mut before, "note", "hands off");
        set(&mut before, OLD_CERT, "left over");
        let data = encode(&state, before);
        assert_eq!(data["note"].0, b"hands off");
        match decode(&data, t0()) {
            Found::RotationState { state: read, repaired } => {
                assert_eq!(*read, state);
                assert!(!repaired, "{:?}", state.phase);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rubbish_differs_from_empty_and_from_what_can_be_repaired() {
    let [steady, introducing, _, retiring] = <[RotationState; 4]>::try_from(states()).unwrap();
    let good = |state: &RotationState| encode(state, Data::new());
    let with = |state: &RotationState, key: &str, text: &str| {
        let mut data = good(state);
        set(&mut data, key, text);
        data
    };
    let other_key = ca().key_pem();
    let leaf = {
        let leaf = steady.current.sign(&["a.b.svc".into()], t0(), YEAR).unwrap();
        let pem = rustls_pki_types::CertificateDer::clone(&leaf.chain()[0]);
        super::super::material::to_pem(&pem)
    };
    let unreadable_key = "the private key cannot be read (PEM PKCS#8 is needed)";
    for (data, want) in [
        (Data::new(), "empty"),
        (with(&steady, CERT, ""), "the certificate cannot be read: no items found"),
        (with(&steady, KEY, ""), unreadable_key),
        (with(&steady, KEY, "not a key"), unreadable_key),
        (with(&steady, KEY, &other_key), "the private key does not belong to the certificate"),
        (
            with(&steady, CERT, &leaf),
            "the certificate is not a CA certificate (see its basicConstraints)",
        ),
        (with(&steady, PHASE, "retiring"), "steady repaired"),
        (with(&steady, PHASE, "x"), "steady repaired"),
        (with(&steady, SINCE, "yesterday"), "steady repaired"),
        (with(&steady, NEXT_CERT, "x"), "steady repaired"),
        (with(&introducing, NEXT_KEY, &other_key), "steady repaired"),
        (with(&introducing, PHASE, "steady"), "introducing next repaired"),
        (with(&retiring, OLD_CERT, "x"), "steady repaired"),
        (with(&retiring, PHASE, ""), "retiring old repaired"),
    ] {
        assert!(outcome(&data).starts_with(want), "{} is not {want}", outcome(&data));
    }
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let state = RotationState::first(ca(), t0(), None);
    let pem = state.current.key_pem();
    let secret = pem.lines().nth(1).unwrap();
    let printed = format!("{state:?} {:#?}", state.current);
    assert!(printed.contains("PrivateKey(hidden)"), "{printed}");
    assert!(!printed.contains(secret) && !printed.contains("BEGIN"), "{printed}");
}

proptest! {
    #[test]
    fn whatever_the_secret_holds_reading_it_does_not_panic(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 7),
    ) {
        let data: Data =
            OURS.iter().zip(values).map(|(k, v)| ((*k).to_owned(), ByteString(v))).collect();
        let got = outcome(&data);
        prop_assert!(!got.starts_with("steady"), "random bytes became a CA: {got}");
    }

    #[test]
    fn a_good_secret_damaged_anywhere_does_not_panic(
        key in 0..OURS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        thread_local!(static GOOD: Data = encode(&states()[1], Data::new()));
        let mut data = GOOD.with(Clone::clone);
        if let Some(value) = data.get_mut(OURS[key]) {
            let at = at.index(value.0.len());
            if cut { value.0.truncate(at) } else { value.0[at] = byte }
        }
        // A damaged certificate may still parse (its signature is not checked here); what is
        // claimed is that reading ends, and that a usable CA can be written again.
        if let Found::RotationState { state, .. } = decode(&data, t0()) {
            let again = encode(&state, data);
            let same = matches!(
                decode(&again, t0()),
                Found::RotationState { state: read, repaired: false } if read == state
            );
            prop_assert!(same);
        }
    }
}
