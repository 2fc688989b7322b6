//! Asking the kernel to run a thread that detects or cuts before everything ordinary.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, Builder};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Asks for SCHED_FIFO for the calling thread, at the lowest of its priorities: enough to go before
/// everything ordinary. Gives what was granted, or why not.
pub(crate) fn ask_for_realtime() -> String {
    match become_realtime() {
        Ok(()) => "SCHED_FIFO 1".to_owned(),
        Err(error) => {
            tracing::warn!(
                error,
                state = "detection and cuts compete with every other program",
                "SCHED_FIFO refused"
            );
            format!("ordinary, SCHED_FIFO refused: {error}")
        }
    }
}

/// Does what keeps the kernel on one core for milliseconds, in a thread of the class of those who cut: only then
/// are they woken on another core. Where it is refused, the work is done all the same.
///
/// # Errors
/// No thread can be started.
pub(crate) fn where_nobody_waits<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = Builder::new().name("walk".to_owned()).spawn_scoped(scope, || {
            let _refused = become_realtime();
            work()
        })?;
        worker.join().map_err(|panic| resume_unwind(panic))
    })
}

fn become_realtime() -> Result<(), String> {
    let priority = 1_u8.try_into()?;
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(priority);
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
        .map_err(|error| format!("{error:?}"))
}
