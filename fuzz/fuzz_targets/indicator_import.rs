//! See [`sekisho_fuzz::indicator_import`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::indicator_import(data));
