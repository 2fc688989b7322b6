//! See [`sekisho_fuzz::socks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::socks(data));
