//! The only reader of time.

use sekisho_schema::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, the same clock that the kernel stamps frames with.
#[must_use]
pub fn now() -> Timestamp {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Names this run of the agent: sixteen random hexadecimal digits, so that two runs never share a sequence.
#[must_use]
pub fn boot_id() -> String {
    let mut bytes = [0_u8; 8];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = now().nanos().to_be_bytes();
    }
    sekisho_schema::sealed::hex(&bytes)
}
