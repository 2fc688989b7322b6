//! See [`sekisho_fuzz::indicators_compiled`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::indicators_compiled(data));
