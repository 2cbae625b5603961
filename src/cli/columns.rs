//! Rows of cells as columns that fit the screen.

use std::fmt::Write as _;

use super::screen::{BOLD, Screen, wrapped};

/// What stands in a cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    /// Stands for it where there is no room.
    short: Option<String>,
    color: &'static str,
}

impl Cell {
    pub(super) fn colored(text: impl Into<String>, color: &'static str) -> Self {
        Self { text: text.into(), short: None, color }
    }

    pub(super) fn or(self, short: String) -> Self {
        Self { short: Some(short), ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::colored(text, "")
    }
}

/// A header and rows, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
    screen: Screen,
) -> String {
    let rows: Vec<[Cell; N]> = rows.into_iter().collect();
    lines(header, rows, screen).concat()
}

/// The least room of a last column whose cells are broken into lines.
const NARROWEST: usize = 20;

/// What each row of such a table is written as, the header first: one line, or more where there is no
/// room for one.
pub(super) fn lines<const N: usize>(
    header: [&str; N],
    mut rows: Vec<[Cell; N]>,
    screen: Screen,
) -> Vec<String> {
    rows.insert(0, header.map(|name| Cell::colored(name, BOLD)));
    let room = screen.width.unwrap_or(usize::MAX);
    let mut widths = widths(&rows);
    if total(&widths) > room {
        for cell in rows.iter_mut().flatten() {
            if let Some(short) = cell.short.take() {
                cell.text = short;
            }
        }
        widths = self::widths(&rows);
    }
    let before_last = total(&widths[..N - 1]) + 2;
    let last = room.saturating_sub(before_last);
    let is_whole = total(&widths) <= room;
    // In columns, the last of them broken between words; or the first cell in a line of its own.
    let is_stacked = !is_whole && last < NARROWEST;
    let line = |row: &[Cell; N]| {
        // Writing to a string does not fail.
        let mut text = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let painted = |text: &str| screen.paint(text, cell.color);
            let gap = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            if index == N - 1 && !is_whole && !is_stacked {
                let lines = wrapped(&cell.text, last, last);
                let lines: Vec<String> = lines.iter().map(|line| painted(line)).collect();
                text += &lines.join(&format!("\n{:before_last$}", ""));
            } else if index == 0 && is_stacked {
                let _ = write!(text, "{}\n  ", painted(&cell.text));
            } else {
                let _ = write!(text, "{}{gap}  ", painted(&cell.text));
            }
        }
        format!("{}\n", text.trim_end())
    };
    rows.iter().map(line).collect()
}

fn widths<const N: usize>(rows: &[[Cell; N]]) -> [usize; N] {
    std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0)
    })
}

/// The width of a line, with two spaces between columns.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}
