//! See [`sekisho_fuzz::rule_pack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::rule_pack(data));
