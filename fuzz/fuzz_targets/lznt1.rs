//! See [`sekisho_fuzz::lznt1`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::lznt1(data));
