//! Lines of an instance between its start and the moment when somebody says where they go.

use std::sync::Arc;

use lyra_types::log::Level;
use parking_lot::Mutex;

use crate::LogSink;

/// Bytes of lines that are kept until then; the rest is dropped.
const EARLY: usize = 64 << 10;

/// Takes lines, and hands them on once it is known where to.
#[derive(Default)]
pub(super) struct Relay(Mutex<State>);

#[derive(Default)]
struct State {
    sink: Option<Arc<dyn LogSink>>,
    early: Vec<(Level, String)>,
    size: usize,
}

impl Relay {
    pub(super) fn lead_to(&self, sink: Arc<dyn LogSink>) {
        let mut state = self.0.lock();
        for (level, line) in std::mem::take(&mut state.early) {
            sink.line(level, &line);
        }
        state.sink = Some(sink);
    }
}

impl LogSink for Relay {
    fn line(&self, level: Level, message: &str) {
        let mut state = self.0.lock();
        match &state.sink {
            Some(sink) => sink.line(level, message),
            None => {
                state.size += message.len() + 1;
                if state.size <= EARLY {
                    state.early.push((level, message.to_owned()));
                }
            }
        }
    }
}
