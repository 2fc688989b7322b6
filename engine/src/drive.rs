//! The one rule by which frames are fed to the engine, in a replay as in a live capture.

use crate::engine::Engine;
use crate::input::Input;
use crate::output::Output;
use crate::wire::Frame;
use sekisho_schema::Timestamp;

/// Feeds one frame: every deadline due before it is processed first, at its own time.
pub fn step(engine: &mut Engine, frame: Frame<'_>, sink: &mut impl FnMut(Output)) {
    tick(engine, Timestamp::from_nanos(frame.at_ns), sink);
    engine.handle(Input::Frame(frame));
    drain(engine, sink);
}

/// Processes every deadline up to `now`, each at its own time.
pub fn tick(engine: &mut Engine, now: Timestamp, sink: &mut impl FnMut(Output)) {
    if engine.poll_timeout().is_some_and(|due| due <= now) {
        engine.handle_timeout(now);
        drain(engine, sink);
    }
}

/// Feeds frames until there are no more; deadlines after the last frame stay open.
pub fn drive<'a>(
    engine: &mut Engine,
    frames: impl Iterator<Item = Frame<'a>>,
    mut sink: impl FnMut(Output),
) {
    for frame in frames {
        step(engine, frame, &mut sink);
    }
}

fn drain(engine: &mut Engine, sink: &mut impl FnMut(Output)) {
    while let Some(output) = engine.poll_output() {
        sink(output);
    }
}
