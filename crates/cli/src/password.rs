//! Passwords come from stdin or a file, never from an argument: arguments show in the list of processes and stay in the shell's history.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use lyra_types::Secret;
use lyra_types::account::MAX_PASSWORD;

use crate::failure::{Failure, Result};
use crate::output::note;

/// Where a password comes from.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// File with the password [default: standard input]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Source {
    /// Whether a file was named.
    pub fn is_given(&self) -> bool {
        self.password_file.is_some()
    }

    /// The lines, each without its end; the last one may lack it.
    ///
    /// # Errors
    /// When they can't be read, or there are not `count`.
    pub fn read(&self, count: usize) -> Result<Vec<Secret>> {
        let most = (MAX_PASSWORD + 2) * count;
        let mut bytes = Vec::new();
        let failed = |error: std::io::Error| Failure::usage(format!("the password can't be read: {error}"));
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        match &self.password_file {
            Some(path) => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
            None => {
                let stdin = std::io::stdin();
                if stdin.is_terminal() {
                    note("type the password, then Ctrl-D; it shows on the screen (pipe it in, or use --password-file)");
                }
                stdin.lock().take(limit).read_to_end(&mut bytes)
            }
        }
        .map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::usage("the password is not UTF-8"))?;
        lines(&text, count)
    }

    /// One password.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_one(&self) -> Result<Secret> {
        let mut lines = self.read(1)?;
        lines.pop().ok_or_else(|| Failure::usage("the password is empty"))
    }
}

fn lines(text: &str, count: usize) -> Result<Vec<Secret>> {
    let lines: Vec<Secret> = text.lines().map(Secret::new).collect();
    match lines.len() == count && lines.iter().all(|line| !line.reveal().is_empty()) {
        true => Ok(lines),
        false if count == 1 => Err(Failure::usage("a password is one line that is not empty")),
        false => {
            Err(Failure::usage(format!("{count} lines are needed: the password that holds now, then the new one")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line_and_its_end_is_not_part_of_it() {
        let read = |text: &str, count| {
            lines(text, count).ok().map(|all| all.iter().map(|s| s.reveal().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read("correct horse\n", 1), Some(vec!["correct horse".to_owned()]));
        assert_eq!(read(" a b ", 1), Some(vec![" a b ".to_owned()]));
        assert_eq!(read("old\r\nnew\n", 2), Some(vec!["old".to_owned(), "new".to_owned()]));
        for (bad, count) in [("", 1), ("\n", 1), ("a\nb\n", 1), ("a\n", 2), ("a\n\n", 2)] {
            assert_eq!(read(bad, count), None, "{bad:?}");
        }
    }
}
