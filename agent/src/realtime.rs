//! Asking the kernel to run a thread that detects or cuts before everything ordinary.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Asks for SCHED_FIFO for the calling thread, at the lowest of its priorities: enough to go before
/// everything ordinary. Gives what was granted, or why not.
pub(crate) fn ask_for_realtime() -> String {
    let Ok(priority) = 1_u8.try_into() else { return "refused".to_owned() };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    match set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(priority),
        policy,
    ) {
        Ok(()) => "SCHED_FIFO 1".to_owned(),
        Err(error) => {
            tracing::warn!(error = ?error, state = "detection and cuts compete with every other program", "SCHED_FIFO refused");
            format!("ordinary, SCHED_FIFO refused: {error:?}")
        }
    }
}
