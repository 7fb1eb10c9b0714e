//! Tables: columns for people, comma-separated values, or just the names. Cells hold text from outside and are cleaned here.

use comfy_table::{CellAlignment, ContentArrangement};

use super::clean;
use crate::args::Format;

/// Characters between two columns.
const GAP: u16 = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    heading: &'static str,
    /// Its name for programs, if that is not the heading in small letters.
    raw: Option<&'static str>,
    wide: bool,
    right: bool,
}

impl Column {
    /// A column of words.
    pub(crate) const fn new(heading: &'static str) -> Self {
        Self { heading, raw: None, wide: false, right: false }
    }

    /// A column of numbers.
    pub(crate) const fn number(heading: &'static str) -> Self {
        Self { heading, raw: None, wide: false, right: true }
    }

    /// The same, with another name for programs: their values have units.
    pub(crate) const fn raw(mut self, name: &'static str) -> Self {
        self.raw = Some(name);
        self
    }

    /// The same, shown only when more is asked for.
    pub(crate) const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }
}

/// What one place of a table holds.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    shown: String,
    raw: String,
}

impl Cell {
    /// The same for people and for programs.
    pub(crate) fn new(text: impl ToString) -> Self {
        let text = text.to_string();
        Self { shown: text.clone(), raw: text }
    }

    /// One form for people and one for programs.
    pub(crate) fn both(shown: impl Into<String>, raw: impl ToString) -> Self {
        Self { shown: shown.into(), raw: raw.to_string() }
    }

    /// Nothing known.
    pub(crate) fn none() -> Self {
        Self::both("-", "")
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A table. Its first column names the row.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The table as text. A format that is not a table's is shown as columns.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Csv => self.csv(),
            Format::Name => {
                self.rows.iter().filter_map(|row| row.first()).map(|cell| format!("{}\n", clean(&cell.raw))).collect()
            }
            Format::Table => self.columns(false),
            Format::Wide | Format::Json | Format::Ndjson => self.columns(true),
        }
    }

    fn columns(&self, wide: bool) -> String {
        let shown: Vec<usize> = (0..self.columns.len()).filter(|at| wide || !self.columns[*at].wide).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(shown.iter().map(|at| self.columns[*at].heading));
        for row in &self.rows {
            table.add_row(shown.iter().map(|at| row.get(*at).map_or_else(String::new, |cell| clean(&cell.shown))));
        }
        for (place, at) in shown.iter().enumerate() {
            if let Some(column) = table.column_mut(place) {
                column.set_padding((0, GAP));
                if self.columns[*at].right {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn csv(&self) -> String {
        let small = |column: &Column| column.heading.to_ascii_lowercase().replace(' ', "_");
        let headings = self.columns.iter().map(|column| column.raw.map_or_else(|| small(column), str::to_owned));
        let mut text = line(headings);
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| cell.raw.clone())));
        }
        text
    }
}

fn line(fields: impl Iterator<Item = String>) -> String {
    let quoted = fields.map(|field| {
        if field.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
    });
    format!("{}\r\n", quoted.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new([Column::new("NAME"), Column::number("LAG"), Column::new("LAST SEEN").raw("seen_ms").wide()]);
        table.row(["a1".into(), 7.into(), Cell::both("2s", 1_000)]);
        table.row(["a,\"\u{1b}[31mx".into(), 12.into(), Cell::none()]);
        table
    }

    #[test]
    fn people_get_columns_without_control_characters() {
        assert_eq!(table().render(Format::Table), "NAME       LAG\na1           7\na,\"\u{fffd}[31mx   12\n");
        assert!(table().render(Format::Wide).starts_with("NAME       LAG  LAST SEEN\n"));
    }

    #[test]
    fn programs_get_every_column_with_raw_values() {
        assert_eq!(table().render(Format::Csv), "name,lag,seen_ms\r\na1,7,1000\r\n\"a,\"\"\u{1b}[31mx\",12,\r\n");
        assert_eq!(table().render(Format::Name), "a1\na,\"\u{fffd}[31mx\n");
    }
}
