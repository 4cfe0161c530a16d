//! Plain tables: columns under headings, no lines, fit for a terminal and for `awk`.

use comfy_table::{Table, presets};

/// A table with headings.
pub(super) fn new<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    table
}

/// Without trailing blanks.
pub(super) fn show(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}
