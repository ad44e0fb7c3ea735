//! What no log line and no error shows.

use lyra_types::error::Thrown;
use lyra_types::{Error, SecretBytes};

/// Shortest text that is taken out of log lines: shorter ones stand in too many lines by chance.
const MIN_MASKED: usize = 8;
/// Most texts that are taken out of the lines of one version.
const MAX_MASKED: usize = 256;
/// What stands in their place.
const MASK: &str = "***";

/// Texts that are taken out of what a function writes. That is help for the careless, and no wall: a function can always write its
/// secrets in other words.
#[derive(Debug, Default)]
pub(crate) struct Masks(Vec<Box<str>>);

impl Masks {
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a SecretBytes>, before: Option<&Masks>) -> Masks {
        let texts = values.filter_map(|value| value.as_variable()).flat_map(str::lines).map(str::trim);
        let old = before.into_iter().flat_map(|before| before.0.iter().map(|text| &**text));
        let mut texts: Vec<&str> = texts.filter(|text| text.len() >= MIN_MASKED).chain(old).take(MAX_MASKED).collect();
        // A longer one may hold a shorter one.
        texts.sort_by_key(|text| (std::cmp::Reverse(text.len()), *text));
        texts.dedup();
        Masks(texts.into_iter().map(Box::from).collect())
    }

    /// The text without secrets.
    pub(crate) fn apply(&self, text: String) -> String {
        let found = self.0.iter().filter(|secret| text.contains(&***secret)).collect::<Vec<_>>();
        found.into_iter().fold(text, |text, secret| text.replace(&**secret, MASK))
    }

    /// The error without secrets.
    pub(crate) fn apply_to(&self, mut error: Error) -> Error {
        error.detail = self.apply(error.detail);
        error.thrown = error.thrown.map(|thrown| Thrown {
            name: self.apply(thrown.name),
            message: self.apply(thrown.message),
            stack: self.apply(thrown.stack),
        });
        error
    }
}
