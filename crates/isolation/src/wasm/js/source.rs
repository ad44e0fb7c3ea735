//! The two forms that a source may have, and where in it an error is.

use lyra_types::error::{FieldError, Thrown};
use lyra_types::{Code, Error};

/// Name of the user's file in stacks.
const FILE: &str = "function.js";

/// What is put before a source that is one function.
pub(super) const EXPORT: &str = "export default ";

/// What is put before a source that is one expression, evaluated as a script.
pub(super) const SCRIPT: &str = "const fn = ";

/// Whether a source has `export` as a statement: outside of strings, comments, templates and brackets.
///
/// A hint that is used only to choose which of two errors is told, so regular expressions need not be understood.
pub(super) fn has_exports(source: &str) -> bool {
    let bytes = source.as_bytes();
    let mut at = 0;
    let mut depth = 0i32;
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at += line(&bytes[at..]),
            b'/' if bytes[at..].starts_with(b"/*") => at += until(&bytes[at + 2..], b"*/") + 4,
            quote @ (b'"' | b'\'' | b'`') => at += quoted(&bytes[at..], quote),
            b'{' | b'(' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b')' | b']' => {
                depth -= 1;
                at += 1;
            }
            byte if is_word(byte) => {
                let length = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                if depth <= 0 && &bytes[at..at + length] == b"export" {
                    return true;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    false
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

fn until(bytes: &[u8], end: &[u8]) -> usize {
    bytes.windows(end.len()).position(|window| window == end).unwrap_or(bytes.len())
}

/// Length of a string or template, its quotes included.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        // A string ends with its line at the latest, a template does not.
        if bytes[at] == b'\n' && quote != b'`' {
            break;
        }
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Line and column of the topmost frame in the user's file.
pub(super) fn place(stack: &str) -> Option<(u32, u32)> {
    let (_, rest) = stack.split_once(&format!("{FILE}:"))?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    let line = numbers.next()?.parse().ok()?;
    let column = numbers.next()?.parse().ok()?;
    Some((line, column))
}

/// The error for a source that does not parse or that threw while it was evaluated. `shift`: columns that Lyra has put
/// before the first line.
pub(super) fn refused(thrown: &Thrown, shift: u32) -> Error {
    let mut field = FieldError::new("code.source", format!("{}: {}", thrown.name, thrown.message));
    let mut at = String::new();
    if let Some((line, column)) = place(&thrown.stack) {
        let column = if line == 1 { column.saturating_sub(shift).max(1) } else { column };
        field.line = Some(line);
        field.column = Some(column);
        at = format!(" (line {line}, column {column})");
    }
    Error::new(Code::InvalidCode, format!("the code can't be loaded: {}{at}", field.reason)).with_field(field)
}

/// The error for a source that parses but is no function.
pub(super) fn unusable(field: &str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    Error::new(Code::InvalidCode, format!("the code can't be loaded: {reason}"))
        .with_field(FieldError::new(field, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_told_from_the_word() {
        for with in [
            "export default 1",
            "  /* x */ export function handler() {}",
            "const a = 'export';\nexport { a }",
            "function f() { return `${1}` }\nexport{f}",
            "let x = 'it\\'s'; export default x",
        ] {
            assert!(has_exports(with), "{with}");
        }
        for without in [
            "function f() { export default 1 }",
            "// export default 1\nfunction f() {}",
            "/* export */ (a) => a",
            "(a) => 'export default'",
            "function exporter() {}",
            "(a) => `\nexport default ${a}`",
            "",
            "'",
            "/*",
        ] {
            assert!(!has_exports(without), "{without}");
        }
    }

    #[test]
    fn the_topmost_frame_in_the_file_is_found() {
        assert_eq!(place("    at function.js:3:14\n"), Some((3, 14)));
        assert_eq!(place("    at map (native)\n    at f (function.js:12:7)\n    at function.js:1:1"), Some((12, 7)));
        assert_eq!(place("    at f (lyra:prelude:1:2)"), None);
        assert_eq!(place("function.js:x:y"), None);
    }

    #[test]
    fn columns_of_the_first_line_are_those_of_the_users_text() {
        let thrown = |stack: &str| Thrown { name: "SyntaxError".into(), message: "m".into(), stack: stack.into() };
        let at = |stack, shift| {
            let field = refused(&thrown(stack), shift).errors.remove(0);
            (field.line, field.column)
        };
        assert_eq!(at("    at function.js:1:20", 15), (Some(1), Some(5)));
        assert_eq!(at("    at function.js:2:20", 15), (Some(2), Some(20)));
        assert_eq!(at("    at function.js:1:3", 15), (Some(1), Some(1)));
        assert_eq!(at("", 15), (None, None));
    }
}
