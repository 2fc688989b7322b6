//! See [`sekisho_fuzz::sealed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::sealed(data));
