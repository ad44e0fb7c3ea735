//! Writing to stdout and stderr. Data through [`print`]; everything else through [`note`] and [`error_line`].

use std::io::{ErrorKind, Write};

use crate::failure::{Failure, Result};

/// Writes data to stdout. A reader that has gone (`lyra fn ls | head -1`) ends the process in peace.
///
/// # Errors
/// When stdout can't be written for another reason.
pub fn print_bytes(data: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::internal(format!("stdout can't be written: {error}"))),
    }
}

/// Writes text to stdout as it is.
///
/// # Errors
/// When stdout can't be written.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes text to stdout, with a line's end if it has none.
///
/// # Errors
/// When stdout can't be written.
pub fn print_line(text: &str) -> Result<()> {
    if text.ends_with('\n') { print(text) } else { print(&format!("{text}\n")) }
}

/// Writes a line to stderr. One that can't be written is lost: there is nowhere to say so.
pub fn error_line(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Writes a note for people to stderr.
pub fn note(text: &str) {
    error_line(&format!("note: {text}"));
}

/// `text` with control characters made visible, so that what a function wrote can't steer the terminal.
/// Line ends and tabs stay.
pub fn harmless(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(c),
            c if c.is_control() => safe.extend(c.escape_debug()),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_wrote_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc"), "a\\u{1b}[2Jb\\r\n\tc");
        assert_eq!(harmless("plain é"), "plain é");
    }
}
