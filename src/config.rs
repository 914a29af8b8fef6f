//! Command line and environment.
