//! What is wrong with a document, and where.
//!
//! Everything found is collected in [`Findings`], bounded, and handed out sorted by place: errors as [`Diagnostics`],
//! which fail the compilation, warnings beside the graph. No finding names anything but the document.

use lyra_types::{Code, FieldError};
use serde::{Deserialize, Serialize};

/// A place in the text of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// Where.
    pub at: Position,
    /// What.
    pub value: T,
}

/// One thing that is wrong, or worth a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Where.
    #[serde(flatten)]
    pub at: Position,
    /// What kind it is of, for programs.
    pub code: DiagnosticCode,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.at.line, self.at.column, self.message, self.code.as_str())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Kinds of findings; the set is closed and stands in `docs/reference/afcl.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum DiagnosticCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl DiagnosticCode {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [DiagnosticCode] = &[$(DiagnosticCode::$name,)*];

            /// The code as programs see it.
            pub fn as_str(self) -> &'static str {
                match self { $(DiagnosticCode::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The document, or what it unfolds to, is larger than a limit.
    TooLarge = "too_large",
    /// Not YAML, not JSON, or not one document.
    Syntax = "syntax",
    /// A construct that AFCL does not have.
    UnknownConstruct = "unknown_construct",
    /// A field that the construct does not have.
    UnknownField = "unknown_field",
    /// A field that stands twice.
    DuplicateField = "duplicate_field",
    /// A field that must be there.
    MissingField = "missing_field",
    /// A value of the wrong shape: a list where a text is asked for.
    WrongShape = "wrong_shape",
    /// A name that is empty or holds `/` or `,`.
    InvalidName = "invalid_name",
    /// A name that is there already.
    DuplicateName = "duplicate_name",
    /// A type of data that AFCL does not have.
    UnknownType = "unknown_type",
    /// An operator that AFCL does not have.
    UnknownOperator = "unknown_operator",
    /// An operator that does not go with the type.
    OperatorType = "operator_type",
    /// A source whose producer does not exist.
    UnknownSource = "unknown_source",
    /// A source whose producer has no such port.
    UnknownPort = "unknown_port",
    /// A source that stands inside of a compound that the reader is not in.
    NotVisible = "not_visible",
    /// A function that reads what it makes.
    SelfDependency = "self_dependency",
    /// A datum that is asked for with two types.
    TypeMismatch = "type_mismatch",
    /// A constant that is not of its type.
    InvalidConstant = "invalid_constant",
    /// A parallelFor that does not say what it iterates over, or says it in two ways.
    InvalidIterators = "invalid_iterators",
    /// A loop counter that never arrives.
    InvalidCounter = "invalid_counter",
    /// An input of the workflow that nobody reads.
    DisconnectedData = "disconnected_data",
    /// An output of an `if` or `switch` without a source for each of its sides.
    IncompletePair = "incomplete_pair",
    /// An input of a `while` that its body reads, without an output of the same name.
    LoopWithoutOutput = "loop_without_output",
    /// A value of a loop that its body does not make.
    LoopInvariant = "loop_invariant",
    /// A constraint that does not exist, or not here.
    UnknownConstraint = "unknown_constraint",
    /// A constraint whose value it does not take.
    InvalidConstraint = "invalid_constraint",
    /// A property that does not exist.
    UnknownProperty = "unknown_property",
    /// A property whose value it does not take.
    InvalidProperty = "invalid_property",
    /// A function of Lyra's own that does not exist, or is not called so.
    InvalidFunction = "invalid_function",
    /// Tasks that wait for each other.
    Cycle = "cycle",
    /// A sub-choreography that calls itself.
    Recursion = "recursion",
    /// A cut that can't be made.
    InvalidCut = "invalid_cut",
    /// Warning: data that nobody reads.
    UnreadData = "unread_data",
    /// Warning: something that has no effect.
    NoEffect = "no_effect",
}

/// All that is wrong with a document, by place; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// The errors, at most [`crate::limits::MAX_FINDINGS`].
    pub errors: Vec<Diagnostic>,
    /// How many more there are.
    #[serde(default)]
    pub more: usize,
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for lyra_types::Error {
    /// An `invalid_field` with one entry for each error, all of the field `definition`.
    fn from(found: Diagnostics) -> lyra_types::Error {
        let first = found.errors.first().map_or_else(String::new, ToString::to_string);
        let others = found.errors.len().saturating_sub(1) + found.more;
        let detail = match others {
            0 => format!("definition: {first}"),
            others => format!("definition: {first} (and {others} more)"),
        };
        let mut error = lyra_types::Error::new(Code::InvalidField, detail);
        for finding in found.errors {
            error = error.with_field(FieldError {
                field: "definition".to_owned(),
                reason: format!("{} [{}]", finding.message, finding.code.as_str()),
                line: Some(finding.at.line),
                column: Some(finding.at.column),
            });
        }
        error
    }
}

/// Collects what is found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<Diagnostic>,
    more: usize,
    warnings: Vec<Diagnostic>,
    stopped: bool,
}

impl Findings {
    /// Adds an error.
    pub(crate) fn error(&mut self, at: Position, code: DiagnosticCode, message: impl Into<String>) {
        let error = Diagnostic { at, code, message: message.into() };
        if self.errors.contains(&error) {
            // What stands once in the document may be read in several places.
        } else if self.errors.len() < crate::limits::MAX_FINDINGS {
            self.errors.push(error);
        } else {
            self.more += 1;
        }
    }

    /// Adds an error after which the next phase would only find what follows from it.
    pub(crate) fn fatal(&mut self, at: Position, code: DiagnosticCode, message: impl Into<String>) {
        self.error(at, code, message);
        self.stopped = true;
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, at: Position, code: DiagnosticCode, message: impl Into<String>) {
        if self.warnings.len() < crate::limits::MAX_FINDINGS {
            self.warnings.push(Diagnostic { at, code, message: message.into() });
        }
    }

    /// Whether a further error is only counted, so that it needs no message.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= crate::limits::MAX_FINDINGS
    }

    /// Whether the next phase makes no sense.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether there is any error.
    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The errors, or where there is none the warnings.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        let by_place = |a: &Diagnostic, b: &Diagnostic| a.at.cmp(&b.at);
        if self.errors.is_empty() {
            self.warnings.sort_by(by_place);
            return Ok(self.warnings);
        }
        self.errors.sort_by(by_place);
        Err(Diagnostics { errors: self.errors, more: self.more })
    }
}
