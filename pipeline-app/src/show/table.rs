//! A table of text: columns as wide as they need to be, numbers to the right.

use std::fmt;

use crate::text::shorten;

/// Longer values are cut.
const WIDEST: usize = 48;

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// The columns' names, and whether they hold numbers.
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; the names of those with numbers end in `#`.
    pub(crate) fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let column = |name: &str| match name.strip_suffix('#') {
            Some(name) => (name.to_owned(), true),
            None => (name.to_owned(), false),
        };
        Self { columns: columns.into_iter().map(column).collect(), rows: vec![] }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |row: &Vec<String>| row.iter().map(|cell| shorten(cell, WIDEST)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(cut).collect();
        let width = |(i, (name, _)): (usize, &(String, bool))| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[&str]| {
            let mut text = String::new();
            for ((cell, width), (_, number)) in cells.iter().zip(&widths).zip(&self.columns) {
                let padded =
                    if *number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                text.push_str(&padded);
                text.push_str("  ");
            }
            writeln!(f, "{}", text.trim_end())
        };
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        line(f, &names)?;
        let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        line(f, &rules.iter().map(String::as_str).collect::<Vec<_>>())?;
        for row in &rows {
            line(f, &row.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        match rows.len() {
            0 => writeln!(f, "(nothing yet)"),
            1 => writeln!(f, "(1 row)"),
            n => writeln!(f, "({n} rows, newest first; times are UTC)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_long_values_cut() {
        let mut table = Table::new(["page", "views#"]);
        assert!(table.to_string().ends_with("(nothing yet)\n"));
        table.push(["/a".to_owned(), "1234".to_owned()]);
        table.push(["/täst\n".to_owned(), "5".to_owned()]);
        let expected = "page    views\n──────  ─────\n/a       1234\n/täst       5\n";
        assert!(table.to_string().starts_with(expected), "{table}");
        table.push(["x".repeat(100), String::new()]);
        let text = table.to_string();
        assert!(text.contains('…') && !text.contains(&"x".repeat(48)), "{text}");
    }
}
