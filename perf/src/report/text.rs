//! Aligned tables for a terminal. Widths count characters, which the few that we print
//! outside ASCII all fill one cell with.

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left.
    Left,
    /// At the right: numbers.
    Right,
}

/// Rows of cells.
#[derive(Debug, Clone)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table: `l` and `r` say how each column stands, the last may be missing in a
    /// row.
    ///
    /// ```
    /// use lockstep_perf::report::text::Table;
    ///
    /// let mut table = Table::new("lr");
    /// table.row(["p50", "31us"]);
    /// table.row(["p99.9", "1us"]);
    /// assert_eq!(table.to_string(), "p50    31us\np99.9   1us\n");
    /// ```
    #[must_use]
    pub fn new(aligns: &str) -> Self {
        let align = |c| if c == 'r' { Align::Right } else { Align::Left };
        Self {
            aligns: aligns.chars().map(align).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                match self.aligns.get(column) {
                    Some(Align::Right) => {
                        line.push_str(&pad);
                        line.push_str(cell);
                    }
                    _ => {
                        line.push_str(cell);
                        line.push_str(&pad);
                    }
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Breaks a text into lines of at most `width` characters, later ones indented.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let word_length = word.chars().count();
        // Several spaces in a row are kept: they stand behind labels.
        if length > 0 && word_length > 0 && length + 1 + word_length > width {
            lines.push('\n');
            lines.push_str(indent);
            length = indent.chars().count();
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrap("aa bb cc dd", 5, "  "), "aa bb\n  cc\n  dd");
        assert_eq!(wrap("", 5, ""), "");
    }

    #[test]
    fn short_rows_and_empty_tables_are_tables() {
        let mut table = Table::new("lr");
        assert_eq!(table.to_string(), "");
        table.row(["a", "1"]);
        table.row(["bb"]);
        assert_eq!(table.to_string(), "a   1\nbb\n");
    }
}
