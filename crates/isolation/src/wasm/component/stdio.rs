//! A guest's standard streams: the event on stdin, the result on stdout, log lines on both outputs.
//!
//! What must hold: host memory is bounded whatever the guest writes (the result by its limit, a line by
//! [`MAX_LOG_LINE`]); no line is lost, also one that has no end when the call ends; a write never waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use lyra_types::log::Level;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};

use crate::{LogSink, MAX_LOG_LINE};

/// What a guest may write at a time.
const WRITE_ROOM: usize = 64 << 10;

/// How much of the end of stderr is kept for the error of a program that fails.
const TAIL: usize = 2 << 10;

/// Lines that are kept for the first call when a guest writes before it: bytes of all of them together.
const EARLY_LINES: usize = 64 << 10;

/// The streams of one instance. Cheap to clone; clones are the same streams.
#[derive(Clone)]
pub(super) struct Stdio {
    state: Arc<Mutex<State>>,
}

struct State {
    input: Bytes,
    /// What stdout is collected in; `None`: its lines are logs.
    result: Option<Collected>,
    out: Lines,
    err: Lines,
    tail: Vec<u8>,
    logs: Logs,
}

struct Collected {
    bytes: BytesMut,
    limit: usize,
    overflow: bool,
}

/// Where lines go.
enum Logs {
    /// No call runs: they wait for the next one.
    Waiting {
        lines: Vec<(Level, String)>,
        size: usize,
    },
    Sink(Arc<dyn LogSink>),
}

impl Logs {
    fn none() -> Logs {
        Logs::Waiting { lines: Vec::new(), size: 0 }
    }

    fn line(&mut self, level: Level, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match self {
            Logs::Sink(sink) => sink.line(level, &line),
            Logs::Waiting { lines, size } => {
                *size += line.len() + 1;
                if *size <= EARLY_LINES {
                    lines.push((level, line.into_owned()));
                }
            }
        }
    }
}

impl Stdio {
    /// Streams of an instance whose stdout is logs.
    pub(super) fn logging() -> Stdio {
        Stdio::new(None)
    }

    /// Streams of an instance whose stdout is its result.
    pub(super) fn collecting() -> Stdio {
        Stdio::new(Some(Collected { bytes: BytesMut::new(), limit: 0, overflow: false }))
    }

    fn new(result: Option<Collected>) -> Stdio {
        Stdio {
            state: Arc::new(Mutex::new(State {
                input: Bytes::new(),
                result,
                out: Lines::new(Level::Info),
                err: Lines::new(Level::Error),
                tail: Vec::new(),
                logs: Logs::none(),
            })),
        }
    }

    /// A call begins: its lines go to `sink`.
    pub(super) fn begin(&self, sink: &Arc<dyn LogSink>) {
        let mut state = self.state.lock();
        let waiting = std::mem::replace(&mut state.logs, Logs::Sink(Arc::clone(sink)));
        if let Logs::Waiting { lines, .. } = waiting {
            for (level, line) in lines {
                sink.line(level, &line);
            }
        }
    }

    /// What a program reads, and how much it may write.
    pub(super) fn feed(&self, input: Bytes, limit: usize) {
        let mut state = self.state.lock();
        state.input = input;
        if let Some(result) = &mut state.result {
            result.limit = limit;
        }
    }

    /// A line from the host about the guest.
    pub(super) fn note(&self, level: Level, text: &str) {
        let mut state = self.state.lock();
        for line in text.lines() {
            let end = line.floor_char_boundary(MAX_LOG_LINE);
            state.logs.line(level, &line.as_bytes()[..end]);
        }
    }

    /// A call has ended: the last lines, which have no end, are lines too.
    pub(super) fn end(&self) {
        let State { out, err, logs, .. } = &mut *self.state.lock();
        out.finish(logs);
        err.finish(logs);
        *logs = Logs::none();
    }

