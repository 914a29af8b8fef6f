//! The zen-lead binary.

fn main() {}
