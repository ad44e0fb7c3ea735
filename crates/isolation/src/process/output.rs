//! What an instance writes to stdout and stderr: cut into lines, each a line of the call's log.
//!
//! What must hold: the pipes are always read, so that no program waits for its log; memory is bounded by one line of
//! each pipe and [`EARLY`] lines from before the first call; all that was written before a result came is in the log
//! before the call ends. How much of a call's log is kept is for the sink to say.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;

use lyra_types::log::Level;
use parking_lot::Mutex;
use tokio::net::unix::pipe::Receiver;

use crate::{LogSink, MAX_LOG_LINE};

/// Lines kept of what is written before the first call.
const EARLY: usize = 256;

/// Lines kept of what an instance has written while no worker was there; their bytes are bounded elsewhere.
const LEFT: usize = 16 << 10;

/// Bytes read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Chunks that one look at a pipe reads at most: a program that never stops writing must not hold up its call's end.
const CHUNKS: usize = 16;

/// Both pipes of an instance.
pub(super) struct Output {
    pipes: [Pipe; 2],
    sink: Mutex<Sink>,
}

struct Pipe {
    level: Level,
    /// Says when there is something to read.
    receiver: Receiver,
    /// The same pipe, read directly: the receiver reads only once the runtime has heard that there is something, and
    /// what was written before a result must be read although nobody has heard of it yet.
    file: File,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    text: Vec<u8>,
    /// Where pipes are read into; empty until something comes.
    buffer: Vec<u8>,
}

/// What is left in a pipe.
enum State {
    Closed,
    Empty,
    More,
}

enum Sink {
    /// No call yet, and so many lines are kept.
    Early { lines: Vec<(Level, String)>, most: usize },
    /// The call that runs, or the one that ran last.
    Call(Arc<dyn LogSink>),
}

impl Output {
    /// Takes over the reading ends of stdout and stderr.
    pub(super) fn new(stdout: Receiver, stderr: Receiver) -> std::io::Result<Output> {
        let pipe = |receiver: Receiver, level| {
            let file = File::from(receiver.as_fd().try_clone_to_owned()?);
            Ok::<_, std::io::Error>(Pipe { level, receiver, file, line: Mutex::default() })
        };
        let pipes = [pipe(stdout, Level::Info)?, pipe(stderr, Level::Error)?];
        Ok(Output { pipes, sink: Mutex::new(Sink::Early { lines: Vec::new(), most: EARLY }) })
    }

    /// Takes what was written to both pipes before they were handed over, and how many bytes are missing before that. To be
    /// called first.
    pub(super) fn was_written(&self, earlier: &[Vec<u8>; 2], lost: u64) {
        if let Sink::Early { most, .. } = &mut *self.sink.lock() {
            *most = LEFT;
        }
        if lost > 0 {
            let text = format!("{lost} bytes of output from before this are missing: no worker was there to take them");
            self.emit(Level::Warn, text.as_bytes());
        }
        for (pipe, bytes) in self.pipes.iter().zip(earlier) {
            self.cut(pipe.level, &mut pipe.line.lock().text, bytes);
        }
    }

    /// Says where the lines go from now on; all that was written until now goes where lines went until now.
    pub(super) fn turn(&self, logs: &Arc<dyn LogSink>) {
        let is_taken = matches!(&*self.sink.lock(), Sink::Call(_));
        if is_taken {
            self.drain();
        }
        self.begin(logs);
    }

    /// Says which call the lines belong to from now on; it gets those from before the first call too.
    pub(super) fn begin(&self, logs: &Arc<dyn LogSink>) {
        let before = std::mem::replace(&mut *self.sink.lock(), Sink::Call(Arc::clone(logs)));
        if let Sink::Early { lines, .. } = before {
            lines.iter().for_each(|(level, line)| logs.line(*level, line));
        }
    }

    /// The last line that was written, if there was no call yet.
    pub(super) fn last_early_line(&self) -> Option<String> {
        match &*self.sink.lock() {
            Sink::Early { lines, .. } => lines.last().map(|(_, line)| line.chars().take(500).collect()),
            Sink::Call(_) => None,
        }
    }

    /// Reads what is there now, and ends lines that have no end yet.
    pub(super) fn drain(&self) {
        for pipe in &self.pipes {
            self.read(pipe);
            let mut line = pipe.line.lock();
            if !line.text.is_empty() {
                self.emit(pipe.level, &std::mem::take(&mut line.text));
            }
        }
    }

    /// Reads until both pipes are closed.
    pub(super) async fn pump(&self) {
        let [out, err] = &self.pipes;
        tokio::join!(self.pump_one(out), self.pump_one(err));
    }