    /// What was written to stdout; `None` when it was more than the limit.
    pub(super) fn take_result(&self) -> Option<Bytes> {
        match &mut self.state.lock().result {
            Some(result) if !result.overflow => Some(std::mem::take(&mut result.bytes).freeze()),
            Some(_) => None,
            None => Some(Bytes::new()),
        }
    }

    /// Whether more was written to stdout than the limit allows.
    pub(super) fn overflowed(&self) -> bool {
        self.state.lock().result.as_ref().is_some_and(|result| result.overflow)
    }

    /// The end of what was written to stderr, whole lines where that is possible.
    pub(super) fn tail(&self) -> String {
        let state = self.state.lock();
        let tail = &state.tail[state.tail.len().saturating_sub(TAIL)..];
        let cut = state.tail.len() > TAIL;
        let start = tail.iter().position(|byte| *byte == b'\n').map_or(0, |end| if cut { end + 1 } else { 0 });
        String::from_utf8_lossy(&tail[start..]).trim_end().to_owned()
    }

    pub(super) fn stdin(&self) -> Input {
        Input(self.clone())
    }

    pub(super) fn stdout(&self) -> Output {
        Output { stdio: self.clone(), error: false }
    }

    pub(super) fn stderr(&self) -> Output {
        Output { stdio: self.clone(), error: true }
    }

    fn write(&self, error: bool, bytes: &[u8]) -> Result<(), Full> {
        let State { result, out, err, tail, logs, .. } = &mut *self.state.lock();
        if error {
            tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL + 1)..]);
            if tail.len() > 2 * TAIL {
                tail.drain(..tail.len() - (TAIL + 1));
            }
            err.write(bytes, logs);
            return Ok(());
        }
        match result {
            None => out.write(bytes, logs),
            Some(result) if bytes.len() > result.limit - result.bytes.len() => {
                result.overflow = true;
                result.bytes = BytesMut::new();
                result.limit = 0;
                return Err(Full);
            }
            Some(result) => result.bytes.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// The result is larger than it may be; the program is stopped.
#[derive(Debug, thiserror::Error)]
#[error("the program wrote more to stdout than a result may have")]
pub(super) struct Full;

/// Cuts what is written into lines.
struct Lines {
    level: Level,
    /// The line so far, up to its limit.
    partial: Vec<u8>,
    /// Whether the line has begun (an empty line is one, too).
    open: bool,
}

impl Lines {
    fn new(level: Level) -> Lines {
        Lines { level, partial: Vec::new(), open: false }
    }

    fn write(&mut self, mut bytes: &[u8], logs: &mut Logs) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.open {
                self.add(&bytes[..end]);
                self.finish(logs);
            } else {
                // The common case: a whole line at once, without a copy.
                logs.line(self.level, shown(&bytes[..end]));
            }
            bytes = &bytes[end + 1..];
        }
        if !bytes.is_empty() {
            self.add(bytes);
            self.open = true;
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        // One more than is shown, so that a carriage return at the very end is seen as one.
        let room = (MAX_LOG_LINE + 1).saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self, logs: &mut Logs) {
        if self.open {
            logs.line(self.level, shown(&self.partial));
            self.partial.clear();
            self.open = false;
        }
    }
}

/// The part of a line that is shown: without a carriage return, cut to the limit and there between two characters.
fn shown(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= MAX_LOG_LINE {
        return line;
    }
    let mut end = MAX_LOG_LINE;
    // A character has at most 4 bytes; those after the first are of the form 10xxxxxx.
    while end > MAX_LOG_LINE - 4 && line[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &line[..end]
}

/// Stdin.
pub(super) struct Input(Stdio);

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Input(self.0.clone()))
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Input(self.0.clone()))
    }
}

#[async_trait::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {}
}

impl InputStream for Input {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        let input = &mut self.0.state.lock().input;
        if input.is_empty() {
            return Err(StreamError::Closed);
        }
        Ok(input.split_to(size.min(input.len())))
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let input = &mut self.0.state.lock().input;
        let size = buffer.remaining().min(input.len());
        buffer.put_slice(&input.split_to(size));
        Poll::Ready(Ok(()))
    }
}

