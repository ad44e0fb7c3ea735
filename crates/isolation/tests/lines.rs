//! Lines that a function wrote, for the tests of every back end.

use lyra_isolation::LogSink;
use lyra_types::log::Level;
use parking_lot::Mutex;

/// Keeps every line.
#[derive(Default)]
pub struct Lines(Mutex<Vec<(Level, String)>>);

impl LogSink for Lines {
    fn line(&self, level: Level, message: &str) {
        self.0.lock().push((level, message.to_owned()));
    }
}

impl Lines {
    pub fn all(&self) -> Vec<(Level, String)> {
        self.0.lock().clone()
    }

    pub fn has(&self, text: &str) -> bool {
        self.0.lock().iter().any(|(_, line)| line.contains(text))
    }

    pub fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *self.0.lock())
    }

    /// Whether there is one that is not empty.
    pub fn are_there(&self) -> bool {
        self.0.lock().iter().any(|(_, line)| !line.is_empty())
    }

    /// The texts, which are then gone.
    pub fn texts(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, text)| text).collect()
    }
}
