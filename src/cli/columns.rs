//! Rows of cells as lines of columns.

/// A header and rows, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    lines(&rows).map(|line| line + "\n").collect()
}

/// The lines of such a table, without their ends.
pub(super) fn lines<const N: usize>(rows: &[[String; N]]) -> impl Iterator<Item = String> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter().map(move |row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    })
}