/// Stdout or stderr.
pub(super) struct Output {
    stdio: Stdio,
    error: bool,
}

impl Output {
    fn again(&self) -> Output {
        Output { stdio: self.stdio.clone(), error: self.error }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.again())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.again())
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        // A trap, not an error that the guest could ignore: nothing that it still does can matter.
        self.stdio.write(self.error, &bytes).map_err(|full| StreamError::Trap(full.into()))
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_ROOM)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(WRITE_ROOM)];
        Poll::Ready(self.stdio.write(self.error, bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(Level, String)>>);

    impl LogSink for Seen {
        fn line(&self, level: Level, message: &str) {
            assert!(message.len() <= MAX_LOG_LINE && !message.contains('\n'));
            self.0.lock().push((level, message.to_owned()));
        }
    }

    impl Seen {
        fn of(stdio: &Stdio) -> Arc<Seen> {
            let seen = Arc::new(Seen::default());
            let sink: Arc<dyn LogSink> = Arc::clone(&seen) as _;
            stdio.begin(&sink);
            seen
        }

        fn lines(&self) -> Vec<String> {
            self.0.lock().iter().map(|(_, line)| line.clone()).collect()
        }
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_text_is_cut(text in "[a-zé\\n\\r]{0,200}", cuts in prop::collection::vec(1usize..20, 0..20)) {
            let stdio = Stdio::logging();
            let seen = Seen::of(&stdio);
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                stdio.write(false, now).unwrap();
                rest = later;
            }
            stdio.write(false, rest).unwrap();
            stdio.end();
            let expected: Vec<_> = text.split_terminator('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
            prop_assert_eq!(seen.lines(), expected);
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_costs_no_memory() {
        let stdio = Stdio::logging();
        let seen = Seen::of(&stdio);
        stdio.write(true, b"x").unwrap();
        for _ in 0..100_000 {
            stdio.write(true, "ééééé".as_bytes()).unwrap();
        }
        assert!(stdio.state.lock().err.partial.capacity() <= 4 * MAX_LOG_LINE);
        stdio.write(true, b"\nnext\n").unwrap();
        let lines = seen.lines();
        assert_eq!(lines[0].len(), MAX_LOG_LINE - 1);
        assert!(lines[0].ends_with('é'));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_result_over_its_limit_is_dropped_at_once() {
        let stdio = Stdio::collecting();
        stdio.feed(Bytes::new(), 10);
        stdio.write(false, b"0123456789").unwrap();
        assert!(stdio.write(false, b"x").is_err());
        assert!(stdio.write(false, b"x").is_err());
        assert!(stdio.overflowed());
        assert_eq!(stdio.take_result(), None);
        assert_eq!(stdio.state.lock().result.as_ref().unwrap().bytes.capacity(), 0);
    }

    #[test]
    fn lines_before_the_first_call_belong_to_it_and_are_bounded() {
        let stdio = Stdio::logging();
        for _ in 0..100_000 {
            stdio.write(false, b"early\n").unwrap();
        }
        let seen = Seen::of(&stdio);
        assert_eq!(seen.lines().len(), EARLY_LINES / 6);
        stdio.write(false, b"now").unwrap();
        stdio.end();
        assert_eq!(seen.lines().last().unwrap(), "now");
    }

    #[test]
    fn the_tail_is_the_end_of_stderr() {
        let stdio = Stdio::collecting();
        stdio.write(true, b"only line\n").unwrap();
        assert_eq!(stdio.tail(), "only line");
        for i in 0..10_000 {
            stdio.write(true, format!("line {i}\n").as_bytes()).unwrap();
        }
        let tail = stdio.tail();
        assert!(tail.len() <= TAIL && tail.starts_with("line ") && tail.ends_with("line 9999"), "{tail}");
        assert!(stdio.state.lock().tail.len() <= 2 * TAIL);
    }
}
