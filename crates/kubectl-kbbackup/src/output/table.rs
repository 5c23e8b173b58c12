//! Columns, aligned as kubectl does it.

/// A table with a header. Columns that are empty in every row keep their place, so that scripts may count on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        Self { header: header.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A line break inside a cell would break the table.
        self.rows.push(cells.into_iter().map(|cell| cell.replace(['\n', '\t'], " ")).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                all().map(|row| row.get(column).map_or(0, |cell| shown(cell).chars().count())).max().unwrap_or(0)
            })
            .collect();
        for row in all() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let cell = shown(cell);
                let pad = width - cell.chars().count() + 3;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// An empty cell is a dash: a column never vanishes for `awk`.
fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// `Key:  value` lines of a description; lines without a value are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    text: String,
    /// A title that waits for its first line; without one it is not shown.
    pending: Option<String>,
    /// Lines of the present block, not laid out yet: label and value.
    block: Vec<(String, String)>,
}

/// Least width of the keys of a [`Sheet`]; a block with longer ones gets as much as it needs.
const KEY: usize = 16;

impl Sheet {
    pub(crate) fn title(&mut self, title: &str) -> &mut Self {
        self.flush();
        self.pending = Some(title.to_owned());
        self
    }

    /// Lays out the lines of the present block.
    fn flush(&mut self) {
        let width = self.block.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0).max(KEY);
        for (label, value) in std::mem::take(&mut self.block) {
            self.text.push_str(format!("{label:<width$} {value}").trim_end());
            self.text.push('\n');
        }
    }

    fn open(&mut self) {
        let Some(title) = self.pending.take() else { return };
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&title);
        self.text.push_str(":\n");
    }

    /// A line at the left margin.
    pub(crate) fn line(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        self.entry("", key, value.as_ref())
    }

    /// A line below a title.
    pub(crate) fn item(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        self.entry("  ", key, value.as_ref())
    }

    fn entry(&mut self, indent: &str, key: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            return self;
        }
        self.open();
        let label = format!("{indent}{key}:");
        for (number, part) in value.trim_end().lines().enumerate() {
            self.block.push((if number == 0 { label.clone() } else { String::new() }, part.to_owned()));
        }
        self
    }

    /// Lines as they are, indented.
    pub(crate) fn blocks(&mut self, lines: &[String]) -> &mut Self {
        for line in lines {
            self.block(line);
        }
        self
    }

    /// Text as it is, indented.
    pub(crate) fn block(&mut self, text: &str) -> &mut Self {
        self.flush();
        for line in text.lines() {
            self.open();
            self.text.push_str("  ");
            self.text.push_str(line);
            self.text.push('\n');
        }
        self
    }

    pub(crate) fn finish(&mut self) -> String {
        self.flush();
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_dashes() {
        let mut table = Table::new(["NAME", "STATUS", "SIZE"]);
        table.row(["nightly".to_owned(), "Completed".to_owned(), "4.2 MiB".to_owned()]);
        table.row(["x".to_owned(), String::new(), "1\n2".to_owned()]);
        insta::assert_snapshot!(table, @r"
        NAME      STATUS      SIZE
        nightly   Completed   4.2 MiB
        x         -           1 2
        ");
    }

    #[test]
    fn a_sheet_leaves_out_what_is_empty() {
        let mut sheet = Sheet::default();
        sheet
            .line("Name", "nightly")
            .line("Parent", "")
            .title("Status")
            .item("Phase", "Failed")
            .item("Reason", "one\ntwo");
        insta::assert_snapshot!(sheet.finish(), @r"
        Name:            nightly

        Status:
          Phase:         Failed
          Reason:        one
                         two
        ");
    }
}
