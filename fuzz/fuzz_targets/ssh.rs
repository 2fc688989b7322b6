//! See [`sekisho_fuzz::ssh`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::ssh(data));
