//! A place in source text, shown as compilers do: the line, and a caret under the column.

use crate::output::harmless;
use crate::paint::Paint;

/// Characters of a line that are shown; a longer one (minified code) is cut around the column.
const WIDTH: usize = 100;

/// Shows `text` at `line` and `column` (both from 1, in characters) with `reason` under it.
/// A place that is not in the text is named without the line.
pub fn excerpt(name: &str, text: &str, line: u32, column: Option<u32>, reason: &str, paint: Paint) -> String {
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let bar = paint.dim("|");
    let at = column.map(|column| format!(":{column}")).unwrap_or_default();
    let arrow = paint.dim("-->");
    let place = format!("{gutter}{arrow} {name}:{line}{at}");
    let Some(source) = text.lines().nth(line.saturating_sub(1) as usize) else {
        return format!("{place}\n{gutter} {bar} {reason}");
    };
    let (shown, offset) = window(source, column.unwrap_or(1) as usize);
    let caret = match column {
        Some(_) => format!("{}{}", " ".repeat(offset), paint.red(&format!("^ {reason}"))),
        None => paint.red(reason),
    };
    format!("{place}\n{gutter} {bar}\n{} {bar} {shown}\n{gutter} {bar} {caret}", paint.dim(&number))
}

/// The part of `source` to show, tabs made one space wide, and how far in it the column stands.
fn window(source: &str, column: usize) -> (String, usize) {
    let chars: Vec<char> = source.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    // One past the end is where "unexpected end of line" points.
    let at = column.saturating_sub(1).min(chars.len());
    let begin = if chars.len() <= WIDTH { 0 } else { at.saturating_sub(WIDTH / 2).min(chars.len() - WIDTH) };
    let end = (begin + WIDTH).min(chars.len());
    let part: String = chars[begin..end].iter().collect();
    let (left, right) = (if begin > 0 { "…" } else { "" }, if end < chars.len() { "…" } else { "" });
    (harmless(&format!("{left}{part}{right}")), at - begin + left.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str, line: u32, column: Option<u32>) -> String {
        excerpt("f.js", text, line, column, "bad", Paint::plain())
    }

    #[test]
    fn the_caret_stands_under_the_column_also_after_tabs_and_wide_text() {
        assert_eq!(plain("\tlet é = ;", 1, Some(10)), " --> f.js:1:10\n  |\n1 |  let é = ;\n  |          ^ bad");
        assert_eq!(plain("a\nb\n", 2, Some(2)), " --> f.js:2:2\n  |\n2 | b\n  |  ^ bad");
    }

    #[test]
    fn a_place_outside_of_the_text_does_no_harm() {
        assert_eq!(plain("a", 12, Some(1)), "  --> f.js:12:1\n   | bad");
        assert_eq!(plain("a", 1, Some(500)), " --> f.js:1:500\n  |\n1 | a\n  |  ^ bad");
        assert_eq!(plain("a", 0, None).lines().count(), 4);
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let shown = plain(&format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000)), 1, Some(5_001));
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].chars().position(|c| c == '^').expect("a caret");
        assert_eq!(lines[2].chars().nth(caret), Some('X'));
        assert!(lines[2].chars().count() < 120);
    }
}
