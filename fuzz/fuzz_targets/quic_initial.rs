//! See [`sekisho_fuzz::quic_initial`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sekisho_fuzz::quic_initial(data));
