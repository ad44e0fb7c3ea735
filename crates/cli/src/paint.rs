//! Colour, where it helps: on a terminal, unless `NO_COLOR` is set.

use std::io::IsTerminal;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

fn wanted() -> bool {
    // https://no-color.org: present and not empty.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_color && !dumb
}

impl Paint {
    /// For text on stdout.
    pub fn stdout() -> Paint {
        Paint { on: std::io::stdout().is_terminal() && wanted() }
    }

    /// For text on stderr.
    pub fn stderr() -> Paint {
        Paint { on: std::io::stderr().is_terminal() && wanted() }
    }

    /// Never coloured.
    #[cfg(test)]
    pub fn plain() -> Paint {
        Paint { on: false }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Bold.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Dim: of less interest.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Red: an error.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// Yellow: a warning.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Green: done.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Cyan: something to type.
    pub fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }
}
