//! How a command fails: an error of the table in `lyra_types::Code`, shown to people or to a program.

use lyra_types::api::Problem;
use lyra_types::error::FieldError;
use lyra_types::{Code, Error};

use crate::excerpt::excerpt;
use crate::output::{error_line, harmless};
use crate::paint::Paint;

/// A result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ends with an exit code that is not 0.
#[derive(Debug)]
pub struct Failure {
    error: Box<Error>,
    /// The problem document as the server sent it.
    json: Option<String>,
    /// What to do about it.
    hint: Option<String>,
    /// The code that was being deployed: its name and its text.
    code: Option<Box<(String, String)>>,
    /// All was said before; only the exit code is left.
    silent: bool,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Failure {
        Failure::from(Error::new(code, detail))
    }

    /// Wrong usage or input: exit code 2.
    pub fn usage(detail: impl Into<String>) -> Failure {
        Failure::new(Code::BadRequest, detail)
    }

    /// A fault of this program: exit code 70.
    pub fn internal(detail: impl Into<String>) -> Failure {
        Failure::new(Code::Internal, detail)
    }

    /// An exit code alone, when all was said before.
    pub fn silent(code: Code) -> Failure {
        Failure { silent: true, ..Failure::new(code, String::new()) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the code that was being deployed, so that a place in it can be shown.
    #[must_use]
    pub fn in_code(mut self, name: &str, text: &str) -> Failure {
        self.code = Some(Box::new((name.to_owned(), text.to_owned())));
        self
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.error.code.row().exit
    }

    /// Says on stderr what went wrong: for people, or as a problem document.
    pub fn report(&self, as_json: bool) {
        if self.silent {
            return;
        }
        if as_json {
            let own = || serde_json::to_string(&Problem::from(&*self.error)).unwrap_or_default();
            error_line(&self.json.clone().unwrap_or_else(own));
        } else {
            error_line(&self.render(Paint::stderr()));
        }
    }

    fn render(&self, paint: Paint) -> String {
        let error = &self.error;
        let mut lines = vec![format!("{} {}", paint.red("error:"), harmless(&error.detail))];
        let mut fields = error.errors.iter().peekable();
        while let Some(field) = fields.next() {
            let only = error.errors.len() == 1 && fields.peek().is_none();
            lines.extend(self.field_lines(field, only && error.detail.contains(&field.reason), paint));
        }
        if let Some(thrown) = &error.thrown {
            let stack = harmless(thrown.stack.trim_end());
            // Engines differ in whether the stack repeats the message.
            let said = harmless(&error.detail);
            let frames = stack.lines().filter(|line| !said.contains(line.trim()) && !line.trim().is_empty());
            lines.extend(frames.map(|line| format!("    {}", paint.dim(line.trim()))));
        }
        if let Some(after) = error.retry_after {
            lines.push(format!("{} try again in {} s", paint.bold("hint:"), after.as_secs().max(1)));
        }
        if let Some(hint) = &self.hint {
            lines.push(format!("{} {hint}", paint.bold("hint:")));
        }
        lines.join("\n")
    }

    /// `said`: the error's detail says it already, so only the place is of interest.
    fn field_lines(&self, field: &FieldError, said: bool, paint: Paint) -> Vec<String> {
        let place = self.code.as_ref().zip(field.line);
        if let Some((code, line)) = place {
            let (name, text) = &**code;
            return vec![excerpt(name, text, line, field.column, &harmless(&field.reason), paint)];
        }
        if said && field.line.is_none() {
            return Vec::new();
        }
        let at = match (field.line, field.column) {
            (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
            (Some(line), None) => format!(" (line {line})"),
            _ => String::new(),
        };
        vec![format!("  {}: {}{at}", field.field, harmless(&field.reason))]
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error: Box::new(error), json: None, hint: None, code: None, silent: false }
    }
}

impl From<lyra_client::Error> for Failure {
    fn from(error: lyra_client::Error) -> Failure {
        let (code, text) = (error.code(), error.to_string());
        match error {
            lyra_client::Error::Api { error, json, .. } => {
                let failure = Failure { json: Some(json), ..Failure::from(*error) };
                match failure.error.code == Code::Unauthenticated && failure.error.detail.contains("send a token") {
                    true => failure.hint("--token or LYRA_TOKEN holds it; `lyra login USER --tenant NAME` prints one"),
                    false => failure,
                }
            }
            lyra_client::Error::Unreachable { .. } => {
                Failure::new(code, text).hint("start one with `lyra up`, or name another with --url or LYRA_URL")
            }
            lyra_client::Error::Untrusted { .. } => Failure::new(code, text)
                .hint("--ca or LYRA_CA names a file with the certificate of the authority that signed the server's"),
            lyra_client::Error::Protocol { .. } => {
                Failure::new(code, text).hint("is this the URL of a Lyra server? --url or LYRA_URL names one")
            }
            _ => Failure::new(code, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyra_types::error::Thrown;

    #[test]
    fn a_syntax_error_shows_the_line_and_a_caret() {
        let mut field = FieldError::new("code.source", "expecting ';'");
        (field.line, field.column) = (Some(2), Some(7));
        let error = Error::new(Code::InvalidCode, "code.source: expecting ';'").with_field(field);
        let shown = Failure::from(error).in_code("a.js", "let a;\nlet b c;\n").render(Paint::plain());
        assert_eq!(
            shown,
            "error: code.source: expecting ';'\n --> a.js:2:7\n  |\n2 | let b c;\n  |       ^ expecting ';'"
        );
    }

    #[test]
    fn fields_are_listed_and_never_said_twice() {
        let one = Failure::from(Error::field(Code::InvalidField, "memory_mb", "must be from 16 to 1024"));
        assert_eq!(one.render(Paint::plain()), "error: memory_mb: must be from 16 to 1024");
        let two = Error::new(Code::InvalidField, "2 fields are wrong")
            .with_field(FieldError::new("a", "is wrong"))
            .with_field(FieldError::new("b", "is too"));
        assert_eq!(Failure::from(two).render(Paint::plain()), "error: 2 fields are wrong\n  a: is wrong\n  b: is too");
    }

    #[test]
    fn what_a_function_threw_is_shown_with_its_stack_and_without_escape_codes() {
        let thrown = Thrown {
            name: "TypeError".to_owned(),
            message: "no\u{1b}[31m".to_owned(),
            stack: "TypeError: no\u{1b}[31m\n    at f (index.js:1:2)\n".to_owned(),
        };
        let shown = Failure::from(Error::thrown(thrown)).render(Paint::plain());
        assert_eq!(shown, "error: TypeError: no\\u{1b}[31m\n    at f (index.js:1:2)");
    }

    #[test]
    fn an_unreachable_server_is_exit_code_7_and_says_what_to_do() {
        let error = lyra_client::Error::Unreachable {
            url: "http://127.0.0.1:1".to_owned(),
            reason: "Connection refused".to_owned(),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.exit_code(), 7);
        let shown = failure.render(Paint::plain());
        assert!(shown.contains("no Lyra at http://127.0.0.1:1") && shown.contains("lyra up"), "{shown}");
    }
}
