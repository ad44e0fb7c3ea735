//! Tables, and how sizes, times and ages are shown to people.

use std::fmt;
use std::time::Duration;

use comfy_table::TableStyle;
use lyra_kit::Clock;
use lyra_types::Timestamp;

use crate::output::harmless;

/// A table without lines: a header in capitals, columns two spaces apart.
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(header: &[&str]) -> Table {
        let mut inner = comfy_table::Table::new();
        inner.load_style(TableStyle::new());
        inner.set_header(header.iter().map(|word| word.to_uppercase()).collect::<Vec<_>>());
        Table { inner }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.inner.add_row(cells.iter().map(|cell| harmless(cell)).collect::<Vec<_>>());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inner = self.inner.clone();
        for column in inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = inner.lines().map(|line| line.trim_end().to_owned()).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// `name: value` lines, values one under the other. An empty value is left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<String> =
        shown.map(|(name, value)| format!("{:width$}  {}", format!("{name}:"), harmless(value))).collect();
    lines.join("\n")
}

/// How long ago: `12s`, `5m`, `3h`, `4d`.
pub fn age(clock: &Clock, since: Timestamp) -> String {
    short(clock.now().since(since))
}

/// The two largest units at most: `0.4s`, `12s`, `5m`, `3h`, `4d`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds with as many figures as matter: `0.04 ms`, `3.2 ms`, `240 ms`, `1.3 s`.
pub fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ..1.0 => format!("{ms:.2} ms"),
        1.0..100.0 => format!("{ms:.1} ms"),
        100.0..1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

/// `812 B`, `3.4 KiB`, `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let amount = bytes as f64;
    match bytes {
        ..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", amount / 1024.0),
        _ => format!("{:.1} MiB", amount / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_lines_and_no_spaces_at_the_end() {
        let mut table = Table::new(&["name", "status"]);
        table.row(vec!["a-long-name".to_owned(), "ok".to_owned()]);
        table.row(vec!["b".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME         STATUS\na-long-name  ok\nb");
        assert_eq!(Table::new(&["a", "b"]).to_string(), "A  B");
    }

    #[test]
    fn values_of_fields_stand_one_under_the_other() {
        let shown = fields(&[("id", "1".to_owned()), ("error", String::new()), ("status", "ok".to_owned())]);
        assert_eq!(shown, "id:      1\nstatus:  ok");
    }

    #[test]
    fn times_and_sizes_are_short() {
        let times = [(400, "400ms"), (12_000, "12s"), (119_000, "119s"), (300_000, "5m"), (8_000_000, "2h")];
        for (ms, shown) in times {
            assert_eq!(short(Duration::from_millis(ms)), shown);
        }
        assert_eq!(short(Duration::from_secs(4 * 86_400)), "4d");
        assert_eq!(millis(Duration::from_micros(40)), "0.04 ms");
        assert_eq!(millis(Duration::from_millis(1_300)), "1.3 s");
        assert_eq!((size(812), size(3_482), size(1 << 20)), ("812 B".into(), "3.4 KiB".into(), "1.0 MiB".into()));
    }
}
