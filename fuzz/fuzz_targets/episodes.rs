//! See [`sekisho_fuzz::episodes`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::episodes(data));
