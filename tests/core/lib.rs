//! The core alone: what decides, and what it is made of, without a runtime or a client.
//!
//! scripts/mutants.sh puts this in the place of src/lib.rs and builds the result with the manifest
//! beside it: in a second, where all of zen-lead takes ten. A module that is missing here is no
//! part of the core, and the core must not use it.

#[cfg(test)]
extern crate self as zen_lead;

#[cfg(test)]
mod fixtures;

pub mod admission;
pub mod clock;
pub mod decide;
pub mod decode;
pub mod events {
    //! Reasons, without their publisher.
    mod reason;
    pub use reason::Reason;
}
pub mod index;
pub mod keys;
pub mod metrics;
pub mod names;
pub mod replica;
pub mod shrink;
pub mod spec;
pub mod version;
