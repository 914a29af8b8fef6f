//! The fuzz target; its checks are in ../src/lib.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lead_fuzz::review(data));
