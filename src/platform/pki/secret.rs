//! Decodes the data of the Secret into a [`RotationState`], and encodes it.
//!
//! Pure. The whole state is in `data`, not in annotations: so a tool that rewrites metadata cannot separate a
//! phase from its keys. Annotations hold only the requests of an administrator.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::material::{Ca, CaCertificate, MaterialError};
use super::state::{RotationPhase, RotationState};
use zen_lead_core::keys::request;

const CERT: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_CERT: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
const OLD_CERT: &str = "old-ca.crt";
const PHASE: &str = "phase";
const SINCE: &str = "phase-since";
const ANSWERED: &str = "rotate-ca-answered";
const OURS: [&str; 8] = [CERT, KEY, NEXT_CERT, NEXT_KEY, OLD_CERT, PHASE, SINCE, ANSWERED];

/// The data of a Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// The requests of an administrator, from annotations of the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// A new CA.
    pub(super) ca: Option<String>,
    /// New leaves.
    pub(super) leaf: Option<String>,
}

impl Requests {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let get =
            |key: &str| meta.annotations.as_ref()?.get(key).filter(|v| !v.is_empty()).cloned();
        Self { ca: get(request::ROTATE_CA), leaf: get(request::ROTATE_LEAF) }
    }
}

/// The content of the Secret.
#[derive(Debug)]
pub(super) enum Found {
    /// No data of zen-lead: a Secret as the manifests create it.
    Empty,
    /// A CA that can sign.
    RotationState {
        /// The state.
        state: Box<RotationState>,
        /// Whether an unusable part was left out, so that the Secret should be written again.
        repaired: bool,
    },
    /// Data without a usable CA.
    Rubbish(MaterialError),
}

/// Reads a Secret; never fails, whatever its content. `now` replaces an unreadable time.
pub(super) fn decode(data: &Data, now: Timestamp) -> Found {
    let get = |key: &str| data.get(key).map_or(&[][..], |v| v.0.as_slice());
    if OURS.iter().all(|key| get(key).is_empty()) {
        return Found::Empty;
    }
    let current = match Ca::from_pem(get(CERT), get(KEY)) {
        Ok(ca) => ca,
        Err(error) => return Found::Rubbish(error),
    };
    let mut next = Ca::from_pem(get(NEXT_CERT), get(NEXT_KEY)).ok();
    let previous = CaCertificate::from_pem(get(OLD_CERT)).ok();
    let lost = |key: &str, kept: bool| !get(key).is_empty() && !kept;
    let mut repaired = lost(NEXT_CERT, next.is_some())
        || lost(NEXT_KEY, next.is_some())
        || lost(OLD_CERT, previous.is_some());

    let text = |key: &str| std::str::from_utf8(get(key)).unwrap_or_default();
    let written = text(PHASE).parse().ok();
    let phase = match (written, &next, &previous) {
        // A phase is valid only together with its CA.
        (Some(RotationPhase::Introduced), Some(_), _) => RotationPhase::Introduced,
        (Some(RotationPhase::Retiring), _, Some(_)) | (_, None, Some(_)) => RotationPhase::Retiring,
        (_, Some(_), _) => RotationPhase::Introducing,
        (_, None, None) => RotationPhase::Steady,
    };
    if phase == RotationPhase::Retiring && next.take().is_some() {
        repaired = true;
    }
    let since = text(SINCE).parse::<Timestamp>().ok();
    repaired |= written != Some(phase) || since.is_none();
    let since = since.unwrap_or(now);
    let answered = Some(text(ANSWERED)).filter(|a| !a.is_empty()).map(str::to_owned);
    let state = RotationState { current, next, previous, phase, since, answered };
    Found::RotationState { state: Box::new(state), repaired }
}

/// Writes `state` into the data of a Secret; keys of others are kept.
pub(super) fn encode(state: &RotationState, mut data: Data) -> Data {
    for key in OURS {
        data.remove(key);
    }
    let mut put = |key: &str, text: String| data.insert(key.into(), ByteString(text.into_bytes()));
    put(CERT, state.current.certificate.to_pem());
    put(KEY, state.current.key_pem());
    if let Some(next) = &state.next {
        put(NEXT_CERT, next.certificate.to_pem());
        put(NEXT_KEY, next.key_pem());
    }
    if let Some(previous) = &state.previous {
        put(OLD_CERT, previous.to_pem());
    }
    put(PHASE, state.phase.as_str().into());
    put(SINCE, state.since.to_string());
    if let Some(answered) = &state.answered {
        put(ANSWERED, answered.clone());
    }
    data
}

#[cfg(test)]
mod tests;
