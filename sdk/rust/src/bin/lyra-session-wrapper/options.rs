//! What to start, and when it counts as ready.

use std::ffi::OsString;

/// How to call the wrapper.
pub(crate) const USAGE: &str = "\
usage: lyra-session-wrapper [--ready port|PORT|at-once] [--] COMMAND [ARGUMENT…]

Serves sessions of Lyra with COMMAND, or with what SESSION_WRAPPER_OPEN_SESSION_CMD says: it is started when a session is
opened, and gets SIGTERM when it is closed, then SIGKILL when the grace is over.

--ready (or SESSION_WRAPPER_READY) says when the session is open:
  port      when the port that $PORT names answers (the default when PORT is set)
  PORT      when this port answers
  at-once   as soon as the command runs (the default else)

COMMAND finds in its environment: LYRA_SESSION_ID, LYRA_SESSION_NAME, LYRA_SESSION_TENANT, LYRA_SESSION_APPLICATION,
LYRA_SESSION_DATA_FILE (a file with the session's data), and LYRA_SESSION_DATA (the same, when it is short text).";

const COMMAND: &str = "SESSION_WRAPPER_OPEN_SESSION_CMD";
const READY: &str = "SESSION_WRAPPER_READY";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The program and its arguments; at least one word.
    pub(crate) command: Vec<OsString>,
    pub(crate) ready: Ready,
}

/// When a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    AtOnce,
    /// When this port of the loopback answers.
    Port(u16),
}

impl Options {
    /// Reads arguments, and what they leave open from the environment.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn read(arguments: Vec<OsString>, env: impl Fn(&str) -> Option<String>) -> Result<Options, String> {
        let mut arguments = arguments.into_iter().peekable();
        let mut ready = env(READY);
        while let Some(option) = arguments.next_if(|word| word.to_str().is_some_and(|word| word.starts_with('-'))) {
            match option.to_str().unwrap_or_default() {
                "--" => break,
                "--ready" => {
                    let value = arguments.next().and_then(|value| value.into_string().ok());
                    ready = Some(value.ok_or("--ready needs a value: port, a number, or at-once")?);
                }
                other => return Err(format!("{other} is no option")),
            }
        }
        let mut command: Vec<OsString> = arguments.collect();
        if command.is_empty() {
            command = words(&env(COMMAND).unwrap_or_default())?.into_iter().map(OsString::from).collect();
        }
        if command.is_empty() {
            return Err(format!("no command: give one as arguments, or in {COMMAND}"));
        }
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(format!("{text:?} is no port")),
            Ok(port) => Ok(Ready::Port(port)),
        };
        let ready = match (ready.as_deref(), env("PORT")) {
            (Some("at-once"), _) | (None, None) => Ready::AtOnce,
            (None | Some("port"), Some(text)) => port(&text)?,
            (Some("port"), None) => return Err("ready by port, but PORT is not set".to_owned()),
            (Some(text), _) => port(text)?,
        };
        Ok(Options { command, ready })
    }
}

/// Cuts a command line into words, as a shell does with quotes and backslashes, and nothing more than that.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed in {line:?}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], env: &[(&str, &str)]) -> Result<Options, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Options::read(arguments, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_command_comes_from_arguments_or_the_environment() {
        let options = read(&["serve", "--fast"], &[(COMMAND, "other")]).expect("good");
        assert_eq!((options.command, options.ready), (vec!["serve".into(), "--fast".into()], Ready::AtOnce));
        let options =
            read(&[], &[(COMMAND, "/opt/bin/serve 'a b' \"c\\\"d\" e\\ f ''"), ("PORT", "80")]).expect("good");
        assert_eq!(options.command, ["/opt/bin/serve", "a b", "c\"d", "e f", ""]);
        assert_eq!(options.ready, Ready::Port(80));
        assert_eq!(read(&["--ready", "at-once", "--", "-x"], &[("PORT", "80")]).expect("good").ready, Ready::AtOnce);
        assert_eq!(read(&["--ready", "8081", "x"], &[]).expect("good").ready, Ready::Port(8081));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, env) in [
            (&[][..], &[][..]),
            (&["--fast", "x"], &[]),
            (&["--ready", "port", "x"], &[]),
            (&["--ready", "0", "x"], &[]),
            (&["--ready"], &[]),
            (&[], &[(COMMAND, "a 'b")]),
            (&["x"], &[("PORT", "http")]),
        ] {
            read(arguments, env).expect_err("refused");
        }
    }
}