    async fn pump_one(&self, pipe: &Pipe) {
        while pipe.receiver.readable().await.is_ok() {
            match self.read(pipe) {
                State::Closed => break,
                State::Empty if self.is_closed(pipe) => break,
                State::Empty | State::More => {}
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Has the receiver see that the pipe is empty, so that it waits again; what came since is taken.
    fn is_closed(&self, pipe: &Pipe) -> bool {
        let mut line = pipe.line.lock();
        let mut small = [0; 512];
        match pipe.receiver.try_read(&mut small) {
            Ok(0) => true,
            Ok(count) => {
                self.cut(pipe.level, &mut line.text, &small[..count]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Reads what a pipe holds.
    fn read(&self, pipe: &Pipe) -> State {
        let mut line = pipe.line.lock();
        let Line { text, buffer } = &mut *line;
        // Most instances write little: they need no large buffer.
        let mut small = [0; 512];
        for _ in 0..CHUNKS {
            let into = if buffer.is_empty() { &mut small[..] } else { &mut buffer[..] };
            match (&pipe.file).read(into) {
                Ok(0) => return State::Closed,
                Ok(count) => self.cut(pipe.level, text, &into[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    *buffer = Vec::new();
                    return if error.kind() == ErrorKind::WouldBlock { State::Empty } else { State::Closed };
                }
            }
            if buffer.is_empty() {
                *buffer = vec![0; CHUNK];
            }
        }
        State::More
    }

    /// Takes bytes and gives out the lines that they end.
    fn cut(&self, level: Level, line: &mut Vec<u8>, bytes: &[u8]) {
        let keep = |line: &mut Vec<u8>, piece: &[u8]| {
            line.extend_from_slice(&piece[..piece.len().min(MAX_LOG_LINE - line.len().min(MAX_LOG_LINE))]);
        };
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if line.is_empty() && end <= MAX_LOG_LINE {
                self.emit(level, &rest[..end]);
            } else {
                keep(line, &rest[..end]);
                self.emit(level, line);
                line.clear();
            }
            rest = &rest[end + 1..];
        }
        keep(line, rest);
    }

    fn emit(&self, level: Level, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        let mut text = &*text;
        if text.len() > MAX_LOG_LINE {
            text = &text[..text.floor_char_boundary(MAX_LOG_LINE)];
        }
        match &mut *self.sink.lock() {
            Sink::Call(logs) => logs.line(level, text),
            Sink::Early { lines, most } if lines.len() < *most => lines.push((level, text.to_owned())),
            Sink::Early { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(Level, String)>>);

    impl LogSink for Lines {
        fn line(&self, level: Level, message: &str) {
            self.0.lock().push((level, message.to_owned()));
        }
    }

    fn output() -> (Output, std::io::PipeWriter, std::io::PipeWriter) {
        let (out, out_writer) = std::io::pipe().unwrap();
        let (err, err_writer) = std::io::pipe().unwrap();
        let receiver = |end: std::io::PipeReader| Receiver::from_owned_fd(end.into()).unwrap();
        (Output::new(receiver(out), receiver(err)).unwrap(), out_writer, err_writer)
    }

    #[tokio::test]
    async fn lines_go_to_the_call_that_runs_and_early_ones_to_the_first() {
        let (output, mut out, mut err) = output();
        out.write_all(b"import\nha").unwrap();
        output.drain();
        let (first, second) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        output.begin(&(first.clone() as Arc<dyn LogSink>));
        err.write_all(b"warn\r\n").unwrap();
        out.write_all(b"one\ntwo").unwrap();
        output.drain();
        output.begin(&(second.clone() as Arc<dyn LogSink>));
        out.write_all(b"three\n").unwrap();
        drop((out, err));
        output.pump().await;
        let line = |level, text: &str| (level, text.to_owned());
        let expected = [
            line(Level::Info, "import"),
            line(Level::Info, "ha"),
            line(Level::Info, "one"),
            line(Level::Info, "two"),
            line(Level::Error, "warn"),
        ];
        assert_eq!(*first.0.lock(), expected);
        assert_eq!(*second.0.lock(), [line(Level::Info, "three")]);
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_early_lines_are_bounded() {
        let (output, mut out, _err) = output();
        for _ in 0..EARLY + 50 {
            out.write_all(b"x\n").unwrap();
        }
        output.drain();
        let lines = Arc::new(Lines::default());
        output.begin(&(lines.clone() as Arc<dyn LogSink>));
        assert_eq!(lines.0.lock().len(), EARLY);
        lines.0.lock().clear();
        out.write_all(&[b'y'; MAX_LOG_LINE + 7]).unwrap();
        output.drain();
        out.write_all(&[0xff; 10]).unwrap();
        out.write_all(b"\nz\n").unwrap();
        output.drain();
        let lengths: Vec<_> = lines.0.lock().iter().map(|(_, line)| line.len()).collect();
        assert_eq!(lengths, [MAX_LOG_LINE, 30, 1]);
    }
}
