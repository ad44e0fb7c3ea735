//! The transport-neutral error that services return to each other and to users.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Code;

/// A result whose error can be shown to a user.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that a user may see: a [`Code`], one sentence, and what helps to act on it.
///
/// `detail` never holds a secret, a path of the server or a chain of internal causes; those are
/// logged where the error is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong and what to do, for people: one or two sentences.
    pub detail: String,
    /// The fields at fault, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// When to try again, for 429 and 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// What the function threw, for [`Code::FunctionError`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thrown: Option<Thrown>,
}

/// One field at fault. For code, `line` and `column` (both from 1) say where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Path of the field in the request, `code.source` for example.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// Line in the code, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the code, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl FieldError {
    /// A field error without a place in the code.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), reason: reason.into(), line: None, column: None }
    }
}

/// What a function threw: the fields of a JavaScript or Python exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Thrown {
    /// Class of the exception, `TypeError` for example.
    pub name: String,
    /// Its message.
    pub message: String,
    /// Its stack, one frame a line; empty where the runtime has none.
    #[serde(default)]
    pub stack: String,
}

impl Error {
    /// An error with a code and a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Error {
        Error { code, detail: detail.into(), errors: Vec::new(), retry_after: None, thrown: None }
    }

    /// A fault of Lyra. The cause belongs in the log, not in `detail`.
    pub fn internal(detail: impl Into<String>) -> Error {
        Error::new(Code::Internal, detail)
    }

    /// `kind` `name` does not exist.
    pub fn not_found(kind: &str, name: impl std::fmt::Display) -> Error {
        Error::new(Code::NotFound, format!("{kind} {name} does not exist"))
    }

    /// One field is at fault.
    pub fn field(code: Code, field: impl Into<String>, reason: impl Into<String>) -> Error {
        let field = FieldError::new(field, reason);
        Error::new(code, format!("{}: {}", field.field, field.reason)).with_field(field)
    }

    /// What a function threw.
    pub fn thrown(thrown: Thrown) -> Error {
        let mut error = Error::new(Code::FunctionError, format!("{}: {}", thrown.name, thrown.message));
        error.thrown = Some(thrown);
        error
    }

    /// Adds a field at fault.
    #[must_use]
    pub fn with_field(mut self, field: FieldError) -> Error {
        self.errors.push(field);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Error {
        self.retry_after = Some(after);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}
