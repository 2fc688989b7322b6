//! Waiting with a deadline instead of sleeping.

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value; fails loudly with `what` after `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    wait_until(deadline, condition)
        .unwrap_or_else(|| panic!("waited {deadline:?} in vain for: {what}"))
}

/// Waits until `condition` gives a value; `None` when it has not after `deadline`.
pub fn wait_until<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
