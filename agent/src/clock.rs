//! The only reader of time.

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};
use sekisho_schema::{Span, Timestamp};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock, the same clock that the kernel stamps frames with.
#[must_use]
pub fn now() -> Timestamp {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Most by which the kernel's count of ticks is behind its clock now: what the kernel times by ticks, as the ends of set
/// elements, would come so much early.
///
/// Up to two ticks of 1 to 10 ms on an idle machine; 28 ms were seen where a virtual machine's host took the core away
/// that counts. The coarse clock moves with the count, and its resolution is a tick (clock_getres(2)).
pub(crate) fn behind_ticks() -> Duration {
    // A system call, where the clocks themselves are read without.
    static TICK: LazyLock<i64> =
        LazyLock::new(|| span(clock_getres(ClockId::MonotonicCoarse)).nanos());
    let counted = reading(ClockId::MonotonicCoarse);
    let is = reading(ClockId::Monotonic);
    // The count stands at the tick before the one at which the coarse clock was read, by less than one.
    let behind = is.nanos() - counted.nanos() + *TICK;
    Duration::from_nanos(u64::try_from(behind).unwrap_or(0))
}

/// What a clock of the kernel shows now.
pub(crate) fn reading(clock: ClockId) -> Span {
    span(clock_gettime(clock))
}

fn span(time: Timespec) -> Span {
    Span::from_nanos(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
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
