//! Tables for people.
//!
//! Reports of the program that are not a stream of lines (see [`crate::report`] for those) are laid out here.
//! The one invariant that matters: a table is plain text without escape codes, so that it can go to a file.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with headings; columns whose cells all begin with a digit are aligned to the right.
///
/// Cells longer than the terminal is wide are wrapped; where the output is no terminal they are not.
pub fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.iter().map(|heading| heading.to_string()));
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let mut cells = rows.iter().filter_map(|row| row.get(index));
        if !rows.is_empty() && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit())) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_on_the_right_and_words_on_the_left() {
        let rows = [vec!["cat".to_string(), "1".to_string()], vec!["elephant".to_string(), "22".to_string()]];
        let text = render(&["animal", "count"], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, [" animal    count", " cat           1", " elephant     22"]);
    }
}
