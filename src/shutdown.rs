//! Signals and the phases of a shutdown.
