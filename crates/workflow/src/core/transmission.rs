//! T: a datum has become available, and is handed to the tasks that wait for it.
//!
//! A task whose last input this was goes to scheduling, exactly once: it waits for one thing at a time, and is taken
//! from the list of those who wait before it is looked at again.

use super::datum::Datum;
use super::state::Wait;
use super::{Core, DataKey};

impl Core {
    /// Puts a value in its place and a token in the queue.
    pub(super) fn provide(&mut self, key: DataKey, value: Datum) {
        self.state.values.insert(key.clone(), value);
        self.queues.transmission.push_back(key);
    }

    pub(super) fn transmit(&mut self, key: DataKey) {
        self.trace_data(&key);
        self.branch(&key);
        self.wake(&Wait::Data(key));
    }
}
