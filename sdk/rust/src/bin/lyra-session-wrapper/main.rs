//! Makes a program that knows nothing of Lyra a session: it is started when the session is opened, and told to end when it
//! is closed.
//!
//! What must hold: the program and all that it starts end with the session, and with the wrapper; its end ends the session.
//! The wrapper has one thread, on which the program is started: the kernel kills a child whose parent *thread* ends.
#![expect(clippy::disallowed_methods, reason = "a program of its own, without lyra-kit")]
#![expect(clippy::print_stderr, reason = "what it has to say, people read in the session's log")]

mod child;
mod options;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(error) = child::become_program(&arguments) {
        eprintln!("lyra-session-wrapper: {error}");
        return ExitCode::from(127);
    }
    let options = match options::Options::read(arguments, |name| std::env::var(name).ok()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("lyra-session-wrapper: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        runtime.block_on(local.run_until(session::serve(&options)))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lyra-session-wrapper: {error}");
            ExitCode::FAILURE
        }
    }
}
