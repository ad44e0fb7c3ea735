//! The lines that wait to be written: where callers, the writer thread and queries meet.
//!
//! What must hold: [`Queue::offer`] takes one short lock and never waits for the disk; lines and bytes
//! are bounded, and no function holds more than half of either; [`Queue::flush`] returns only once every
//! line that was offered before it is in the file (or counted as lost).

use std::collections::HashMap;
use std::time::Duration;

use lyra_types::log::{Level, LogLine};
use lyra_types::{FunctionName, TenantName};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Whose lines: tenant and function.
pub(crate) type Source = (TenantName, FunctionName);

/// A line's place in memory beside its text, roughly, in bytes.
const LINE_OVERHEAD: usize = 160;
/// Most deletions that wait for the writer.
const MAX_COMMANDS: usize = 1_024;

/// Work for the writer beside lines.
pub(crate) enum Command {
    /// Delete all lines of a function.
    Forget(Source, oneshot::Sender<Result<(), crate::error::Error>>),
}

/// What the writer gets in one go. Commands come after the lines.
#[derive(Default)]
pub(crate) struct Taken {
    pub lines: Vec<LogLine>,
    pub commands: Vec<Command>,
    /// How many of `lines` the queue counts; the rest are notes about dropped lines.
    pub counted: u64,
    /// The queue is closed and this is the last of it.
    pub last: bool,
}

#[derive(Default)]
struct Held {
    lines: usize,
    bytes: usize,
    dropped: u64,
    last_dropped: Option<LogLine>,
}

#[derive(Default)]
struct State {
    lines: Vec<LogLine>,
    bytes: usize,
    held: HashMap<Source, Held>,
    commands: Vec<Command>,
    offered: u64,
    written: u64,
    urgent: bool,
    closed: bool,
}

pub(crate) struct Queue {
    max_lines: usize,
    max_bytes: usize,
    state: Mutex<State>,
    /// Rung when the writer has something to do.
    work: Condvar,
    /// Rung when lines were written.
    done: Condvar,
}

impl Queue {
    pub(crate) fn new(max_lines: usize, max_bytes: usize) -> Queue {
        Queue { max_lines, max_bytes, state: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// Takes a line, or says that there is no room for it.
    pub(crate) fn offer(&self, line: LogLine) -> bool {
        let size = line.message.len() + LINE_OVERHEAD;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return false;
        }
        let held = state.held.entry((line.tenant.clone(), line.function.clone())).or_default();
        let fits = state.lines.len() < self.max_lines
            && state.bytes + size <= self.max_bytes
            && held.lines < self.max_lines.div_ceil(2)
            && held.bytes + size <= self.max_bytes.div_ceil(2);
        if !fits {
            held.dropped += 1;
            // The text of a dropped line is not kept: the note needs only who wrote it, and when.
            held.last_dropped = Some(LogLine { message: String::new(), ..line });
            return false;
        }
        held.lines += 1;
        held.bytes += size;
        state.lines.push(line);
        state.bytes += size;
        state.offered += 1;
        // The writer sleeps until the first line, then until a batch is together.
        let wake =
            state.lines.len() == 1 || state.lines.len() == self.max_lines / 4 || state.bytes > self.max_bytes / 4;
        drop(guard);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// Hands work to the writer; `false` when there is too much of it or the writer has ended.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.commands.len() >= MAX_COMMANDS {
            return false;
        }
        state.commands.push(command);
        drop(state);
        self.work.notify_one();
        true
    }

    /// Blocks until every line offered so far is written, `limit` at most. Says whether that was reached.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        let target = state.offered;
        if state.written >= target {
            return true;
        }
        state.urgent = true;
        self.work.notify_one();
        !self.done.wait_while_for(&mut state, |state| state.written < target, limit).timed_out()
    }

    /// Blocks until there is work, `idle` at most, then lets a batch come together for `delay`.
    pub(crate) fn take(&self, delay: Duration, idle: Duration) -> Taken {
        let mut guard = self.state.lock();
        let nothing = |state: &State| state.lines.is_empty() && state.commands.is_empty() && !state.closed;
        if nothing(&guard) {
            self.work.wait_for(&mut guard, idle);
        }
        let may_wait = |state: &State| {
            !state.urgent
                && !state.closed
                && state.commands.is_empty()
                && state.lines.len() < self.max_lines / 4
                && state.bytes <= self.max_bytes / 4
        };
        if !guard.lines.is_empty() && may_wait(&guard) {
            self.work.wait_while_for(&mut guard, |state| may_wait(state), delay);
        }
        let state = &mut *guard;
        state.urgent = false;
        let mut taken = Taken {
            counted: state.lines.len() as u64,
            lines: std::mem::take(&mut state.lines),
            commands: std::mem::take(&mut state.commands),
            last: state.closed,
        };
        state.bytes = 0;
        let held = std::mem::take(&mut state.held);
        drop(guard);
        taken.lines.extend(held.into_values().filter_map(|held| note(held.dropped, held.last_dropped)));
        taken
    }

    /// The writer has dealt with `counted` lines.
    pub(crate) fn written(&self, counted: u64) {
        self.state.lock().written += counted;
        self.done.notify_all();
    }

    /// Takes no more; the writer gets the rest and ends.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }
}

/// A line in place of those that found no room, so that a reader sees that some are missing.
fn note(dropped: u64, last: Option<LogLine>) -> Option<LogLine> {
    last.map(|last| LogLine {
        level: Level::Warn,
        message: format!("lyra: {dropped} log lines were dropped here, they came faster than they could be stored"),
        ..last
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyra_types::{InvocationId, Timestamp};

    fn line(function: &str, message: &str) -> LogLine {
        LogLine {
            time: Timestamp::from_millis(1),
            level: Level::Info,
            message: message.to_owned(),
            invocation: InvocationId::from_parts(1, 1),
            version: 1,
            instance: None,
            tenant: TenantName::default_tenant(),
            function: FunctionName::new(function).unwrap(),
            hosted: None,
        }
    }

    #[test]
    fn one_function_gets_half_of_the_queue_and_the_rest_is_left_to_others() {
        let queue = Queue::new(10, 1 << 20);
        assert_eq!((0..100).filter(|_| queue.offer(line("chatty", "x"))).count(), 5);
        assert_eq!((0..5).filter(|_| queue.offer(line("quiet", "x"))).count(), 5);
        assert!(!queue.offer(line("third", "x")), "the queue is full");
        let taken = queue.take(Duration::ZERO, Duration::ZERO);
        assert_eq!(taken.counted, 10);
        let notes: Vec<_> = taken.lines[10..].iter().map(|l| (l.function.as_str(), l.message.clone())).collect();
        assert!(notes.iter().any(|(f, m)| *f == "chatty" && m.contains("95 log lines")), "{notes:?}");
        assert!(queue.offer(line("chatty", "x")), "there is room again");
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::new(1_000_000, 1 << 20);
        let big = "x".repeat(16 << 10);
        let taken = (0..1_000).filter(|i| queue.offer(line(&format!("f{}", i % 10), &big))).count();
        assert!((60..=64).contains(&taken), "{taken}");
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_hands_out_the_rest() {
        let queue = Queue::new(10, 1 << 20);
        assert!(queue.offer(line("f", "x")));
        queue.close();
        assert!(!queue.offer(line("f", "x")));
        let taken = queue.take(Duration::from_secs(60), Duration::from_secs(60));
        assert!(taken.last && taken.counted == 1);
        queue.written(1);
        assert!(queue.flush(Duration::ZERO));
    }
}
