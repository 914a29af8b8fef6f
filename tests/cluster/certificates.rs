//! Certificates on a real API server: rotations under calls, and what is put right by itself.
//!
//! `ZEN_LEAD_ROTATION_CALLS` and `ZEN_LEAD_ROTATIONS` say how much at least; `ZEN_LEAD_COLD_STARTS`
//! how many starts from nothing.

mod calls;
mod fleet;
mod rotation;

use crate::support::harness::Test;

pub fn tests() -> Vec<Test> {
    rotation::tests()
}
