//! The wiring of the process.
